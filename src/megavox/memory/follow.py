"""A training or a prediction, followed on fake tensors: nothing of its size is made, here or on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from megavox.memory.live import Kind, Live, Made, Workspace

STEPS = 2  # the first makes the optimiser's state, the second has it from its beginning
LARGEST = 5  # contributors that are named


@dataclass(frozen=True)
class Exercise:
    """What is done with a network.

    Attributes:
        build: makes it.
        image: shape of what goes in, `(B, C, *S)`.
        loss: of what comes out; None to predict.
        optimiser: makes one for the network; None leaves the weights as they are.
        bfloat16: whether under autocast.
        clip: norm of the gradients above which they are made smaller; 0: never.
        average: whether an average of the weights is kept beside.
        parts: micro-batches of a step.
        device: kind of device whose rules of autocast hold.
    """

    build: Callable[[], nn.Module]
    image: Sequence[int]
    loss: Callable[[Tensor], Tensor] | None = None
    optimiser: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    bfloat16: bool = False
    clip: float = 0.0
    average: bool = False
    parts: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Peak:
    """The moment with the most in memory of the device.

    Attributes:
        size: bytes.
        host: the most bytes, at a moment of its own, of copies in main memory beside the device.
        kinds: bytes of each kind of storage.
        operator, module: at work.
        largest: the largest storages, the largest first.
    """

    size: int
    host: int
    kinds: dict[Kind, int]
    operator: str
    module: str
    largest: tuple[Made, ...]


def follow(exercise: Exercise, workspace: Workspace | None = None) -> Live:
    """Everything that is made and let go of in `STEPS` steps, from the building of the network on.

    Raises:
        Exception: as the network does where it cannot be built, or does what cannot be done without numbers.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _Corrected():
        try:
            network = exercise.build()
        except DataDependentOutputException:  # it looks at numbers while it is built: only its weights are made then
            with unset_fake_temporarily():
                network = exercise.build()
            network._apply(mode.from_tensor)
        return _go(exercise, network, workspace)


def go(exercise: Exercise, workspace: Workspace | None = None) -> Live:
    """The same with real tensors, to compare."""
    return _go(exercise, exercise.build(), workspace)


def _go(exercise: Exercise, network: nn.Module, workspace: Workspace | None) -> Live:
    network.train(exercise.loss is not None)
    image, live = torch.empty(*exercise.image), Live(network, workspace)
    live.there([*network.parameters(), *network.buffers()], Kind.WEIGHTS)
    live.there([image], Kind.INPUT)
    optimiser = exercise.optimiser(network) if exercise.optimiser else None
    average = [value.detach().clone() for value in network.state_dict().values()] if exercise.average else []
    live.there(average, Kind.OPTIMISER)
    wide = exercise.bfloat16 and exercise.device == "cuda"
    with live, _wide_norms() if wide else nullcontext():
        for _ in range(STEPS):
            if exercise.loss is None:
                with torch.inference_mode(), _autocast(exercise):
                    network(image)
            else:
                _step(exercise, network, image, optimiser, live)
    return live


class _Corrected(TorchDispatchMode):
    """Gives what fake tensors get wrong (PyTorch 2.13): the gradient of a group norm has the type of its input, also
    where its weights are wider; and a fused step of SGD, which they would take on real tensors, makes nothing."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        if operator.overloadpacket is torch.ops.aten._fused_sgd_:
            return None
        if operator is not torch.ops.aten.native_group_norm_backward.default:
            return operator(*args, **(kwargs or {}))
        values, weight, wanted = args[1], args[4], args[9]
        return tuple(torch.empty_like(like) if want else None
                     for like, want in zip((values, weight, weight), wanted, strict=True))


def _step(exercise: Exercise, network: nn.Module, image: Tensor, optimiser: torch.optim.Optimizer | None,
          live: Live) -> None:
    assert exercise.loss is not None
    network.zero_grad(set_to_none=True)
    for _ in range(exercise.parts):
        with _autocast(exercise):
            output = network(image)
        exercise.loss(output).backward()
        del output
    live.there((one.grad for one in network.parameters() if one.grad is not None), Kind.GRADIENTS)
    if exercise.clip:
        nn.utils.clip_grad_norm_(network.parameters(), exercise.clip)
    if optimiser:
        optimiser.step()
        live.there(_state(optimiser), Kind.OPTIMISER)


def _autocast(exercise: Exercise) -> torch.autocast:
    """What is followed are tensors of a CPU, whatever the device will be."""
    return torch.autocast("cpu", torch.bfloat16, enabled=exercise.bfloat16)


@contextmanager
def _wide_norms() -> Iterator[None]:
    """Modules that norm groups and layers take and give float32, as under the autocast of CUDA alone (`AT_FORALL_FP32`
    in PyTorch's autocast_mode.h); batch and instance norms are left as they come under both, and functions that are
    called without a module are left too."""
    def widen(module: nn.Module, inputs: tuple) -> tuple | None:
        norm = isinstance(module, (nn.GroupNorm, nn.LayerNorm)) and torch.is_autocast_enabled("cpu")
        return tuple(one.float() for one in inputs) if norm else None

    hook = register_module_forward_pre_hook(widen)  # type: ignore[arg-type]  # a mode for functions is not at work in the backward pass
    try:
        yield
    finally:
        hook.remove()


def _state(optimiser: torch.optim.Optimizer) -> Iterable[Tensor]:
    return (value for state in optimiser.state.values() for value in state.values() if isinstance(value, Tensor))


def peak(live: Live) -> Peak:
    """The moment with the most in memory of what was followed."""
    most, at = _most(live.events)
    there: dict[int, None] = {}
    for number, size in live.events[:at + 1]:
        if size > 0:
            there[number] = None
        else:
            there.pop(number, None)
    made = [live.made[number] for number in there]
    kinds = {kind: sum(one.size for one in made if one.kind == kind) for kind in Kind}
    largest = tuple(sorted(made, key=lambda one: -one.size)[:LARGEST])
    return Peak(most, _most(live.host_events)[0], kinds, made[-1].operator, made[-1].module, largest)


def _most(events: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The most bytes there, and after which event."""
    now = most = at = 0
    for index, (_, size) in enumerate(events):
        now += size
        if now > most:
            most, at = now, index
    return most, at
