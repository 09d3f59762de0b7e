"""`megavox jobs`, and commands that go to a site."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megavox.cli_options import SetOption, StudyFile, WorkspaceOption, project_of
from megavox.core.progress import say

if TYPE_CHECKING:
    from megavox.jobs.job import JobFolder, Request
    from megavox.pipeline.project import Project

jobs_app = typer.Typer(no_args_is_help=True, help="Jobs that were sent to sites: list, log, attach, cancel.")

SiteOption = Annotated[str | None, typer.Option("--site", metavar="NAME", help="run this as a job of a site that the "
                                                "study names, or of `local`, and follow it; the same command finds it "
                                                "again")]
AskOption = Annotated[list[str] | None, typer.Option("--ask", metavar="key=value", help="what the job asks for, "
                                                     "such as ranks=4 or time_limit=8h, over the site's file; may "
                                                     "be repeated")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="its name, as `megavox jobs list` shows it")]


def refuse_ask(ask: Sequence[str] | None) -> None:
    """There is nobody to ask without a site."""
    from megavox.core.errors import StudyError

    if ask:
        raise StudyError("--ask asks a site, and no --site is given", fix="Add --site NAME, or --site local for this "
                         "machine")


def send_and_follow(project: Project, stage: str, site: str, ask: Sequence[str], arguments: Sequence[str] = (),
                    early: Callable[[Request], None] = lambda request: None) -> JobFolder:
    """Run a stage as a job, and print what it prints; `early` refuses what can be known to fail.

    Of an array nothing is printed but how many of its elements are where: none of them knows the whole.
    """
    from megavox.jobs.section import asked
    from megavox.pipeline.away import follow, send

    job = send(project, stage, site, asked(ask), arguments, early)
    follow(job, _print)
    return job


def check_site(study: Path | None, workspace: Path | None, change: list[str] | None, site: str) -> None:
    """Look at a site by a job of one minute."""
    from megavox.core.errors import StudyError
    from megavox.pipeline.away import check

    if study is None:
        raise StudyError("no study is given, which names the site", expected=f"doctor --site {site} --data STUDY")
    check(project_of(study, workspace, change), site, _print)


@jobs_app.command("list")
def list_(study: StudyFile, workspace: WorkspaceOption = None, change: SetOption = None) -> None:
    """Print the jobs of a workspace and where they are."""
    from megavox.jobs.job import State
    from megavox.jobs.site import summary
    from megavox.pipeline.away import jobs

    for known in jobs(project_of(study, workspace, change)):
        state = summary(known.parts)
        told = next((part.told for part in known.parts if part.state is state), "")
        sentence = "" if state is State.DONE else told.partition("\n")[0].partition("; the end of ")[0]
        of = f" ({sum(part.state.ended for part in known.parts)} of {len(known.parts)} ended)"
        print(f"{known.job.name:<32} {known.site:<12} {state}{of if len(known.parts) > 1 else ''}"
              + (f": {sentence}" if sentence else ""))


@jobs_app.command()
def log(study: StudyFile, name: JobName, workspace: WorkspaceOption = None, change: SetOption = None,
        element: Annotated[int | None, typer.Option("--element", metavar="N", help="of an array")] = None) -> None:
    """Print what a job has printed so far."""
    from megavox.pipeline.away import log_of

    _print(log_of(project_of(study, workspace, change), name, element))


@jobs_app.command()
def attach(study: StudyFile, name: JobName, workspace: WorkspaceOption = None, change: SetOption = None) -> None:
    """Follow a job until it has ended."""
    from megavox.pipeline.away import find, follow

    job = find(project_of(study, workspace, change), name)
    follow(job, _print)
    if job.request().elements:
        say(f"`megavox jobs log {study} {name} --element N` shows what one of them printed")


@jobs_app.command()
def cancel(study: StudyFile, name: JobName, workspace: WorkspaceOption = None, change: SetOption = None) -> None:
    """End a job."""
    from megavox.pipeline import away

    under_way = away.cancel(away.find(project_of(study, workspace, change), name))
    say(f"{name} is being cancelled" if under_way else f"{name} had ended before")


def _print(text: str) -> None:
    print(text, end="", flush=True)
