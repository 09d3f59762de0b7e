"""Cases that the machine's memory does not hold: how that shows, and what to tell of them."""

from __future__ import annotations

from math import prod

import numpy as np

from megavox.cohort.case import Case, Rejected
from megavox.core.errors import ImageError
from megavox.core.exhausted import out_of_memory
from megavox.images.formats import describe_image
from megavox.images.image import Description
from megavox.images.prepare import Preparation
from megavox.images.reorient import lps_geometry

NO_MEMORY = "memory"


def short_of_memory(error: Exception) -> bool:
    """Whether memory ran out while packing; the writer's threads may be what found no place."""
    return out_of_memory(error) or (isinstance(error, RuntimeError) and "can't start new thread" in str(error))


def too_large(case: Case, preparation: Preparation) -> Rejected:
    """What to tell of a case that memory did not hold: how large its files say that they are."""
    sizes: dict[str, list[str]] = {}
    for name, files in [*(("image", files) for files in case.images), *(("mask", (mask,)) for mask in case.masks)]:
        try:
            found = describe_image(files if len(files) > 1 else files[0])
        except (ImageError, MemoryError, OSError):
            continue
        names = sizes.setdefault(_size(found, preparation), [])
        if name not in names:
            names.append(name)
    told = "".join(f" Size of the {' and of the '.join(names)} by the header: {size}." for size, names in sizes.items())
    return Rejected(case.name, case.subject, str(case.images[0][0]), NO_MEMORY,
                    f"This machine's memory is too small for this case, even when it is packed alone.{told} "
                    "If that is not the true size, export the case again; if it is, pack on a machine with more "
                    "memory, or set a coarser images.spacing_mm.")


def _size(found: Description, preparation: Preparation) -> str:
    """Voxels and their size in mm as the header has them, and voxels as packed, in the order x, y, z."""
    geometry = lps_geometry(found.geometry) if preparation.spatial_dims == 3 else found.geometry
    dims = preparation.spatial_dims
    voxels, spacing = np.array(geometry.size[:dims]), np.array(geometry.spacing[:dims])
    packed, text = voxels, f"{_times(voxels, '.0f')} voxels"
    if geometry.calibrated:
        text += f" of {_times(spacing)} mm"
    if preparation.size is None and preparation.spacing_mm is not None:
        wanted = np.array(preparation.spacing_mm[::-1])
        packed = np.rint(voxels * spacing / wanted)
        if (packed != voxels).any():
            text += f", which become {_times(packed, '.0f')} voxels of {_times(wanted)} mm"
    gigabytes = 4e-9 * found.shape[0] * max(prod(voxels.astype(float)), prod(packed.astype(float)))  # float32
    return f"{text} ({gigabytes:.{0 if gigabytes > 10 else 1}f} GB)"


def _times(values: np.ndarray, form: str = ".4g") -> str:
    return " x ".join(format(value, form) for value in values)
