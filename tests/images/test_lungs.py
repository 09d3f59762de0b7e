"""The lung field on chests of ellipsoids, whose lungs are known, with what stands beside patients or grows in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from megavox.images import read_image
from megavox.images.lungs import LungField, body_mask, lung_field

MM = (4.0, 3.0, 3.0)
SHAPE = (75, 113, 140)
RIGHT, LEFT = ((0, 0, -75), (110, 75, 55)), ((0, 0, 75), (105, 70, 50))  # centre and radii, z, y, x in mm
LUNG, TISSUE, AIR = -850, 40, -1000


class Chest:
    """A body of elliptic cross-section; `mm` are coordinates from its middle, z, y (to the back) and x."""

    def __init__(self, lungs: Sequence[tuple[Sequence[float], Sequence[float]]] = (RIGHT, LEFT),
                 shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = MM,
                 body_mm: tuple[float, float] = (125, 180)) -> None:
        self.spacing = spacing
        self.mm = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)),
                              indexing="ij", sparse=True)
        self.body = self.ellipsoid((0, 0, 0), (1e6, *body_mm))
        self.hu = np.where(self.body, TISSUE, AIR).astype(np.int16)
        self.lungs = np.zeros(shape, bool)
        for lung in lungs:
            self.lungs |= self.ellipsoid(*lung)
        self.hu[self.lungs] = LUNG
        self.hu += np.random.default_rng(0).normal(0, 30, shape).astype(np.int16)

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip(self.mm, centre, radii, strict=True)) < 1  # type: ignore

    def tube(self, start: Sequence[float], end: Sequence[float], radius: float) -> np.ndarray:
        way = np.subtract(end, start).astype(float)
        along = np.clip(sum((a - s) * w for a, s, w in zip(self.mm, start, way, strict=True)) / (way @ way), 0, 1)
        away = sum((a - s - along * w) ** 2 for a, s, w in zip(self.mm, start, way, strict=True))
        return away < radius**2

    def box(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        return np.logical_and.reduce(np.broadcast_arrays(*(
            (a >= lo) & (a <= hi) for a, lo, hi in zip(self.mm, low, high, strict=True))))

    def found(self) -> LungField:
        return lung_field(self.hu, self.spacing)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_two_ellipsoids_whichever_way_the_axes_run(flips: tuple[int, ...]) -> None:
    chest = Chest()
    chest.hu = np.flip(chest.hu, flips)
    field = chest.found()
    assert field.sound and field.mask.shape == SHAPE and field.mask.dtype == bool
    assert dice(field.mask, np.flip(chest.lungs, flips)) >= 0.99


@pytest.mark.parametrize(("shape", "spacing"), [((126, 170, 175), (2.4, 2.0, 2.4)), ((120, 271, 350), (2.5, 1.25, 1.2)),
                                                ((50, 170, 210), (6.0, 2.0, 2.0))])
def test_the_volume_is_that_of_the_formula_on_any_grid(shape, spacing) -> None:
    chest = Chest(shape=shape, spacing=spacing)
    field = chest.found()
    expected = sum(4 / 3 * np.pi * np.prod(radii) for _, radii in (RIGHT, LEFT))
    assert field.mask.shape == shape and field.sound
    assert field.mask.sum() * np.prod(spacing) == pytest.approx(expected, rel=0.02)
    assert dice(field.mask, chest.lungs) >= 0.98


def test_table_arms_and_a_padded_field_of_view() -> None:
    chest = Chest()
    table = chest.box((-1e6, 122, -190), (1e6, 165, 190))  # the body lies on it
    foam = chest.box((-1e6, 127, -186), (1e6, 160, 186))
    chest.hu[table] = -100
    chest.hu[foam] = -930
    for side in (-1, 1):  # an arm that touches the body, and a gap between them that is open below the elbow
        arm = chest.box((-60, -20, min(151 * side, 205 * side)), (1e6, 90, max(151 * side, 205 * side)))
        gap = chest.tube((-1e3, 70, 180 * side), (1e3, 70, 180 * side), 14)
        chest.hu[arm & ~chest.body & ~gap] = TISSUE
    corners = ~chest.ellipsoid((0, 0, 0), (1e6, 175, 208))
    chest.hu[corners] = -3024
    field = chest.found()
    assert field.sound and dice(field.mask, chest.lungs) >= 0.98
    assert not (body_mask(chest.hu, MM) & foam).any()


def test_airways_and_vessels() -> None:
    chest = Chest()
    trachea = chest.tube((0, -10, 0), (1e3, -10, 0), 9)
    bronchi = chest.tube((0, -10, 0), (-25, 0, 50), 6) | chest.tube((0, -10, 0), (-25, 0, -50), 6)
    vessels = np.logical_or.reduce([chest.tube((z, y, x), (z + 20, y, x + 20), 3)
                                    for z in (-50, 0, 50) for y in (-40, 0, 40) for x in (-95, -75, 60, 80)])
    chest.hu[trachea | bronchi] = AIR
    chest.hu[vessels & chest.lungs] = TISSUE
    field = chest.found()
    above = trachea & (chest.mm[0] > 15)
    assert field.sound and field.mask[above].mean() < 0.02
    assert field.mask[vessels & chest.lungs].mean() > 0.98 and dice(field.mask, chest.lungs) >= 0.98


@pytest.mark.parametrize("radius", [4.0, 8.0, 12.0, 15.0])
def test_a_ball_on_the_pleura_lies_inside(radius: float) -> None:
    chest = Chest(shape=(100, 161, 200), spacing=(2.5, 2.1, 2.1))
    place = (0.0, 0.0, -75 - 55 + radius / 2)  # its centre is half a radius from the wall of the right lung
    ball = chest.ellipsoid(place, (radius,) * 3) & chest.lungs
    chest.hu[ball] = TISSUE
    field = chest.found()
    centre = chest.ellipsoid(place, (2.0, 2.0, 2.0))
    assert field.sound and centre.any() and field.mask[centre].all() and field.mask[ball].mean() >= 0.85


@pytest.mark.parametrize("cut", [slice(14, None), slice(None, 62), slice(15, 60)])
def test_lungs_cut_by_the_first_or_last_slice(cut: slice) -> None:
    chest = Chest()
    field = lung_field(chest.hu[cut], MM)
    assert field.sound and dice(field.mask, chest.lungs[cut]) >= 0.98
    assert field.mask[0].any() == chest.lungs[cut][0].any() and field.mask[-1].any() == chest.lungs[cut][-1].any()


def test_lungs_that_touch_in_front_of_the_heart_and_behind_it_leave_the_heart_out() -> None:
    chest = Chest()
    bridges = chest.box((-20, -45, -60), (20, -35, 60)) | chest.box((-20, 35, -60), (20, 45, 60))
    chest.hu[bridges] = LUNG
    heart = chest.box((-15, -25, -15), (15, 25, 15))
    field = chest.found()
    assert field.sound and dice(field.mask, chest.lungs | bridges) >= 0.98 and not field.mask[heart].any()


def test_gas_in_the_stomach_is_no_lung() -> None:
    chest = Chest([((40, 0, -75), (90, 75, 55)), ((40, 0, 75), (90, 70, 50))])
    stomach = chest.ellipsoid((-120, -20, 60), (25, 40, 45))
    chest.hu[stomach] = AIR
    field = chest.found()
    assert field.sound and not field.mask[stomach].any()


@pytest.mark.parametrize("lungs", [
    (), (RIGHT,), (RIGHT, ((0, 0, 75), (50, 40, 40))), (((0, 0, -75), (40, 40, 40)),),
    (RIGHT, ((0, 0, 85), (149, 100, 80)))], ids=["none", "one", "a small one", "one small one", "a large one"])
def test_without_a_plausible_lung_on_each_side_the_whole_body_is_taken(lungs) -> None:
    chest = Chest(lungs, body_mm=(150, 200))
    field = chest.found()
    assert not field.sound and dice(field.mask, chest.body) >= 0.98
    np.testing.assert_array_equal(field.mask, body_mask(chest.hu, MM))


@pytest.mark.parametrize("shape", [(1, 113, 140), (1, 1, 1), (3, 2, 5)])
@pytest.mark.parametrize("value", [AIR, TISSUE])
def test_an_image_without_a_chest_is_taken_whole(shape: tuple[int, int, int], value: int) -> None:
    field = lung_field(np.full(shape, value, np.int16), MM)
    assert not field.sound and field.mask.all() and field.mask.shape == shape


def test_a_slice_of_a_patient_drawn_out_to_a_chest(shared_data) -> None:
    """Single slices are at hand only: one, repeated over 25 cm. All air of the lungs is found, and little else."""
    image = read_image(shared_data / "ct_prior_current_nysbu" / "A048383" / "19001231-30.dcm")
    hu = np.repeat(image.array.reshape(1, *image.geometry.shape[1:]), 50, 0)
    spacing = (5.0, *image.geometry.spacing_zyx[1:])
    field = lung_field(hu, spacing)
    inner = ndimage.binary_erosion(body_mask(hu, spacing)[25], iterations=15)
    aerated = ndimage.binary_opening((hu[25] < -600) & inner, iterations=2)
    assert field.sound and field.mask[25][aerated].mean() > 0.97
    assert (hu[25][field.mask[25]] < -500).mean() > 0.85
