"""What stands beside every output: study hash, code version, seeds, library versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

VERSIONS = ("torch", "monai", "numpy", "zarr", "nibabel", "pydicom", "scipy", "scikit-learn")


@cache
def code_version() -> str:
    """Megavox's version, with the git commit where it runs from a checkout."""
    version = metadata.version("megavox")
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return version
    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, timeout=5,
                                capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{commit}"


@cache
def versions() -> dict[str, str]:
    """Versions of Python, Megavox and the libraries that figures depend on."""
    found = {"python": platform.python_version(), "megavox": code_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Processor cores this process may use; not all clusters keep a job to those that Slurm has given it."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(here, int(given)) if given.isdigit() else here


def provenance(study_hash: str, seed: int) -> dict[str, object]:
    """A dictionary to write beside an output."""
    return {"study_hash": study_hash, "seed": seed, "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": cores()},
            "written": datetime.now(UTC).isoformat(timespec="seconds")}
