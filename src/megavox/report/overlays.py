"""A case to look at: three planes through the structure, reference as outline, prediction as colour.

The planes are shown in radiological convention: the patient's right is on the viewer's left, axial
slices are seen from the feet, and sagittal ones with the face to the left. Letters at the edges say
so: L and R, A and P (front and back), S and I (head and feet).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from scipy.ndimage import center_of_mass, find_objects

from megavox.report.canvas import colour
from megavox.report.content import CaseView

WIDTH, TALLEST, GAP, DPI = 9.6, 4.6, 0.08, 125  # inches: of a row, of a row, between panels
FILL = 0.38  # opacity of the prediction
CLOSE_UP = 0.4  # a structure that spans less of the image than this, along two axes, is also shown close up


@dataclass(frozen=True, eq=False)
class _Panel:
    """One slice as it is seen: first row at the top, first column at the left."""

    title: str
    image: np.ndarray  # (rows, columns)
    reference: np.ndarray | None
    prediction: np.ndarray | None
    size_mm: tuple[float, float]  # height, width
    letters: str  # at the left, right, top and bottom; "" for none


def case_overlay(view: CaseView, n_classes: int) -> bytes | str:
    """The picture of a case.

    3D: axial, coronal and sagittal slices through the centre of mass of the reference (of the
    prediction where that is empty, of the image where both are), moved to the nearest slice that
    cuts it; a small structure gets a second row close up. 2D: the image, and beside it the overlay.

    Args:
        view: the case; its label maps are drawn for labels 1 to `n_classes`.
        n_classes: number of classes.

    Returns:
        PNG, or a sentence where the image has nothing to show.
    """
    finite = view.image[np.isfinite(view.image)]
    if not finite.size:
        return "The image of this case has no finite value, so it cannot be shown."
    every = max(1, finite.size // 2_000_000)
    low, high = np.percentile(finite[::every], [0.5, 99.5])
    if not high > low:  # a small bright thing on an even background, or an even image
        low, high = float(finite.min()), float(finite.max())
    window = (float(low), float(high) if high > low else float(low) + 1.0)
    if view.image.ndim == 3 and len(view.image) > 1:
        whole = tuple(slice(0, n) for n in view.image.shape)
        close = _close_up(view, n_classes)
        rows = [_planes(view, box, n_classes) for box in (whole, close) if box is not None]
    else:
        rows = [_flat(view)]
    return _draw(rows, window, n_classes)


def classes_drawn(view: CaseView, n_classes: int) -> list[int]:
    """Labels that the picture of a case may have, for its legend."""
    found: set[int] = set()
    for labels in (view.reference, view.prediction):
        if labels is not None:
            found |= {int(v) for v in np.unique(labels) if 1 <= v <= n_classes}
    return sorted(found)


def _structure(view: CaseView, n_classes: int) -> np.ndarray | None:
    """Where the reference, or else the prediction, has any class; None where neither has."""
    for labels in (view.reference, view.prediction):
        if labels is not None and (mask := (labels >= 1) & (labels <= n_classes)).any():
            return mask
    return None


def _centre(mask: np.ndarray | None, shape: tuple[int, ...]) -> list[int]:
    """Centre of mass in voxels; on each axis the nearest slice that cuts the structure."""
    if mask is None:
        return [n // 2 for n in shape]
    middle = center_of_mass(mask)
    centre = []
    for axis, at in enumerate(middle):
        cut = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        centre.append(int(cut[np.argmin(np.abs(cut - at))]))
    return centre


def _close_up(view: CaseView, n_classes: int) -> tuple[slice, ...] | None:
    """A box with room around the structure, or None where that is no closer than the whole image."""
    mask = _structure(view, n_classes)
    if mask is None:
        return None
    box = find_objects(mask.astype(np.uint8))[0]
    spans = [(s.stop - s.start) / n for s, n in zip(box, mask.shape, strict=True)]
    if sorted(spans)[1] > CLOSE_UP:
        return None
    room_mm = 0.3 * max((s.stop - s.start) * step for s, step in zip(box, view.spacing_mm, strict=True))
    rooms = [max(3, round(room_mm / step)) for step in view.spacing_mm]
    return tuple(slice(max(s.start - room, 0), min(s.stop + room, n))
                 for s, room, n in zip(box, rooms, mask.shape, strict=True))


def _planes(view: CaseView, box: tuple[slice, ...], n_classes: int) -> list[_Panel]:
    """The three planes of a box of the image."""
    mask = _structure(view, n_classes)
    z, y, x = (at - s.start for at, s in zip(_centre(mask, view.image.shape), box, strict=True))
    volumes = [None if v is None else v[box] for v in (view.image, view.reference, view.prediction)]
    dz, dy, dx = view.spacing_mm

    def panel(title: str, where: tuple[int | slice, ...], up: bool, steps: tuple[float, float], letters: str) -> _Panel:
        image, reference, prediction = (None if v is None else v[where][::-1] if up else v[where] for v in volumes)
        assert image is not None
        return _Panel(title, image, reference, prediction,
                      (len(image) * steps[0], len(image[0]) * steps[1]), letters)

    all_ = slice(None)
    word = "" if box == tuple(slice(0, n) for n in view.image.shape) else ", close up"
    return [panel("axial" + word, (z, all_, all_), False, (dy, dx), "RLAP"),
            panel("coronal" + word, (all_, y, all_), True, (dz, dx), "RLSI"),
            panel("sagittal" + word, (all_, all_, x), True, (dz, dy), "APSI")]


def _flat(view: CaseView) -> list[_Panel]:
    """The image as it is, and with the overlay where there is one. The file says nothing of its sides."""
    image, reference, prediction = (None if v is None else v.reshape(v.shape[-2:])
                                    for v in (view.image, view.reference, view.prediction))
    assert image is not None
    dy, dx = (float(step) for step in view.spacing_mm[-2:])
    size = (len(image) * dy, len(image[0]) * dx)
    panels = [_Panel("", image, None, None, size, "")]
    if reference is not None or prediction is not None:
        panels.append(_Panel("", image, reference, prediction, size, ""))
    return panels


def _draw(rows: list[list[_Panel]], window: tuple[float, float], n_classes: int) -> bytes:
    """Rows of panels, each row to one scale in mm, on black."""
    scales = []
    for row in rows:
        across = sum(panel.size_mm[1] for panel in row)
        tall = max(panel.size_mm[0] for panel in row)
        scales.append(min((WIDTH - GAP * (len(row) - 1)) / across, TALLEST / tall))
    heights = [scale * max(p.size_mm[0] for p in row) for scale, row in zip(scales, rows, strict=True)]
    widths = [scale * sum(p.size_mm[1] for p in row) + GAP * (len(row) - 1)
              for scale, row in zip(scales, rows, strict=True)]
    width, height = max(widths), max(sum(heights) + GAP * (len(rows) - 1), 0.6)
    figure = Figure(figsize=(width, height), facecolor="black")
    top = height
    for row, scale, tall, wide in zip(rows, scales, heights, widths, strict=True):
        left = (width - wide) / 2
        for panel in row:
            h, w = (scale * mm for mm in panel.size_mm)
            bottom = top - (tall + h) / 2
            axes = figure.add_axes((left / width, bottom / height, w / width, h / height))
            _fill(axes, panel, window, n_classes)
            _letter(figure, axes, panel)
            left += w + GAP
        top -= tall + GAP
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, facecolor="black", metadata={"Software": None})
    return stream.getvalue()


def _fill(axes: Axes, panel: _Panel, window: tuple[float, float], n_classes: int) -> None:
    axes.set_axis_off()
    h, w = panel.size_mm
    extent = (0.0, w, h, 0.0)
    shades = np.nan_to_num((panel.image.astype(np.float64) - window[0]) / (window[1] - window[0]),
                           nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    axes.imshow(shades, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear", aspect="auto")
    if panel.prediction is not None:
        tint = np.zeros((*panel.prediction.shape, 4))
        for k in range(1, n_classes + 1):
            tint[panel.prediction == k] = (*to_rgb(colour(k - 1)), FILL)
        axes.imshow(tint, extent=extent, interpolation="nearest", aspect="auto")
    if panel.reference is not None:
        step = w / panel.reference.shape[1], h / panel.reference.shape[0]
        for k in range(1, n_classes + 1):
            edges = list(_edges(panel.reference == k) * step)
            for line, width in (("black", 3.2), (colour(k - 1), 1.6)):  # dark below, to be seen on bright tissue
                axes.add_collection(LineCollection(edges, colors=line, linewidths=width, capstyle="round"),
                                    autolim=False)
    axes.set_xlim(0, w)
    axes.set_ylim(h, 0)


def _edges(mask: np.ndarray) -> np.ndarray:
    """Voxel edges between a mask `(rows, columns)` and what is outside it: `(E, 2, 2)` of two (x, y) each.

    Exact: an outline interpolated between voxel centres would cut corners and shrink thin structures.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    row, x = np.nonzero(np.diff(padded, axis=1)[1:-1])  # an upright edge at x, from row to row + 1
    y, column = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    upright = np.stack([np.stack([x, row], -1), np.stack([x, row + 1], -1)], axis=1)
    level = np.stack([np.stack([column, y], -1), np.stack([column + 1, y], -1)], axis=1)
    return np.concatenate([upright, level]).astype(float)


def _letter(figure: Figure, axes: Axes, panel: _Panel) -> None:
    """Side letters inside the panel's edges, at a fixed distance from them in print."""
    points = [((0, 0.5), (5, 0), "left", "center"), ((1, 0.5), (-5, 0), "right", "center"),
              ((0.5, 1), (0, -5), "center", "top"), ((0.5, 0), (0, 5), "center", "bottom")]
    for text, (at, shift, across, up) in zip(panel.letters, points, strict=False):
        axes.annotate(text, at, shift, xycoords="axes fraction", textcoords="offset points", ha=across, va=up,
                      color="white", fontsize=10, fontweight="bold",
                      path_effects=[Stroke(linewidth=2.2, foreground="black"), Normal()])
    axes.annotate(panel.title, (0, 1), (6, -6), xycoords="axes fraction", textcoords="offset points", ha="left",
                  va="top", color="#d8dee2", fontsize=9,
                  path_effects=[Stroke(linewidth=2, foreground="black"), Normal()])
