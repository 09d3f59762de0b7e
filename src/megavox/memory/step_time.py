"""How long a training step takes, told without making it: what it computes and moves, over what this machine computes
and moves a second, which `megavox doctor --calibrate` measures once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

import torch

from megavox.core.errors import WorkspaceError
from megavox.core.files import make_folder, read_json, text_hash, write_json
from megavox.core.progress import say
from megavox.core.provenance import cores
from megavox.memory.follow import STEPS
from megavox.memory.live import Live
from megavox.memory.machine import processor_name


@dataclass(frozen=True)
class Throughput:
    """What a device does, in one number type.

    Attributes:
        operations_per_s: of convolutions and products of matrices that have enough to compute.
        product_bytes_per_s: that those read and write; what makes those with few channels slow.
        other_bytes_per_s: that all other operators read and write.
    """

    operations_per_s: float
    product_bytes_per_s: float
    other_bytes_per_s: float

    def sentence(self) -> str:
        """For people."""
        peak, product, other = (rate / 1e9 for rate in asdict(self).values())
        return f"convolutions {peak:.3g} GFLOP/s and {product:.3g} GB/s, other operators {other:.3g} GB/s"


def step_seconds(live: Live, throughput: Throughput) -> float:
    """The time of one step of what was followed for `STEPS` steps.

    A sum over operators of `operations / peak + bytes / bandwidth`: the roofline model (Williams, Waterman and
    Patterson 2009), with a sum in place of the larger of both. Left out is what starting an operator takes, which on a
    GPU is more than all else for small networks, and waiting for data.
    """
    return (live.operations / throughput.operations_per_s + live.product_bytes / throughput.product_bytes_per_s
            + live.other_bytes / throughput.other_bytes_per_s) / STEPS


def machine_facts(device: str, dtype: torch.dtype) -> dict[str, str | int]:
    """What a measured throughput holds for; another machine has others.

    Args:
        device: "cpu" or "cuda", of which the first one is meant.
        dtype: float32, or bfloat16 for autocast to it.
    """
    facts: dict[str, str | int] = {"device": device, "dtype": str(dtype).removeprefix("torch."),
                                   "torch": torch.__version__, "processor": processor_name(), "cores": cores(),
                                   "threads": torch.get_num_threads()}
    return {**facts, "gpu": torch.cuda.get_device_name(0)} if device == "cuda" else facts


def throughput_file(facts: Mapping[str, str | int]) -> Path:
    """Where a throughput is kept: in the user's cache, which several machines may share."""
    places = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")  # noqa: PTH111 (there may be no home)
    folder = next((place for place in places if Path(place).is_absolute()), tempfile.gettempdir())
    return Path(folder, "megavox") / f"throughput-{text_hash(repr(sorted(facts.items())))[:16]}.json"


def keep_throughput(throughput: Throughput, facts: Mapping[str, str | int]) -> Path:
    """Write down what was measured on a machine; returns where.

    Raises:
        MachineError: the user's cache cannot be written.
    """
    path = throughput_file(facts)
    make_folder(path.parent, fix="Name another place for caches by the environment variable XDG_CACHE_HOME")
    write_json(path, {"machine": dict(facts), "throughput": asdict(throughput)})
    return path


def throughput_here(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Throughput | None:
    """What was measured on this machine; None where nothing was. A damaged file is told of and not used."""
    facts = machine_facts(device, dtype)
    path = throughput_file(facts)
    try:
        if not path.exists():
            return None
        found = read_json(path)
        return _checked(Throughput(**found["throughput"])) if found["machine"] == facts else None
    except (WorkspaceError, OSError, KeyError, TypeError, ValueError):
        say(f"{path} is damaged, or may not be read, and is not used; `megavox doctor --calibrate` writes it anew")
        return None


def _checked(found: Throughput) -> Throughput:
    if not all(isfinite(rate) and rate > 0 for rate in asdict(found).values()):
        raise ValueError(found)
    return found
