"""Image files to arrays with geometry: NIfTI, MetaImage, DICOM, PNG/JPEG/BMP, TIFF.

    image = read_image(Path("scan.nii.gz"))   # Image: array (C, Z, Y, X), geometry in LPS mm, meta
    image = resample_to_spacing(to_lps(image), (1.0, 1.0, 1.0))

Decoding libraries are imported when a file is first read.
"""

from megavox.images.check import check_image, check_mask_on_grid, mask_classes
from megavox.images.find import Found, FoundImages, find_images
from megavox.images.formats import FORMATS, Format, describe_image, format_of, read_image
from megavox.images.geometry import Geometry
from megavox.images.image import Description, Image
from megavox.images.nifti import write_nifti
from megavox.images.raster import write_raster
from megavox.images.reorient import to_lps
from megavox.images.resample import resample_to_grid, resample_to_spacing, resize

__all__ = [
    "FORMATS", "Description", "Format", "Found", "FoundImages", "Geometry", "Image", "check_image",
    "check_mask_on_grid", "describe_image", "find_images", "format_of", "mask_classes", "read_image",
    "resample_to_grid", "resample_to_spacing", "resize", "to_lps", "write_nifti", "write_raster",
]
