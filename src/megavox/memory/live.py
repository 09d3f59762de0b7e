"""What is in memory while a program runs: every storage from where it was made to where it was let go of.

Works on real tensors, and on fake ones (PyTorch's `FakeTensorMode`), which have sizes and no numbers: so a training can
be followed that no machine here could run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Kind(StrEnum):
    """What a storage is there for."""

    WEIGHTS = "weights"
    INPUT = "input"
    GRADIENTS = "gradients"
    OPTIMISER = "optimiser state"
    ACTIVATIONS = "activations"
    WORKSPACE = "workspace"  # of an operator, while it runs
    HOST = "host copies"  # in main memory, of what was on the device


@dataclass
class Made:
    """A storage.

    Attributes:
        size: bytes.
        operator: that made it; empty for what was there before.
        module: in whose forward or backward, by its path in the network; empty for the network itself, and outside.
        kind: what for.
    """

    size: int
    operator: str
    module: str
    kind: Kind


# Give a tensor and write nothing into it, beside those that PyTorch knows as views.
MOVE_NOTHING = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided, torch.ops.aten.new_empty,
                torch.ops.aten.new_empty_strided, torch.ops.aten._unsafe_view}

Workspace = Callable[[Any, tuple, Mapping, Any], int]  # bytes, from operator, arguments and result

_in_host = False


@contextmanager
def host_memory() -> Iterator[None]:
    """What is made in this block lies in main memory beside the device, whatever the tensors say that are followed."""
    global _in_host
    _in_host = True
    try:
        yield
    finally:
        _in_host = False


class Live(TorchDispatchMode):
    """Writes down what is made and let go of while it is entered.

    Attributes:
        made: all storages, in order.
        events: `(number, bytes)`, negative where a storage is let go of.
        host_events: the same of copies in main memory, which are not among the others.
        operations: of convolutions and products of matrices, a multiplication with its addition as two.
        product_bytes: that those read and write, as `moved_bytes` counts.
        other_bytes: that all other operators read and write.

    Args:
        network: whose modules are named.
        workspace: what an operator takes beside what it gives, for as long as it runs.
    """

    def __init__(self, network: nn.Module, workspace: Workspace | None = None) -> None:
        super().__init__()
        self.made: list[Made] = []
        self.events: list[tuple[int, int]] = []
        self.host_events: list[tuple[int, int]] = []
        self.operations = self.product_bytes = self.other_bytes = 0
        self._numbers: dict[int, int] = {}
        self._workspace = workspace
        self._modules = _Modules(network)

    def __enter__(self) -> Live:
        self._modules.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._modules.__exit__(*error)

    def there(self, tensors: Iterable[Tensor], kind: Kind) -> None:
        """Tensors that are what `kind` says, whether they were made before or while this was entered."""
        for tensor in tensors:
            self.made[self._number(tensor, "", "")].kind = kind

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        kwargs = kwargs or {}
        result = operator(*args, **kwargs)
        if count := flop_registry.get(operator.overloadpacket):
            self.operations += count(*args, **kwargs, out_val=result)
            self.product_bytes += moved_bytes(operator, args, kwargs, result)
        else:
            self.other_bytes += moved_bytes(operator, args, kwargs, result)
        module = self._modules.name()
        for tensor in _tensors(result):
            if tensor.untyped_storage()._cdata not in self._numbers:
                self._number(tensor, operator.name(), module)
        if self._workspace is not None and (size := self._workspace(operator, args, kwargs, result)):
            self.events += [(len(self.made), size), (len(self.made), -size)]
            self.made.append(Made(size, operator.name(), module, Kind.WORKSPACE))
        return result

    def _number(self, tensor: Tensor, operator: str, module: str) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._numbers:
            number = self._numbers[key] = len(self.made)
            kind, events = (Kind.HOST, self.host_events) if _in_host else (Kind.ACTIVATIONS, self.events)
            self.made.append(Made(storage.nbytes(), operator, module, kind))
            events.append((number, storage.nbytes()))
            weakref.finalize(storage, self._gone, key, number, events).atexit = False
        return self._numbers[key]

    def _gone(self, key: int, number: int, events: list[tuple[int, int]]) -> None:
        del self._numbers[key]
        events.append((number, -self.made[number].size))


class _Modules:
    """Knows which module is at work, in its forward pass or in its backward.

    PyTorch's own tracker holds on to the graph, and with it to tensors that would be gone. Here the number of the node
    that is made for an operator is written down; in the backward pass the node still has it.
    """

    def __init__(self, network: nn.Module) -> None:
        self._names = {id(module): name for name, module in network.named_modules()}
        self._inside: list[str] = []
        self._of_node: dict[int, str] = {}

    def __enter__(self) -> None:
        self._hooks = [register_module_forward_pre_hook(self._enters),
                       register_module_forward_hook(self._leaves, always_call=True)]
        _following.append(self)

    def __exit__(self, *_: object) -> None:
        _following.remove(self)
        for hook in self._hooks:
            hook.remove()

    def name(self) -> str:
        """Of the module at work; to be asked at every operator."""
        node = torch._C._current_autograd_node()
        if self._inside or node is None:
            found = self._inside[-1] if self._inside else ""
            self._of_node[torch.autograd._get_sequence_nr() - 1] = found
            return found
        found = self._of_node.get(node._sequence_nr(), "")
        self._of_node.setdefault(torch.autograd._get_sequence_nr() - 1, found)  # of a graph within the backward pass
        return found

    def _enters(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._names.get(id(module), self._inside[-1] if self._inside else ""))

    def _leaves(self, *_: Any) -> None:
        self._inside.pop()


_following: list[_Modules] = []


@contextmanager
def at_work(module: nn.Module) -> Iterator[None]:
    """For whoever computes what a module would, and does not call it."""
    for one in _following:
        one._enters(module, None)
    try:
        yield
    finally:
        for one in _following:
            one._leaves()


def moved_bytes(operator: Any, args: tuple, kwargs: Mapping, result: Any) -> int:
    """What an operator reads and writes: every tensor among its arguments once, and every one among its results; of
    an expanded tensor what there is of it. What works in place has read and written the same."""
    if operator.is_view or operator.overloadpacket in MOVE_NOTHING:
        return 0
    if operator.namespace == "prim":  # fake tensors are asked for their properties by operators
        return 0
    read = {id(one): one for one in _tensors([*args, *kwargs.values()])}
    return sum(min(one.numel() * one.element_size(), one.untyped_storage().nbytes())
               for one in (*read.values(), *_tensors(result)))


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for one in result:
            yield from _tensors(one)
