"""A 3D organ with a core inside a shell, of which the volumes are known exactly.

Core and shell are concentric ellipsoids, bent by shear waves `p + a sin(k.p + phase)` with `a` at
right angles to `k`. Such a wave keeps every volume, as its divergence `a.k cos(...)` is zero; so the
core holds 4/3 pi abc mm^3 however much it is bent, and a mask differs by its voxels only.

Nothing can be told from intensity alone: a ball as bright as the core lies outside the organ, the
brightness drifts over the image, and there is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from megavox.core.files import write_bytes, write_json
from megavox.core.randomness import generator
from megavox.images.geometry import Geometry
from megavox.images.nifti import write_nifti

CLASSES = {"core": 1, "shell": 2}
FIELD_MM = (40.0, 48.0, 40.0)  # extent of the image along world x, y, z
_GREY = {"around": 300.0, "core": 620.0, "shell": 460.0}
# (world axis of x, y, z; signs; spacing in mm along x, y, z): as scanners and converters write them
_GRIDS = (((0, 1, 2), (1, 1, 1), (1.0, 1.0, 1.0)),
          ((0, 1, 2), (-1, -1, 1), (1.0, 1.0, 1.0)),
          ((0, 1, 2), (1, 1, 1), (0.9, 0.9, 1.4)),
          ((1, 2, 0), (1, -1, 1), (1.0, 1.0, 1.2)))


@dataclass(frozen=True)
class Organ:
    """One phantom.

    Attributes:
        image: `(Z, Y, X)` int16.
        mask: `(Z, Y, X)` uint8: 0, and the values of `CLASSES`.
        geometry: the grid of both.
        volumes_mm3: exact volume of each class.
    """

    image: np.ndarray
    mask: np.ndarray
    geometry: Geometry
    volumes_mm3: dict[str, float]


def organ(seed: int, number: int) -> Organ:
    """Phantom `number` of `seed`: its shape, place, grid, drift and noise are all drawn anew."""
    random = generator(seed, "organ", number)
    geometry = _grid(_GRIDS[int(random.integers(len(_GRIDS)))])
    x_zyxw = _world(geometry)
    bent = _bend(x_zyxw, random)
    axes = random.uniform((9.0, 11.0, 8.0), (12.0, 15.0, 11.0))
    core_axes = axes * random.uniform(0.5, 0.65)
    turned = (bent - random.uniform(-2.0, 2.0, 3)) @ _turn(random)
    mask = np.zeros(geometry.shape, np.uint8)
    mask[_inside(turned, axes)] = CLASSES["shell"]
    mask[_inside(turned, core_axes)] = CLASSES["core"]
    whole, core = (4 / 3 * np.pi * float(np.prod(a)) for a in (axes, core_axes))
    image = _paint(mask, x_zyxw, random)
    return Organ(image, mask, geometry, {"core": core, "shell": whole - core})


def _grid(kind: tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]) -> Geometry:
    """A grid over the field, its middle at the world's origin."""
    world_axes, signs, spacing = kind
    direction = np.zeros((3, 3))
    for index, (axis, sign) in enumerate(zip(world_axes, signs, strict=True)):
        direction[axis, index] = sign
    size = np.rint([FIELD_MM[axis] / mm for axis, mm in zip(world_axes, spacing, strict=True)]).astype(int)
    origin = -direction @ (np.asarray(spacing) * (size - 1) / 2)
    x, y, z = (int(n) for n in size)
    return Geometry((x, y, z), (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]),
                    tuple(float(value) for value in direction.ravel()))


def _world(geometry: Geometry) -> np.ndarray:
    """LPS position in mm of every voxel centre, `(Z, Y, X, 3)`."""
    z, y, x = np.indices(geometry.shape)
    affine = geometry.affine()
    return np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def _bend(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Four shear waves, one after the other; each keeps volumes, so all do."""
    for _ in range(4):
        along = random.normal(size=3)
        along /= np.linalg.norm(along)
        across = np.cross(along, random.normal(size=3))
        across *= random.uniform(0.5, 1.1) / np.linalg.norm(across)  # mm
        phase = points @ along * (2 * np.pi / random.uniform(18.0, 36.0)) + random.uniform(0, 2 * np.pi)
        points = points + np.sin(phase)[..., None] * across
    return points


def _turn(random: np.random.Generator) -> np.ndarray:
    """A rotation by up to 20 degrees about each axis."""
    matrix = np.eye(3)
    for first, second in (*pairwise(range(3)), (0, 2)):
        angle = np.deg2rad(random.uniform(-20, 20))
        step = np.eye(3)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    return matrix


def _inside(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return ((points / axes) ** 2).sum(axis=-1) <= 1


def _paint(mask: np.ndarray, world: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Grey values: tissue, a decoy as bright as the core, drift of up to 20 %, texture and noise."""
    grey = np.select([mask == CLASSES["core"], mask == CLASSES["shell"]],
                     [_GREY["core"], _GREY["shell"]], _GREY["around"])
    corner = np.asarray(FIELD_MM) / 2 - random.uniform(4.0, 6.0, 3)
    decoy = np.linalg.norm(world - corner * random.choice([-1, 1], 3), axis=-1) <= random.uniform(3.0, 4.5)
    grey[decoy & (mask == 0)] = _GREY["core"]
    grey = gaussian_filter(grey, 0.6)  # voxels on an edge hold a part of both sides
    slope = random.uniform(-0.2, 0.2, 3) / (np.asarray(FIELD_MM) / 2)
    texture = gaussian_filter(random.normal(size=mask.shape), 2.0)
    grey = grey * (1 + world @ slope) + 25 * texture / texture.std()
    grey = grey * random.uniform(0.8, 1.25) + random.normal(0, 40, mask.shape)
    return np.clip(np.rint(grey), 0, 4095).astype(np.int16)


def write_segment_cohort(folder: Path, cases: int, seed: int = 0,
                         dirty: bool = False) -> dict[str, dict[str, float]]:
    """Write phantoms in the Decathlon layout, with dataset.json and truth.json.

    Args:
        folder: gets `imagesTr/organ_001.nii.gz`, `labelsTr/...`.
        cases: good cases.
        seed: equal seeds give equal bytes.
        dirty: add broken cases, as real cohorts have them: see `_write_broken`.

    Returns:
        Case name -> class -> exact volume in mm^3 (also in truth.json).
    """
    truth = {}
    for number in range(1, cases + 1):
        phantom = organ(seed, number)
        name = f"organ_{number:03d}"
        _write(folder, name, phantom.image, phantom.mask, phantom.geometry)
        truth[name] = phantom.volumes_mm3
    if dirty:
        _write_broken(folder, seed, cases + 1)
    write_json(folder / "truth.json", truth)
    write_json(folder / "dataset.json", {
        "name": "synthetic organs", "modality": {"0": "MRI"},
        "labels": {"0": "background", **{str(value): name for name, value in CLASSES.items()}},
        "numTraining": cases, "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in truth]})
    return truth


def _write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, geometry: Geometry,
           of_mask: Geometry | None = None) -> None:
    write_nifti(folder / "imagesTr" / f"{name}.nii.gz", image[None], geometry)
    write_nifti(folder / "labelsTr" / f"{name}.nii.gz", mask[None], of_mask or geometry)


def _write_broken(folder: Path, seed: int, number: int) -> None:
    """Five cases that must be set aside: broken_truncated, _offgrid, _nan, _label, _nomask."""
    whole = organ(seed, number)
    shifted = Geometry(whole.geometry.size, whole.geometry.spacing, (5.0, 5.0, 5.0), whole.geometry.direction)
    holed = whole.image.astype(np.float32)
    holed[:2] = np.nan
    odd = np.where(whole.mask == CLASSES["core"], 7, whole.mask).astype(np.uint8)
    _write(folder, "broken_offgrid", whole.image, whole.mask, whole.geometry, of_mask=shifted)
    _write(folder, "broken_nan", holed, whole.mask, whole.geometry)
    _write(folder, "broken_label", whole.image, odd, whole.geometry)
    for name in ("broken_truncated", "broken_nomask"):
        _write(folder, name, whole.image, whole.mask, whole.geometry)
    cut = folder / "imagesTr" / "broken_truncated.nii.gz"
    data = cut.read_bytes()
    write_bytes(cut, data[:len(data) * 6 // 10])
    (folder / "labelsTr" / "broken_nomask.nii.gz").unlink()
