"""Drawing and augmentation: pure functions of their place, exact where they can be, and aligned."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from megavox.batches.apply import sample_patch, source_box, spatial_matrix
from megavox.batches.parameters import Augmentation, draw_augmentation, draw_case, draw_centre
from megavox.images.intensity import normalise
from megavox.study.sections import AugmentSection
from packed_arrays import WILD, packed, samples_of, three_cases

seeds = st.integers(0, 2**40)
dimensions = st.sampled_from([2, 3])


def patch_of(image: np.ndarray, matrix: np.ndarray, centre: np.ndarray, patch: tuple[int, ...], order: int = 1,
             outside: np.ndarray | None = None) -> np.ndarray:
    """`sample_patch` of an array in memory."""
    def read(start: list[int], stop: list[int]) -> np.ndarray:
        assert all(0 <= a < b <= n for a, b, n in zip(start, stop, image.shape[1:], strict=True))
        return image[(slice(None), *map(slice, start, stop))]

    return sample_patch(read, matrix, centre, patch, image.shape[1:],
                        np.zeros(len(image)) if outside is None else outside, order, lambda box: box)


def places(matrix: np.ndarray, centre: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
    """Image position of each patch voxel, `(d, *patch)`."""
    half = (np.array(patch) - 1) / 2
    offsets = np.indices(patch).reshape(len(patch), -1) - half[:, None]
    return (matrix @ offsets + centre[:, None]).reshape(len(patch), *patch)


@st.composite
def affines(draw: st.DrawFn, dims: int) -> np.ndarray:
    """Rotations in mm with a scale, as a study may ask for."""
    section = AugmentSection(affine_p=1, rotation_deg=draw(st.floats(0, 180)), scale=draw(st.floats(0, 0.5)), shift=0)
    rng = np.random.default_rng(draw(seeds))
    found = draw_augmentation(rng, section, (1.0,) * dims, (8,) * dims).affine
    assert found is not None
    return found


@st.composite
def looks(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    """An image of two channels, a patch size and a centre, which may lie outside."""
    dims = draw(dimensions)
    shape = draw(st.tuples(*[st.integers(1, 12)] * dims))
    patch = draw(st.tuples(*[st.integers(1, 10)] * dims))
    image = np.random.default_rng(draw(seeds)).normal(size=(2, *shape)).astype(np.float32)
    return image, patch, np.array([draw(st.floats(-6, n + 6)) for n in shape])


@st.composite
def permutations(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], np.ndarray, Augmentation]:
    """As `looks`, with mirrors and quarter turns, and the patch's voxels on the image's."""
    image, patch, centre = draw(looks())
    dims = len(patch)
    first, second = sorted(draw(st.permutations(range(dims)))[:2])
    patch = tuple(patch[first] if axis == second else n for axis, n in enumerate(patch))
    times = draw(st.integers(0, 3))
    mirror = draw(st.tuples(*[st.booleans()] * dims))
    change = Augmentation(mirror, (first, second, times) if times else None)
    half = np.abs(spatial_matrix(change, (1.0,) * dims)) @ ((np.array(patch) - 1) / 2)
    return image, patch, np.rint(centre - half) + half, change


# ---------------------------------------------------------------- geometry


@given(permutations())
def test_copying_whole_voxels_equals_looking_each_of_them_up(look):
    image, patch, centre, change = look
    matrix = spatial_matrix(change, (1.0,) * len(patch))
    outside = np.array([7.0, -3.0])
    found = patch_of(image, matrix, centre, patch, outside=outside)
    at = places(matrix, centre, patch)
    index = np.rint(at).astype(int)
    assert np.abs(at - index).max() < 1e-9
    size = np.array(image.shape[1:]).reshape(-1, *[1] * len(patch))
    inside = ((index >= 0) & (index < size)).all(axis=0)
    expected = image[(slice(None), *np.clip(index, 0, size - 1))]
    np.testing.assert_array_equal(found, np.where(inside, expected, outside.reshape(-1, *[1] * len(patch))))


@given(permutations())
def test_copying_whole_voxels_equals_interpolating(look):
    image, patch, centre, change = look
    matrix = spatial_matrix(change, (1.0,) * len(patch))
    half = (np.array(patch) - 1) / 2
    for channel, outside in zip(image, (7.0, -3.0), strict=True):
        for order in (0, 1):
            found = patch_of(channel[None], matrix, centre, patch, order, np.array([outside]))[0]
            expected = ndimage.affine_transform(channel, matrix, centre - matrix @ half, patch, order=order,
                                                mode="grid-constant", cval=outside)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@given(looks(), st.data())
def test_reading_only_the_source_box_equals_sampling_the_whole(look, data):
    image, patch, centre = look
    matrix = data.draw(affines(len(patch)))
    half = (np.array(patch) - 1) / 2
    at = places(matrix, centre, patch)
    clear = np.abs(at - np.floor(at) - 0.5).min(axis=0) > 1e-6  # on a tie the last bit decides what is nearest
    outside = np.array([5.0, -5.0])
    for order in (0, 1):
        found = patch_of(image, matrix, centre, patch, order, outside)
        for number in range(2):
            whole = ndimage.affine_transform(image[number], matrix, centre - matrix @ half, patch, order=order,
                                             mode="grid-constant", cval=outside[number])
            np.testing.assert_allclose(found[number][clear], whole[clear], atol=1e-4)


@given(looks(), st.data())
def test_the_source_box_is_no_larger_than_needed(look, data):
    image, patch, centre = look
    matrix = data.draw(affines(len(patch)))
    start, stop = source_box(matrix, centre, patch, image.shape[1:])
    at = places(matrix, centre, patch).reshape(len(patch), -1)
    low, high = np.floor(at.min(axis=1) - 1e-5), np.ceil(at.max(axis=1) + 1e-5)
    size = np.array(image.shape[1:])
    assert (start >= np.clip(low, 0, size - 1)).all() and (stop <= np.clip(high + 1, 1, size)).all()


@given(permutations(), st.data())
def test_a_composed_matrix_equals_its_steps_one_by_one(look, data):
    image, patch, centre, change = look
    dims = len(patch)
    spacing = data.draw(st.tuples(*[st.floats(0.5, 3)] * dims))
    if change.quarter_turns:
        first, second, _ = change.quarter_turns
        spacing = tuple(spacing[first] if axis == second else s for axis, s in enumerate(spacing))
    affine = data.draw(affines(dims))
    every = Augmentation(change.mirror, change.quarter_turns, affine)
    together = patch_of(image, spatial_matrix(every, spacing), centre, patch)
    steps = patch_of(image, spatial_matrix(Augmentation((False,) * dims, None, affine), spacing), centre, patch)
    if change.quarter_turns:
        first, second, times = change.quarter_turns
        steps = np.rot90(steps, -times, axes=(1 + first, 1 + second))
    steps = np.flip(steps, [1 + axis for axis, flip in enumerate(change.mirror) if flip])
    np.testing.assert_allclose(together, steps, atol=1e-4)


@given(dimensions, st.data())
def test_a_smooth_image_is_turned_as_its_formula_says_in_mm(dims, data):
    spacing = np.array(data.draw(st.tuples(*[st.floats(0.8, 2.5)] * dims)))
    affine = data.draw(affines(dims))
    shape, patch = (24,) * dims, (9,) * dims
    wave = np.random.default_rng(data.draw(seeds)).normal(size=dims)
    wave *= 0.15 / np.linalg.norm(wave)  # radians per mm

    def formula(index: np.ndarray) -> np.ndarray:
        return np.sin(np.tensordot(wave * spacing, index, 1))

    centre = np.array(shape) / 2 - 0.5
    image = formula(np.indices(shape)).astype(np.float32)[None]
    found = patch_of(image, spatial_matrix(Augmentation((False,) * dims, None, affine), spacing), centre, patch)[0]
    offsets_mm = (places(np.eye(dims), np.zeros(dims), patch).reshape(dims, -1) * spacing[:, None])
    expected = formula(((affine @ offsets_mm) / spacing[:, None] + centre[:, None]).reshape(dims, *patch))
    at = places(spatial_matrix(Augmentation((False,) * dims, None, affine), spacing), centre, patch)
    inside = ((at > 0) & (at < 23)).all(axis=0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.03)


@given(dimensions, st.data())
def test_a_rotation_keeps_lengths_in_mm_and_scale_changes_them_as_asked(dims, data):
    spacing = np.array(data.draw(st.tuples(*[st.floats(0.3, 6)] * dims)))
    most = data.draw(st.floats(0, 0.9))
    section = AugmentSection(affine_p=1, rotation_deg=180, scale=most)
    found = draw_augmentation(np.random.default_rng(data.draw(seeds)), section, spacing.tolist(), (8,) * dims)
    matrix = spatial_matrix(found, spacing.tolist())
    vectors = np.random.default_rng(0).normal(size=(dims, 20))
    lengths = [np.linalg.norm(spacing[:, None] * v, axis=0) for v in (matrix @ vectors, vectors)]
    factor = lengths[0] / lengths[1]
    np.testing.assert_allclose(factor, factor[0], rtol=1e-9)
    assert 1 / (1 + most) - 1e-9 <= factor[0] <= 1 + most + 1e-9
    if not any(found.mirror):
        assert np.linalg.det(matrix) > 0, "a rotation is no mirror"


def test_a_ball_in_mm_stays_a_ball_on_an_anisotropic_grid():
    spacing, shape, patch = np.array([4.0, 1.0, 1.5]), (15, 61, 41), (11, 41, 27)
    centre = (np.array(shape) - 1) / 2
    away = np.linalg.norm((np.indices(shape) - centre[:, None, None, None]) * spacing[:, None, None, None], axis=0)
    image = (20 - away).clip(-6, 6).astype(np.float32)[None]
    section = AugmentSection(affine_p=1, rotation_deg=90, scale=0, shift=0, mirror=[])
    still = patch_of(image, np.eye(3), centre, patch)
    for seed in range(5):
        found = draw_augmentation(np.random.default_rng(seed), section, spacing.tolist(), patch)
        turned = patch_of(image, spatial_matrix(found, spacing.tolist()), centre, patch, outside=np.array([-6.0]))
        assert np.abs(turned - still).max() < 1.1 < 6 < np.ptp(still)


# ---------------------------------------------------------------- purity, cases, centres


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return three_cases(tmp_path_factory.mktemp("store"))


@settings(max_examples=12)
@given(seeds, st.data(),
       st.lists(st.tuples(st.integers(0, 500), st.integers(0, 3)), min_size=2, max_size=5, unique=True))
def test_a_sample_is_a_function_of_seed_step_and_position(readers, seed, data, wanted):
    one = samples_of(readers, (8, 12, 12), augment=WILD, seed=seed)
    first = {place: one.sample(*place) for place in wanted}
    other = samples_of(readers, (8, 12, 12), augment=WILD, seed=seed)
    np.random.seed(data.draw(st.integers(0, 99)))
    for place in data.draw(st.permutations(wanted)):
        again = other.sample(*place)
        assert again.case == first[place].case
        np.testing.assert_array_equal(again.image, first[place].image)
        np.testing.assert_array_equal(again.target, first[place].target)
    assert len({sample.image.tobytes() for sample in first.values()}) == len(wanted)


def test_samples_differ_by_seed_and_are_what_was_promised(readers):
    made = [samples_of(readers, (8, 12, 12), augment=WILD, seed=seed).sample(0, 0) for seed in (0, 1)]
    assert (made[0].image != made[1].image).any()
    for sample in made:
        assert sample.image.shape == (1, 8, 12, 12) and sample.image.dtype == np.float32
        assert sample.target.shape == (8, 12, 12) and sample.target.dtype == np.uint8 and sample.target.max() <= 2
        assert sample.image.flags.c_contiguous and np.isfinite(sample.image).all()


@given(seeds, st.integers(1, 40), st.integers(1, 9))
def test_every_case_comes_once_an_epoch(seed, cases, batch):
    drawn = [draw_case(seed, index // batch, index % batch, batch, cases) for index in range(3 * cases)]
    for epoch in range(3):
        assert sorted(drawn[epoch * cases:(epoch + 1) * cases]) == list(range(cases))
    if cases > 12:
        assert drawn[:cases] != drawn[cases:2 * cases], "a new order each epoch"


@given(seeds, dimensions, st.data())
def test_a_patch_lies_inside_the_image_where_it_fits_and_is_centred_where_not(seed, dims, data):
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * dims))
    patch = data.draw(st.tuples(*[st.integers(1, 20)] * dims))
    rng = np.random.default_rng(seed)
    voxel = [rng.integers(0, n) for n in shape]
    positions = np.array([[1, *voxel]], np.uint16)
    for foreground in (0.0, 1.0):
        centre = draw_centre(rng, shape, patch, positions, foreground)
        start = centre - (np.array(patch) - 1) / 2
        assert (start == np.rint(start)).all()
        for first, n, size, v in zip(start.astype(int), shape, patch, voxel, strict=True):
            if size <= n:
                assert 0 <= first <= n - size
                if foreground:
                    assert first <= v < first + size
            else:
                assert first == (n - size) // 2


def test_centres_fall_on_classes_equally_often_whatever_their_size():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[:, :, :10], mask[0, 0, 19], mask[5:7, 5:7, 15:17] = 1, 2, 4
    positions = np.concatenate([np.insert(np.argwhere(mask == k), 0, k, axis=1) for k in (1, 2, 4)])
    found = Counter()
    for number in range(3000):
        centre = draw_centre(np.random.default_rng(number), mask.shape, (1, 1, 1), positions, 1.0)
        found[int(mask[tuple(centre.astype(int))])] += 1
    assert set(found) == {1, 2, 4} and stats.chisquare(list(found.values())).pvalue > 1e-3


@pytest.mark.parametrize("foreground", [0.0, 0.3, 1.0])
def test_the_share_of_centres_on_classes_is_as_asked_and_the_rest_are_anywhere(foreground):
    shape, positions = (40, 30), np.array([[1, 33, 4]])
    centres = np.array([draw_centre(np.random.default_rng(n), shape, (3, 3), positions, foreground)
                        for n in range(2000)])
    on = (centres == [33, 4]).all(axis=1)
    assert abs(on.mean() - foreground) < 0.035
    for axis, length in enumerate((38, 28)):
        rest = centres[~on, axis] - 1
        if len(rest):
            assert rest.min() == 0 and rest.max() == length - 1
            assert stats.chisquare(np.bincount(rest.astype(int), minlength=length)).pvalue > 1e-3


def test_without_positions_any_place_is_drawn():
    empty = np.zeros((0, 3), np.uint16)
    assert draw_centre(np.random.default_rng(0), (9, 9), (3, 3), empty, 1.0).shape == (2,)
    assert draw_centre(np.random.default_rng(0), (9, 9), (3, 3), None, 1.0).shape == (2,)


# ---------------------------------------------------------------- image and mask together


@settings(max_examples=30)
@given(st.data())
def test_mask_and_image_stay_aligned_to_the_border(tmp_path_factory, data):
    """A half-space as image and as mask: along its normal linear >= 1/2 is the nearest voxel."""
    dims = data.draw(dimensions)
    shape = data.draw(st.tuples(*[st.integers(6, 14)] * dims))
    axis = data.draw(st.integers(0, dims - 1))
    at = data.draw(st.integers(1, shape[axis] - 1))
    half_space = np.broadcast_to((np.arange(shape[axis]) >= at).reshape([-1 if a == axis else 1 for a in range(dims)]),
                                 shape).astype(np.uint8)
    spacing = data.draw(st.tuples(*[st.sampled_from([0.8, 1.0, 2.0])] * dims))
    reader = packed(tmp_path_factory.mktemp("case") / "k", half_space[None].copy(), half_space.copy(), spacing, 1)
    patch = data.draw(st.tuples(*[st.integers(4, 12)] * dims))
    spatial_only = WILD.model_copy(update={"intensity_p": 0, "gamma_p": 0, "noise_p": 0, "blur_p": 0,
                                           "low_resolution_p": 0, "affine_p": 0.9})
    samples = samples_of([reader], patch, augment=spatial_only, mode="none")
    rng = np.random.default_rng(data.draw(seeds))
    change = draw_augmentation(rng, spatial_only, spacing, patch)
    centre = draw_centre(rng, shape, patch, reader.positions, 0.5)
    image, mask = samples.apply(0, centre, change)
    where = centre + np.asarray(change.shift or 0.0) / spacing
    positions = places(spatial_matrix(change, spacing), where, patch)
    if change.affine is None:  # then it is put on whole voxels
        positions = np.rint(positions)
    other = [(positions[a] >= 0) & (positions[a] <= shape[a] - 1) for a in range(dims) if a != axis]
    clear = np.logical_and.reduce(other) & (np.abs(image[0] - 0.5) > 1e-4)
    np.testing.assert_array_equal(mask[clear], image[0][clear] > 0.5)
    assert set(np.unique(mask)) <= {0, 1} and image.min() >= 0 and image.max() <= 1 + 1e-6


@pytest.mark.parametrize(("shape", "patch"), [
    ((10, 12, 9), (16, 12, 20)), ((7, 30), (12, 16)), ((20, 20, 20), (8, 8, 8))])
def test_unaugmented_patches_are_normalised_crops_with_the_low_percentile_around(tmp_path, shape, patch):
    rng = np.random.default_rng(0)
    image = rng.integers(-50, 900, (2, *shape)).astype(np.int16)
    mask = rng.integers(1, 3, shape).astype(np.uint8)
    reader = packed(tmp_path / "k", image, mask)
    samples = samples_of([reader], patch)
    crops = Counter()
    for step in range(6):
        sample = samples.sample(step, 0)
        for corner in np.ndindex(*(max(n - p, 0) + 1 for n, p in zip(shape, patch, strict=True))):
            start = [c if n >= p else (n - p) // 2 for c, n, p in zip(corner, shape, patch, strict=True)]
            margin = [(max(-s, 0), max(s + p - n, 0)) for s, p, n in zip(start, patch, shape, strict=True)]
            box = tuple(slice(max(s, 0), s + p) for s, p in zip(start, patch, strict=True))
            target = np.pad(mask[box], margin)
            if np.array_equal(target, sample.target):
                low = np.array([[one["p005"]] for one in reader.record.intensities], np.float32)
                outside = normalise(low, samples.numbers[0])[:, 0]
                inside = normalise(image[(slice(None), *box)], samples.numbers[0])
                expected = np.stack([np.pad(channel, margin, constant_values=low)
                                     for channel, low in zip(inside, outside, strict=True)])
                np.testing.assert_allclose(sample.image, expected, atol=1e-5)
                crops[corner] += 1
    assert sum(crops.values()) == 6, "each patch is a crop of the image at one place"
    for one, channel in zip(reader.record.intensities, image, strict=True):
        assert one["p005"] == pytest.approx(np.percentile(channel, 0.5))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_patch_far_outside_is_all_outside_value(tmp_path, dims):
    image = np.random.default_rng(0).integers(0, 99, (1, *[8] * dims)).astype(np.int16)
    reader = packed(tmp_path / "k", image, (image[0] > 50).astype(np.uint8), classes=1)
    samples = samples_of([reader], (4,) * dims)
    low = normalise(np.array([[reader.record.intensities[0]["p005"]]], np.float32), samples.numbers[0])[0, 0]
    for change in (Augmentation((False,) * dims),
                   Augmentation((True,) * dims, None, np.eye(dims) * 0.9, (0.3,) * dims)):
        for centre in (-30.0, 60.0):
            image, mask = samples.apply(0, np.full(dims, centre + 0.5), change)
            assert (image == low).all() and (mask == 0).all()


def test_targets_of_classified_cases(tmp_path):
    image = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    reader = packed(tmp_path / "k", image, labels=(0, 3))
    object.__setattr__(reader.record, "unknown", (2,))
    target = samples_of([reader], (8, 8), classes=4).sample(0, 0).target
    assert target.dtype == np.float32
    np.testing.assert_array_equal(target, [1, 0, np.nan, 1])


def test_changes_do_not_write_into_what_they_are_given(readers):
    samples = samples_of(readers, (8, 8, 8), augment=WILD)
    before = readers[0].image((0, 0, 0), readers[0].record.shape[1:])
    for step in range(10):
        samples.sample(step, 0)
    for reader in readers:
        whole = reader.image((0, 0, 0), reader.record.shape[1:])
        kept = samples._cache.box(reader, "image", (0, 0, 0), reader.record.shape[1:])
        np.testing.assert_array_equal(kept, whole)
    np.testing.assert_array_equal(before, readers[0].image((0, 0, 0), readers[0].record.shape[1:]))
