"""How well a predicted label map matches the reference: overlap, boundary and volume measures.

The three kinds follow Metrics Reloaded (Maier-Hein et al. 2024, doi 10.1038/s41592-023-02151-z).
What a measure is where the reference or the prediction holds nothing is defined, never silently
0 or 1:

    reference   prediction   dice, iou   boundary   `undefined`
    empty       empty        NaN         NaN        empty reference
    empty       present      NaN         NaN        empty reference, false positives
    present     empty        0           NaN        empty prediction
    present     present      0..1        mm         (nothing)

Volumes are always reported, so the amount of false positives is not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import nan

import numpy as np
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

from megavox.core.errors import GeometryError, LabelError
from megavox.measures.volume import voxel_volume_mm3

Box = tuple[slice, ...]


@dataclass(frozen=True)
class ClassOverlap:
    """The measures of one class in one case; NaN where undefined, with the reason.

    Attributes:
        name: the class.
        dice: 2|P and R| / (|P| + |R|).
        iou: |P and R| / |P or R|.
        hausdorff95_mm: the larger of the two directed 95th percentiles of surface distance.
        surface_distance_mm: average symmetric surface distance: the mean over the surface voxels
            of both objects of the distance to the other object's surface.
        volume_prediction_mm3: volume of the prediction.
        volume_reference_mm3: volume of the reference.
        volume_error_mm3: prediction minus reference.
        volume_error_percent: the same as a percentage of the reference; NaN if that is empty.
        undefined: why values are NaN, or "".
    """

    name: str
    dice: float
    iou: float
    hausdorff95_mm: float
    surface_distance_mm: float
    volume_prediction_mm3: float
    volume_reference_mm3: float
    volume_error_mm3: float
    volume_error_percent: float
    undefined: str = ""

    def to_dict(self) -> dict[str, object]:
        """The fields by name, NaN kept."""
        return asdict(self)


def overlap(prediction: np.ndarray, reference: np.ndarray, classes: Sequence[str],
            geometry_spacing_zyx: Sequence[float], ignore: int | None = None) -> list[ClassOverlap]:
    """Measures of every class of one case.

    Args:
        prediction: integer labels `(Z, Y, X)` or `(Y, X)`; 0 is background, k is `classes[k - 1]`.
        reference: the same; voxels labelled `ignore` count in no measure of any class.
        classes: class names, without the background.
        geometry_spacing_zyx: mm between voxel centres in array order. A 2D image may have three
            entries: the first is then its thickness, which only volumes use.
        ignore: the label of ignored voxels in the reference, if it has one.

    Returns:
        One `ClassOverlap` a class, in the order of `classes`.

    Raises:
        GeometryError: the two are not on the same grid.
        LabelError: labels that are not whole numbers, or that no class has.
    """
    assert ignore is None or not 0 <= ignore <= len(classes), "a class cannot be the ignored label"
    prediction = _label_map(prediction, "prediction", len(classes), None)
    reference = _label_map(reference, "reference", len(classes), ignore)
    if prediction.shape != reference.shape:
        raise GeometryError(f"the prediction has shape {prediction.shape} and the reference "
                            f"{reference.shape}", expected="the same grid",
                            fix="Resample the prediction to the reference's grid")
    voxel_mm3 = voxel_volume_mm3(geometry_spacing_zyx)
    if prediction.ndim == 3 and len(prediction) == 1:  # one slice has edges, not top and bottom faces
        prediction, reference = prediction[0], reference[0]
    spacing = np.asarray(geometry_spacing_zyx, dtype=np.float64)[-prediction.ndim:]
    assert len(spacing) == prediction.ndim, "one spacing for each axis"

    ignored = None if ignore is None else reference == ignore
    if ignored is not None and ignored.any():
        prediction = np.where(ignored, 0, prediction)
    else:
        ignored = None
    boxes = zip(find_objects(prediction, max_label=len(classes)),
                find_objects(reference, max_label=len(classes)), strict=True)
    results = []
    for label, (name, pair) in enumerate(zip(classes, boxes, strict=True), start=1):
        box = _joint_box(pair, prediction.shape)
        results.append(_one_class(name, prediction[box] == label, reference[box] == label,
                                  None if ignored is None else ignored[box], spacing, voxel_mm3))
    return results


def _label_map(labels: np.ndarray, what: str, n_classes: int, ignore: int | None) -> np.ndarray:
    """Check a label map; a boolean mask becomes labels 0 and 1."""
    labels = np.asarray(labels)
    assert labels.ndim in (2, 3), f"label maps are (Z, Y, X) or (Y, X), not {labels.shape}"
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise LabelError(f"the {what} has values of type {labels.dtype}",
                         expected="whole-number labels")
    if labels.size == 0 or (labels.min() >= 0 and labels.max() <= n_classes):
        return labels
    strange = [int(v) for v in np.unique(labels) if not 0 <= v <= n_classes and v != ignore]
    if strange:
        raise LabelError(f"the {what} has labels {strange[:8]} that no class has",
                         expected=f"0 to {n_classes}" + ("" if ignore is None else f" or {ignore}"),
                         fix="Name every label in the study's classes")
    return labels


def _joint_box(boxes: tuple[Box | None, Box | None], shape: tuple[int, ...]) -> Box:
    """The smallest box around both objects, one voxel wider where the image goes on."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),) * len(shape)
    return tuple(slice(max(min(s.start for s in sides) - 1, 0), min(max(s.stop for s in sides) + 1, size))
                 for *sides, size in zip(*present, shape, strict=True))


def _one_class(name: str, prediction: np.ndarray, reference: np.ndarray, ignored: np.ndarray | None,
               spacing: np.ndarray, voxel_mm3: float) -> ClassOverlap:
    """The measures of two masks `(Z, Y, X)` or `(Y, X)`, cut to where they are."""
    reference = reference if ignored is None else reference & ~ignored
    n_prediction, n_reference = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    n_both = int(np.count_nonzero(prediction & reference))
    dice = iou = hausdorff95 = surface_distance = nan
    undefined = ""
    if n_reference == 0:
        undefined = "empty reference, false positives" if n_prediction else "empty reference"
    else:
        dice = 2 * n_both / (n_prediction + n_reference)
        iou = n_both / (n_prediction + n_reference - n_both)
        if n_prediction == 0:
            undefined = "empty prediction"
        else:
            hausdorff95, surface_distance = _boundary(prediction, reference, ignored, spacing)
            if np.isnan(hausdorff95):
                undefined = "no surface outside the ignored region"
    error = n_prediction - n_reference
    return ClassOverlap(
        name, dice, iou, hausdorff95, surface_distance,
        volume_prediction_mm3=n_prediction * voxel_mm3, volume_reference_mm3=n_reference * voxel_mm3,
        volume_error_mm3=error * voxel_mm3,
        volume_error_percent=100 * error / n_reference if n_reference else nan, undefined=undefined)


def _boundary(prediction: np.ndarray, reference: np.ndarray, ignored: np.ndarray | None,
              spacing: np.ndarray) -> tuple[float, float]:
    """95th percentile Hausdorff and average symmetric surface distance in mm.

    The definitions are MONAI's (`compute_hausdorff_distance`, percentile 95, not directed;
    `compute_average_surface_distance`, symmetric). Other tools differ: medpy takes the percentile
    of both directions pooled, DeepMind's surface-distance weighs each surface element by its area.
    """
    faces = _surface(prediction, ignored), _surface(reference, ignored)
    if not (faces[0].any() and faces[1].any()):
        return nan, nan
    there, back = _distances(*faces, spacing), _distances(*faces[::-1], spacing)
    hausdorff95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hausdorff95), float(np.concatenate([there, back]).mean())


def _surface(mask: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    """Voxels of the object with a neighbour (6 in 3D, 4 in 2D) outside it or outside the image.

    A neighbour in the ignored region is unknown and makes no surface: otherwise both objects would
    share the region's edge and seem closer than they are.
    """
    solid = mask if ignored is None else mask | ignored
    return mask & ~binary_erosion(solid)


def _distances(start: np.ndarray, goal: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm from each voxel of `start` to the nearest voxel of `goal`.

    Exact, as a Euclidean distance transform is, but its time and memory go with the surfaces and
    not with the box around them: one stray voxel in a far corner costs nothing.
    """
    distances = np.zeros(np.count_nonzero(start))  # voxels on both surfaces stay at 0
    apart = np.argwhere(start & ~goal) * spacing
    distances[:len(apart)] = KDTree(np.argwhere(goal) * spacing).query(apart)[0]
    return distances
