"""Small pictures like chest radiographs, with findings that were put there.

Lungs, heart, ribs and vessels differ from patient to patient; brightness, contrast, position and
noise from picture to picture. An opacity is as bright as the vessels' spots and anywhere in the
lungs, so neither a pixel nor the mean gives it away: its size does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from megavox.core.files import write_csv
from megavox.core.randomness import generator
from megavox.images.raster import write_raster

SIZE = 96  # pixels along y and x
FINDINGS = ("opacity", "effusion", "cardiomegaly")


@dataclass(frozen=True)
class Radiograph:
    """One picture.

    Attributes:
        pixels: `(Y, X)` uint8.
        findings: what was put there, of `FINDINGS`.
        lesion: `(Y, X)` bool, where the opacity lies (empty without one).
    """

    pixels: np.ndarray
    findings: tuple[str, ...]
    lesion: np.ndarray


def radiograph(seed: int, patient: int, visit: int, findings: Sequence[str]) -> Radiograph:
    """The picture of a patient's visit, with the given findings.

    The patient's anatomy depends on `(seed, patient)`, everything else on the visit as well. Equal
    arguments but for `findings` give the same picture but for the findings.
    """
    assert set(findings) <= set(FINDINGS), findings
    body = generator(seed, "radiograph", patient)
    view = generator(seed, "radiograph", patient, visit)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    y, x = y - view.uniform(-0.03, 0.03), x - view.uniform(-0.03, 0.03)
    width, height = body.uniform(0.15, 0.18), body.uniform(0.29, 0.34)
    lungs = [np.hypot((x - centre) / width, (y - 0.48) / height) for centre in (0.28, 0.72)]
    inside = np.minimum(*lungs)
    grey = 165.0 - 85.0 / (1 + np.exp((inside - 1) * 14))  # air is dark
    heart = body.uniform(0.12, 0.14) + (0.08 if "cardiomegaly" in findings else 0.0)
    grey += 65.0 / (1 + np.exp((np.hypot((x - 0.55) / heart, (y - 0.62) / 0.16) - 1) * 12))
    grey += 12.0 * np.sin(2 * np.pi * (y * body.uniform(7, 9) + 1.5 * (x - 0.5) ** 2 + body.uniform()))
    for place in _in_lungs(inside, body, 14):
        grey += body.uniform(20, 45) * _spot(place, body.uniform(0.8, 1.6))  # vessels seen end on
    lesion = np.zeros((SIZE, SIZE), bool)
    if "opacity" in findings:
        own = generator(seed, "radiograph", patient, visit, "opacity")
        spot = _spot(_in_lungs(inside, own, 1)[0], own.uniform(4.5, 7.0))
        grey += own.uniform(55, 75) * spot
        lesion = spot > 0.5
    if "effusion" in findings:
        own = generator(seed, "radiograph", patient, visit, "effusion")
        side, level = lungs[int(own.integers(2))], 0.48 + height * own.uniform(0.25, 0.5)
        grey += 75.0 / (1 + np.exp((side - 1) * 14)) / (1 + np.exp((level - y) * 60))
    grey = (grey - 130) * view.uniform(0.75, 1.15) + 130 + view.uniform(-25, 25)
    grey = gaussian_filter(grey, 0.7) + view.normal(0, 9, grey.shape)
    return Radiograph(np.clip(np.rint(grey), 0, 255).astype(np.uint8), tuple(findings), lesion)


def _in_lungs(inside: np.ndarray, random: np.random.Generator, count: int) -> np.ndarray:
    """Random pixels well inside the lungs, `(count, 2)`."""
    places = np.argwhere(inside < 0.75)
    return places[random.integers(len(places), size=count)]


def _spot(place: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian spot of height 1 and `sigma` pixels."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    return np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * sigma ** 2))


def write_classify_cohort(folder: Path, cases: int, seed: int = 0, *,
                          classes: Sequence[str] = ("clear", "opacity"),
                          multilabel: bool = False) -> list[dict[str, str]]:
    """Write pictures and labels.csv in the table layout; 1 to 3 visits a patient.

    Args:
        folder: gets `labels.csv` and `images/*.png`.
        cases: pictures.
        seed: equal seeds give equal bytes.
        classes: exclusive: "clear" and any of `FINDINGS`, in a column `label`, patients dealt in turn.
            Multi-label: any of `FINDINGS`, a 0/1 column each, every finding in 4 of 10 patients.
        multilabel: see `classes`.

    Returns:
        The rows of labels.csv.
    """
    rows: list[dict[str, str]] = []
    patient = 0
    while len(rows) < cases:
        patient += 1
        random = generator(seed, "patient", patient)
        if multilabel:
            findings = [name for name in classes if random.random() < 0.4]
            said = {name: str(int(name in findings)) for name in classes}
        else:
            label = classes[patient % len(classes)]
            findings, said = [label] if label in FINDINGS else [], {"label": label}
        for visit in range(1, 1 + min(int(random.integers(1, 4)), cases - len(rows))):
            name = f"p{patient:04d}_v{visit}.png"
            picture = radiograph(seed, patient, visit, findings)
            write_raster(folder / "images" / name, picture.pixels[None])
            rows.append({"image": name, "patient": f"p{patient:04d}", "visit": str(visit), **said})
    write_csv(folder / "labels.csv", list(rows[0]), rows)
    return rows
