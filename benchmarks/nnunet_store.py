"""Cases in nnU-Net's own store, written as its preprocessor writes them: its chunk rule, its codec, its filter."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

with warnings.catch_warnings():  # of nnU-Net: that its folders are not named by environment variables
    warnings.simplefilter("ignore")
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2


def zscored(image: np.ndarray) -> np.ndarray:
    """`image` as nnU-Net's preprocessor stores it, float32."""
    return ((image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)).astype(np.float32)


def write_case(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, patch: int) -> None:
    """Save a case for training with patches of `patch` voxels along each axis.

    Args:
        image: `(Z, Y, X)`, stored in its type.
        mask: `(Z, Y, X)`, stored as int16, as nnU-Net does.
    """
    data, labels = image[None], mask[None].astype(np.int16)
    blocks, chunks = comp_blosc2_params(data.shape, (patch,) * 3, data.itemsize)
    blocks_mask, chunks_mask = comp_blosc2_params(labels.shape, (patch,) * 3, labels.itemsize)
    places = DefaultPreprocessor._sample_foreground_locations(labels, [1, 2])
    folder.mkdir(parents=True, exist_ok=True)
    nnUNetDatasetBlosc2.save_case(data, labels, {"class_locations": places}, str(folder / name), chunks=chunks,
                                  blocks=blocks, chunks_seg=chunks_mask, blocks_seg=blocks_mask)


def opened(folder: Path) -> nnUNetDatasetBlosc2:
    """The cases of a folder, as nnU-Net's data loader reads them: memory-mapped, one thread."""
    return nnUNetDatasetBlosc2(str(folder))
