"""The command line: arguments and printing, nothing else.

Exit status: 0 done; 2 the user can mend it (a message, no traceback); 1 our fault (a traceback file);
75 packing, training or predicting was asked to stop by SIGTERM or SIGUSR1 and goes on when started again;
76 another rank of the training died; 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from megavox.cli_jobs import AskOption, SiteOption, check_site, jobs_app, refuse_ask, send_and_follow
from megavox.cli_options import (
    MemoryOption,
    RanksOption,
    RunOption,
    SetOption,
    StudyFile,
    WorkspaceOption,
    gigabytes,
    project_of,
)
from megavox.cli_tell import say_table, tell
from megavox.cli_tune import tune
from megavox.core.processes import leave
from megavox.core.progress import say

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Train and run deep learning on large medical images: a study goes in, a report comes out.")
study_app = typer.Typer(no_args_is_help=True, help="Look at a study file.")
app.add_typer(study_app, name="study")
app.add_typer(jobs_app, name="jobs")

MOST_TOLD = 10  # of what would be set aside


@app.command()
def new(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="folder with images")],
        output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="write the study here instead "
                                                    "of to standard output")] = None) -> None:
    """Look at a folder of images and write a study file for it."""
    from megavox.core.errors import StudyError
    from megavox.core.files import write_text
    from megavox.pipeline.new import new as draft_new

    if output is not None and output.exists():
        raise StudyError("the file is there already", where=output, fix="Remove it, or give another --output")
    draft = draft_new(folder)
    say_table(f"found in {folder}", [*draft.survey.to_table(),
                                     *[("remark", text) for text in draft.catalogue.remarks]])
    rejected = [*draft.catalogue.rejected, *draft.survey.rejected]
    if rejected:
        rest = [("", f"and {len(rejected) - MOST_TOLD} more, all of which `megavox pack` writes to quarantine.csv")]
        say_table(f"{len(rejected)} would be set aside", [(r.case or r.file, r.message) for r in rejected[:MOST_TOLD]]
                  + rest * (len(rejected) > MOST_TOLD))
    if output is None:
        print(draft.text, end="")
    else:
        write_text(output, draft.text)
        say(f"wrote {output}" + (f"; next: megavox run {output}" if draft.has_targets else ""))
    if not draft.has_targets:
        say("there is nothing to learn from: no masks and no table of classes were found. Add them, and name them in "
            "cohort.masks, or in cohort.table and cohort.class_columns. As they are, these images can only be "
            f"predicted, with a run of another study: megavox predict STUDY --input {folder}")


@app.command()
def pack(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None) -> None:
    """Read, check and pack all images; set broken ones aside; split the subjects."""
    from megavox.pipeline.pack import pack as stage

    project = project_of(study, workspace, change)
    tell("pack", stage(project), project)


@app.command()
def plan(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None,
         memory: MemoryOption = None, ranks: RanksOption = None) -> None:
    """Print the settings that follow from cohort and machine, how a step fits the memory, and what it costs."""
    from megavox.core.errors import StudyError
    from megavox.pipeline.plan import plan as stage

    if ranks is not None and memory is None:
        raise StudyError("--ranks goes with --memory", fix="Say how much memory each of these ranks has")
    project = project_of(study, workspace, change)
    tell("plan", stage(project, None if memory is None else gigabytes(memory), ranks or 1), project)


@app.command()
def train(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None, run: RunOption = None,
          site: SiteOption = None, ask: AskOption = None) -> None:
    """Train, or go on with a training that was stopped."""
    project = project_of(study, workspace, change, run)
    from megavox.pipeline.train import refuse_early
    from megavox.pipeline.train import train as stage

    if site is not None:
        send_and_follow(project, "train", site, ask or (), early=lambda asks: refuse_early(project, asks.ranks))
        return
    refuse_ask(ask)
    tell("train", stage(project), project)


app.command()(tune)


@app.command()
def scale(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None,
          ranks: Annotated[str, typer.Option("--ranks", metavar="N,N,...", help="numbers of ranks")] = "1,2,4",
          seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0, help="of training steps, for each "
                                                 "number")] = 10.0,
          site: SiteOption = None, ask: AskOption = None) -> None:
    """Measure how much faster more ranks train a packed study, and what keeps them from it."""
    from megavox.core.errors import StudyError
    from megavox.pipeline.scale import scale as stage

    try:
        numbers = sorted({int(word) for word in ranks.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise StudyError(f"found --ranks {ranks}", expected="numbers with commas between them, such as 1,2,4")
    project = project_of(study, workspace, change)
    tell("scale", stage(project, numbers, site or "local", ask or (), seconds), project)


@app.command()
def mine(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None, run: RunOption = None) -> None:
    """Note where a run detects in its training cases what is not there; `batches.hard` lets another learn from it."""
    from megavox.pipeline.mine import mine as stage

    project = project_of(study, workspace, change, run)
    tell("mine", stage(project), project)


@app.command()
def evaluate(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None,
             run: RunOption = None) -> None:
    """Figures on the test part, each with its interval over subjects."""
    from megavox.pipeline.evaluate import evaluate as stage

    project = project_of(study, workspace, change, run)
    tell("evaluate", stage(project), project)


@app.command()
def predict(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None, run: RunOption = None,
            source: Annotated[Path | None, typer.Option("--input", metavar="PATH", help="images to predict, a folder "
                                                        "or one; default: the study's test cases")] = None,
            output: Annotated[Path | None, typer.Option("--output", metavar="FOLDER", help="where the predictions "
                                                        "go; default: in the workspace")] = None,
            workers: Annotated[int | None, typer.Option("--workers", metavar="N", min=1, help="processes; default: as "
                                                        "many as cores and memory allow")] = None,
            site: SiteOption = None, ask: AskOption = None) -> None:
    """Predict a folder of images, or the study's own test cases. Several such commands share the work."""
    project = project_of(study, workspace, change, run)
    from megavox.pipeline.predict import predict as stage
    from megavox.pipeline.predict import predicted, refuse_early

    if site is not None:
        given = {"--input": source and source.resolve(), "--output": output and output.resolve(), "--workers": workers}
        job = send_and_follow(
            project, "predict", site, ask or (),
            [word for name, value in given.items() if value is not None for word in (name, str(value))],
            early=lambda asks: refuse_early(project, source))
        if job.request().elements:
            tell("predict", predicted(project, source, output), project)
        return
    refuse_ask(ask)
    tell("predict", stage(project, source, output, workers), project)


@app.command()
def measure(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None, run: RunOption = None,
            source: Annotated[Path | None, typer.Option("--input", metavar="FOLDER", help="predictions to measure; "
                                                        "default: those of the test cases")] = None) -> None:
    """Measure predictions: the volume of each class in mm^3."""
    from megavox.pipeline.measure import measure as stage

    project = project_of(study, workspace, change, run)
    tell("measure", stage(project, source), project)


@app.command()
def report(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None,
           run: RunOption = None) -> None:
    """Write the report: one folder that opens from disk."""
    from megavox.pipeline.report import report as stage

    project = project_of(study, workspace, change, run)
    tell("report", stage(project), project)


@app.command("run")
def run_all(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None,
            run: RunOption = None) -> None:
    """All stages: pack, plan, train, evaluate, predict, measure, report."""
    from megavox.pipeline.run import run as stages

    project = project_of(study, workspace, change, run)
    stages(project, lambda stage, result: tell(stage, result, project))


@app.command()
def demo(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where the phantoms and the workspace "
                                                "go")] = Path("demo"), change: SetOption = None) -> None:
    """All stages on a phantom cohort that Megavox draws itself; under 3 minutes on 2 cores."""
    from megavox.pipeline.run import demo_project, run

    project = demo_project(folder, tuple(change or ()))
    run(project, lambda stage, result: tell(stage, result, project))


@app.command()
def phantom(kind: Annotated[str, typer.Argument(metavar="KIND", help="organ (masks), radiograph (classes) or chest "
                                                "(nodules)")],
            folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where they go")],
            cases: Annotated[int, typer.Option("--cases", metavar="N", min=1)] = 40,
            seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0) -> None:
    """Draw synthetic images of which the truth is known."""
    from megavox.pipeline.draw import draw

    draw(kind, folder, cases, seed)
    say(f"wrote {cases} phantoms under {folder}; next: megavox new {folder}")


@app.command()
def doctor(workspace: WorkspaceOption = None,
           data: Annotated[Path | None, typer.Option("--data", metavar="STUDY", help="also time how fast a packed "
                                                     "study's training samples are made")] = None,
           site: Annotated[str | None, typer.Option("--site", metavar="NAME", help="look at a machine of this site "
                                                    "instead, by a job of one minute; --data names the study that "
                                                    "names the site")] = None,
           calibrate: Annotated[bool, typer.Option("--calibrate", help="measure how fast this machine trains, for half "
                                                   "a minute, and keep it")] = False,
           change: SetOption = None) -> None:
    """What this machine offers, and what is wrong with it."""
    if site is not None:
        if calibrate:
            from megavox.core.errors import StudyError

            raise StudyError("--calibrate measures the machine it is run on, and --site looks at others",
                             fix="Give one of them")
        check_site(data, workspace, change, site)
        return
    from megavox.memory.doctor import examine, measure_throughput

    if calibrate:
        say("measuring how fast convolutions, norms and activations are; nothing else should run meanwhile")
        measure_throughput()
    findings = examine(workspace or Path.cwd())
    for finding in findings:
        print(f"{'ok   ' if finding.ok else 'LOOK '} {finding.name:<14} {finding.text}")
    if data is not None:
        from megavox.pipeline.feed import feed

        for one in feed(project_of(data, workspace, change)):
            print(f"ok    samples        {one.samples_per_s:.1f} a second with {one.workers} loader workers")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(2)


@study_app.command("schema")
def study_schema() -> None:
    """Print the JSON schema of study files."""
    import json

    from megavox.study import Study

    print(json.dumps(Study.model_json_schema(), indent=1))


@study_app.command("show")
def study_show(study: StudyFile, change: SetOption = None) -> None:
    """Print a study file with every default filled in."""
    from megavox.study import load_study, show_study

    print(show_study(load_study(study, change or ())), end="")


# ------------------------------------------------------------------ errors


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    from megavox.core.errors import MegavoxError

    try:
        status = int(app(arguments, standalone_mode=False) or 0)
        if status == 130:  # what newer Typers make of a KeyboardInterrupt
            raise KeyboardInterrupt
        return status
    except typer.Exit as exit_:
        return exit_.exit_code
    except MegavoxError as error:
        print(f"megavox: {error}", file=sys.stderr)
        return error.status
    except (KeyboardInterrupt, typer.Abort):  # older Typers turn the first into the second
        from megavox.core.signals import ignore_signals

        ignore_signals()
        print("megavox: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except _WRONG_ARGUMENTS as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except Exception as error:
        return _other_end(error)


def run() -> NoReturn:
    """Run the command line of this process and end it."""
    leave(main())


# ClickException, of click or of the copy of it in newer Typers: the public name is that of a grandchild.
_WRONG_ARGUMENTS: type[Exception] = typer.BadParameter.__mro__[2]


def _other_end(error: Exception) -> int:
    from megavox.core.signals import Stopped, ignore_signals

    if isinstance(error, Stopped):
        ignore_signals()
        print(f"megavox: {error.text}", file=sys.stderr)
        return error.status
    if isinstance(error, OSError) and error.filename is not None:  # the machine's or the user's, and it says where
        print(f"megavox: {error.filename}: {error.strerror}. Check that the path is right and may be read and written.",
              file=sys.stderr)
        return 2
    path = Path(f"megavox-error-{datetime.now():%Y%m%d-%H%M%S}.txt").resolve()
    if not os.access(path.parent, os.W_OK):
        path = Path(tempfile.gettempdir()) / path.name
    path.write_text(f"megavox {' '.join(sys.argv[1:])}\n\n" + "".join(traceback.format_exception(error)))
    print(f"megavox: this is our fault: {type(error).__name__}: {error}\nThe traceback is in {path}", file=sys.stderr)
    return 1
