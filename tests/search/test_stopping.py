"""Which trials are given up."""

from __future__ import annotations

from megavox.search.stopping import hopeless
from megavox.study.search import StopSection

OTHERS = [([(0.1, 0.5), (0.5, 0.5), (1.0, 0.5)], 0.5)] * 6


def test_the_median_rule_looks_at_the_best_score() -> None:
    rule = StopSection(rule="median")
    assert not hopeless([(0.1, 1.0), (0.3, 0.8), (0.5, 0.05)], OTHERS, rule), "it has become the best of all"
    assert hopeless([(0.1, 1.0), (0.3, 0.8), (0.5, 0.6)], OTHERS, rule)
    assert not hopeless([(0.1, 1.0)], OTHERS, rule), "too early"
    assert not hopeless([(0.5, 0.6)], OTHERS[:4], rule), "too few to compare with"
