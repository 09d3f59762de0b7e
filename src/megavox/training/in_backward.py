"""The optimiser's step within the backward pass: each parameter takes its step, and its gradient is let go of, as soon
as it is complete, so that gradients are never there all at once (Lv 2023, LOMO, arXiv:2306.09782).

Several ranks average gradients here, some at a time: PyTorch's `DistributedDataParallel` holds buckets for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.core.over_ranks import ranks_together
from megavox.study.training import TrainingSection

_Parameters = list[nn.Parameter]


class InBackward:
    """Takes an optimiser's step parameter by parameter in every backward pass, until it is closed.

    The optimiser stays as it is: its state, its checkpoints and its rate, which has to be set before the backward pass,
    are those of ordinary steps. It is one whose step of a parameter looks at that parameter alone.

    Args:
        network: the same on all ranks; here it gets the weights of the first.
        optimiser: of its parameters.
        section: how it is trained.

    Raises:
        StudyError: settings that need all gradients at once.
    """

    def __init__(self, network: nn.Module, optimiser: torch.optim.Optimizer, section: TrainingSection) -> None:
        _refuse_what_needs_all_gradients(section)
        self._network, self._optimiser, self._section = network, optimiser, section.ranks
        self._group = {one: number for number, group in enumerate(optimiser.param_groups) for one in group["params"]}
        self._hooks = [one.register_post_accumulate_grad_hook(self._complete) for one in self._group]
        self._waiting: _Parameters = []
        self._sent: deque[tuple[_Parameters, Tensor, dist.Work]] = deque()
        if ranks_together() > 1:
            _from_first(network.state_dict().values())

    def finish(self) -> None:
        """Take the steps that are left when the backward pass has ended: of gradients on their way between ranks."""
        if self._waiting:
            self._send()
        while self._sent:
            self._receive()
        if ranks_together() > 1 and not self._section.sync_norm:
            _from_first(self._network.buffers())

    def close(self) -> None:
        """Backward passes give gradients again."""
        for hook in self._hooks:
            hook.remove()

    def _complete(self, parameter: nn.Parameter) -> None:
        if ranks_together() == 1:
            self._step(parameter)
            return
        self._waiting.append(parameter)
        if sum(one.nbytes for one in self._waiting) >= self._section.bucket_mb * 2**20:
            self._send()

    def _send(self) -> None:
        """Average what waits over ranks, while the backward pass goes on; what was sent before has arrived by now."""
        flat = torch.cat([one.grad.flatten() for one in self._waiting if one.grad is not None])
        if self._section.gradients == "bfloat16":
            flat = flat.bfloat16()
        flat /= ranks_together()
        for one in self._waiting:
            one.grad = None
        work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((self._waiting, flat, work))
        self._waiting = []
        if len(self._sent) > 1:
            self._receive()

    def _receive(self) -> None:
        parameters, flat, work = self._sent.popleft()
        work.wait()
        for one, values in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
            one.grad = torch.empty_like(one).copy_(values.view_as(one))  # in the layout that fused steps rely on
            self._step(one)

    def _step(self, parameter: nn.Parameter) -> None:
        """The optimiser's own step, as if it had this parameter alone."""
        groups = self._optimiser.param_groups
        self._optimiser.param_groups = [{**groups[self._group[parameter]], "params": [parameter]}]
        try:
            self._optimiser.step()
        finally:
            self._optimiser.param_groups = groups
        parameter.grad = None


def _from_first(tensors: Iterable[Tensor]) -> None:
    for one in tensors:
        dist.broadcast(one, 0)


def _refuse_what_needs_all_gradients(section: TrainingSection) -> None:
    clip, parts = section.optimiser.clip, section.accumulate
    if clip is not None:
        raise StudyError(f"with steps in the backward pass gradients cannot be clipped to {clip:g}: their norm is that "
                         "of all of them, which are never there at once", where="training.optimiser.clip",
                         expected="null", fix="Set it to null, or take steps after the backward pass")
    if parts > 1:
        raise StudyError(f"steps in the backward pass do not go with {parts} micro-batches: their gradients are added "
                         "up, so that all of them are there anyway", where="training.accumulate", expected="1",
                         fix="Set it to 1 with a smaller batches.size, or take steps after the backward pass")
