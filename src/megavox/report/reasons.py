"""Why a file was set aside, in words for people who make and read images."""

from __future__ import annotations

# reason in quarantine.csv -> (what it is, what it means)
_REASONS = {
    "image": ("Image cannot be used", "The file was read but does not hold an image that can be used."),
    "unreadable": ("File cannot be opened", "The file is damaged, or not what its name says."),
    "unsupported": ("No image of a known kind", "The file is valid, but holds no image that this study can use."),
    "geometry": ("Position in the patient is unclear", "Where the image lies in the patient, or how large its pixels "
                 "are, is missing or contradicts itself."),
    "label": ("Target does not fit the study", "The drawing or the class of this case is missing or not one of those "
              "the study names."),
    "empty": ("Nothing in the image", "The image has no pixels."),
    "empty file": ("Empty file", "The file has no content: most often a copy that was interrupted."),
    "empty folder": ("Empty folder", "The folder that should hold the series has no DICOM file in it."),
    "truncated": ("File is cut off", "The end of the file is missing: most often a copy that was interrupted."),
    "not finite": ("Holes in the image", "Some pixels have no value. A step before this one went wrong."),
    "constant": ("Blank image", "Every pixel has the same value: there is no anatomy to see."),
    "not dicom": ("Not a DICOM file", "The file lies among DICOM files but is not one."),
    "not nifti": ("Not a NIfTI file", "The file is named as a NIfTI image but is not one."),
    "unknown format": ("Unknown file format", "The file is of no image format that is known here."),
    "not an image": ("Not an image", "A DICOM object without a picture, such as a report or a waveform."),
    "no pixels": ("Picture is missing", "A DICOM header without its picture."),
    "too large": ("Too large to be true", "The header declares far more pixels than an image has: it may be damaged."),
    "mask grid": ("Drawing does not lie on its image", "The drawing was made on another grid than the image: its "
                  "outlines would be shifted."),
    "mask off-grid": ("Drawing does not lie on its image", "The drawing was made on another grid than the image: its "
                      "outlines would be shifted."),
    "label values": ("Unknown label in the drawing", "The drawing has label numbers that the study does not name."),
    "affine": ("Position in the patient is damaged", "The header's position and orientation are not usable, so left "
               "and right cannot be told for certain."),
    "shear": ("Slanted image grid", "Rows, columns and slices are not at right angles to each other."),
    "gantry tilt": ("Tilted gantry", "The CT gantry was tilted: slices are not stacked at a right angle."),
    "missing slices": ("Slices are missing", "There is a gap in the stack of slices."),
    "uneven slices": ("Uneven slices", "The slices are not evenly spaced."),
    "mixed planes": ("Different planes in one series", "Slices of different direction or size are mixed, often a "
                     "localiser (scout) among them."),
    "mixed series": ("Several series together", "The files belong to more than one series."),
    "no position": ("Slices cannot be sorted", "The slices do not say where they lie, so their order is unknown."),
    "orientation": ("Orientation is damaged", "The orientation in the header is not possible."),
    "incomplete echoes": ("Incomplete series", "Not every slice position has every image, for example every echo."),
    "mosaic": ("Mosaic cannot be taken apart", "All slices are in one picture and the header does not say how."),
    "channels": ("Number of sequences differs", "This case has more or fewer channels than the rest of the cohort."),
    "channels off-grid": ("Sequences do not match", "The sequences of this case do not lie on the same grid."),
    "dimensions": ("2D among 3D", "This is a single picture where the others are volumes, or the other way round."),
    "duplicate": ("Same image twice", "An exact copy of another case. Kept, it could stand in training and in test."),
    "missing image": ("Image is missing", "The case is listed, but its image is not there."),
    "missing target": ("Target is missing", "The image is there, but its drawing or its class is not."),
    "missing subject": ("Whose image?", "It cannot be told which person the image belongs to."),
    "killed its reader": ("Crashed the reader", "Reading this file brought the program down, most often by running out "
                          "of memory; the rest went on without it."),
    "killed its worker": ("Crashed the prediction", "Predicting this image brought its process down, twice; the rest "
                          "went on without it."),
    "unexpected error": ("Unexpected error", "Predicting this image failed twice in a way that nobody foresaw; the "
                         "rest went on without it."),
}


def reason_words(reason: str) -> tuple[str, str]:
    """A title and a sentence for a reason of quarantine.csv; an unknown one speaks for itself."""
    return _REASONS.get(reason, (reason[:1].upper() + reason[1:] or "Set aside", ""))
