"""Arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from megavox.pipeline.project import Project


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="the study file (YAML)")]
WorkspaceOption = Annotated[Path | None, typer.Option("--workspace", metavar="DIR", help="where everything is "
                                                      "written; default: `workspace` beside the study file")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="key.path=value", help="change a value of the "
                                                     "study file; may be repeated")]
RunOption = Annotated[str | None, typer.Option("--run-name", metavar="NAME",
                                               help="name of the run; default: the study's")]


def project_of(study: Path, workspace: Path | None, changes: list[str] | None, run: str | None = None) -> Project:
    """The project that a command's arguments name."""
    from megavox.pipeline.project import Project
    from megavox.study import load_study

    return Project.at(load_study(study, changes or ()), workspace or study.resolve().parent / "workspace", run)
