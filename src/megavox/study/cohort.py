"""The section of a study file that says which images there are: one class a layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megavox.study.section import Section


class DecathlonCohort(Section):
    """`imagesTr`/`labelsTr` folders as of the Medical Segmentation Decathlon and nnU-Net."""

    layout: Literal["decathlon"]
    folder: Path = Field(description="folder with dataset.json, imagesTr and labelsTr")


class TableCohort(Section):
    """A CSV table with one row an image."""

    layout: Literal["table"]
    folder: Path = Field(description="folder of the table; image names are relative to images")
    table: str = Field("labels.csv", description="the CSV file's name")
    images: str = Field("images", description="sub-folder of the images ('.' for the folder itself)")
    image_column: str = Field("image", description="column with the image's file name")
    suffix: str = Field("", description="suffix to add to the names in image_column")
    subject_column: str | None = Field(None, description="column that names the subject; without it "
                                       "every image is taken for a subject of its own")
    session_column: str | None = Field(None, description="column that names or orders the visits")
    class_columns: list[str] = Field(min_length=1, description="one column with the class, or one "
                                     "0/1 column per class (multi-label, or yes/no)")


class DicomCohort(Section):
    """A tree of DICOM series; classes come from a table or the task is prediction only."""

    layout: Literal["dicom"]
    folder: Path = Field(description="top of the tree; a series is found wherever it lies")
    masks: Path | None = Field(None, description="folder with one mask a series, `<series>.nii.gz`")
    table: Path | None = Field(None, description="CSV with a column `series` or `subject` and classes")
    class_columns: list[str] = Field(default_factory=list, description="class columns of the table")


class FoldersCohort(Section):
    """A folder per class, images inside."""

    layout: Literal["folders"]
    folder: Path = Field(description="folder whose sub-folders are the classes")
    subject_pattern: str | None = Field(None, description="regular expression with one group that "
                                        "takes the subject out of a file name")


class BidsCohort(Section):
    """BIDS: `sub-*/[ses-*/]...` images with masks under `derivatives/labels`."""

    layout: Literal["bids"]
    folder: Path = Field(description="top folder, with sub-* folders")
    image_suffixes: list[str] = Field(min_length=1, description="one BIDS suffix a channel, e.g. T1w")
    masks: list[str] = Field(min_length=1, description="one mask suffix a class, e.g. seg-manual, in "
                             "the order of task.classes; a later one overwrites")


class Luna16Cohort(Section):
    """CT volumes with findings in a CSV table, as of LUNA16."""

    layout: Literal["luna16"]
    folder: Path = Field(description="folder of the tables; the images lie in it or below it, each called as its "
                         "seriesuid: MetaImage, NIfTI or DICOM series")
    annotations: str = Field("annotations.csv", description="CSV with the columns seriesuid, coordX, coordY, coordZ "
                             "(LPS mm) and diameter_mm, a finding a row; an image without a row has no finding")
    excluded: str | None = Field("annotations_excluded.csv", description="CSV of what is neither to be found nor wrong "
                                 "to find, likewise; null: there is none")
    subject_pattern: str | None = Field(None, description="regular expression with one group that takes the subject "
                                        "out of a seriesuid; without it DICOM goes by PatientID, and every other "
                                        "image is a subject of its own")


CohortSection = Annotated[
    DecathlonCohort | TableCohort | DicomCohort | FoldersCohort | BidsCohort | Luna16Cohort,
    Field(discriminator="layout")]
