"""OpenVINO against PyTorch: same logits, kept beside the weights, and PyTorch where they differ or cannot be had."""

from __future__ import annotations

import time
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


@pytest.mark.parametrize("faster", [True, False])
def test_a_network_that_is_compiled_computes_the_same_and_is_kept_where_it_is_faster(
        monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    calls = []
    net, compiler = network(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: calls.append(1) or compiler(module, backend="eager"))
    engine = TorchEngine(net, CPU, compile_after_s=0.0)
    took = iter((2.0, 1.0) if faster else (1.0, 2.0))
    monkeypatch.setattr(engine, "_seconds", lambda compute, windows: (compute(windows), next(took))[1])
    plain = TorchEngine(net, CPU)
    for count in (2, 2, 1):  # the last windows of an image are fewer
        windows = torch.randn(count, 2, 16, 16, 16)
        torch.testing.assert_close(engine(windows), plain(windows), rtol=1e-4, atol=1e-5)
    assert len(calls) == 1 and (engine._compiled is not None) == faster


def test_where_nothing_can_be_compiled_the_network_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", refused)
    windows = torch.randn(1, 2, 16, 16, 16)
    engine = TorchEngine(network(), CPU, compile_after_s=0.0)
    torch.testing.assert_close(engine(windows), TorchEngine(network(), CPU)(windows))


def test_time_is_taken_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    seconds = TorchEngine(network(), CPU)._seconds(lambda windows: seen.append(time.sleep(0.2 if not seen else 0)),
                                                   torch.zeros(1))
    assert len(seen) == 4 and seconds < 0.2


def test_what_is_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"megavox\[cpu\]"):
        choose_engine("openvino", network, CPU, (2, 16, 16, 16))
    assert isinstance(choose_engine("auto", network, CPU, (2, 16, 16, 16)), TorchEngine)
