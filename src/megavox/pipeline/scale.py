"""scale: how much faster more ranks train, what keeps them from it, as a table and a figure.

Strong scaling shares one global batch among the ranks; weak scaling gives each rank that batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.core.errors import SiteError, StudyError
from megavox.core.files import make_folder, read_json, text_hash, write_bytes, write_csv
from megavox.core.progress import say
from megavox.jobs.registry import read_site
from megavox.jobs.section import Asked, asked
from megavox.memory.pace import Pace
from megavox.memory.rules import Derived, apply
from megavox.memory.topology import without_direct_link
from megavox.pipeline.away import STUDY, dispatch, follow
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project, study_hash
from megavox.report.scaling_chart import scaling_chart
from megavox.study import AUTO

NOTICEABLE = 0.1  # a share of time that is worth a word
COLUMNS = ("scaling", "ranks", "batch", "seconds_per_1000_steps", "samples_per_s", "speed_up", "efficiency",
           "communication", "uneven", "waiting")


@dataclass(frozen=True)
class Scaling:
    """What was measured.

    Attributes:
        rows: of the table, by column.
        limits: one sentence for each kind of scaling, and for each number of ranks whose job failed.
        folder: with scaling.csv and scaling.svg.
    """

    rows: list[dict[str, Any]]
    limits: list[str]
    folder: Path


def scale(project: Project, ranks: Sequence[int], site: str, ask: Sequence[str], seconds: float) -> Scaling:
    """Measure a packed study on so many ranks, each number of them as a job of its own.

    Args:
        project: packed.
        ranks: numbers of ranks; speed-up counts from the first.
        site: where the jobs go.
        ask: what each asks for, besides ranks.
        seconds: of training steps, for each number.

    Raises:
        SiteError: no job ended well.
        StudyError: the batch is not known, or cannot be shared.
    """
    study = derived_plan(project).study
    if study.training.ranks.split > 1:
        raise StudyError("ranks that share samples have no work of their own to compare with",
                         where="training.ranks.split", expected="1", fix="Use --set training.ranks.split=1")
    if project.study.batches.size == AUTO:
        raise StudyError("its value would be that of another machine", where="batches.size", expected="a number",
                         fix=f"Use --set batches.size={study.batches.size}, for instance")
    batch, accumulate = int(study.batches.size), study.training.accumulate
    sizes = {"strong": _shared({count: batch for count in ranks}, accumulate),
             "weak": _shared({count: batch * count for count in ranks}, accumulate)}
    measured, limits, refused = {}, [], None
    for count, size in dict.fromkeys((count, size) for kind in sizes.values() for count, size in kind.items()):
        try:
            measured[count, size] = _measured(project, count, size, site, ask, seconds)
        except SiteError as error:  # the others are of use without it
            limits.append(f"{count} ranks with a batch of {size} were not measured: {error}")
            refused = error
    if not measured:
        raise refused or StudyError("no number of ranks could be measured", where="--ranks", fix="Change --ranks or "
                                    "batches.size", expected="numbers that divide the batch")
    rows: list[dict[str, Any]] = []
    for kind, wanted in sizes.items():
        found = {count: measured[count, size] for count, size in wanted.items() if (count, size) in measured}
        rows += _rows(kind, found)
        limits += [f"{kind} scaling: {limit(found)}"] if len(found) > 1 else []
    folder = project.workspace.scale
    write_csv(folder / "scaling.csv", COLUMNS, rows)
    write_bytes(folder / "scaling.svg", scaling_chart(rows))  # type: ignore[arg-type]
    return Scaling(rows, limits, folder)


def _shared(sizes: Mapping[int, int], accumulate: int) -> dict[int, int]:
    """Batches by number of ranks, but for those that the ranks cannot share."""
    found = {count: size for count, size in sizes.items() if size % (count * accumulate) == 0}
    for count in sizes.keys() - found.keys():
        say(f"note: a batch of {sizes[count]} cannot be shared by {count} ranks x {accumulate} micro-batches; that is "
            "not measured")
    return found


def _measured(project: Project, count: int, batch: int, site: str, ask: Sequence[str],
              seconds: float) -> dict[str, Any]:
    """What a job measured."""
    changed = apply(project.study, [Derived("batches.size", batch, ""), Derived("training.scale", 1, "")])
    project = Project(changed, project.workspace, project.run_name)
    settings = text_hash(f"{study_hash(changed)} {sorted(ask)} {seconds}")[:6]
    name = f"scale-{site}-{count}-{batch}-{settings}"
    output = project.workspace.scale.absolute() / f"{name}.json"
    make_folder(output.parent, "Choose another --workspace")
    nodes = math.gcd(count, read_site(site, changed.sites).wishes("train", asked(ask)).nodes)
    asks = Asked.model_validate({"ranks": count, "nodes": nodes}).over(asked(ask))
    command = ["megavox.pipeline.rank_pace", STUDY, str(project.workspace.root.absolute()), str(output), str(seconds)]
    follow(dispatch(project, name, site, "train", asks, command), lambda _: None)
    return dict(read_json(output))


def _rows(kind: str, found: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    paces = {count: Pace(**one["pace"]) for count, one in found.items()}
    for count, pace in paces.items():
        first = next(iter(paces.values()))
        speed_up = pace.samples_per_s / first.samples_per_s
        yield {"scaling": kind, "ranks": count, "batch": pace.batch, "seconds_per_1000_steps": 1000 * pace.step_s,
               "samples_per_s": pace.samples_per_s, "speed_up": speed_up,
               "efficiency": speed_up * first.ranks / count, "communication": pace.communication,
               "uneven": pace.uneven, "waiting": pace.waiting}


def limit(found: dict[int, dict[str, Any]]) -> str:
    """What keeps the most ranks from being so many times as fast."""
    (fewest, first), (most, about) = min(found.items()), max(found.items())
    pace, rows = Pace(**about["pace"]), list(_rows("", found))
    efficiency = rows[-1]["efficiency"]
    reasons = []
    if about["device"] == "cpu" and most > about["cores"]:
        reasons.append(f"{most} ranks share {about['cores']} cores")
    elif about["device"] == "cpu" and most * about["threads"] <= fewest * first["threads"]:
        reasons.append(f"{most} ranks compute on no more cores ({most * about['threads']}) than {fewest} did")
    if pace.waiting > NOTICEABLE:
        reasons.append(f"{pace.waiting:.0%} of a step is waiting for data: raise batches.workers")
    if pace.communication > NOTICEABLE:
        reasons.append(f"{pace.communication:.0%} of a step is communication: larger batches, training.accumulate or "
                       "training.ranks.gradients: bfloat16 make it less")
    if pace.uneven > NOTICEABLE:
        reasons.append(f"{pace.uneven:.0%} of a step is waiting for the slowest rank: its machine is slower, or has "
                       "other things to do")
    far = without_direct_link(about["links"])
    if far:
        reasons.append(f"the GPUs {', '.join(far)} have no direct link, so their gradients go through the processor")
    if not reasons and efficiency < 1 - NOTICEABLE:
        reasons.append("smaller batches on each rank use the device less well, or the ranks share memory bandwidth")
    told = "; ".join(reasons) or "nothing noticeable"
    return f"{most} ranks are {rows[-1]['speed_up']:.2f} times as fast as {rows[0]['ranks']} ({efficiency:.0%}); {told}"
