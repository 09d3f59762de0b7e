"""Intensity statistics of a prepared image, and the normalisation that follows from them.

Normalisation is clip, subtract, divide, per channel: four numbers `(low, high, centre, width)`. The
store keeps the image in its own units; the numbers are applied when a patch is read, and in the same
way when a new image is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Points of the stored foreground quantile function. They are dense at the ends, where the clip limits
# of `hu` lie, lest the extremes (metal, air) pull at them.
LEVELS = np.concatenate([(0, 0.001, 0.002, 0.005, 0.01), np.linspace(0.02, 0.98, 49), (0.99, 0.995, 0.998, 0.999, 1)])
_POOLED = 400  # equally likely values that stand for a case in the pool
_MOST = 2_000_000  # voxels used for the statistics of one channel; larger images are strided


def intensity_statistics(array: np.ndarray, foreground: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Statistics of each channel.

    Args:
        array: `(C, ...)`.
        foreground: boolean, the spatial shape; where given, its quantile function is kept for `hu`.

    Returns:
        One dictionary a channel: `p005`, `p995` (0.5 and 99.5 percentiles), `mean` and `std` after
        clipping to them, `quantiles` of the foreground (of all voxels without one).
    """
    statistics = []
    for channel in array:
        values = channel.reshape(-1)
        values = values[:: max(1, values.size // _MOST)].astype(np.float32)
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
        if high <= low:  # nearly constant: fall back on the full range
            low, high = float(values.min()), float(values.max())
        clipped = np.clip(values, low, high)
        inside = channel[foreground] if foreground is not None and foreground.any() else values
        statistics.append({
            "p005": low, "p995": high, "mean": float(clipped.mean(dtype=np.float64)),
            "std": float(clipped.std(dtype=np.float64)),
            "quantiles": np.quantile(inside, LEVELS).astype(float).tolist()})
    return statistics


def cohort_intensities(cases: Sequence[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """`low, high, centre, width` a channel from the pooled foreground of training cases, for `hu`.

    0.5 and 99.5 percentiles, mean and deviation, every case with equal weight (Isensee 2021, nnU-Net,
    Nature Methods 18:203, Suppl. note 2, which weighs by volume).
    """
    middles = (np.arange(_POOLED) + 0.5) / _POOLED
    pooled = []
    for channel in range(len(cases[0])):
        values = np.concatenate([np.interp(middles, LEVELS, case[channel]["quantiles"]) for case in cases])
        low, high = np.percentile(values, (0.5, 99.5), method="hazen")  # exact for values at the middles
        clipped = np.clip(values, low, high)
        pooled.append({"low": float(low), "high": float(high), "centre": float(clipped.mean()),
                       "width": float(max(clipped.std(), 1e-6))})
    return pooled


def normaliser(mode: str, statistics: list[dict[str, Any]],
               cohort: list[dict[str, float]] | None = None) -> np.ndarray:
    """Four numbers a channel: `(C, 4)` float32 of low, high, centre, width.

    Args:
        mode: `zscore`, `hu`, `range` or `none` (see the study file's images.normalise).
        statistics: of the image itself.
        cohort: from `cohort_intensities`; needed for `hu`.
    """
    rows = []
    for number, channel in enumerate(statistics):
        low, high = channel["p005"], channel["p995"]
        if mode == "zscore":
            rows.append((low, high, channel["mean"], max(channel["std"], 1e-6)))
        elif mode == "range":
            rows.append((low, high, low, max(high - low, 1e-6)))
        elif mode == "hu":
            assert cohort is not None, "hu needs the cohort's numbers"
            pooled = cohort[number]
            rows.append((pooled["low"], pooled["high"], pooled["centre"], pooled["width"]))
        else:
            rows.append((-np.inf, np.inf, 0.0, 1.0))
    return np.array(rows, dtype=np.float32)


def normalise(array: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """`(clip(array, low, high) - centre) / width` per channel.

    Args:
        array: `(C, ...)` of any real type.
        numbers: `(C, 4)` from `normaliser`.

    Returns:
        float32 of the same shape.
    """
    shape = (-1,) + (1,) * (array.ndim - 1)
    low, high, centre, width = (numbers[:, i].reshape(shape) for i in range(4))
    values = array.astype(np.float32)
    np.clip(values, low, high, out=values)
    values -= centre
    values /= width
    return values


def outside_value(statistics: list[dict[str, Any]], numbers: np.ndarray) -> np.ndarray:
    """Normalised value of what lies outside the image, `(C,)`: the image's 0.5 percentile."""
    low = np.array([[channel["p005"]] for channel in statistics], dtype=np.float32)
    return normalise(low, numbers)[:, 0]
