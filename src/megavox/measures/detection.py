"""The table that `evaluate` writes of a detection: FROC of all findings and by diameter, intervals over subjects.

Every number is a `Measured`. All diameters share the false positives, since a false positive has no diameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from megavox.core.files import plain
from megavox.measures.bootstrap import bootstrap_table
from megavox.measures.froc import RATES, Froc, Marks, mean_sensitivity, partial_area, sensitivity_at
from megavox.measures.summary import RESAMPLES, Measured

DIAMETERS_MM = {"3 to 5 mm": (3.0, 5.0), "5 to 8 mm": (5.0, 8.0), "8 to 15 mm": (8.0, 15.0),
                "15 mm and above": (15.0, inf), "below 3 mm or unknown": (-inf, 3.0)}  # from, up to below
GRID = 2.0 ** (np.arange(-42, 43) / 12)  # false positives a case, of the curve that is kept; `RATES` are on it


class Sweep:
    """Cases whose scores are sorted once, so that the curves of any resample are a few sums.

    The curve rises at the scores of hits only. So it is enough to know, of each case, how many false positives lie
    between two such scores, and how many at one.

    Args:
        cases: N, at least one.
        diameters_mm: for each curve, the findings that are looked for, as for `froc`.
    """

    def __init__(self, cases: Sequence[Marks], diameters_mm: Sequence[tuple[float, float]]) -> None:
        found, sizes, false = (np.concatenate([getattr(case, name) for case in cases])
                               for name in ("found", "diameters_mm", "false"))
        owner = np.repeat(np.arange(len(cases)), [len(case.found) for case in cases])
        hit = ~np.isnan(found)
        levels = np.unique(found[hit])

        def counts(scores: np.ndarray, owners: np.ndarray) -> csr_array:
            """`(S, N)`, by step of the sweep, with falling score: above the first level, at it, below it, and so on."""
            step = 2 * len(levels) - levels.searchsorted(scores, "left") - levels.searchsorted(scores, "right")
            return csr_array((np.ones(len(scores)), (step, owners)), (2 * len(levels) + 1, len(cases)))

        chosen = [(low <= sizes) & (sizes < high) for low, high in diameters_mm]
        self._false = counts(false, np.repeat(np.arange(len(cases)), [len(case.false) for case in cases]))
        self._hits = [counts(found[these & hit], owner[these & hit]) for these in chosen]
        self._findings = [np.bincount(owner[these], minlength=len(cases)) for these in chosen]

    def curves(self, weights: np.ndarray) -> list[Froc]:
        """What `froc` gives of a list that has each case `weights` times, `(N,)`; steps without any rise are missing.

        A curve for each range of diameters; they share the false positives.
        """
        false_rate = np.append(0.0, (self._false @ weights).cumsum() / weights.sum())
        found = []
        for hits, findings in zip(self._hits, self._findings, strict=True):
            above, all_ = np.append(0.0, (hits @ weights).cumsum()), findings @ weights
            found.append(Froc(false_rate, above / all_ if all_ else np.full(len(above), np.nan)))
        return found


def summarise_detection(cases: Sequence[Marks], subjects: Sequence[str], *, seed: int,
                        resamples: int = RESAMPLES) -> dict[str, Any]:
    """The cohort table of a detection.

    Args:
        cases: N, at least one; cases without findings or candidates count too.
        subjects: `(N,)`, the subject of each case.
        seed: of the bootstrap.
        resamples: of the bootstrap. One without the findings that a number is about is left out of its interval.

    Returns:
        `n_cases`, `n_subjects`, `n_findings`, `false_per_case` (without any threshold); `headline` (`Measured` by
        name): `partial_area`, `mean_sensitivity` and `sensitivity_at_R` for each R of `RATES`; `strata`: the same by
        diameter, with `n_findings`; findings below 3 mm or of unknown diameter are there only if there are any.
        `curve`: `false_rate` and `sensitivity` with its interval at each point, `low` and `high` (None where there is
        none), and by diameter the sensitivities alone, `strata`.
    """
    sizes = np.concatenate([case.diameters_mm for case in cases])
    ranges = {name: (low, high) for name, (low, high) in DIAMETERS_MM.items() if low > 0 or (sizes < high).any()}
    sweep = Sweep(cases, [(-inf, inf), *ranges.values()])
    names = ["", *ranges]

    def statistics(rows: np.ndarray) -> dict[str, float]:
        curves = sweep.curves(np.bincount(rows, minlength=len(cases)))
        points = enumerate(sensitivity_at(curves[0], GRID).tolist())
        return {**{f"{part}/{name}": value for part, curve in zip(names, curves, strict=True)
                   for name, value in _figures(curve).items()}, **{f"curve/{place}": value for place, value in points}}

    intervals = bootstrap_table(statistics, subjects, resamples, seed=seed)
    curves = dict(zip(names, sweep.curves(np.ones(len(cases))), strict=True))

    def entry(part: str, missing: str) -> dict[str, Any]:
        return {name: Measured.of(value, intervals[f"{part}/{name}"], len(cases), missing).to_dict()
                for name, value in _figures(curves[part]).items()}

    band = [intervals[f"curve/{place}"] for place in range(len(GRID))]
    return plain({
        "n_cases": len(cases), "n_subjects": len(set(subjects)), "n_findings": len(sizes),
        "false_per_case": sum(len(case.false) for case in cases) / len(cases),
        "headline": entry("", "no finding in any case"),
        "strata": {name: {"n_findings": ((low <= sizes) & (sizes < high)).sum(),
                          **entry(name, "no finding of this diameter")} for name, (low, high) in ranges.items()},
        "curve": {"false_rate": GRID, "sensitivity": sensitivity_at(curves[""], GRID),
                  "low": [one.low for one in band], "high": [one.high for one in band],
                  "strata": {name: sensitivity_at(curves[name], GRID) for name in ranges}},
    })


def _figures(curve: Froc) -> dict[str, float]:
    at = zip(RATES, sensitivity_at(curve).tolist(), strict=True)
    return {"partial_area": partial_area(curve), "mean_sensitivity": mean_sensitivity(curve),
            **{f"sensitivity_at_{rate:g}": value for rate, value in at}}
