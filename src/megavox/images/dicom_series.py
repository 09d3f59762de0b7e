"""From loose DICOM frames to one grid: which frame is which slice and which channel.

Frames are sorted by position along the slice normal, never by file name. Several frames at one
position (echoes, time points, b-values, segments) become channels. What cannot be one regular grid,
namely missing or uneven slices, gantry tilt and mixed planes, is refused with the distances in mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from megavox.core.errors import GeometryError
from megavox.images.dicom_channels import incomplete, sort_channels, sort_segments, without_equal
from megavox.images.dicom_frame import Frame
from megavox.images.geometry import Geometry

GAP_TOLERANCE_MM = 0.01          # or 1 % of the gap, whichever is larger
GAP_TOLERANCE = 0.01
LARGEST_TILT_DEGREES = 0.5
DIRECTION_TOLERANCE = 1e-3       # orientation cosines of one series may differ by rounding


@dataclass
class Stack:
    """Where each frame goes.

    Attributes:
        places: (channel, slice) of each frame, in the order of `frames`.
        channels: names, one a channel; [""] for a single one.
        flat: one slice, to be returned as `(C, Y, X)`.
    """

    frames: list[Frame]
    places: list[tuple[int, int]]
    channels: list[str]
    geometry: Geometry
    flat: bool
    notes: list[str] = field(default_factory=list)


def stack(frames: list[Frame], where: object, digest: Callable[[Frame], bytes],
          segmentation: bool = False) -> Stack:
    """Sort the frames of one series into slices and channels.

    Args:
        digest: hash of a frame's pixels, called only to tell repeats from different images at one
            position.
        segmentation: channels are segments, and frames left out are empty (PS3.3 C.8.20).

    Raises:
        GeometryError: no regular grid; `reason` is one of "no position", "mixed planes",
            "gantry tilt", "missing slices", "uneven slices", "incomplete echoes".
    """
    frames, notes = _without_copies(frames)
    _check_one_plane(frames, where)
    if any(f.position is None or f.orientation is None for f in frames):
        return _without_position(frames, notes, where)
    slices, distances = _slices(frames)
    if not segmentation:
        found, _, unexplained = sort_channels(frames, slices)
        if found is None or unexplained:
            fewer, dropped = without_equal(frames, slices, digest)
            kept_slices, kept_distances = _slices(fewer)
            if sort_channels(fewer, kept_slices)[0] is not None:  # else only some are equal: empty slices?
                frames, slices, distances = fewer, kept_slices, kept_distances
                notes += dropped
    distances, slices = _regular(frames, slices, distances, where, segmentation)
    if segmentation:
        channel, names = sort_segments(frames)
    else:
        found, names, note = sort_channels(frames, slices)
        if found is None:
            raise incomplete(frames, slices, distances, where)
        channel = found
        notes += [note] if note else []
    geometry = _geometry(frames, slices, distances)
    return Stack(frames, list(zip(channel, slices, strict=True)), names, geometry,
                 flat=geometry.size[2] == 1, notes=notes)


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    kept: dict[tuple[str, int, tuple[int, int]], Frame] = {}
    for i, frame in enumerate(frames):
        kept.setdefault((frame.uid or f"#{i}", frame.number, frame.corner), frame)
    gone = len(frames) - len(kept)
    return list(kept.values()), [f"{gone} frames with a repeated SOPInstanceUID dropped"] if gone else []


def _check_one_plane(frames: list[Frame], where: object) -> None:
    shapes = {f.shape for f in frames}
    if len(shapes) > 1:
        raise GeometryError(f"the series mixes pictures of {sorted(shapes)} rows and columns", where=where,
                            expected="slices of one size", reason="mixed planes",
                            fix="Give each group of equal pictures on its own")
    turned = [f.orientation for f in frames if f.orientation]
    sizes = [f.spacing for f in frames if f.spacing]
    if any(np.abs(np.subtract(t, turned[0])).max() > DIRECTION_TOLERANCE for t in turned):
        raise GeometryError("the series mixes slices of different orientation (a localiser?)", where=where,
                            expected="parallel slices", reason="mixed planes",
                            fix="Give each group of parallel slices on its own")
    if any(np.abs(np.subtract(s, sizes[0])).max() > 1e-3 * max(sizes[0]) for s in sizes):
        raise GeometryError(f"the series mixes pixel sizes {sorted(set(sizes))[:4]} mm", where=where,
                            expected="one pixel size", reason="mixed planes",
                            fix="Give each group on its own")
    if turned:
        x, y = np.array(turned[0][:3]), np.array(turned[0][3:])
        off = max(abs(float(x @ y)), abs(float(x @ x) - 1), abs(float(y @ y) - 1))
        if off > 0.01:
            raise GeometryError(f"the orientation {[round(v, 4) for v in turned[0]]} is not two unit "
                                "vectors at a right angle", where=where, reason="orientation",
                                fix="Mend ImageOrientationPatient or export the series again")


def _without_position(frames: list[Frame], notes: list[str], where: object) -> Stack:
    rows, columns = frames[0].shape
    spacing = frames[0].spacing
    if len(frames) == 1:
        geometry = Geometry((columns, rows, 1), (*(spacing or (1.0, 1.0)), frames[0].thickness or 1.0),
                            calibrated=spacing is not None)
        return Stack(frames, [(0, 0)], [""], geometry, flat=True,
                     notes=[*notes, "the file has no position"])
    if len({f.path for f in frames}) > 1:
        raise GeometryError(f"{len(frames)} pictures without position or orientation cannot be sorted into "
                            "a volume", where=where, expected="ImagePositionPatient and "
                            "ImageOrientationPatient in every file", reason="no position",
                            fix="Give each file on its own as a 2D image")
    geometry = Geometry((columns, rows, len(frames)), calibrated=False)
    return Stack(frames, [(0, z) for z in range(len(frames))], [""], geometry, flat=False,
                 notes=[*notes, "frames without positions are along Z in stored order (a cine?): "
                                "lengths are in pixels"])


def _axes(frames: list[Frame]) -> np.ndarray:
    """3x3, columns: direction of x, of y, and the slice normal."""
    mean = np.mean([f.orientation for f in frames if f.orientation], axis=0)
    x = mean[:3] / np.linalg.norm(mean[:3])
    y = mean[3:] - (mean[3:] @ x) * x
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _slices(frames: list[Frame]) -> tuple[list[int], np.ndarray]:
    """Slice number of each frame and the distance of each slice along the normal in mm."""
    along = np.array([f.position for f in frames]) @ _axes(frames)[:, 2]
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    typical = np.median(gaps[gaps > GAP_TOLERANCE_MM]) if (gaps > GAP_TOLERANCE_MM).any() else 0.0
    same = max(GAP_TOLERANCE_MM, GAP_TOLERANCE * typical)
    number = np.concatenate([[0], np.cumsum(gaps > same)])
    slices = np.empty(len(frames), int)
    slices[order] = number
    distances = np.array([along[slices == k].mean() for k in range(number[-1] + 1)])
    return slices.tolist(), distances


def _regular(frames: list[Frame], slices: list[int], distances: np.ndarray, where: object,
             sparse: bool) -> tuple[np.ndarray, list[int]]:
    """Check that slices are evenly spaced on one line; fill the slices a segmentation leaves out."""
    _check_tilt(frames, slices, where)
    gaps = np.diff(distances)
    if len(gaps) == 0:
        return distances, slices
    gap = float(np.min(gaps)) if sparse else float(np.sort(gaps)[(len(gaps) - 1) // 2])  # low median
    tolerance = max(GAP_TOLERANCE_MM, GAP_TOLERANCE * gap)
    bad = np.flatnonzero(np.abs(gaps - gap) > tolerance)
    if len(bad) == 0:
        return distances, slices
    steps = np.rint(gaps / gap).astype(int)
    if sparse and (np.abs(gaps - steps * gap) <= tolerance * steps).all():
        at = np.concatenate([[0], np.cumsum(steps)])
        return distances[0] + np.arange(at[-1] + 1) * gap, [int(at[k]) for k in slices]
    k = int(bad[np.argmax(gaps[bad])])
    found = f"a gap of {gaps[k]:.3f} mm between the slices at {distances[k]:.3f} and " \
            f"{distances[k + 1]:.3f} mm along the normal ({len(bad)} of {len(gaps)} gaps are off)"
    missing = gaps[k] > 1.5 * gap
    raise GeometryError(found, where=where, expected=f"{gap:.3f} mm within {tolerance:.3f} mm",
                        reason="missing slices" if missing else "uneven slices",
                        fix="Fetch the missing slices from the archive" if missing else
                        "Resample the series to even slices with the scanner's own software")


def _check_tilt(frames: list[Frame], slices: list[int], where: object) -> None:
    axes, positions = _axes(frames), np.array([f.position for f in frames])
    local = (positions - positions[int(np.argmin(slices))]) @ axes
    spacing = frames[0].spacing or (1.0, 1.0)
    height, aside = float(np.ptp(local[:, 2])), local[int(np.argmax(slices)), :2]
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(aside), height))) if max(slices) > 0 else 0.0
    if tilt > LARGEST_TILT_DEGREES:
        raise GeometryError(f"the slices are stacked {tilt:.2f} degrees off their normal (gantry tilt)",
                            where=where, expected=f"at most {LARGEST_TILT_DEGREES} degrees",
                            reason="gantry tilt",
                            fix="Correct the tilt first, for example with dcm2niix, which resamples the "
                                "slices onto a grid with right angles")
    line = np.outer(local[:, 2] / height, aside) if height > 0 else 0.0
    wander = np.abs(local[:, :2] - line).max()
    if wander > max(0.5 * min(spacing), GAP_TOLERANCE_MM) or np.linalg.norm(aside) > max(spacing):
        raise GeometryError(f"slices are shifted sideways by up to {max(wander, np.abs(aside).max()):.3f} mm",
                            where=where, expected=f"at most one pixel ({max(spacing):.3f} mm)",
                            reason="mixed planes", fix="Give each group of aligned slices on its own")


def _geometry(frames: list[Frame], slices: list[int], distances: np.ndarray) -> Geometry:
    rows, columns = frames[0].shape
    spacing, count = frames[0].spacing, max(slices) + 1
    gap = float(np.ptp(distances)) / (count - 1) if count > 1 else frames[0].thickness or 1.0
    axes = _axes(frames)
    origin = np.mean([f.position or () for f, s in zip(frames, slices, strict=True) if s == min(slices)],
                     axis=0)
    x, y, z = (float(v) for v in origin)
    return Geometry((columns, rows, count), (*(spacing or (1.0, 1.0)), gap), (x, y, z),
                    tuple(float(v) for v in axes.ravel()), calibrated=spacing is not None)


def series_label(paths: list[Path]) -> str:
    """How messages name a series: the file, or the folder and the number of files."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
