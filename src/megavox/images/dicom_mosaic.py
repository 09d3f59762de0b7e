"""Siemens mosaic: the slices of one time point tiled in one picture.

The number of tiles and the slice direction stand in the private CSA header, which nibabel parses. The
position in the header is that of the corner of the whole picture, centred as if it were one slice.

Source: https://nipy.org/nibabel/dicom/dicom_mosaic.html
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from megavox.core.errors import UnsupportedImage
from megavox.images.dicom_frame import Frame


def mosaic_frames(path: Path, dataset: Any, whole: Frame) -> list[Frame]:
    """One frame for each slice in the mosaic.

    Raises:
        UnsupportedImage: the private header that tells the tiles apart is missing.
    """
    from nibabel.nicom import csareader

    csa = csareader.get_csa_header(dataset, "image")
    count = csareader.get_n_mosaic(csa) if csa else None
    normal = csareader.get_slice_normal(csa) if csa else None
    if not count or normal is None or None in (whole.position, whole.orientation, whole.spacing):
        raise UnsupportedImage("a Siemens mosaic without the private header that describes its tiles",
                               where=path, fix="Export it as enhanced DICOM or convert it with dcm2niix",
                               reason="mosaic")
    assert whole.position and whole.orientation and whole.spacing
    across = int(np.ceil(np.sqrt(count)))
    rows, columns = whole.shape[0] // across, whole.shape[1] // across
    along_x, along_y = np.array(whole.orientation[:3]), np.array(whole.orientation[3:])
    first = (np.array(whole.position) + along_x * whole.spacing[0] * (whole.shape[1] - columns) / 2
             + along_y * whole.spacing[1] * (whole.shape[0] - rows) / 2)
    return [replace(whole, shape=(rows, columns), corner=(k // across * rows, k % across * columns),
                    position=tuple(float(v) for v in first + np.asarray(normal) * whole.thickness * k))
            for k in range(count)]
