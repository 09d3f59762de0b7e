"""Training pipelines of Megavox and its peers, each at its best for the same mix of augmentations.

Of every pipeline come pairs of an image, float32 and z-scored, and a mask. Half of the patches lie around a
voxel of a class. Each axis is mirrored in half of the patches; three in four are turned by 90, 180 or 270
degrees; rotation by up to 15 degrees about all axes and scaling by 0.85 to 1.15 in a given
share, the image trilinear and the mask nearest; intensities times 0.75 to 1.25 and shifted in half of the
patches; Gaussian noise of standard deviation 0 to 0.1 in half of them. One process, one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import monai.data
import monai.transforms as mt
import numpy as np
import SimpleITK
import torch
import torchio

import nnunet_store
from bars import Work
from ct_samples import samples_of
from megavox.store.read import CaseReader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from batchgeneratorsv2.transforms.intensity.brightness import (
        BrightnessAdditiveTransform,
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

ANGLE = np.deg2rad(15)
Volumes = Sequence[tuple[np.ndarray, np.ndarray]]  # image z-scored float32 and mask uint8, both (Z, Y, X)


def megavox(cases: Sequence[CaseReader], size: int, share: float) -> Work:
    """Megavox, reading from its store."""
    samples, counter = samples_of(cases, size, share), iter(range(1 << 40))

    def work(rng: np.random.Generator) -> int:
        samples.sample(*divmod(next(counter), 2))
        return 1

    return work


def read_size(size: int) -> tuple[int, ...]:
    """What is cut out for a patch that is rotated and scaled, by nnU-Net's rule."""
    return tuple(int(n) for n in get_patch_size((size,) * 3, ANGLE, ANGLE, ANGLE, (0.85, 1.15)))


def nnunet(folder: Path, size: int, share: float) -> Work:
    """nnU-Net: its data loader on its own store, and the transforms that its trainer builds, with this mix.

    It draws rotation and scaling apart; together they change the given share of patches. Nearest voxels of
    masks, which its trainer interpolates class by class, are its faster way.
    """
    apart = 1 - (1 - share) ** 0.5
    transforms = ComposeTransforms([
        SpatialTransform((size,) * 3, patch_center_dist_from_border=0, random_crop=False, p_rotation=apart,
                         rotation=(-ANGLE, ANGLE), p_scaling=apart, scaling=(0.85, 1.15),
                         p_synchronize_scaling_across_axes=1, mode_seg="nearest", border_mode_seg="constant",
                         padding_value_seg=-1),
        RandomTransform(Rot90Transform(1), 0.75),
        RandomTransform(GaussianNoiseTransform((0, 0.1), synchronize_channels=True), 0.5),
        RandomTransform(MultiplicativeBrightnessTransform((0.75, 1.25), synchronize_channels=False), 0.5),
        RandomTransform(BrightnessAdditiveTransform(0, 0.05, synchronize_channels=False), 0.5),
        MirrorTransform((0, 1, 2)), RemoveLabelTansform(-1, 0)])
    labels: Any = SimpleNamespace(all_labels=[0, 1, 2], has_ignore_label=False)
    loader = nnUNetDataLoader(nnunet_store.opened(folder), 2, read_size(size), (size,) * 3, labels,
                              oversample_foreground_percent=0.5, transforms=transforms)
    return lambda rng: len(next(loader)["data"])


def _monai_mix() -> list[mt.Transform]:
    return [*(mt.RandFlipd(("image", "mask"), prob=0.5, spatial_axis=axis) for axis in range(3)),
            mt.RandRotate90d(("image", "mask"), prob=0.75, max_k=3),
            mt.RandScaleIntensityd("image", factors=0.25, prob=0.5),
            mt.RandShiftIntensityd("image", offsets=0.1, prob=0.5), mt.RandGaussianNoised("image", prob=0.5, std=0.1)]


def _monai_affine(size: int, share: float) -> mt.Transform:
    return mt.RandAffined(("image", "mask"), prob=share, rotate_range=(ANGLE,) * 3, scale_range=(0.15,) * 3,
                          spatial_size=(size,) * 3, mode=("bilinear", "nearest"), padding_mode="border",
                          cache_grid=True)


def monai_tuned(volumes: Volumes, size: int, share: float) -> Work:
    """MONAI on plain tensors that are cached and not copied, with voxels to crop around found beforehand.

    A patch that is rotated is cut out with a margin, others without; the grid of positions is kept.
    """

    def crop(shape: tuple[int, ...]) -> mt.Transform:
        return mt.RandCropByPosNegLabeld(
            ("image", "mask"), "mask", shape, pos=1, neg=1, num_samples=1, fg_indices_key="mask_fg_indices",
            bg_indices_key="mask_bg_indices")

    rotated = mt.Compose([crop(read_size(size)), _monai_affine(size, 1.0)])
    chain = mt.Compose([
        mt.EnsureChannelFirstd(("image", "mask"), channel_dim="no_channel"),
        mt.FgBgToIndicesd("mask", image_key="image"), mt.EnsureTyped(("image", "mask"), track_meta=False),
        mt.OneOf([rotated, crop((size,) * 3)], weights=[share, 1 - share]), *_monai_mix()])
    chain.set_random_state(0)
    return _monai_work(volumes, chain, copy=False, tracked=False)


def monai_default(volumes: Volumes, size: int, share: float) -> Work:
    """MONAI as its tutorials do (spleen segmentation): four patches at a time, voxels to crop around found anew."""
    chain = mt.Compose([
        mt.EnsureChannelFirstd(("image", "mask"), channel_dim="no_channel"), mt.EnsureTyped(("image", "mask")),
        mt.RandCropByPosNegLabeld(("image", "mask"), "mask", (size,) * 3, pos=1, neg=1, num_samples=4,
                                  image_key="image", image_threshold=0),
        _monai_affine(size, share), *_monai_mix()])
    chain.set_random_state(0)
    return _monai_work(volumes, chain, copy=True, tracked=True)


def _monai_work(volumes: Volumes, chain: mt.Compose, copy: bool, tracked: bool) -> Work:
    monai.data.set_track_meta(tracked)
    cases = monai.data.CacheDataset([{"image": image, "mask": mask} for image, mask in volumes], chain,
                                    copy_cache=copy, num_workers=1, progress=False)

    def work(rng: np.random.Generator) -> int:
        monai.data.set_track_meta(tracked)
        return len(cases[int(rng.integers(len(cases)))])

    return work


def torchio_pipeline(volumes: Volumes, size: int, share: float) -> Work:
    """TorchIO: patches of its label sampler, which keeps its map of probabilities for every volume, then augmented.

    It has no random quarter turns and no random factor of intensities, which are left out.
    """
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    chain = torchio.Compose([
        torchio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
        torchio.RandomAffine(scales=(0.85, 1.15), degrees=15, isotropic=True, p=share),
        torchio.RandomNoise(std=(0, 0.1), p=0.5)])
    sampler = torchio.LabelSampler((size,) * 3, "mask", {0: 0.5, 1: 0.25, 2: 0.25})

    def patches(image: np.ndarray, mask: np.ndarray) -> Iterator[torchio.Subject]:
        subject = torchio.Subject(image=torchio.ScalarImage(tensor=torch.from_numpy(image)[None]),
                                  mask=torchio.LabelMap(tensor=torch.from_numpy(mask)[None]))
        yield from sampler(subject)

    drawn = [patches(*volume) for volume in volumes]
    for one in drawn:
        next(one)  # makes its map

    def work(rng: np.random.Generator) -> int:
        chain(next(drawn[int(rng.integers(len(drawn)))]))
        return 1

    return work
