"""scale: how much faster more ranks train, what keeps them from it, as a table and a figure.

Strong scaling shares one global batch among the ranks; weak scaling gives each rank that batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megavox.core.errors import SiteError
from megavox.core.files import make_folder, read_json, write_bytes, write_csv
from megavox.core.progress import say
from megavox.jobs.section import Asked, asked
from megavox.memory.pace import Pace
from megavox.memory.rules import Derived, apply
from megavox.memory.topology import without_direct_link
from megavox.pipeline.away import STUDY, dispatch, follow
from megavox.pipeline.plan import derived_plan
from megavox.pipeline.project import Project
from megavox.report.scaling_chart import scaling_chart

NOTICEABLE = 0.1  # a share of time that is worth a word
COLUMNS = ("scaling", "ranks", "batch", "seconds_per_1000_steps", "samples_per_s", "speed_up", "efficiency",
           "communication", "waiting")


@dataclass(frozen=True)
class Scaling:
    """What was measured.

    Attributes:
        rows: of the table, by column.
        limits: one sentence for each kind of scaling.
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
        SiteError: a job did not end well, or none could be made.
    """
    study, asks = derived_plan(project).study, asked(ask)
    batch, rows, limits = int(study.batches.size), [], []
    for kind in ("strong", "weak"):
        found = {}
        for count in ranks:
            if kind == "strong" and batch % (count * study.training.accumulate):
                say(f"note: a batch of {batch} cannot be shared by {count} ranks, so strong scaling has no such line")
                continue
            size = batch * count if kind == "weak" else batch
            changed = Project(apply(project.study, [Derived("batches.size", size, "")]), project.workspace,
                              project.run_name)
            found[count] = _measured(changed, f"scale-{kind}-{count}", count, site, asks, seconds)
        rows += list(_rows(kind, found))
        limits += [f"{kind} scaling: {_limit(found)}"] if len(found) > 1 else []
    if not rows:
        raise SiteError("no number of ranks could be measured", expected="numbers that divide the batch", fix="Change "
                        "--ranks or batches.size")
    folder = project.workspace.scale
    write_csv(folder / "scaling.csv", COLUMNS, rows)
    write_bytes(folder / "scaling.svg", scaling_chart(rows))  # type: ignore[arg-type]
    return Scaling(rows, limits, folder)


def _measured(project: Project, name: str, ranks: int, site: str, asks: Asked, seconds: float) -> dict[str, Any]:
    output = project.workspace.scale.absolute() / f"{name}.json"
    command = ["megavox.pipeline.rank_pace", STUDY, str(project.workspace.root.absolute()), str(output), str(seconds)]
    asks = Asked.model_validate({"ranks": ranks}).over(asks)
    make_folder(output.parent, "Choose another --workspace")
    output.unlink(missing_ok=True)
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
               "waiting": pace.waiting}


def _limit(found: dict[int, dict[str, Any]]) -> str:
    """What keeps the most ranks from being so many times as fast."""
    most, about = max(found.items())
    pace, rows = Pace(**about["pace"]), list(_rows("", found))
    efficiency = rows[-1]["efficiency"]
    reasons = []
    if about["device"] == "cpu" and most > about["cores"]:
        reasons.append(f"{most} ranks share {about['cores']} cores")
    if pace.waiting > NOTICEABLE:
        reasons.append(f"{pace.waiting:.0%} of a step is waiting for data: raise batches.workers")
    if pace.communication > NOTICEABLE:
        reasons.append(f"{pace.communication:.0%} of a step is communication: larger batches, training.accumulate or "
                       "training.ranks.gradients: bfloat16 make it less")
    far = without_direct_link(about["links"])
    if far:
        reasons.append(f"the GPUs {', '.join(far)} have no direct link, so their gradients go through the processor")
    if not reasons and efficiency < 1 - NOTICEABLE:
        reasons.append("smaller batches on each rank use the device less well, or the ranks share memory bandwidth")
    told = "; ".join(reasons) or "nothing noticeable"
    return f"{most} ranks are {rows[-1]['speed_up']:.2f} times as fast as {rows[0]['ranks']} ({efficiency:.0%}); {told}"
