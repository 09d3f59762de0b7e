"""What computes the logits of windows: PyTorch, or OpenVINO on a CPU where its output is the same.

OpenVINO (extra `megavox[cpu]`) computes convolutions on CPUs several times faster. The network is converted
once and kept beside the run's checkpoints, and read from there as mapped memory by every worker. It is held
against PyTorch on a probe each time; if it differs, or cannot be had, PyTorch computes and a warning says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from megavox.core.errors import MachineError
from megavox.core.files import whole_folder
from megavox.core.progress import say
from megavox.inference.tiles import Engine

TOLERANCE = 1e-3  # largest difference from PyTorch on the probe, as a share of the range of its logits
_BFLOAT16_TOLERANCE = 0.1  # that setting is asked for, and has its own gate on validation cases


class TorchEngine:
    """A network computed by PyTorch.

    Args:
        network: on its device, in evaluation mode.
        device: where it is.
        precision: float32 or bfloat16 (autocast).
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "float32") -> None:
        self.network, self.device, self.precision = network, device, precision

    @torch.inference_mode()
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32, on the device."""
        layout = torch.contiguous_format
        if self.device.type == "cuda" and windows.ndim == 5:
            layout = torch.channels_last_3d
        moved = windows.to(self.device, memory_format=layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.network(moved)
        return (output[0] if isinstance(output, (list, tuple)) else output).float()


class OpenVINOEngine:
    """A network computed by OpenVINO, one window at a time.

    Args:
        model: converted, for windows of one shape.
        threads: of the CPU.
        precision: float32 or bfloat16.
    """

    def __init__(self, model: Any, threads: int, precision: str = "float32") -> None:
        import openvino

        compiled = openvino.Core().compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"})
        self._request = compiled.create_infer_request()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32, in main memory."""
        found = [torch.from_numpy(self._request.infer({0: window[None]})[0].copy()) for window in windows.numpy()]
        return torch.cat(found).float()


def choose_engine(wanted: str, network: nn.Module, device: torch.device, window: Sequence[int], *,
                  precision: str = "float32", kept: Path | None = None) -> Engine:
    """The engine for windows of one shape.

    Args:
        wanted: `auto`, `pytorch` or `openvino`.
        network: with its weights, on `device`, in evaluation mode.
        device: where to compute.
        window: `(C, *patch)`.
        precision: float32 or bfloat16.
        kept: folder for the converted network; its name tells weights and window shape apart.

    Raises:
        MachineError: OpenVINO is asked for and is not installed, or the device is not a CPU.
    """
    plain = TorchEngine(network, device, precision)
    usable = device.type == "cpu" and find_spec("openvino") is not None
    if wanted == "openvino" and not usable:
        raise MachineError("OpenVINO cannot compute here", where="inference.engine", expected="a CPU, with the extra "
                           "megavox[cpu] installed", fix="pip install 'megavox[cpu]', or set inference.engine: pytorch")
    if wanted == "pytorch" or not usable:
        return plain
    try:
        engine = OpenVINOEngine(_converted(network, window, kept), torch.get_num_threads(), precision)
        reason = _difference(engine, plain, window, _BFLOAT16_TOLERANCE if precision == "bfloat16" else TOLERANCE)
    except Exception as error:  # a converter meets networks of any kind, and raises what its parts raise
        reason = f"it cannot be converted ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"
    if reason:
        say(f"warning: OpenVINO is not used for this network: {reason}; PyTorch computes, more slowly")
        return plain
    return engine


def _converted(network: nn.Module, window: Sequence[int], kept: Path | None) -> Any:
    """The network as OpenVINO's model, from where it is kept or made now."""
    import openvino

    if kept is not None and (kept / "network.xml").exists():
        return openvino.Core().read_model(kept / "network.xml")
    example = torch.zeros(1, *window)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the probe tells whether it went well
        model = openvino.convert_model(network, example_input=example, input=[1, *window])
    if kept is not None:
        try:
            with whole_folder(kept) as temporary:
                openvino.save_model(model, temporary / "network.xml", compress_to_fp16=False)
        except OSError:  # the run's folder cannot be written: every worker converts for itself
            pass
    return model


def _difference(engine: Engine, plain: Engine, window: Sequence[int], tolerance: float) -> str:
    """What is wrong with an engine's output, by a probe of Gaussian noise; nothing where it agrees."""
    probe = torch.from_numpy(np.random.default_rng(0).standard_normal((1, *window), np.float32))
    found, expected = engine(probe), plain(probe).cpu()
    if found.shape != expected.shape:
        return f"its output has the shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    span = float(expected.max() - expected.min())
    apart = float((found - expected).abs().max())
    if not apart <= tolerance * span:
        return f"on a probe its output differs by {apart:.2g} (logits span {span:.2g})"
    return ""
