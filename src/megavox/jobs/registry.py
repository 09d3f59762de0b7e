"""The kinds of sites. A new one is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from megavox.core.errors import StudyError
from megavox.jobs.local import Local, LocalSection
from megavox.jobs.section import SiteSection
from megavox.jobs.site import Site
from megavox.jobs.slurm import Slurm, SlurmSection
from megavox.study.load import load_section

KINDS: dict[str, tuple[type[SiteSection], Callable[[Any], Site]]] = {
    "local": (LocalSection, Local),
    "slurm": (SlurmSection, Slurm)}
HERE = "local"  # this machine, which needs no file


def read_site(name: str, files: Mapping[str, Path]) -> SiteSection:
    """The site of a name, among those that a study names.

    Raises:
        StudyError: there is none of that name, or its file is wrong.
    """
    if name in files:
        return load_section(files[name], {kind: section for kind, (section, _) in KINDS.items()}, "site file")
    if name == HERE:
        return LocalSection(kind=HERE)
    known = ", ".join(sorted({HERE, *files}))
    raise StudyError(f"the study names no site {name!r}", where="sites", expected=f"one of {known}",
                     fix="Name a site file there, for instance `sites: {cluster: cluster.yaml}`")


def open_site(settings: Mapping[str, Any]) -> Site:
    """The site with these settings, as they were written down with a job."""
    section, site = KINDS[settings["kind"]]
    return site(section.model_validate(settings))
