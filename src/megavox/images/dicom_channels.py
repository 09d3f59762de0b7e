"""Several DICOM frames at one slice position: which channel is each?

Echo time, echo number, b-value, temporal position, acquisition, trigger time and image type are tried,
alone and then combined, for one that tells all frames apart and gives a complete grid of slices and
channels. A gap in echo time, echo number or b-value is a lost file and is named, never closed up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np

from megavox.core.errors import GeometryError
from megavox.images.dicom_frame import Frame

_EXACT = ("echo time", "echo", "b-value")  # a gap in these is a lost file, never a re-ordering
_UNITS = {"echo time": " ms", "trigger time": " ms", "b-value": " s/mm2"}


def sort_channels(frames: list[Frame], slices: list[int]) -> tuple[list[int] | None, list[str], str]:
    """Channel of each frame, names, and a note; None where no rule gives a complete grid.

    `slices` is the slice number of each frame. One frame a slice is one channel, named "".
    """
    per_slice = Counter(slices)
    deepest = max(per_slice.values())
    if deepest == 1:
        return [0] * len(frames), [""], ""
    names = [n for n in dict.fromkeys(k for f in frames for k in f.keys)
             if len({f.keys.get(n) for f in frames}) > 1 and all(n in f.keys for f in frames)]
    for length in (1, 2, 3):
        for combination in combinations(names, length):
            values = [tuple(f.keys[n] for n in combination) for f in frames]
            levels = _sorted(values)
            unique = len(set(zip(slices, values, strict=True))) == len(frames)
            if unique and len(levels) * len(per_slice) == len(frames):
                return [levels.index(v) for v in values], [_label(combination, v) for v in levels], ""
    lost = any(_unique(frames, slices, n) for n in names if n in _EXACT)
    if lost or len(set(per_slice.values())) > 1:
        return None, [], ""
    by = next((n for n in ("temporal position", "acquisition", "trigger time")
               if n in names and _unique(frames, slices, n)), "instance number")
    rank = _ranks(slices, [f.instance if by == "instance number" else f.keys[by] for f in frames])
    return rank, [str(i + 1) for i in range(deepest)], \
        f"{deepest} images at each slice position, ordered by {by} within each slice"


def _unique(frames: list[Frame], slices: list[int], name: str) -> bool:
    return len({(s, f.keys[name]) for s, f in zip(slices, frames, strict=True)}) == len(frames)


def _ranks(slices: list[int], values: list[float | str]) -> list[int]:
    order = sorted(range(len(slices)), key=lambda i: (slices[i], str(type(values[i])), values[i]))
    rank, seen = [0] * len(slices), Counter[int]()
    for i in order:
        rank[i] = seen[slices[i]]
        seen[slices[i]] += 1
    return rank


def _sorted(values: list[tuple[float | str, ...]]) -> list[tuple[float | str, ...]]:
    return sorted(set(values), key=lambda value: [(isinstance(v, str), v) for v in value])


def _label(names: tuple[str, ...], values: tuple[float | str, ...]) -> str:
    return " ".join(f"{n} {v:g}{_UNITS.get(n, '')}" if isinstance(v, float) else f"{n} {v}"
                    for n, v in zip(names, values, strict=True))


def sort_segments(frames: list[Frame]) -> tuple[list[int], list[str]]:
    """Channel of each frame of a segmentation: its segment, in the order of segment numbers."""
    values = [f.keys.get("segment", 1.0) for f in frames]
    levels = [v[0] for v in _sorted([(v,) for v in values])]
    return [levels.index(v) for v in values], [_label(("segment",), (v,)) for v in levels]


def without_equal(frames: list[Frame], slices: list[int],
                  digest: Callable[[Frame], bytes]) -> tuple[list[Frame], list[str]]:
    """Drop frames at one position with the same keys and the same pixels as another."""
    kept: list[Frame] = []
    seen: set[tuple[object, ...]] = set()
    crowded = {k for k, n in Counter(slices).items() if n > 1}
    for frame, k in zip(frames, slices, strict=True):
        mark = (k, tuple(sorted((n, str(v)) for n, v in frame.keys.items())),
                digest(frame) if k in crowded else b"")
        if mark not in seen:
            kept.append(frame)
        seen.add(mark)
    gone = len(frames) - len(kept)
    return kept, [f"{gone} repeated slices with equal pixels dropped"] if gone else []


def incomplete(frames: list[Frame], slices: list[int], distances: np.ndarray,
               where: object) -> GeometryError:
    """The error that says which slice positions (mm along the normal) lack which images."""
    per_slice = Counter(slices)
    name = next((n for n in _EXACT if all(n in f.keys for f in frames)
                 and len({f.keys[n] for f in frames}) > 1 and _unique(frames, slices, n)), "")
    if name:
        every = {f.keys[name] for f in frames}
        have = {k: {f.keys[name] for f, s in zip(frames, slices, strict=True) if s == k} for k in per_slice}
        lacking = [f"{distances[k]:.2f} mm lacks " + ", ".join(
            _label((name,), v) for v in _sorted([(v,) for v in every - have[k]]))
            for k in sorted(have) if every - have[k]]
    else:
        most = max(per_slice.values())
        lacking = [f"{distances[k]:.2f} mm has {n} of {most} images" for k, n in sorted(per_slice.items())
                   if n < most]
    shown = "; ".join(lacking[:6]) + (f"; and {len(lacking) - 6} more" if len(lacking) > 6 else "")
    return GeometryError(f"not every slice position has every image: {shown}", where=where,
                         expected=f"the same {name or 'images'} at all {len(per_slice)} slice positions",
                         fix="Fetch the missing files, or remove the incomplete ones",
                         reason="incomplete echoes")
