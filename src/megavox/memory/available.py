"""Memory that is still free here, memory that a process needs, and processes that were ended for want of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from megavox.core.exhausted import process_status

_GROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Main memory that can still be used, by the machine and by every control group around this process."""
    left = (limit - used + reclaimable for limit, used, reclaimable in _groups())
    return max(0, min([psutil.virtual_memory().available, *left]))


def total_bytes() -> int:
    """Main memory of the machine, or the least limit of the control groups around this process."""
    return min([psutil.virtual_memory().total, *(limit for limit, _, _ in _groups())])


def private_bytes() -> tuple[int, int]:
    """Memory of this process that it shares with nobody: the most so far, and now.

    Files that are mapped (weights, libraries) are not counted: processes share them.
    """
    fields = process_status()
    if not {"VmHWM", "RssFile", "RssAnon"} <= fields.keys():
        now = psutil.Process().memory_info().rss
        return now, now
    return max(fields["VmHWM"] - fields["RssFile"], fields["RssAnon"]), fields["RssAnon"]


def forget_most() -> None:
    """From here on the most that `private_bytes` tells of is counted anew, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def ended_for_memory() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not say."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def _groups() -> Iterator[tuple[int, int, int]]:
    """Limit of each control group that has one, of version 2 and 1, what is used of it, and how much of that holds
    files and can be taken back."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, kinds, place = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = _GROUPS / kinds
        limit, usage = ("memory.max", "memory.current") if not kinds else (
            "memory.limit_in_bytes", "memory.usage_in_bytes")
        here = top / place.strip("/")
        for folder in (here, *here.parents):
            try:
                most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
            except (OSError, ValueError):  # no limit ("max"), or not to be seen from within
                pass
            else:
                yield most, used, _reclaimable(folder)
            if folder == top:
                break


def _reclaimable(folder: Path) -> int:
    values = dict(line.split() for line in _lines(folder / "memory.stat"))
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
