"""What the commands print: results on standard output, tables for people on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megavox.pipeline.project import Project


def tell(stage: str, result: Any, project: Project) -> None:
    """Print a stage's result on standard output; of several ranks the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    print(f"{stage}:")
    for line in _TELLERS[stage](result, project):
        print(f"  {line}")


def _tell_pack(result: Any, project: Project) -> Iterable[str]:
    parts = ", ".join(f"{count} {part}" for part, count in result.parts().items())
    yield f"{len(result.entries)} cases packed ({parts})"
    for remark in result.remarks[:5]:
        yield f"remark: {remark}"
    if len(result.remarks) > 5:
        yield f"and {len(result.remarks) - 5} further remarks"
    if result.rejected:
        yield f"{len(result.rejected)} set aside, see {project.workspace.quarantine}: " + ", ".join(
            f"{count} {reason}" for reason, count in result.reasons().items())


def _tell_plan(result: Any, project: Project) -> Iterable[str]:
    if not result.derived:
        yield "nothing stands at auto: all settings are those of the study file"
    for one in result.derived:
        yield f"{one.key} = {one.value}: {one.why}"
    if result.fit is not None:
        yield from _tell_memory(result.fit, result.study.training.steps)
    probe = result.probe
    if probe is not None:
        yield (f"measured: {probe.step_s:.3f} s a step ({probe.waiting:.0%} of it waiting for data), "
               f"{probe.memory_gb:.2f} GB of memory" + (f", {probe.device_memory_gb:.2f} GB on the device"
                                                        if probe.device_memory_gb else ""))


def _tell_memory(fit: Any, steps: int | str) -> Iterable[str]:
    yield f"memory of a step, in GB, of {fit.limit_gb:.3g} GB:"
    first, width = fit.found[0].operations, max(len(str(one.way)) for one in fit.found)
    yield f"  {'':<{width}} {'tensors':>7} {fit.where:>9} {'beside':>6} {'operations':>10} {'s a step':>8} {'a run':>7}"
    for one in fit.found:
        mark = "taken" if one.way == fit.way else "" if one.taken_gb <= fit.limit_gb else "does not fit"
        step = "" if one.step_s is None else f"{one.step_s:.3g}"
        run = _time(one.step_s * steps) if one.step_s is not None and isinstance(steps, int) else ""
        yield (f"  {one.way!s:<{width}} {one.peak_gb:>7.2f} {one.taken_gb:>9.2f} {one.host_gb:>6.2f} "
               f"{one.operations / first:>10.3f} {step:>8} {run:>7} {mark}").rstrip()
    taken = fit.needs()
    parts = ", ".join(f"{size:.2f} {kind}" for kind, size in taken.kinds.items() if size >= 0.005)
    yield f"  at its peak ({taken.at}): {parts}"
    yield f"  the largest: {'; '.join(taken.largest)}"
    if fit.found[0].step_s is None and not fit.given:
        yield "  no times are told: `megavox doctor --calibrate` measures once what this machine does in a second"
    if fit.found[0].taken_gb > fit.limit_gb:
        patch = " x ".join(map(str, fit.largest_plain)) if fit.largest_plain else "none"
        yield f"  the largest patch that fits as it is computed plainly: {patch}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"


def _tell_train(result: Any, project: Project) -> Iterable[str]:
    progress = result.progress
    best = "undefined" if progress.best_score is None else f"{progress.best_score:.4f}"
    yield (f"{progress.step} steps in {progress.seconds / 60:.1f} min; best validation {result.metric} {best} at step "
           f"{progress.best_step}")


def _tell_mine(result: Any, project: Project) -> Iterable[str]:
    yield f"{result.places} false positives in {result.cases} training cases, in {result.path}"
    yield f"a run of another name learns from them with --set batches.hard.run={project.run_name}"


def _tell_scale(result: Any, project: Project) -> Iterable[str]:
    yield "scaling  ranks  batch  s/1000 steps  samples/s  speed-up  efficiency  communication  uneven  waiting"
    for row in result.rows:
        yield (f"{row['scaling']:<8} {row['ranks']:>5}  {row['batch']:>5}  {row['seconds_per_1000_steps']:>12.1f}  "
               f"{row['samples_per_s']:>9.2f}  {row['speed_up']:>8.2f}  {row['efficiency']:>10.0%}  "
               f"{row['communication']:>13.1%}  {row['uneven']:>6.1%}  {row['waiting']:>7.1%}")
    yield from result.limits
    yield f"the table and a figure are in {result.folder}"


def _tell_evaluate(result: Any, project: Project) -> Iterable[str]:
    from megavox.pipeline.report import headlines

    for one in headlines(project, result.summary, result.calibrated):
        found = one.measured
        if found["value"] is None:
            yield f"{one.label}: undefined ({found['undefined']})"
            continue
        interval = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
        yield f"{one.label}: {found['value']:.3f}{' ' + one.unit if one.unit else ''}{interval}"
    yield (f"{result.summary['n_cases']} cases of {result.summary['n_subjects']} subjects; intervals are 95 % over "
           "subjects")


def _tell_predict(result: Any, project: Project) -> Iterable[str]:
    yield f"{len(result.rows)} cases predicted, in {result.folder}"
    if result.rejected:
        table = "" if result.elsewhere else f", see {result.folder / 'quarantine.csv'}"
        yield f"{len(result.rejected)} could not be{table}"
    if result.elsewhere:
        yield (f"{result.elsewhere} are being predicted by other commands; the last of them writes "
               f"{result.folder / 'predictions.csv'}")


def _tell_measure(result: Any, project: Project) -> Iterable[str]:
    yield f"{len(result.rows)} cases measured, in {result.table}"


def _tell_report(result: Any, project: Project) -> Iterable[str]:
    yield str(result)


_TELLERS: dict[str, Callable[[Any, Project], Iterable[str]]] = {
    "pack": _tell_pack, "plan": _tell_plan, "train": _tell_train, "mine": _tell_mine, "scale": _tell_scale,
    "evaluate": _tell_evaluate, "predict": _tell_predict, "measure": _tell_measure, "report": _tell_report}


def say_table(title: str, rows: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from megavox.core.progress import console

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for _ in ("name", "value"):
        table.add_column(overflow="fold")  # a long name goes on in the next line
    for row in rows:
        table.add_row(*map(Text, row))  # not as markup, which square brackets would be
    console().print(table)
