"""Arguments that several commands have."""

from __future__ import annotations

import re
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

MemoryOption = Annotated[str | None, typer.Option("--memory", metavar="11GB", help="tell all ways to compute a "
                                                  "step, and choose one for so much memory of a rank")]

RanksOption = Annotated[int | None, typer.Option("--ranks", min=1, help="with --memory: how many ranks share a batch")]


def gigabytes(text: str) -> float:
    """`11GB`, `800 MB` or `11GiB` in GB (1e9 bytes)."""
    from megavox.core.errors import StudyError

    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*(MB|GB|MiB|GiB)\s*", text)
    if match is None or float(match[1]) == 0:
        raise StudyError(f"found --memory {text}", expected="a number with its unit, such as 11GB or 800MB "
                         "(or GiB, MiB)")
    return float(match[1]) * {"MB": 1e-3, "GB": 1.0, "MiB": 2**20 / 1e9, "GiB": 2**30 / 1e9}[match[2]]


def project_of(study: Path, workspace: Path | None, changes: list[str] | None, run: str | None = None) -> Project:
    """The project that a command's arguments name."""
    from megavox.pipeline.project import Project
    from megavox.study import load_study

    return Project.at(load_study(study, changes or ()), workspace or study.resolve().parent / "workspace", run)
