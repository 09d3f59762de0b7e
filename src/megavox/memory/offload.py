"""Activations in main memory: what the backward pass needs is copied there while the forward pass goes on, and fetched
ahead of its use (Rhu 2016, vDNN, arXiv:1602.08124).

Unlike with PyTorch's `save_on_cpu`, copies go over a stream of their own while the device computes, what several
operators save is copied once, parameters stay where they are, and what comes back has the strides it had, so that the
same kernels make the same bits of it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from megavox.memory.live import host_memory

AHEAD = 1  # storages on their way at a time, in either direction
LEAST_BYTES = 2**20  # smaller storages stay


def offload(network: nn.Module, least_bytes: int = LEAST_BYTES) -> None:
    """From now on what this network keeps for its backward pass is kept in main memory; what it gives is the same.

    Args:
        network: in place.
        least_bytes: smaller storages stay on the device.
    """
    kind: Any = type(network)
    network.__class__ = _offloading(kind, least_bytes)  # not a wrapper: weights keep their names


@cache
def _offloading(kind: Any, least_bytes: int) -> Any:
    """The same kind of module with another `forward`."""
    class Offloading(kind):  # type: ignore[misc]
        def forward(self, *inputs: Any) -> Any:
            with offloaded(self, least_bytes):
                return super().forward(*inputs)

    return Offloading


@contextmanager
def offloaded(network: nn.Module, least_bytes: int = LEAST_BYTES) -> Iterator[None]:
    """What is saved for the backward pass in this block is kept in main memory, but for parameters.

    On a CPU copies are made too, so that results and estimates are those of a device.

    Args:
        network: whose parameters stay, and on whose device storages are copied.
        least_bytes: smaller storages stay on the device.
    """
    saving = _Saving(network, least_bytes)
    with torch.autograd.graph.saved_tensors_hooks(saving.pack, saving.unpack):
        yield
    saving.wait(0)


class _Side:
    """A CUDA stream beside the one that computes; without CUDA copies are made in line."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, to: Tensor, source: Tensor) -> Callable[[], None]:
        """Begin to copy, when all is done that was asked of the device before.

        Returns:
            What makes the computing stream wait for the copy.
        """
        if self.stream is None:
            to.copy_(source)
            return lambda: None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            to.copy_(source, non_blocking=True)
        done = self.stream.record_event()
        return lambda: torch.cuda.current_stream(self.device).wait_event(done)


_side = cache(_Side)


class _Host:
    """A storage's copy in main memory, and for a while on the device again.

    Args:
        flat: the whole storage, `(N,)`.
        side: makes copies, one after the other.
    """

    def __init__(self, flat: Tensor, side: _Side) -> None:
        self._side = side
        with host_memory():
            self._values = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.device.type == "cuda")
        self._back: Tensor | None = None
        self.wait = side.copy(self._values, flat)

    def fetch(self) -> None:
        """Begin to copy it back."""
        if self._back is None:
            self._back = torch.empty_like(self._values, device=self._side.device)
            self.wait = self._side.copy(self._back, self._values)

    def take(self) -> Tensor:
        """The whole storage on the device, `(N,)`; nothing here holds on to it any longer."""
        self.fetch()
        self.wait()
        back, self._back = self._back, None
        assert back is not None
        return back

    def __del__(self) -> None:
        if getattr(self, "_back", None) is not None:  # fetched and not used: its memory is still being written
            self.wait()


@dataclass(eq=False)
class _Saved:
    """A tensor that an operator saved: a view of a storage that was copied.

    Attributes:
        number: in the order in which tensors were saved.
        used: whether the backward pass had it.
    """

    host: _Host
    number: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    used: bool = False


class _Saving:
    """What is saved in one forward pass. Holds no storage of the device but those on their way, and the latest used:
    the operator before often saved the same one."""

    def __init__(self, network: nn.Module, least_bytes: int) -> None:
        parameters = list(network.parameters())
        self._device, self._least_bytes = parameters[0].device, least_bytes
        self._staying = {one.untyped_storage()._cdata for one in parameters}
        self._side = _side(self._device)
        self._saved: list[weakref.ref[_Saved]] = []
        self._copied: dict[tuple[Any, ...], tuple[weakref.ref[Any], weakref.ref[_Host]]] = {}
        self._leaving: deque[tuple[Tensor, Callable[[], None]]] = deque()
        self._latest: tuple[_Host, Tensor] | None = None

    def pack(self, tensor: Tensor) -> Tensor | _Saved:
        """What autograd keeps for a tensor."""
        storage = tensor.untyped_storage()
        if (tensor.device != self._device or tensor.layout is not torch.strided or tensor.is_complex()
                or storage.nbytes() < self._least_bytes or storage._cdata in self._staying):
            return tensor
        saved = _Saved(self._copy(tensor, storage), len(self._saved), tensor.size(), tensor.stride(),
                       int(tensor.storage_offset()))
        self._saved.append(weakref.ref(saved))
        return saved

    def unpack(self, packed: Tensor | _Saved) -> Tensor:
        """The tensor again. Of those that were saved before it, the last ones are fetched meanwhile."""
        if isinstance(packed, Tensor):
            return packed
        packed.used = True
        if self._latest is None or self._latest[0] is not packed.host:
            self._latest = packed.host, packed.host.take()
        for host in self._next(packed):
            host.fetch()
        return self._latest[1].as_strided(packed.size, packed.stride, packed.offset)

    def wait(self, most: int) -> None:
        """Let go of storages that leave, until at most so many are still being copied."""
        while len(self._leaving) > most:
            _, wait = self._leaving[0]
            wait()  # the computing stream: what it then writes to the same memory comes after the copy
            self._leaving.popleft()

    def _copy(self, tensor: Tensor, storage: torch.UntypedStorage) -> _Host:
        key = storage._cdata, tensor._version, tensor.dtype
        there, known = self._copied.get(key, (None, None))
        host = known() if known is not None else None
        if host is None or there is None or there() is None:  # new, or at the address of one that is gone
            flat = tensor.detach().as_strided((storage.nbytes() // tensor.itemsize,), (1,), 0)
            host = _Host(flat, self._side)
            self._copied[key] = weakref.ref(storage), weakref.ref(host)
            self._leaving.append((flat, host.wait))
            self.wait(AHEAD)
        return host

    def _next(self, packed: _Saved) -> list[_Host]:
        """Those that the backward pass is likely to ask for next."""
        found: list[_Host] = []
        for number in range(packed.number - 1, -1, -1):
            before = self._saved[number]()
            if before is not None and not before.used and before.host not in (packed.host, *found):
                found.append(before.host)
                if len(found) == AHEAD:
                    break
        return found
