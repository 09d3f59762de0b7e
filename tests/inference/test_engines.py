"""OpenVINO against PyTorch: same logits, kept beside the weights, and PyTorch where they differ or cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from megavox.core.errors import MachineError
from megavox.inference import engines
from megavox.inference.engines import OpenVINOEngine, TorchEngine, choose_engine
from megavox.models.registry import build_model
from megavox.study.sections import UNetModel

pytest.importorskip("openvino", reason="the extra megavox[cpu] is not installed")
CPU = torch.device("cpu")


def network(dims: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return build_model(UNetModel(family="unet", filters=4, levels=2), spatial_dims=dims, in_channels=2, out_channels=3,
                       patch=(16,) * dims).eval()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_logits_are_those_of_pytorch(dims: int) -> None:
    net = network(dims)
    engine = choose_engine("auto", lambda: net, CPU, (2, *(16,) * dims))
    assert isinstance(engine, OpenVINOEngine)
    windows = torch.randn(3, 2, *(16,) * dims)
    torch.testing.assert_close(engine(windows), TorchEngine(net, CPU)(windows), atol=1e-4, rtol=1e-4)


def test_the_converted_network_is_kept_and_read_again(tmp_path: Path) -> None:
    kept, net = tmp_path / "kept", network()
    windows = torch.randn(1, 2, 16, 16, 16)
    first = choose_engine("openvino", lambda: net, CPU, (2, 16, 16, 16), kept=kept)(windows)
    assert sorted(path.name for path in kept.iterdir()) == ["expected.npy", "network.bin", "network.xml"]

    def build() -> nn.Module:
        raise AssertionError("the network is not needed any more")

    again = choose_engine("openvino", build, CPU, (2, 16, 16, 16), kept=kept)(windows)
    torch.testing.assert_close(first, again, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["network.xml", "network.bin", "expected.npy"])
def test_a_damaged_file_is_told_and_pytorch_computes(tmp_path: Path, name: str,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    choose_engine("auto", network, CPU, (2, 16, 16, 16), kept=kept)
    data = bytearray((kept / name).read_bytes())
    data[len(data) // 4:] = bytes(reversed(data[len(data) // 4:]))
    (kept / name).write_bytes(data)
    assert isinstance(choose_engine("auto", network, CPU, (2, 16, 16, 16), kept=kept), TorchEngine)
    told = capsys.readouterr().err
    assert "OpenVINO does not compute this network" in told and f"remove {kept}" in told


def test_a_checkpoint_that_cannot_be_written_to_does_without_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = choose_engine("openvino", network, CPU, (2, 16, 16, 16), kept=tmp_path / "file" / "kept")
    assert isinstance(engine, OpenVINOEngine)


def test_a_network_that_cannot_be_traced_falls_back(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.tanh(x.numpy()))  # leaves PyTorch: a constant to every tracer

    assert isinstance(choose_engine("auto", Odd, CPU, (1, 8, 8)), TorchEngine)
    assert "OpenVINO does not compute" in capsys.readouterr().err


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"megavox\[cpu\]"):
        choose_engine("openvino", network, CPU, (2, 16, 16, 16))
    assert isinstance(choose_engine("auto", network, CPU, (2, 16, 16, 16)), TorchEngine)
