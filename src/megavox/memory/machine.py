"""What this machine offers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from megavox.core.provenance import cores
from megavox.memory.available import total_bytes

GIVEN_MB = "MEGAVOX_MEMORY_MB"  # MiB, as of Slurm's: what a local job may take


@dataclass(frozen=True)
class Machine:
    """Facts that settings depend on.

    Attributes:
        cores: processor cores this process may use.
        memory_gb: main memory, or the container's limit.
        gpus: names of the GPUs.
        gpu_memory_gb: of the first one; 0 without.
        gpu_bfloat16: whether the first one computes in bfloat16.
    """

    cores: int
    memory_gb: float
    gpus: tuple[str, ...] = ()
    gpu_memory_gb: float = 0.0
    gpu_bfloat16: bool = False


def this_machine() -> Machine:
    """Look at the machine. Imports torch to find GPUs."""
    import torch

    gpus: tuple[str, ...] = ()
    memory = 0.0
    if torch.cuda.is_available():
        gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    return Machine(cores(), main_memory_gb(), gpus, memory, bool(gpus) and torch.cuda.is_bf16_supported())


def main_memory_gb() -> float:
    """Main memory in GB (1e9 bytes), or what control groups, Slurm or a local job leave of it, where that is less."""
    given = [os.environ.get(name, "") for name in ("SLURM_MEM_PER_NODE", GIVEN_MB)]
    return min([total_bytes(), *(int(one) << 20 for one in given if one.isdigit() and int(one))]) / 1e9


def processor_name() -> str:
    """As the system calls it; the architecture where it has no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
