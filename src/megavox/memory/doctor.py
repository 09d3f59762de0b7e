"""What this machine offers, and what is wrong with it."""

from __future__ import annotations

import resource
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from megavox.memory.machine import this_machine

LEAST_MEMORY_GB = 4.0
LEAST_SHARED_GB = 1.0
LEAST_FILES = 1024
LEAST_DISK_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what.
        ok: false where something should be done.
        text: what was found, and what to do.
    """

    name: str
    ok: bool
    text: str


def examine(workspace: Path) -> list[Finding]:
    """Look at cores, memory, devices, shared memory, open files, disk and versions.

    Args:
        workspace: where the disk is looked at.
    """
    return [*_machine(), *_shared_memory(), *_open_files(), *_disk(workspace), *_versions()]


def _machine() -> Iterator[Finding]:
    machine = this_machine()
    yield Finding("machine", True, socket.gethostname())
    yield Finding("cores", machine.cores >= 2, f"{machine.cores}" + (
        "" if machine.cores >= 2 else ": loading and training will take turns"))
    enough = machine.memory_gb >= LEAST_MEMORY_GB
    yield Finding("memory", enough, f"{machine.memory_gb:.1f} GB" + (
        "" if enough else f": less than {LEAST_MEMORY_GB:g} GB is tight; lower batches.patch and batches.workers"))
    if not machine.gpus:
        yield Finding("device", True, "no GPU that PyTorch can use: training runs on the CPU")
    else:
        half = "bfloat16" if machine.gpu_bfloat16 else "float32 only"
        yield Finding("device", True, f"{', '.join(machine.gpus)} ({machine.gpu_memory_gb:.0f} GB, {half})")


def _shared_memory() -> Iterator[Finding]:
    path = Path("/dev/shm")
    if not path.exists():
        yield Finding("shared memory", True, "no /dev/shm here; loader workers use files")
        return
    size = shutil.disk_usage(path).total / 1e9
    yield Finding("shared memory", size >= LEAST_SHARED_GB, f"{size:.1f} GB in /dev/shm" + (
        "" if size >= LEAST_SHARED_GB else ": loader workers may die; start the container with --shm-size=8g, or set "
        "batches.workers to 0"))


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding("open files", soft >= LEAST_FILES, f"at most {soft} (could be {hard})" + (
        "" if soft >= LEAST_FILES else f": raise it with `ulimit -n {LEAST_FILES}`"))


def _disk(workspace: Path) -> Iterator[Finding]:
    place = next(path for path in (workspace, *workspace.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    yield Finding("disk", free >= LEAST_DISK_GB, f"{free:.1f} GB free at {place}" + (
        "" if free >= LEAST_DISK_GB else ": a store takes about as much as the images uncompressed"))


def _versions() -> Iterator[Finding]:
    try:
        vision = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        vision = ""
    torch = metadata.version("torch")
    yield Finding("torch", torch.startswith("2.13."), torch + (
        "" if torch.startswith("2.13.") else ": Megavox is tested with 2.13; install torch==2.13.0 first"))
    if vision:
        yield Finding("torchvision", False, f"{vision}: its published wheel breaks against the CPU build of PyTorch, "
                      "and then MONAI cannot be imported; Megavox does not need it: pip uninstall torchvision")
