"""Which trials under way promise nothing; scores are turned so that small ones are good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from megavox.search.previews import Curve, preview
from megavox.study.search import StopSection

FEWEST = 5  # ended trials to compare with


def hopeless(curve: Curve, ended: Sequence[tuple[Curve, float]], section: StopSection) -> bool:
    """Whether a trial shall be ended.

    Args:
        curve: its scores so far, the latest last.
        ended: curves of others, and the value at their end.
        section: by which rule. `median`: its best score so far is worse than the median of what the others' were by
            then on average (Golovin 2017, doi 10.1145/3097983.3098043). `curve`: the chance that its end, as foretold
            by theirs, is better than the best one is below `risk`.
    """
    if not curve or curve[-1][0] < section.after or len(ended) < FEWEST:
        return False
    if section.rule == "median":
        share = curve[-1][0]
        others = [np.mean([score for at, score in other if at <= share]) for other, _ in ended
                  if any(at <= share for at, _ in other)]
        return len(others) >= FEWEST and bool(min(score for _, score in curve) > np.median(others))
    found = preview(curve, ended)
    if found is None:
        return False
    best = min(value for _, value in ended)
    return bool(ndtr((best - found.value) / np.sqrt(found.variance)) < section.risk)
