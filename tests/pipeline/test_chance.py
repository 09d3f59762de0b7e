"""Runs on shuffled targets score at chance: nothing leaks from the test cases into the figures."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np

from megavox.core.randomness import generator
from megavox.pipeline.evaluate import evaluate
from megavox.pipeline.pack import pack
from megavox.pipeline.train import train
from small_studies import changed, picture_cohort, project_of, segment_cohort

MORE_STEPS = {"steps": 40, "validations": 2}


def shuffle_labels(table: Path) -> None:
    """Deal the labels of whole patients anew, so that a patient's pictures still agree."""
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    patients = sorted({row["patient"] for row in rows})
    dealt = generator(7, "labels").permutation([n % 2 for n in range(len(patients))])
    label = {patient: ("clear", "opacity")[k] for patient, k in zip(patients, dealt, strict=True)}
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": label[row["patient"]]} for row in rows)


def test_classify_on_shuffled_labels_is_a_coin(tmp_path: Path) -> None:
    data = changed(picture_cohort(tmp_path / "images", 200), training=MORE_STEPS, split={"test": 0.4})
    shuffle_labels(tmp_path / "images" / "labels.csv")
    project = project_of(data, tmp_path, "shuffled")
    pack(project)
    train(project)
    found = evaluate(project)
    patients = len({row["subject"] for row in found.rows})
    deviation = (1 / (3 * patients)) ** 0.5  # of a chance AUROC (Mann-Whitney), were a patient's pictures all alike
    assert patients >= 30 and abs(found.summary["headline"]["auroc"]["value"] - 0.5) < 3 * deviation < 0.3


def move_masks(labels: Path) -> None:
    """Draw a ball of class 1 at a place that has nothing to do with the image; no class 2."""
    for number, path in enumerate(sorted(labels.glob("*.nii.gz"))):
        image = nibabel.load(path)
        size = np.array(image.shape)
        centre = generator(7, "ball", number).uniform(0.2, 0.8, 3) * size
        distance = np.linalg.norm(np.moveaxis(np.indices(image.shape), 0, -1) - centre, axis=-1)
        nibabel.save(nibabel.Nifti1Image((distance < 7).astype(np.uint8), image.affine, image.header), path)


def test_segment_on_moved_masks_is_no_better_than_a_fixed_place(tmp_path: Path) -> None:
    data = changed(segment_cohort(tmp_path / "images", 16), training=MORE_STEPS,
                   task={"classes": {"ball": 1}}, split={"test": 0.4})
    move_masks(tmp_path / "images" / "labelsTr")
    project = project_of(data, tmp_path, "moved")
    pack(project)
    train(project)
    dice = evaluate(project).summary["all"]["dice"]["mean"]
    entries = project.entries()

    def balls(part: str) -> list[np.ndarray]:
        """Masks of a part in the middle 30 voxels of each axis, as the network could place them."""
        masks = [np.asarray(nibabel.load(e.case.masks[0]).dataobj) for e in entries if e.case.masks and e.part == part]
        return [mask[tuple(slice((n - 28) // 2, (n - 28) // 2 + 28) for n in mask.shape)] for mask in masks]

    mean = np.mean(balls("train"), axis=0)
    test = balls("test")
    fixed = max(np.mean([2 * (guess & (mask > 0)).sum() / max(guess.sum() + mask.sum(), 1) for mask in test])
                for guess in (mean >= level for level in np.unique(mean)))
    assert dice["low"] <= fixed + 0.05, (dice, fixed)
