"""What all benchmarks share: how rates are taken, the line that names the machine, and the bars."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

Work = Callable[[np.random.Generator], int]  # does some items, drawn with the generator, and says how many
Bar = tuple[str, float, float, bool]  # name without spaces, value, target, whether more is better


def rate(work: Work, seconds: float) -> float:
    """Items per second of CPU time, all threads of the process counted."""
    rng, count, begin = np.random.default_rng(1), 0, time.process_time()
    while time.process_time() - begin < seconds:
        count += work(rng)
    return count / (time.process_time() - begin)


def in_turns(works: Mapping[str, Work], seconds: float, rounds: int) -> dict[str, float]:
    """The median rate of each: one after the other in every round, once before to get warm."""
    for work in works.values():
        work(np.random.default_rng(0))
    found = [{name: rate(work, seconds) for name, work in works.items()} for _ in range(rounds)]
    return {name: float(np.median([one[name] for one in found])) for name in works}


def print_machine(*packages: str) -> None:
    """Processor, cores and versions."""
    told = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    processor = {name.strip(): value.strip() for name, value in told.items()}.get("model name", platform.machine())
    print(f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          + ", ".join(f"{name} {metadata.version(name)}" for name in packages))


def report(bars: Sequence[Bar]) -> int:
    """Print a line for each bar; the exit status is 1 when one is short."""
    print()
    short = 0
    for name, value, target, more in bars:
        good = value >= target if more else value <= target
        short += not good
        print(f"bar {name} {value:.4g} {target:g} {'pass' if good else 'short'}")
    return 1 if short else 0


def in_process(script: str, *arguments: str) -> dict[str, float]:
    """What a script prints as JSON, in a process of its own with one thread for every library."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *arguments], env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def medians_of_processes(script: str, contenders: Sequence[str], place: str,
                         rounds: int) -> dict[str, dict[str, float]]:
    """The median of each figure of each contender: every one in a process of its own (`--one`), in turns."""
    found = [{name: in_process(script, "--one", name, place) for name in contenders} for _ in range(rounds)]
    return {name: {key: float(np.median([one[name][key] for one in found])) for key in found[0][name]}
            for name in contenders}


def peak_megabytes() -> float:
    """The largest resident set that this process has had; what `getrusage` tells counts its parent's before it."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1e3
