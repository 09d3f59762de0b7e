"""Write the report of a search: one folder with `index.html`, `figures/`, `trials.csv` and `best.yaml`.

It opens from disk with no network, appears whole or not at all, and the same content gives the same bytes. All text
is escaped.
"""

from __future__ import annotations

from pathlib import Path

from megavox.core.files import whole_folder, write_csv
from megavox.report import wording
from megavox.report.figures import Drawing
from megavox.report.page import INDEX, flat, template
from megavox.report.search_charts import importance_bars, learning_curves, progress
from megavox.report.search_content import SearchContent
from megavox.report.search_setting_charts import MOST_ROWS, RAMP, parallel_coordinates, parameter_slice
from megavox.report.search_tables import best_table, csv_of, failure_table, trial_table
from megavox.report.wording import cell, heading, plural

BEST, TRIALS = "best.yaml", "trials.csv"
MOST_SLICES = 40


def write_search_report(folder: Path, content: SearchContent) -> Path:
    """Write the report; a report that is there already is replaced.

    Args:
        folder: of the report; everything in it is replaced.
        content: what to show.

    Returns:
        Path of `index.html`.

    Raises:
        MachineError: the disk is full.
    """
    course, settings, slices = _course(content), _settings(content), _slices(content)
    html = template("search.html.j2").render(
        c=content, answer=_answer(content), cards=_cards(content), course=course, settings=settings, slices=slices,
        best_table=best_table(content), failure_table=failure_table(content), trial_table=trial_table(content),
        ways=_ways(content), ramp=", ".join(RAMP), provenance=flat(content.provenance), w=wording)
    with whole_folder(folder) as temporary:
        (temporary / "figures").mkdir()
        for drawing in (*course, *settings, *slices):
            if drawing.file:
                (temporary / "figures" / drawing.file).write_bytes(drawing.data)
        write_csv(temporary / TRIALS, *csv_of(content))
        if content.best_study:
            (temporary / BEST).write_text(content.best_study, encoding="utf-8")
        (temporary / INDEX).write_text(html, encoding="utf-8")
    return folder / INDEX


def _answer(content: SearchContent) -> str:
    """The search's result in one sentence."""
    best, over, name = content.best, len(content.ended), heading(content.objective)
    if best is None:
        return f"Of {plural(over, 'job')} that ended, none has a value." if over else "No job has ended yet."
    beside = "" if content.default_value is None else \
        f" The study's own setting reached {cell(content.default_value)}."
    return f"After {plural(over, 'job')}, the best setting reached a validation {name} of {cell(best.value)} " \
           f"(trial {best.number}).{beside}"


def _cards(content: SearchContent) -> list[tuple[str, str, str]]:
    """Name, number and small print of each opening card."""
    counts = {state: len(content.of_state(state)) for state in ("done", "stopped", "failed", "running")}
    best = content.best
    moments = [moment for one in content.trials for moment in (one.began, one.ended) if moment is not None]
    others = [f"{counts['stopped']} stopped early", f"{counts['failed']} failed"]
    if counts["running"]:
        others.append(f"{counts['running']} under way")
    return [
        (f"Best {heading(content.objective)}", cell(best.value) if best else "none yet",
         f"trial {best.number}" if best else ""),
        ("Jobs done", wording.count(counts["done"]), ", ".join(others)),
        ("Hours", f"{content.hours(max(moments)):.1f}" if moments else "none yet",
         f"{plural(content.workers, 'job')} at a time"),
        ("Machine-hours", f"{sum(one.machine_hours for one in content.trials):,.1f}".replace(",", wording.THIN),
         "hours of work times processes")]


def _course(content: SearchContent) -> list[Drawing]:
    name = heading(content.objective)
    beyond = " A triangle at the edge is a value beyond it."
    divided = "" if content.workers == 1 else \
        f" Upper scale: the same divided by M, the {content.workers} jobs at a time, so that searches with different " \
        "M can be laid side by side."
    failed = " Marks in the strip below: trials that failed." if content.of_state("failed") else ""
    return [
        Drawing.of("progress-jobs.svg", progress(content, "jobs"), "What each further job brought",
                   f"The line is the best {name} found so far; a dot is a trial.{divided}{failed}{beyond}",
                   f"Best {name} so far against the number of ended jobs, and against that divided by the workers."),
        Drawing.of("progress-hours.svg", progress(content, "hours"), "What each further hour brought",
                   f"The same against the time that people waited.{failed}", f"Best {name} so far against hours."),
        Drawing.of("progress-machine-hours.svg", progress(content, "machine-hours"), "What it cost",
                   "The same against machine-hours: the hours of work of each job times its processes, failed and "
                   "stopped jobs included, added up in the order in which jobs ended.",
                   f"Best {name} so far against machine-hours."),
        Drawing.of("curves.svg", learning_curves(content), "Scores on the way",
                   "A line is a trial: its validation score while it was trained. A dashed one was ended early since "
                   "it promised nothing.", f"Validation {name} of every trial over its training.")]


def _settings(content: SearchContent) -> list[Drawing]:
    few = f" The first {MOST_ROWS} hyper-parameters are shown." if len(content.parameters) > MOST_ROWS else ""
    return [
        Drawing.of("importance.svg", importance_bars(content.importance), "Which hyper-parameters matter",
                   "Of all that makes some settings rank above others, the share that each hyper-parameter explains by "
                   "itself (functional ANOVA). A small share means: within the range that was searched, its value "
                   "hardly matters.", "Bar chart of the importance of each hyper-parameter."),
        Drawing.of("parallel.svg", parallel_coordinates(content), "Settings as a whole",
                   "Follow a line from top to bottom: it is one setting, and crosses each hyper-parameter's row at its "
                   "value, the least at the left. The colour says how it ranks; the best one is thick. Where good "
                   "lines bunch together, the value matters. A gap: the setting has no such hyper-parameter." + few,
                   "Parallel-coordinate plot of all settings that have a value.")]


def _slices(content: SearchContent) -> list[Drawing]:
    return [Drawing.of(f"slice-{place:02d}.svg", parameter_slice(content, one), one.name, "",
                       f"{heading(content.objective)} against {one.name}.")
            for place, one in enumerate(content.parameters[:MOST_SLICES], start=1)]


def _ways(content: SearchContent) -> list[tuple[str, str]]:
    """How it was searched, as rows of (name, text)."""
    over = len(content.ended)
    return [("Searched for", f"{'largest' if content.goal == 'maximise' else 'smallest'} validation "
                             f"{heading(content.objective)}"),
            ("Hyper-parameters", str(len(content.parameters))), ("Proposals", content.method),
            ("Workers (M)", f"{plural(content.workers, 'job')} at a time"),
            ("Jobs by workers", f"{over / content.workers:.1f} ({over} / {content.workers})")]
