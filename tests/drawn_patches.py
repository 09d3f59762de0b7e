"""Random images with a random draw of all augmentation parameters, for ways of carrying draws out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from megavox.batches import apply
from megavox.batches.parameters import Augmentation, draw_augmentation, draw_centre
from megavox.images.intensity import intensity_statistics, normaliser, outside_value
from packed_arrays import WILD


@dataclass
class Drawn:
    """An image `(C, *S)` and its mask, its normalisation, and what is drawn: where to look, and what to change."""

    image: np.ndarray
    mask: np.ndarray
    numbers: np.ndarray
    outside: np.ndarray
    augmentation: Augmentation
    where: tuple[np.ndarray, np.ndarray, list[int], list[int]]  # matrix, centre, patch, shape

    def read_image(self, start: Any, stop: Any, _wanted: Any = None) -> np.ndarray:
        return self.image[(slice(None), *map(slice, start, stop))]

    def read_mask(self, start: Any, stop: Any, _wanted: Any = None) -> np.ndarray:
        return self.mask[tuple(map(slice, start, stop))]


@st.composite
def drawn_patches(draw: st.DrawFn) -> Drawn:
    """Two or three dimensions, one to three channels, four stored types, patches larger than images too."""
    dims, dtype = draw(st.sampled_from([2, 3])), draw(st.sampled_from(["int16", "uint8", "uint16", "float32"]))
    shape = draw(st.lists(st.integers(1, 40), min_size=dims, max_size=dims))
    patch = draw(st.lists(st.integers(1, 24), min_size=dims, max_size=dims))
    spacing = draw(st.lists(st.floats(0.3, 5), min_size=dims, max_size=dims))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    image = rng.normal(100, 40, (draw(st.integers(1, 3)), *shape)).clip(0, 255).astype(dtype)
    statistics = intensity_statistics(image)
    numbers = normaliser(draw(st.sampled_from(["zscore", "none", "range"])), statistics)
    mask = rng.integers(0, 4, shape).astype(np.uint8)
    augmentation = draw_augmentation(rng, WILD, spacing, patch)
    centre = draw_centre(rng, shape, patch, None, 0.0)
    if augmentation.affine is not None:
        centre = centre + np.asarray(augmentation.shift) / spacing
    where = (apply.spatial_matrix(augmentation, spacing), centre, patch, shape)
    return Drawn(image, mask, numbers, outside_value(statistics, numbers), augmentation, where)
