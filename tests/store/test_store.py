"""The store: standard files that others can read, exact voxels, packing that can be resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from megavox.cohort.case import Case
from megavox.core.errors import StoreError, WorkspaceError
from megavox.images.formats import read_image
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.prepare import Preparation
from megavox.images.raster import write_raster
from megavox.images.reorient import to_lps
from megavox.phantoms import radiograph, write_segment_cohort
from megavox.store.build import build_store, write_index
from megavox.store.layout import IGNORE, Record, write_arrays
from megavox.store.pack import MOST_POSITIONS, case_key, class_positions, pack_case, smallest_exact
from megavox.store.read import INDEX, CachedArrays, CaseReader, Store
from megavox.study.sections import SegmentTask
from small_cohort import ORGAN_TASK, PICTURE, PICTURE_TASK, VOLUME, organ_cases, tiny_case, voxel_case


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three organs, packed by the real build: (store's folder, cases, records by name)."""
    folder = tmp_path_factory.mktemp("organs")
    write_segment_cohort(folder, 3, seed=4)
    cases = organ_cases(folder)
    records, rejected = build_store(folder / "store", cases, VOLUME, ORGAN_TASK, seed=3, workers=2,
                                    one_mask_a_class=False)
    assert not rejected and set(records) == {case.name for case in cases}
    write_index(folder / "store", list(records.values()))
    return folder / "store", cases, records


def packed_voxels(folder: Path, array: np.ndarray) -> tuple[Record, np.ndarray]:
    record = pack_case(folder / "key", voxel_case(folder, array), VOLUME, PICTURE_TASK, seed=0)
    return record, zarr.open_array(folder / "key" / "0", mode="r")[:]


def test_plain_zarr_reads_the_same_voxels(packed):
    store, cases, records = packed
    for case in cases:
        group = zarr.open_group(store / records[case.name].key, mode="r")
        image, mask = to_lps(read_image(case.images[0][0])), to_lps(read_image(case.masks[0]))
        np.testing.assert_array_equal(group["0"][:], image.array)
        np.testing.assert_array_equal(group["labels/mask/0"][:], mask.array[0])
        assert group["0"].dtype == np.int16 and group["labels/mask/0"].dtype == np.uint8
        assert records[case.name].geometry == image.geometry


def test_one_shard_a_volume_with_checked_lz4hc_chunks(packed):
    store, cases, records = packed
    for name, lead in (("0", (1,)), ("labels/mask/0", ())):
        record = records[cases[0].name]
        array = zarr.open_array(store / record.key / name, mode="r")
        assert array.chunks == ((1, 16, 16, 32) if lead else (32, 32, 32))
        assert all(s >= n and s % c == 0 for s, n, c in zip(array.shards, array.shape, array.chunks, strict=True))
        assert [path for path in (store / record.key / name / "c").rglob("*") if path.is_file()] == [
            (store / record.key / name / "c").joinpath(*"0" * len(array.shape))]
        metadata = json.loads((store / record.key / name / "zarr.json").read_text())
        (sharding,) = metadata["codecs"]
        inner = {codec["name"]: codec.get("configuration", {}) for codec in sharding["configuration"]["codecs"]}
        assert list(inner) == ["bytes", "blosc", "crc32c"]
        shuffle = "noshuffle" if name.endswith("mask/0") else "shuffle"
        assert (inner["blosc"]["cname"], inner["blosc"]["shuffle"]) == ("lz4hc", shuffle)
        assert inner["blosc"]["typesize"] == array.dtype.itemsize
        assert sharding["configuration"]["index_codecs"][-1]["name"] == "crc32c"
        assert metadata["dimension_names"] == ["c", "z", "y", "x"][-len(array.shape):]


def test_ome_metadata_has_scales_and_origin_in_mm(packed):
    store, cases, records = packed
    spacings = set()
    for case in cases:
        record = records[case.name]
        for group, lead in (("", [1.0]), ("labels/mask", [])):
            ome = dict(zarr.open_group(store / record.key / group, mode="r").attrs)["ome"]
            (scales,) = ome["multiscales"]
            assert ome["version"] == "0.5"
            assert [axis.get("unit") for axis in scales["axes"][-3:]] == ["millimeter"] * 3
            scale, translation = scales["datasets"][0]["coordinateTransformations"]
            assert scale["scale"] == [*lead, *record.geometry.spacing_zyx]
            assert translation["translation"] == [*(0.0 for _ in lead), *record.geometry.origin[::-1]]
        spacings.add(record.spacing_mm)
    assert len(spacings) > 1, "the phantoms should differ in spacing"


def test_ngff_is_valid(packed):
    models = pytest.importorskip("ome_zarr_models.v05", reason="ome-zarr-models validates NGFF, but is no dependency")
    store, cases, records = packed
    for case in cases:
        group = zarr.open_group(store / records[case.name].key, mode="r")
        assert models.Image.from_zarr(group).ome_attributes.version == "0.5"
        label = models.ImageLabel.from_zarr(group["labels/mask"])
        assert label.ome_attributes.multiscales[0].axes[0].unit == "millimeter"
        assert models.Labels.from_zarr(group["labels"]).ome_attributes.labels == ["mask"]


@pytest.mark.parametrize(("array", "kind"), [
    (np.array([-1024, 3071], np.int16), np.int16), (np.array([0, 255], np.uint8), np.uint8),
    (np.array([0, 65535], np.uint16), np.uint16), (np.array([0, 200], np.int16), np.uint8),
    (np.array([-1.0, 1000.0], np.float32), np.int16), (np.array([0.0, 40000.0], np.float32), np.uint16),
    (np.array([0.0, 0.5], np.float32), np.float32), (np.array([-5, 70000], np.int32), np.float32),
    (np.array([0.0, 1e30], np.float32), np.float32), (np.array([-0.25, 1e-3], np.float64), np.float32)])
def test_values_are_kept_in_the_smallest_exact_type(tmp_path, array, kind):
    volume = np.resize(array, (5, 6, 7))
    kept = smallest_exact(volume)
    assert kept.dtype == kind
    record, stored = packed_voxels(tmp_path, volume)
    assert stored.dtype == kind and record.shape == (1, 5, 6, 7)
    np.testing.assert_array_equal(stored[0], volume.astype(np.float32))


def test_the_voxels_kept_for_sampling_have_their_class(packed):
    store, cases, records = packed
    for case in cases:
        reader = CaseReader(store / records[case.name].key, records[case.name], case.name)
        mask = reader.mask((0, 0, 0), reader.record.shape[1:])
        found = reader.positions.astype(int)
        np.testing.assert_array_equal(mask[tuple(found[:, 1:].T)], found[:, 0])
        for number in (1, 2):
            rows = found[found[:, 0] == number]
            assert len(rows) == len(np.unique(rows, axis=0)) == min((mask == number).sum(), MOST_POSITIONS)
        assert records[case.name].voxels == ((mask == 1).sum(), (mask == 2).sum())


def test_kept_voxels_are_spread_evenly_and_depend_on_the_generator():
    mask = np.ones((40, 40, 40), np.uint8)
    mask[20:] = IGNORE
    first, again, other = (class_positions(mask, (1, 2), np.random.default_rng(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) == MOST_POSITIONS and (first != other).any() and first[:, 1].max() == 19
    expected = (19 / 2, 39 / 2, 39 / 2)
    np.testing.assert_allclose(first[:, 1:].mean(axis=0), expected, atol=0.3)
    assert class_positions(np.zeros((4, 4), np.uint8), (1, 2), np.random.default_rng(0)).shape == (0, 3)


def test_ignored_voxels_and_merged_values(tmp_path):
    case = tiny_case(tmp_path, "a")
    task = SegmentTask(kind="segment", classes={"both": [1, 2]}, ignore=[])
    pack_case(tmp_path / "both", case, VOLUME, task, seed=0)
    task = SegmentTask(kind="segment", classes={"two": 2}, ignore=[1])
    record = pack_case(tmp_path / "ignore", case, VOLUME, task, seed=0)
    mask = read_image(case.masks[0]).array[0]
    both, ignore = (zarr.open_array(tmp_path / name / "labels/mask/0", mode="r")[:] for name in ("both", "ignore"))
    np.testing.assert_array_equal(both, mask > 0)
    np.testing.assert_array_equal(ignore, np.array([0, IGNORE, 1])[mask])
    assert record.voxels == ((mask == 2).sum(),)


def test_one_mask_a_class_later_over_earlier(tmp_path):
    case = tiny_case(tmp_path, "a")
    geometry = read_image(case.images[0][0]).geometry
    first, second = np.zeros((2, 7, 9, 8), np.uint8)
    first[:4], second[3:5] = 255, 1
    for name, mask in (("m1", first), ("m2", second)):
        write_nifti(tmp_path / f"{name}.nii", mask[None], geometry)
    two = Case("a", "a", "", case.images, (tmp_path / "m1.nii", tmp_path / "m2.nii"))
    pack_case(tmp_path / "key", two, VOLUME, ORGAN_TASK, 0, one_mask_a_class=True)
    stored = zarr.open_array(tmp_path / "key/labels/mask/0", mode="r")[:]
    assert stored[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 0, 0]


def test_a_picture_is_stored_in_two_dimensions(tmp_path):
    pixels = radiograph(1, 1, 1, ["opacity"]).pixels
    write_raster(tmp_path / "a.png", pixels[None])
    case = Case("a", "a", "", ((tmp_path / "a.png",),), labels=("opacity",), unknown=("effusion",))
    record = pack_case(tmp_path / "key", case, PICTURE, PICTURE_TASK, seed=0)
    assert record.shape == (1, *pixels.shape) and record.spatial_dims == 2 and record.spacing_mm == (1.0, 1.0)
    assert (record.classes, record.unknown, record.voxels) == ((0,), (1,), ())
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "key/0", mode="r")[0], pixels)
    assert not (tmp_path / "key" / "labels").exists()


def test_resampled_images_and_masks_share_a_grid(tmp_path):
    case = tiny_case(tmp_path, "a")
    record = pack_case(tmp_path / "key", case, Preparation(3, 1, spacing_mm=(1.0, 1.0, 1.0)), ORGAN_TASK, seed=0)
    group = zarr.open_group(tmp_path / "key", mode="r")
    assert group["0"].shape[1:] == group["labels/mask/0"].shape == record.shape[1:] == (14, 14, 8)
    assert record.original.spacing_zyx == (2.0, 1.5, 1.0) and record.spacing_mm == (1.0, 1.0, 1.0)
    assert set(np.unique(group["labels/mask/0"])) == {0, 1, 2}


def test_boxes_are_those_of_the_whole_array(packed):
    store, cases, records = packed
    reader = Store(store).reader(records[cases[0].name].key, "a")
    shape = reader.record.shape[1:]
    image, mask = reader.image((0, 0, 0), shape), reader.mask((0, 0, 0), shape)
    rng = np.random.default_rng(0)
    cached, tiny = CachedArrays(), CachedArrays(most=1)
    for _ in range(20):
        start = rng.integers(0, shape)
        stop = rng.integers(start, shape) + 1
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        for way in (cached, tiny):
            np.testing.assert_array_equal(way.box(reader, "image", start, stop), image[:, *box])
            np.testing.assert_array_equal(way.box(reader, "mask", start, stop), mask[box])


def test_the_cache_keeps_to_its_bytes(packed):
    store, cases, records = packed
    readers = [CaseReader(store / records[case.name].key, replace(records[case.name], key=f"{case.name} {n}"), "a")
               for n in range(10) for case in cases]
    cache = CachedArrays(most=32 * 48 * 48 * 48)
    for reader in [*readers, readers[-1]]:
        whole = cache.box(reader, "image", (0, 0, 0), reader.record.shape[1:])
        np.testing.assert_array_equal(whole, reader.image((0, 0, 0), reader.record.shape[1:]))
        held = list(cache._arrays.values())
        assert 0 < sum(array.nbytes for array in held) == cache._bytes <= cache._most
    assert 10 < len(held) < len(readers) and np.shares_memory(held[-1], whole)


def test_opening_reads_one_file_and_records_come_back(packed, monkeypatch):
    store, _, records = packed
    opened = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: opened.append(path.name) or real(path, *a, **k))
    found = Store(store).records
    assert opened == [INDEX]
    assert found == {record.key: record for record in records.values()}


def test_a_second_build_writes_nothing(packed):
    store, cases, records = packed

    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in store.rglob("*")}

    before = state()
    again, rejected = build_store(store, cases, VOLUME, ORGAN_TASK, seed=3, workers=1, one_mask_a_class=False)
    assert state() == before and again == records and not rejected


def test_nothing_in_the_store_names_a_patient(packed):
    store, cases, _ = packed
    secrets = [case.name.encode() for case in cases] + [b"imagesTr", str(store.parent).encode()]
    for path in store.rglob("*"):
        assert not any(secret in str(path.relative_to(store)).encode() for secret in secrets)
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), path
    assert case_key("a", 1) != case_key("a", 2) != case_key("b", 2) and case_key("a", 1) == case_key("a", 1)


def test_what_is_not_packed_is_named(packed, tmp_path):
    store, _, _ = packed
    with pytest.raises(WorkspaceError, match="not there"):
        Store(tmp_path)
    with pytest.raises(StoreError, match=r"case 9 .*no packed case ff00"):
        Store(store).reader("ff00", "case 9")


def test_a_small_image_has_small_chunks_and_many_channels_one_shard(tmp_path):
    rng = np.random.default_rng(0)
    channels = [rng.integers(0, 90, (1, 6, 40, 70)).astype(np.int16) for _ in range(3)]
    for number, array in enumerate(channels):
        write_nifti(tmp_path / f"{number}.nii", array, Geometry((70, 40, 6)))
    case = Case("a", "a", "", tuple((tmp_path / f"{n}.nii",) for n in range(3)), labels=("opacity",))
    record = pack_case(tmp_path / "key", case, Preparation(3, 3), PICTURE_TASK, seed=0)
    array = zarr.open_array(tmp_path / "key/0", mode="r")
    assert array.chunks == (1, 6, 16, 32) and array.shards == (3, 6, 48, 96) and len(record.bytes) == 1
    np.testing.assert_array_equal(array[:], np.concatenate(channels))
    assert [one["mean"] for one in record.intensities] == pytest.approx([c.mean() for c in channels], abs=0.5)


@pytest.mark.parametrize(("pixels", "level"), [
    (np.random.default_rng(0).integers(0, 256, (1, 300, 280)), 0),
    (np.arange(300 * 280).reshape(1, 300, 280) // 280, 5)])
def test_pictures_that_hardly_compress_are_stored_as_they_are(tmp_path, pixels, level):
    picture = pixels.astype(np.uint8)
    write_arrays(tmp_path / "case", picture, None, Geometry((280, 300, 1)))
    metadata = json.loads((tmp_path / "case/0/zarr.json").read_text())
    blosc = metadata["codecs"][0]["configuration"]["codecs"][1]["configuration"]
    assert blosc["clevel"] == level
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "case/0", mode="r")[:], picture)
