"""Spaces for the tests of the search."""

from __future__ import annotations

from megavox.search.space import Bound, Choice, Number, Space

MIXED = Space([
    Choice("batches.patch", (32, 64)),
    Choice("optimiser", ("adamw", "sgd", "lamb")),
    Number("levels", Bound(2), Bound(4), step=1, integer=True),
    Number("filters", Bound(4), Bound(33), step=4, integer=True),
    Number("batch", Bound(1), Bound(64), step=1, integer=True, log=True),
    Number("rate", Bound(1e-8), Bound(1e-2), log=True),
    Number("momentum", Bound(0.9), Bound(0.99), when={"optimiser": ("sgd",)}),
    Number("shift", Bound(0), Bound(0.5, "batches.patch"), step=1, integer=True),
    Choice("rotate", (False, True)),
    Choice("axis", ("x", "y"), when={"rotate": (True,), "optimiser": ("sgd", "lamb")})])
