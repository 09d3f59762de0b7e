"""VGG against the paper's sizes, and those of the volumes that it was tried on."""

from __future__ import annotations

import pytest
import torch

from megavox.core.errors import StudyError
from megavox.models.registry import build_model, parameter_count
from megavox.models.vgg import VGG
from megavox.study.sections import VGGModel


@pytest.mark.parametrize(("depth", "count"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544),
                                              (19, 143_667_240)])
def test_parameters_of_the_paper(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(VGG(depth, 3, 1000, (224, 224), norm="none")) == count


@pytest.mark.parametrize(("size", "millions"), [((80, 80, 80), 93), ((96, 96, 96), 133), ((128, 128, 128), 211),
                                                ((160, 384, 384), 1586)])
def test_parameters_of_volumes(size: tuple[int, ...], millions: int) -> None:
    with torch.device("meta"):
        assert round(parameter_count(VGG(19, 1, 2, size, norm="none")) / 1e6) in (millions, millions + 1)


def test_a_patch_that_is_too_small() -> None:
    with pytest.raises(StudyError, match="24 x 64 is too small for VGG"):
        build_model(VGGModel(family="vgg"), spatial_dims=2, in_channels=1, out_channels=2, patch=(24, 64))
