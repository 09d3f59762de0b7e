"""Packing one case: read, check, prepare, write. Whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from megavox.cohort.case import UNKNOWN_DIAMETER_MM, Case, Finding
from megavox.cohort.drawn import drawn
from megavox.core.errors import LabelError
from megavox.core.files import whole_folder, write_array
from megavox.core.randomness import generator
from megavox.images.balls import ball
from megavox.images.check import check_image, check_inside, check_mask_on_grid, mask_classes
from megavox.images.formats import all_files, read_image
from megavox.images.geometry import Geometry
from megavox.images.image import Image
from megavox.images.intensity import intensity_statistics
from megavox.images.lungs import NOT_FOUND, search_field
from megavox.images.prepare import Preparation, join_channels, prepare, prepare_mask
from megavox.store.keep import kept_record, write_record
from megavox.store.layout import IGNORE, OUTSIDE, POSITIONS, Record, shard_files, write_arrays

LEAST_ACROSS = 3  # voxels of a finding, in the mask: of less a network learns nothing
EACH_FINDING = 200  # voxels kept for sampling, with repetitions
MOST_POSITIONS = 10_000  # voxels kept for sampling, a class


def case_key(name: str, seed: int) -> str:
    """Folder name of a case in the store: a keyed hash, which tells nothing about the patient."""
    return hashlib.blake2b(name.encode(), key=str(seed).encode(), digest_size=8).hexdigest()


def read_channels(case: Case, grey: bool) -> Image:
    """The checked image of a case as it came, its channels joined.

    Raises:
        ImageError: a file is unusable, or the channels do not fit together.
    """
    images = []
    for files in case.images:
        image = read_image(files if len(files) > 1 else files[0], grey=grey)
        check_image(image, files[0])
        images.append(image)
    return join_channels(images)


def read_mask(case: Case, geometry: Geometry, shape: tuple[int, ...], task: Any, one_mask_a_class: bool) -> np.ndarray:
    """The case's mask on the image's own grid, uint8 class numbers.

    Args:
        case: with at least one mask.
        geometry, shape: of the image as it came, `(Z, Y, X)` or `(Y, X)`.
        task: the study's task section.
        one_mask_a_class: one file a class, in the order of the classes; later ones overwrite.

    Raises:
        GeometryError: the mask lies elsewhere. LabelError: a value that the study does not name.
    """
    if not case.masks:
        raise LabelError("the case has no mask", where=case.name, reason="missing target",
                         fix="Add the mask, or leave the case out")
    labels = np.zeros(shape, np.uint8)
    for number, path in enumerate(case.masks, 1):
        mask = read_image(path, grey=True)
        if mask.geometry.calibrated or geometry.calibrated:
            check_mask_on_grid(mask.geometry, geometry, task.mask_tolerance_mm, path)
        found = mask.array[0]
        if mask.array.shape[0] != 1 or found.shape != shape:
            raise LabelError(f"the mask has shape {mask.array.shape}", where=path,
                             expected=f"one channel of shape {shape}, as its image", reason="mask off-grid")
        if one_mask_a_class:
            labels[drawn(found)] = number
        else:
            labels = mask_classes(found, mask_values(task), path)
    return labels


def pack_case(folder: Path, case: Case, preparation: Preparation, task: Any, seed: int,
              one_mask_a_class: bool = False) -> Record:
    """Pack one case into `folder`; nothing is done when it is there already and undamaged (see `keep`).

    Args:
        folder: where the case goes; its name is the key.
        case: what to read.
        preparation: how to bring it to one form.
        task: the study's task section.
        seed: picks the voxels kept for sampling.
        one_mask_a_class: the case's masks are the classes in order.

    Returns:
        The record, which stands in the folder too.

    Raises:
        ImageError: the case is unusable.
        MachineError: the disk is full.
    """
    source = source_fingerprint(case)
    kept = kept_record(folder, source)
    if kept is not None:
        return kept
    original = read_channels(case, preparation.grey)
    check_inside([finding.centre_mm for finding in case.findings or ()], original.geometry, case.name)
    image = prepare(original, preparation)
    mask = positions = classes = None
    unknown: tuple[int, ...] = ()
    foreground, mask_hash, notes = None, "", [original.meta.get("notes")]
    if task.kind == "segment":
        labels = read_mask(case, original.geometry, original.array.shape[1:], task, one_mask_a_class)
        mask_hash = pixel_hash(labels)
        mask = prepare_mask(labels, original.geometry, image.geometry)
        positions = class_positions(mask, range(1, len(task.classes) + 1), generator(seed, "positions", folder.name))
        foreground = (mask > 0) & (mask != IGNORE)
    elif task.kind == "detect":
        field = search_field(image.array[0], image.geometry.spacing_zyx, task.within)
        notes += [] if field.sound else [NOT_FOUND]
        mask = marked(case, field.mask, image.geometry)
        rng = generator(seed, "positions", folder.name)
        positions = np.concatenate([class_positions(mask, [0], rng),
                                    finding_positions(case, mask, image.geometry, rng)])
        foreground = mask != OUTSIDE
    else:
        classes, unknown = class_numbers(case, task)
    array = smallest_exact(image.array)
    with whole_folder(folder) as temporary:
        write_arrays(temporary, array, mask, image.geometry)
        files = shard_files(temporary)
        if positions is not None:
            write_array(temporary / POSITIONS, positions)
            files.append(temporary / POSITIONS)
        record = Record(
            key=folder.name, shape=array.shape, geometry=image.geometry, original=original.geometry,
            intensities=intensity_statistics(array, foreground), pixel_hash=pixel_hash(original.array),
            mask_hash=mask_hash,
            voxels=() if mask is None else tuple(int((mask == k).sum()) for k in range(1, len(task.names) + 1)),
            classes=classes, unknown=unknown, findings=case.findings,
            bytes=tuple((path.relative_to(temporary).as_posix(), path.stat().st_size) for path in files),
            remarks=tuple(str(note) for note in notes if note), source=source)
        write_record(temporary, record)
    return record


def marked(case: Case, field: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The findings of a case as balls on a grid, uint8: 1; 255 where they do not count; 254 where none is looked for.

    Args:
        case: with findings.
        field: `(Z, Y, X)` of booleans, where they are looked for.
        geometry: of the grid.
    """
    mask = np.where(field, 0, OUTSIDE).astype(np.uint8)
    for one in sorted(case.findings or (), key=lambda finding: finding.counts):  # what counts is drawn last
        mask[_inside(mask, _ball(one, geometry))] = 1 if one.counts else IGNORE
    return mask


def _inside(mask: np.ndarray, index: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The voxels of an index where findings are looked for."""
    kept = mask[index] != OUTSIDE
    return tuple(axis[kept] for axis in index)


def finding_positions(case: Case, mask: np.ndarray, geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Voxels of class 1 for sampling, `(N, 4)`: as many of each finding that counts, however small it is.

    Args:
        case: with findings.
        mask: from `marked`.
        geometry: of its grid.
        rng: what is drawn from.
    """
    rows = [np.zeros((0, 4), np.uint16)]
    for one in case.findings or ():
        index = np.stack(_inside(mask, _ball(one, geometry)), axis=1)
        if one.counts and len(index):
            chosen = index[rng.integers(len(index), size=EACH_FINDING)]
            rows.append(np.concatenate([np.ones((EACH_FINDING, 1), np.uint16), chosen.astype(np.uint16)], axis=1))
    return np.concatenate(rows)


def _ball(finding: Finding, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """Indices of its voxels, of which there are some across even where voxels are coarse."""
    diameter = finding.diameter_mm if finding.diameter_mm > 0 else UNKNOWN_DIAMETER_MM
    return ball(geometry, geometry.shape, finding.centre_mm, max(diameter, LEAST_ACROSS * min(geometry.spacing)))


def source_fingerprint(case: Case) -> str:
    """Names, sizes and times of the case's files, and its target: another value means it must be packed anew."""
    parts = [f"{case.labels} {case.unknown} {case.findings}"]
    for path in all_files([*(file for files in case.images for file in files), *case.masks]):
        try:
            found = path.stat()
            parts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
        except OSError:
            parts.append(f"{path} gone")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def mask_values(task: Any) -> dict[int, int]:
    """Value in the mask files -> class number, of a segment task."""
    values = {0: 0, **{value: IGNORE for value in task.ignore}}
    for number, found in enumerate(task.classes.values(), 1):
        values.update({value: number for value in (found if isinstance(found, list) else [found])})
    return values


def class_numbers(case: Case, task: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the classes that hold, and of those of which it is unknown.

    Raises:
        LabelError: no target, or a class that the study does not name.
    """
    if case.labels is None:
        raise LabelError("the case has no target", where=case.name, reason="missing target",
                         fix="Add it to the table, or leave the case out")
    strange = [name for name in (*case.labels, *case.unknown) if name not in task.classes]
    if strange or (not task.multilabel and len(case.labels) != 1):
        raise LabelError(f"the target is {list(case.labels)}", where=case.name,
                         expected=f"{'some' if task.multilabel else 'one'} of {task.classes}")
    return (tuple(task.classes.index(name) for name in case.labels),
            tuple(task.classes.index(name) for name in case.unknown))


def class_positions(mask: np.ndarray, classes: Iterable[int], rng: np.random.Generator) -> np.ndarray:
    """Up to `MOST_POSITIONS` random voxels of each class: `(N, 1 + dims)`, class first."""
    rows = []
    for number in classes:
        flat = np.flatnonzero(mask == number)
        if flat.size > MOST_POSITIONS:
            flat = np.sort(rng.choice(flat, MOST_POSITIONS, replace=False))
        index = np.stack(np.unravel_index(flat, mask.shape), axis=1)
        rows.append(np.concatenate([np.full((len(index), 1), number), index], axis=1))
    return np.concatenate(rows).astype(np.uint16 if max(mask.shape) <= 65536 else np.uint32)


def smallest_exact(array: np.ndarray) -> np.ndarray:
    """The array as uint8, int16 or uint16 where that keeps every value, else as float32."""
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        return array.astype(np.float32)
    low, high = array.min(), array.max()
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array.astype(np.float32)


def pixel_hash(array: np.ndarray) -> str:
    """Hash of the voxel values as float32, whatever type they were stored in."""
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return digest.hexdigest()

