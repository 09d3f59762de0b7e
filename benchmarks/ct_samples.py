"""Megavox's samples as all pipelines make them; `pipelines` says what is done to them."""

from __future__ import annotations

from collections.abc import Sequence

from megavox.batches.samples import Samples
from megavox.images.intensity import normaliser
from megavox.store.read import CaseReader
from megavox.study.sections import AugmentSection, BatchesSection


def samples_of(cases: Sequence[CaseReader], size: int, share: float) -> Samples:
    """Samples of these cases: patches of `size` voxels along each axis, a `share` of them rotated and scaled."""
    augment = AugmentSection(
        mirror=["left-right", "front-back", "up-down"], rotate90=True, affine_p=share, rotation_deg=15, scale=0.15,
        shift=0.0, intensity_p=0.5, intensity_scale=0.25, intensity_offset=0.1, noise_p=0.5, noise=0.1, gamma_p=0,
        blur_p=0, low_resolution_p=0)
    numbers = [normaliser("zscore", case.record.intensities) for case in cases]
    return Samples(cases, numbers, patch=(size,) * 3, batch=2, section=BatchesSection(foreground=0.5, augment=augment),
                   seed=0)
