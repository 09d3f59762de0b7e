"""What this machine offers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from megavox.core.provenance import cores


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
    """Main memory in GB (1e9 bytes), or the limit of the control group, or what Slurm has given, where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    given = os.environ.get("SLURM_MEM_PER_NODE", "")
    total = min(total, int(given) << 20) if given.isdigit() and int(given) else total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total / 1e9
