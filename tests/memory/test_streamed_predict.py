"""A volume predicted in slabs: what the network gives of the whole of it, in memory that its length does not change."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from megavox.core.errors import StudyError
from megavox.memory.follow import peak
from megavox.memory.live import Live
from megavox.memory.streamed.predict import predict
from megavox.memory.streamed.rolling import Read
from megavox.models.unet import UNet, level_strides

ACROSS = (16, 16)


def unet(size: tuple[int, ...], norm: str = "batch", **settings: object) -> UNet:
    """In evaluation mode, with running statistics and weights of norms that are not those of the beginning."""
    torch.manual_seed(0)
    network = UNet(len(size), 2, 3, widths=[4, 6, 8], strides=level_strides(size, 3), norm=norm, **settings)  # type: ignore[arg-type]
    for name, value in network.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(torch.rand(len(value)) + 0.5 * ("var" in name))
    return network.eval()


def without_norms(network: UNet) -> UNet:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
                setattr(module, name, nn.Identity())
    return network


def joined(network: UNet, image: Tensor | Read, slab_slices: int) -> Tensor:
    """All slabs, which have to come in order and without gaps."""
    found = list(predict(network, image, slab_slices))
    assert [low for low, _ in found] == list(range(0, image.shape[2], slab_slices))
    return torch.cat([logits for _, logits in found], dim=2)


@torch.no_grad()
def differ(network: UNet, x: Tensor, slab_slices: int) -> float:
    """The largest difference, relative to the largest number."""
    before, plain = x.clone(), network(x)
    found = joined(network, x, slab_slices)
    assert found.shape == plain.shape and found.dtype == plain.dtype and torch.equal(x, before)
    return float((found - plain).abs().max() / plain.abs().max())


@pytest.mark.parametrize("slab_slices", [1, 3, 8, 100])
@pytest.mark.parametrize("settings", [
    {}, {"kernel": 5}, {"residual_units": 1}, {"residual_units": 2}, {"kernel": 5, "residual_units": 2},
    {"dropout": 0.3}, {"deep_supervision": True}])
def test_every_form_of_it_is_equal_in_float64(settings: dict, slab_slices: int) -> None:
    x = torch.randn(2, 2, 36, 16, 8, dtype=torch.float64)
    network = unet((12, 16, 8), **settings).double()
    assert differ(network, x, slab_slices) < 1e-12
    assert differ(without_norms(network), x, slab_slices) < 1e-12


@pytest.mark.parametrize("size", [(16, 24), (5, 16, 24), (1, 16, 24), (8, 32, 32)])
@pytest.mark.parametrize("slab_slices", [1, 3, 4])
def test_pictures_and_thin_volumes(size: tuple[int, ...], slab_slices: int) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    assert differ(unet(size).double(), x, slab_slices) < 1e-12


def test_float32() -> None:
    assert differ(unet((12, 16, 8)), torch.randn(1, 2, 36, 16, 8), 4) < 1e-4


def test_under_autocast_it_is_as_near_to_the_truth_as_the_plain_one() -> None:
    network, x = unet((12, 16, 8)), torch.randn(1, 2, 36, 16, 8)
    with torch.no_grad():
        truth = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            plain, found = network(x), joined(network, x, 4)
    assert found.dtype == plain.dtype == torch.bfloat16
    assert (found - truth).norm() < 1.2 * (plain - truth).norm()


def test_from_a_file_to_a_file_with_each_slice_read_once(tmp_path: Path) -> None:
    size, read = (36, 16, 8), []
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(-9, 9, (2, *size), np.int16))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    out = np.lib.format.open_memmap(tmp_path / "logits.npy", "w+", np.float64, (3, *size))

    def rows(low: int, high: int) -> Tensor:
        read.append((low, high))
        return torch.tensor(image[:, low:high])[None]

    network = unet((12, 16, 8)).double()
    for low, logits in predict(network, Read((1, 2, *size), rows), 5):
        out[:, low:low + logits.shape[2]] = logits[0]
    with torch.no_grad():
        plain = network(torch.tensor(image, dtype=torch.float64)[None])[0].numpy()
    assert np.abs(np.load(tmp_path / "logits.npy") - plain).max() < 1e-12 * np.abs(plain).max()
    assert [read[0][0], read[-1][1]] == [0, 36]
    assert all(one[1] == two[0] for one, two in pairwise(read))


def predict_zeros(network: UNet, length: int, slab_slices: int) -> None:
    """Of image and logits there is a slab at a time; 0 slices: by the network itself."""
    size = (1, 2, length, *ACROSS)
    with torch.inference_mode():
        if not slab_slices:
            network(torch.zeros(size))
            return
        image = Read(size, lambda low, high: torch.zeros(1, 2, high - low, *ACROSS))
        for _ in predict(network, image, slab_slices):
            pass


@pytest.mark.parametrize("settings", [{}, {"kernel": 5}, {"residual_units": 1}])
def test_memory_does_not_grow_with_the_length(settings: dict) -> None:
    network = unet((12, *ACROSS), **settings)

    def most(length: int, slab_slices: int) -> int:
        with Live(network) as live:
            predict_zeros(network, length, slab_slices)
        return peak(live).size

    assert most(256, 8) == pytest.approx(most(64, 8), rel=0.02)
    assert most(256, 0) > 4 * most(256, 8)


@pytest.mark.parametrize("settings", [{}, {"kernel": 5}, {"residual_units": 1}])
def test_nothing_is_made_twice(settings: dict) -> None:
    network = unet((12, *ACROSS), **settings)

    def operations(slab_slices: int) -> int:
        with FlopCounterMode(display=False) as counted:
            predict_zeros(network, 64, slab_slices)
        return counted.get_total_flops()

    assert operations(3) == operations(4) == operations(0) > 0


def test_small_slabs_keep_onednn() -> None:
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as told:
        predict_zeros(unet((12, *ACROSS)), 64, 3)
    kernels = {name: {one.input_shapes[1][-1] for one in told.events() or () if one.name == name}
               for name in ("aten::mkldnn_convolution", "aten::slow_conv3d")}
    assert 3 in kernels["aten::mkldnn_convolution"]
    assert kernels["aten::slow_conv3d"] <= {1}  # on one thread it is the faster of the two, says PyTorch


def test_between_slabs_the_caller_records_gradients_as_before() -> None:
    for _ in predict(unet((12, 16, 8)), torch.zeros(1, 2, 24, 16, 8), 8):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_over_whole_maps_are_refused(norm: str) -> None:
    with pytest.raises(StudyError, match=r"model\.norm.*batch"):
        predict(unet((12, 16, 8), norm), torch.zeros(1, 2, 24, 16, 8), 8)
