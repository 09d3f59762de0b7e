"""Where the lungs, and the body, are in a CT of the chest.

Air inside the body, without what is connected to the outside, its two largest parts, holes filled and bays closed, so
that vessels and nodules on the pleura lie inside; after Hu, Hoffman and Reinhardt 2001 (IEEE TMI 20:490-498). Found on
blocks of at most 2.5 mm, which is enough to say where to look, and returned on the image's own grid. x and y may run
either way; z is axis 0.

Not excluded: the main bronchi beside the hilum, where their wall is thinner than a block. Not found: consolidated lung,
and the lung of a side where less than half a litre holds air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

AIR_HU = -450.0  # halfway from lung to soft tissue
BLOCK_MM = 2.5
CLOSING_MM = 20.0  # so that nodules of 30 mm on the pleura lie inside; one of 10 mm would enter the bays they leave
MARGIN_MM = 10.0  # around the lungs, in which findings are looked for, too
NOT_FOUND = "no lung of 0.5 to 4.5 litres was found on each side, so findings are looked for in the whole body"
LEAST_MM3, MOST_MM3 = 0.5e6, 4.5e6  # of the lung of one side
AIRWAY_MM2 = 600.0  # of a slice: a trachea has up to 400
AIRWAY_FROM_MIDLINE_MM = 35.0
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
_UPRIGHT = np.ones((1, 3, 1), bool)
_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class LungField:
    """Where nodules may be.

    Attributes:
        mask: `(Z, Y, X)`, true in the lungs; in the whole body where the lungs were not found.
        sound: false where the lungs were asked for, and there is none of 0.5 to 4.5 litres on some side.
    """

    mask: np.ndarray
    sound: bool


def search_field(hu: np.ndarray, spacing_mm: Sequence[float], within: Literal["lungs", "body", "image"]) -> LungField:
    """Where findings are looked for: in the lungs and 10 mm around them, in the body, or everywhere.

    Other arguments as of `lung_field`.
    """
    if within == "image":
        return LungField(np.ones(hu.shape, bool), True)
    if within == "body":
        return LungField(body_mask(hu, spacing_mm), True)
    found = lung_field(hu, spacing_mm)
    if not found.sound:
        return found
    blocks, factors = _blocks(found.mask.astype(np.float32), spacing_mm)
    away_mm = ndimage.distance_transform_edt(blocks < 0.5, np.multiply(spacing_mm, factors))
    return LungField(found.mask | _unblocked(away_mm <= MARGIN_MM, factors, hu.shape), True)


def lung_field(hu: np.ndarray, spacing_mm: Sequence[float]) -> LungField:
    """The lungs of a CT, or its whole body where there is no plausible lung on each side (`sound` is then false).

    Args:
        hu: `(Z, Y, X)`, HU.
        spacing_mm: `(z, y, x)` mm.
    """
    blocks, factors = _blocks(hu, spacing_mm)
    block_mm = np.multiply(spacing_mm, factors)
    body = _body(blocks)
    sides = [_closed(_filled(side), block_mm) & body for side in _lungs(blocks, body, block_mm)]
    sound = all(LEAST_MM3 <= side.sum() * block_mm.prod() <= MOST_MM3 for side in sides)
    return LungField(_unblocked(sides[0] | sides[1] if sound else body, factors, hu.shape), sound)


def body_mask(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """The body in a CT, `(Z, Y, X)`, with the air inside it and without the table; all of an image without tissue.

    Arguments as of `lung_field`.
    """
    blocks, factors = _blocks(hu, spacing_mm)
    return _unblocked(_body(blocks), factors, hu.shape)


def _blocks(hu: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, list[int]]:
    """Mean HU of blocks of voxels, and the voxels along each axis of a block; the last one may be smaller."""
    factors = [max(1, int(BLOCK_MM / mm + 1e-6)) for mm in spacing_mm]
    means = hu
    for axis, factor in enumerate(factors):
        rows = np.moveaxis(means, axis, 0)
        sums = rows[::factor].astype(np.float32)
        for offset in range(1, factor):
            part = rows[offset::factor]
            sums[:len(part)] += part
        counts = np.minimum(factor, np.arange(len(rows), 0, -factor, dtype=np.float32))
        means = np.moveaxis(sums / counts[:, None, None], 0, axis)
    return means, factors


def _unblocked(mask: np.ndarray, factors: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    z, y, x = shape
    mask = mask.repeat(factors[2], 2)[:, :, :x].repeat(factors[1], 1)[:, :y].repeat(factors[0], 0)[:z]
    return np.ascontiguousarray(mask)


def _body(blocks: np.ndarray) -> np.ndarray:
    """The largest part of what is no air, once level sheets of two blocks, such as tables, are gone; filled."""
    core = ndimage.binary_erosion(blocks >= AIR_HU, _UPRIGHT, border_value=1)
    parts, count = ndimage.label(ndimage.binary_dilation(core, _UPRIGHT), _FACES)
    if count == 0:
        return np.ones(blocks.shape, bool)
    return _filled(parts == 1 + np.bincount(parts.ravel())[1:].argmax())


def _lungs(blocks: np.ndarray, body: np.ndarray, block_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Air of the lungs on either side of the body's midline."""
    across = body.sum(axis=(0, 1)).cumsum()
    middle = int(np.searchsorted(across, across[-1] / 2))
    air = blocks < AIR_HU
    air &= ~_airways(air & body, middle, block_mm)
    air &= ~_reaching_the_rim(air, _FACES)  # through the airways the lungs would be outside, too
    parts, _ = ndimage.label(air & body, _FACES)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    sizes[np.argsort(sizes)[:-2]] = 0
    lungs = (sizes * block_mm.prod() >= LEAST_MM3)[parts]
    left, right = lungs.copy(), lungs
    left[..., middle:] = False  # lungs that touch in front of the heart are one part
    right[..., :middle] = False
    return left, right


def _airways(air: np.ndarray, middle: int, block_mm: np.ndarray) -> np.ndarray:
    """Small regions of a slice beside the body's midline: trachea, the bronchi below it, an oesophagus with air."""
    regions, _ = ndimage.label(air, _IN_PLANE)
    small = np.bincount(regions.ravel()) * block_mm[1] * block_mm[2] < AIRWAY_MM2
    near = AIRWAY_FROM_MIDLINE_MM / block_mm[2]
    central = [middle - near <= box[2].start and box[2].stop - 1 <= middle + near
               for box in ndimage.find_objects(regions)]
    return (small & [False, *central])[regions]


def _reaching_the_rim(mask: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Parts of a mask that touch the first or last row or column; the first and last slice may cut lungs."""
    parts, count = ndimage.label(mask, neighbours)
    reaches = np.zeros(count + 1, bool)
    reaches[parts[:, [0, -1]]] = reaches[parts[:, :, [0, -1]]] = True
    reaches[0] = False
    return reaches[parts]


def _filled(mask: np.ndarray) -> np.ndarray:
    """Holes filled slice by slice."""
    return ~_reaching_the_rim(~mask, _IN_PLANE)


def _closed(mask: np.ndarray, block_mm: np.ndarray) -> np.ndarray:
    """Morphological closing by a ball of `CLOSING_MM`, beyond the edges of the image too."""
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return mask
    margin = [int(CLOSING_MM / mm) + 2 for mm in block_mm]
    padded = np.pad(mask[box[0]], [(n, n) for n in margin])
    grown = ndimage.distance_transform_edt(~padded, block_mm) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, block_mm) > CLOSING_MM
    out = mask.copy()
    out[box[0]] |= closed[tuple(slice(n, -n) for n in margin)]
    return out
