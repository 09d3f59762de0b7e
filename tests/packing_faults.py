"""What the tests of the store's faults run in processes of their own (see `apart`)."""

from __future__ import annotations

import resource
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import nibabel  # noqa: F401 - imported when first needed; here it is imported once for all that are killed
import numpy as np
import pytest
import scipy.ndimage  # noqa: F401

from megavox.cohort.case import Case
from megavox.core.errors import MachineError
from megavox.core.files import write_json
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti
from megavox.images.prepare import Preparation
from megavox.phantoms import write_segment_cohort
from megavox.store.build import build_store
from megavox.store.pack import case_key, pack_case
from small_cohort import ORGAN_TASK, VOLUME, organ_cases, tiny_case

SEED = 3


def same_case(folder: Path, number: int) -> Case:
    """A case whose voxels do not depend on its number; its files are written once."""
    if not (folder / "one_mask.nii").exists():
        tiny_case(folder, "one")
    return Case(f"case{number}", f"s{number}", "", ((folder / "one.nii",),), (folder / "one_mask.nii",))


def pack_one(root: Path, number: int) -> Generator[None, None, None]:
    """Pack case `number` into `root`; its files lie beside."""
    case = same_case(root.parent, number)
    yield
    pack_case(root / case_key(case.name, SEED), case, VOLUME, ORGAN_TASK, SEED)


def pack_until_full(root: Path) -> None:
    """Pack on a disk that is too small for all."""
    source = root.parent / "source"
    write_segment_cohort(source, 6)
    cases = organ_cases(source)
    with pytest.raises(MachineError, match="No space left on device") as caught:
        build_store(root / "store", cases, VOLUME, ORGAN_TASK, seed=SEED, workers=2, one_mask_a_class=False)
    assert str(root / "store") in str(caught.value)
    folders = {path.name for path in (root / "store").iterdir()}
    packed = [case for case in cases if case_key(case.name, SEED) in folders]
    assert 0 < len(packed) < len(cases) and len(folders) == len(packed), "only whole cases are left"
    records, _ = build_store(root / "store", packed, VOLUME, ORGAN_TASK, seed=SEED, workers=1, one_mask_a_class=False)
    assert len(records) == len(packed), "what was finished is kept"


def pack_with_deadly_files(root: Path) -> None:
    """Pack cases of which some end the process that opens them, and one that cannot be read."""
    source = root / "source"
    source.mkdir()
    cases = [replace(same_case(source, n), name=f"case{n}") for n in range(7)]
    for number in (1, 6):
        deadly = source / f"deadly{number}.nii"
        deadly.write_bytes((source / "one.nii").read_bytes())
        cases[number] = replace(cases[number], images=((deadly,),))
    (source / "cut.nii").write_bytes((source / "one.nii").read_bytes()[:600])
    cases[2] = replace(cases[2], images=((source / "cut.nii",),))
    records, rejected = build_store(root / "store", cases, VOLUME, ORGAN_TASK, seed=SEED, workers=1,
                                    one_mask_a_class=False)
    write_json(root / "outcome.json", {"packed": sorted(records), "rejected": [asdict(one) for one in rejected]})


def pack_beyond_memory(root: Path) -> None:
    """Pack cases, of which one would be huge when resampled and one says so in its header, with 6 GiB of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    cases = [tiny_case(root, f"case{number}") for number in range(5)]
    metres = Geometry((8, 9, 7), (1000.0, 1500.0, 2000.0))
    write_nifti(root / "case1.nii", np.arange(504, dtype=np.int16).reshape(1, 7, 9, 8), metres)
    write_nifti(root / "case1_mask.nii", np.ones((1, 7, 9, 8), np.uint8), metres)
    header = bytearray((root / "case3.nii").read_bytes()[:352])
    header[42:48] = np.array([1550, 1550, 1550], "<i2").tobytes()
    with (root / "case3.nii").open("wb") as stream:
        stream.write(header)
        stream.truncate(352 + 2 * 1550**3)  # sparse
    records, rejected = build_store(root / "store", cases, Preparation(3, 1, spacing_mm=(1.0, 1.0, 1.0)), ORGAN_TASK,
                                    seed=SEED, workers=2, one_mask_a_class=False)
    write_json(root / "outcome.json", {"packed": sorted(records), "rejected": [asdict(one) for one in rejected]})


def pack_hungry(root: Path) -> None:
    """Pack small cases, of which one finds no memory the first time that it is read."""
    cases = [tiny_case(root, name) for name in ("a", "hungry", "b")]
    records, rejected = build_store(root / "store", cases, VOLUME, ORGAN_TASK, seed=SEED, workers=2,
                                    one_mask_a_class=False)
    write_json(root / "outcome.json", {"packed": sorted(records), "rejected": [asdict(one) for one in rejected]})
