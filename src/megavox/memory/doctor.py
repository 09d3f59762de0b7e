"""What this machine offers, and what is wrong with it; and how fast it is, once that was measured."""

from __future__ import annotations

import resource
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from megavox.memory.calibrate import calibrate
from megavox.memory.machine import this_machine
from megavox.memory.step_time import keep_throughput, machine_facts, throughput_file, throughput_here

LEAST_MEMORY_GB = 4.0
LEAST_SHARED_GB = 1.0
LEAST_FILES = 1024
LEAST_DISK_GB = 5.0
CALIBRATION_S = 12.0  # of steps that are counted; others, and what is loaded, take as long again


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
    """Look at cores, memory, devices, shared memory, open files, disk, versions and what was measured.

    Args:
        workspace: where the disk is looked at.
    """
    return [*_machine(), *_shared_memory(), *_open_files(), *_disk(workspace), *_versions(), *_throughput()]


def measure_throughput() -> None:
    """Measure how fast this machine trains, for about 20 s in every number type, and keep it for all commands.

    Raises:
        MachineError: the user's cache cannot be written.
    """
    for device, dtype in _trained_on():
        keep_throughput(calibrate(device, dtype, CALIBRATION_S), machine_facts(device, dtype))


def _trained_on() -> tuple[tuple[str, torch.dtype], ...]:
    """Devices with number types."""
    if torch.cuda.is_available():
        return ("cuda", torch.float32), ("cuda", torch.bfloat16)
    return (("cpu", torch.float32),)


def _throughput() -> Iterator[Finding]:
    for device, dtype in _trained_on():
        facts = machine_facts(device, dtype)
        found = throughput_here(device, dtype)
        yield Finding("throughput", True, "not measured; `megavox doctor --calibrate` does so in half a minute"
                      if found is None else f"{found.sentence()} ({facts['dtype']} on {facts.get('gpu', device)}, "
                      f"{facts['threads']} threads; kept in {throughput_file(facts)})")


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
