"""The fingerprint of made-up and real cohorts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megavox.cohort.case import Catalogue
from megavox.cohort.layouts import LAYOUTS, recognise_folder
from megavox.cohort.survey import Fingerprint, Survey, survey
from megavox.core.errors import CohortError
from megavox.phantoms import FINDINGS, write_classify_cohort, write_segment_cohort
from megavox.study.sections import Study


def surveyed(folder: Path, **limits: Any) -> Survey:
    name, guess = recognise_folder(folder)
    family = "unet" if guess.task["kind"] == "segment" else "resnet"
    study = Study.model_validate({"name": "x", "cohort": guess.cohort, "task": guess.task, "images": guess.images,
                                  "model": {"family": family}})
    found = survey(LAYOUTS[name].catalogue(study.cohort, study.task), study.cohort, study.task, **limits)
    facts = found.fingerprint
    assert Fingerprint.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    assert all(isinstance(cell, str) and cell for row in found.to_table() for cell in row)
    return found


def test_organs(tmp_path: Path) -> None:
    truth = write_segment_cohort(tmp_path, 8, dirty=True)
    found = surveyed(tmp_path)
    facts = found.fingerprint
    assert facts.n_cases == 12 and facts.n_read == 12 and facts.spatial_dims == 3 and facts.channels == 1
    assert all(facts.calibrated) and set(facts.dtypes) == {"int16", "float32"}
    assert len(facts.orientations) > 1 and sum(facts.orientations.values()) == 12
    remarks = " ".join(facts.remarks)
    assert "orientations differ" in remarks and "spacings differ" in remarks and "voxel types differ" in remarks
    shares = [t["core"] / (40 * 48 * 40) for t in truth.values()]
    core = facts.classes["core"]
    assert core.cases == core.of - 1  # broken_label has the value 7 where the core should be
    assert core.share == pytest.approx(sorted(shares)[4], rel=0.5)


def test_a_sample_of_a_large_cohort_is_said(tmp_path: Path) -> None:
    write_classify_cohort(tmp_path, 20, classes=FINDINGS, multilabel=True)
    found = surveyed(tmp_path, most=5)
    facts = found.fingerprint
    assert facts.n_cases == 20 and facts.n_read == 5 and len(facts.shapes) == 5
    assert "sample of 5 of 20" in facts.remarks[0]
    assert facts.spatial_dims == 2 and facts.shapes[0] == [1, 96, 96] and not any(facts.calibrated)
    assert all(count.of == 20 for count in facts.classes.values())  # labels cost nothing: all are counted


def test_headers_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    write_segment_cohort(tmp_path, 3)
    (tmp_path / "imagesTr/organ_002.nii.gz").write_bytes(b"")
    found = surveyed(tmp_path)
    assert [item.case for item in found.rejected] == ["organ_002"]
    assert found.fingerprint.n_cases == 3 and found.fingerprint.n_read == 2
    assert ("headers not readable", "1 cases") in found.to_table()
    for path in (tmp_path / "imagesTr").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CohortError, match="none of 3 cases"):
        surveyed(tmp_path)


def test_no_case_at_all_is_a_cohort_error(tmp_path: Path) -> None:
    write_segment_cohort(tmp_path, 1)
    _, guess = recognise_folder(tmp_path)
    study = Study.model_validate({"name": "x", "cohort": guess.cohort, "task": guess.task,
                                  "model": {"family": "unet"}})
    with pytest.raises(CohortError):
        survey(Catalogue(), study.cohort, study.task)


def test_hippocampus(shared_data: Path) -> None:
    facts = surveyed(shared_data / "hippocampus_msd").fingerprint
    assert facts.n_cases == 200 and facts.spatial_dims == 3 and all(s == [1, 1, 1] for s in facts.spacings_mm)
    assert facts.dtypes == {"float32": 160, "uint8": 40}
    assert facts.classes["Anterior"].cases == 50 and 0.02 < (facts.classes["Anterior"].share or 0) < 0.04


def test_axons_are_drawn_from_a_mask_a_class(shared_data: Path) -> None:
    facts = surveyed(shared_data / "microscopy_axon_sem").fingerprint
    assert facts.spatial_dims == 2 and 0.15 < (facts.classes["axon"].share or 0) < 0.4
    assert (facts.classes["myelin"].share or 0) > (facts.classes["axon"].share or 0)


def test_ct_and_colour(shared_data: Path) -> None:
    facts = surveyed(shared_data / "ct_abdomen_totalseg/ct_dicom").fingerprint
    assert facts.modality == "CT" and facts.shapes == [[20, 512, 512]] and facts.dtypes == {"int16": 1}
    facts = surveyed(shared_data / "histology_crc_tiles").fingerprint
    assert facts.colour and facts.channels == 3
