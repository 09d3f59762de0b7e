"""The compiled loop of `export`: one slice of class numbers from two slices of logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from megavox.core.compiled import njit


@njit(cache=True, nogil=True)
def largest_of_slice(lower: Any, upper: Any, share: Any, low_y: Any, share_y: Any, inside_y: Any, low_x: Any,
                     share_x: Any, inside_x: Any, out: Any) -> None:
    """The class with the largest interpolated logit at each voxel of a slice; of equal ones the first.

    Args:
        lower, upper: `(K, Y, X)` float32, the slices of logits below and above.
        share: of the upper slice.
        low_y, share_y, inside_y: for each row of `out`, see `export`; likewise for columns.
        out: `(Y', X')` uint8, zero where it is left as it is.
    """
    classes, height, width = lower.shape
    row = np.empty(width + 1, np.float32)
    best = np.empty(out.shape[1], np.float32)
    for y in range(out.shape[0]):
        if not inside_y[y]:
            continue
        above, t = low_y[y], share_y[y]
        below = min(above + 1, height - 1)
        into = out[y]
        for c in range(classes):
            a, b, d, e = lower[c, above], lower[c, below], upper[c, above], upper[c, below]
            for x in range(width):
                p = a[x] + t * (b[x] - a[x])
                q = d[x] + t * (e[x] - d[x])
                row[x] = p + share * (q - p)
            row[width] = row[width - 1]
            if c == 0:
                for x in range(out.shape[1]):
                    i = np.uintp(low_x[x])
                    best[x] = row[i] + share_x[x] * (row[i + np.uintp(1)] - row[i])
            else:
                for x in range(out.shape[1]):
                    i = np.uintp(low_x[x])
                    value = row[i] + share_x[x] * (row[i + np.uintp(1)] - row[i])
                    if value > best[x]:
                        best[x] = value
                        into[x] = c
        for x in range(out.shape[1]):
            if not inside_x[x]:
                into[x] = 0
