"""What a running trial's validation scores say of its end.

Scores midway are worse than the last one, by how much differs from trial to trial. Both are learnt from the trials that
have ended: at about the same share of training, the median of the difference is what a score lacks, and its variance is
the noise of what is foretold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EARLIEST = 0.15  # share of training before which a score tells nothing
ALIKE = 0.1  # shares of training that may be compared
FEWEST = 5  # ended trials to learn from

Curve = Sequence[tuple[float, float]]  # share of training, value


@dataclass(frozen=True)
class Preview:
    """A value foretold, with the variance of the error."""

    value: float
    variance: float


def preview(curve: Curve, ended: Sequence[tuple[Curve, float]]) -> Preview | None:
    """The value at the end of a trial that still runs; None where it cannot be told.

    Args:
        curve: its values so far, the latest last.
        ended: curves of other trials and the value at their end.
    """
    if not curve or curve[-1][0] < EARLIEST:
        return None
    share, latest = curve[-1]
    lacking = []
    for other, end in ended:
        near = [value for at, value in other if abs(at - share) < ALIKE]
        if near:
            lacking.append(float(np.mean(near)) - end)
    if len(lacking) < FEWEST:
        return None
    return Preview(latest - float(np.median(lacking)), float(np.var(lacking)) + 1e-8)
