"""What computes the logits of windows: PyTorch, at once or in slabs, or OpenVINO on a CPU where its output is the same.

OpenVINO (extra `megavox[cpu]`) computes convolutions on CPUs several times faster. The network is converted
once and kept beside its checkpoint, with what PyTorch says of a probe, and read from there as mapped memory by
every worker. Each time its output for the probe is held against that; if it differs, or the network cannot
be converted, PyTorch computes and a warning says why.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from megavox.core.errors import MachineError
from megavox.core.exhausted import out_of_memory
from megavox.core.files import read_array, whole_folder, write_array
from megavox.core.progress import say
from megavox.inference.merge import merge_upsampling
from megavox.memory.streamed.predict import predict
from megavox.models.unet import UNet

TOLERANCE = 1e-3  # largest difference from PyTorch on the probe, as a share of the range of its logits
BFLOAT16_TOLERANCE = 0.1  # that setting is asked for, and has its own gate on validation cases
COMPILE_AFTER_S = 120.0  # on a GPU
SLAB_BYTES = 512 * 10**6  # of a whole volume at a time; what the network looks ahead takes more of one that is large
NETWORK, EXPECTED = "network.xml", "expected.npy"


class TorchEngine:
    """A network computed by PyTorch.

    Args:
        network: on its device, in evaluation mode.
        device: where it is.
        precision: float32 or bfloat16 (autocast).
        compile_after_s: when it has been at work for so long, the network is compiled for windows of the present
            shape, and the faster of both is kept: compiling takes a minute, which a few images do not pay back.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: str = "float32",
                 compile_after_s: float = math.inf) -> None:
        self.network, self.device, self.precision = network, device, precision
        self._compile_at = time.monotonic() + compile_after_s
        self._compiled: tuple[torch.Size, Callable[[torch.Tensor], Any]] | None = None

    @torch.inference_mode()
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32, on the device."""
        layout = torch.contiguous_format
        if self.device.type == "cuda" and windows.ndim == 5:
            layout = torch.channels_last_3d
        moved = windows.to(self.device, memory_format=layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if time.monotonic() > self._compile_at:
                self._compile_at = math.inf
                self._compile(moved)
            compiled = self._compiled
            output = compiled[1](moved) if compiled and compiled[0] == moved.shape else self.network(moved)
        return (output[0] if isinstance(output, (list, tuple)) else output).float()

    def _compile(self, windows: torch.Tensor) -> None:
        """Compile the network for windows of this shape, and keep that if it is faster."""
        try:
            compiled = torch.compile(self.network, dynamic=False)
            plain_s, compiled_s = self._seconds(self.network, windows), self._seconds(compiled, windows)
        except Exception:  # no compiler on this machine, a network that it does not take, or no memory for both
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return
        if compiled_s < plain_s:
            self._compiled = windows.shape, compiled

    def _seconds(self, compute: Callable[[torch.Tensor], Any], windows: torch.Tensor) -> float:
        """What computing these windows takes, at best of three, after a first time that prepares."""
        found = []
        for _ in range(4):
            begin = time.perf_counter()
            compute(windows)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            found.append(time.perf_counter() - begin)
        return min(found[1:])


class StreamedEngine:
    """A U-Net with batch norms, computed by PyTorch for windows as large as a volume.

    Image and logits stay in main memory, and the device holds no more of any feature map than a window that moves
    along: see `memory.streamed.predict`.

    Args:
        network: on its device, in evaluation mode.
        precision: float32 or bfloat16 (autocast).
        slab_bytes: about as much of the largest map, and of what becomes of it, is made at a time.
    """

    def __init__(self, network: UNet, precision: str = "float32", slab_bytes: int = SLAB_BYTES) -> None:
        self.network, self.precision, self.slab_bytes = network, precision, slab_bytes

    @torch.inference_mode()
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32, in main memory.

        Raises:
            StudyError: the network has norms over whole maps.
        """
        head: Any = self.network.head
        logits = torch.empty(len(windows), head.out_channels, *windows.shape[2:])
        with torch.autocast(head.weight.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            for low, slab in predict(self.network, windows, self._slices(windows.shape)):
                logits[:, :, low:low + slab.shape[2]] = slab
        return logits

    def _slices(self, shape: torch.Size) -> int:
        """That are made at a time: two maps are joined for the last level of the decoder, which makes a third."""
        head: Any = self.network.head
        number_bytes = 2 if self.precision == "bfloat16" else head.weight.itemsize
        one_slice = 3 * head.in_channels * number_bytes * shape.numel() // (shape[1] * shape[2])
        return max(1, self.slab_bytes // one_slice)


class OpenVINOEngine:
    """A network computed by OpenVINO, one window at a time.

    Args:
        model: converted, for windows of one shape.
        threads: of the CPU.
        precision: float32 or bfloat16; the attribute of that name is what the CPU really computes in.
    """

    def __init__(self, model: Any, threads: int, precision: str = "float32") -> None:
        compiled = _core().compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"})
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = "bfloat16" if taken == "bf16" else "float32"
        self._request = compiled.create_infer_request()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits, float32, in main memory."""
        found: torch.Tensor | None = None
        for number, window in enumerate(windows.numpy()):
            logits = self._request.infer({0: window[None]})[0][0]  # in memory that the next window takes again
            if found is None:
                found = torch.empty(len(windows), *logits.shape)
            found[number] = torch.from_numpy(logits)
        assert found is not None
        return found


@cache
def _core() -> Any:
    """OpenVINO, once in a process and until its end.

    It sets a stack for signal handlers, and frees it with the last of its objects: a signal that came then would
    end the process.
    """
    import openvino

    return openvino.Core()


def choose_engine(wanted: str, build: Callable[[], nn.Module], device: torch.device, window: Sequence[int], *,
                  precision: str = "float32", kept: Path | None = None) -> TorchEngine | OpenVINOEngine:
    """The engine for windows of one shape.

    Args:
        wanted: `auto`, `pytorch` or `openvino`.
        build: makes the network with its weights, on `device`, in evaluation mode; not called where a converted
            one is kept, so that neither the network nor the library that it comes from takes memory.
        device: where to compute.
        window: `(C, *patch)`.
        precision: float32 or bfloat16.
        kept: folder for the converted network; its name tells weights and window shape apart.

    Raises:
        MachineError: OpenVINO is asked for and is not installed, or the device is not a CPU.
    """
    usable = device.type == "cpu" and find_spec("openvino") is not None
    if wanted == "openvino" and not usable:
        raise MachineError("OpenVINO cannot compute here", where="inference.engine", expected="a CPU, with the extra "
                           "megavox[cpu] installed", fix="pip install 'megavox[cpu]', or set inference.engine: pytorch")
    if wanted == "pytorch" or not usable:
        return TorchEngine(build(), device, precision, COMPILE_AFTER_S if device.type == "cuda" else math.inf)
    network = None if kept is not None and kept.exists() else build()
    try:
        if network is None:
            assert kept is not None
            return _checked(kept, window, precision)
        return _converted(network, window, precision, kept)
    except Exception as error:  # a converter meets networks of any kind, and raises what its parts raise
        if out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        again = f" (remove {kept} to convert it again)" if network is None else ""
    say(f"warning: OpenVINO does not compute this network: {reason}{again}; PyTorch does, more slowly")
    return TorchEngine(network if network is not None else build(), device, precision)


def _converted(network: nn.Module, window: Sequence[int], precision: str, kept: Path | None) -> OpenVINOEngine:
    """The network by OpenVINO, converted now; kept if there is a place for it that can be written."""
    import openvino

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the probe tells whether it went well
        model = openvino.convert_model(network, example_input=torch.zeros(1, *window), input=[1, *window])
    merge_upsampling(model)
    expected = TorchEngine(network, torch.device("cpu"))(_probe(window)).numpy()
    with tempfile.TemporaryDirectory() as place:
        folder = kept or Path(place) / "network"
        try:
            _save(model, expected, folder)
        except (MachineError, OSError):  # the run's folder cannot be written
            folder = Path(place) / "network"
            _save(model, expected, folder)
        return _checked(folder, window, precision)


def _save(model: Any, expected: np.ndarray, folder: Path) -> None:
    """Write the network as OpenVINO has it, and what PyTorch says of the probe; another job may have been faster."""
    import openvino

    with whole_folder(folder, replace=False) as temporary:
        openvino.save_model(model, temporary / NETWORK, compress_to_fp16=False)
        write_array(temporary / EXPECTED, expected)


def _checked(folder: Path, window: Sequence[int], precision: str) -> OpenVINOEngine:
    """The engine of a converted network, whose output for the probe is PyTorch's.

    Raises:
        ValueError: it is not.
    """
    engine = OpenVINOEngine(_core().read_model(folder / NETWORK), torch.get_num_threads(), precision)
    found, expected = engine(_probe(window)).numpy(), read_array(folder / EXPECTED)
    if found.shape != expected.shape:
        raise ValueError(f"its output has the shape {found.shape}, not {expected.shape}")
    span, apart = float(np.ptp(expected)), float(np.abs(found - expected).max())
    if not apart <= (BFLOAT16_TOLERANCE if precision == "bfloat16" else TOLERANCE) * span:
        raise ValueError(f"on a probe its output differs by {apart:.2g}, the logits spanning {span:.2g}")
    return engine


def _probe(window: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, *window), np.float32))
