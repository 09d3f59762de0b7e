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
    engine = choose_engine("auto", net, CPU, (2, *(16,) * dims))
    assert isinstance(engine, OpenVINOEngine)
    windows = torch.randn(3, 2, *(16,) * dims)
    torch.testing.assert_close(engine(windows), TorchEngine(net, CPU)(windows), atol=1e-4, rtol=1e-4)


def test_the_converted_network_is_kept_and_read_again(tmp_path: Path) -> None:
    kept, net = tmp_path / "kept", network()
    windows = torch.randn(1, 2, 16, 16, 16)
    first = choose_engine("openvino", net, CPU, (2, 16, 16, 16), kept=kept)(windows)
    assert sorted(path.name for path in kept.iterdir()) == ["network.bin", "network.xml"]
    state = (kept / "network.bin").stat().st_mtime_ns
    again = choose_engine("openvino", net, CPU, (2, 16, 16, 16), kept=kept)(windows)
    assert (kept / "network.bin").stat().st_mtime_ns == state
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_kept_weights_of_another_network_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choose_engine("auto", network(), CPU, (2, 16, 16, 16), kept=tmp_path / "kept")
    other = network()
    with torch.no_grad():
        for value in other.parameters():
            value *= 1.2
    engine = choose_engine("auto", other, CPU, (2, 16, 16, 16), kept=tmp_path / "kept")
    assert isinstance(engine, TorchEngine)
    assert "its output differs" in capsys.readouterr().err


def test_a_damaged_file_is_told_and_pytorch_computes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    choose_engine("auto", network(), CPU, (2, 16, 16, 16), kept=kept)
    (kept / "network.xml").write_text("<net")
    assert isinstance(choose_engine("auto", network(), CPU, (2, 16, 16, 16), kept=kept), TorchEngine)
    assert "OpenVINO is not used" in capsys.readouterr().err


def test_a_network_that_cannot_be_traced_falls_back(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.tanh(x.numpy()))  # leaves PyTorch: a constant to every tracer

    assert isinstance(choose_engine("auto", Odd(), CPU, (1, 8, 8)), TorchEngine)
    assert "OpenVINO is not used" in capsys.readouterr().err


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"megavox\[cpu\]"):
        choose_engine("openvino", network(), CPU, (2, 16, 16, 16))
    assert isinstance(choose_engine("auto", network(), CPU, (2, 16, 16, 16)), TorchEngine)
