"""One sample on several ranks: each computes some of its slices along Z, its share, and the ranks tell each other what
lies at the borders, and what they found out of whole maps.

A rank has its own slices of every kept map, and as many of its neighbours' beside them as a convolution looks at. The
neighbours send these when they made them; going backward, what such slices earned here is sent back and added to what
they earned there. What a rank finds of weights and of the image is its part of their gradients: the sum over ranks is
the gradient of the sum of the ranks' losses. All ranks come to every exchange, and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.core.over_ranks import ranks_together
from megavox.models.unet import UNet


@dataclass(frozen=True)
class Share:
    """This rank's share of the slices of every map; as it stands, all of them.

    Attributes:
        cuts: of a map that has `cuts[-1]` slices, rank `r` owns those from `cuts[r]` up to below `cuts[r + 1]`; of one
            that has twice as many, twice as many.
        rank: of this process among those that share the sample.
        beside: how many of a neighbour's slices are there beside its own.
        group: of the processes that share the sample; None: all.
        silent: nothing is exchanged: for whoever follows what one rank does.
    """

    cuts: tuple[int, ...] = (0, 1)
    rank: int = 0
    beside: int = 0
    group: Any = None
    silent: bool = False

    @property
    def ranks(self) -> int:
        """How many share the sample."""
        return len(self.cuts) - 1

    def own(self, size: int) -> tuple[int, int]:
        """First and last slice, exclusive, that this rank computes of a map with so many."""
        low, high = (cut * size // self.cuts[-1] for cut in self.cuts[self.rank:self.rank + 2])
        return low, high

    def there(self, size: int) -> tuple[int, int]:
        """The same with the neighbours' beside them."""
        low, high = self.own(size)
        return max(0, low - self.beside), min(size, high + self.beside)

    def fill(self, values: Tensor) -> None:
        """Have the neighbours' slices of a map that has all those `there`, in place."""
        borders = self._borders(values)
        for (_, theirs, _), found in zip(borders, self._swapped([(n, mine) for n, _, mine in borders]), strict=True):
            theirs.copy_(found)

    def give_back(self, gradient: Tensor) -> None:
        """Add what this rank's slices earned at the neighbours to their gradient, in place."""
        borders = self._borders(gradient)
        for (_, _, mine), found in zip(borders, self._swapped([(n, theirs) for n, theirs, _ in borders]), strict=True):
            mine += found

    def total(self, part: Tensor) -> Tensor:
        """The sum over the ranks that share the sample."""
        if self.ranks > 1:
            part = part.clone(memory_format=torch.contiguous_format)
            if not self.silent:
                dist.all_reduce(part, group=self.group)
        return part

    def firsts(self, drawn: Tensor) -> Tensor:
        """What the first of these ranks has drawn."""
        if self.ranks > 1 and not self.silent:
            dist.broadcast(drawn, group_src=0, group=self.group)
        return drawn

    def _borders(self, values: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """Of each neighbour: its rank, its slices here, and those of this rank that are there."""
        width, size = self.beside, values.shape[2]
        both = ((self.rank - 1, values[:, :, :width], values[:, :, width:2 * width]),
                (self.rank + 1, values[:, :, size - width:], values[:, :, size - 2 * width:size - width]))
        return [one for one in both if width and 0 <= one[0] < self.ranks]

    def _swapped(self, given: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """What neighbours gave for what they are given, which is of the same shape."""
        found = [torch.empty_like(one, memory_format=torch.contiguous_format) for _, one in given]
        if self.silent:
            return found
        messages = [message for (rank, one), other in zip(given, found, strict=True) for message in (
            dist.P2POp(dist.isend, one.contiguous(), group=self.group, group_peer=rank),
            dist.P2POp(dist.irecv, other, group=self.group, group_peer=rank))]
        for work in dist.batch_isend_irecv(messages) if messages else []:
            work.wait()
        return found


WHOLE = Share()


Sharing = Callable[[Any, int], Share]  # of a U-Net, tells the share in samples with so many slices


def among(group: Any = None) -> Sharing:
    """What tells the share of this rank in samples with so many slices, if all ranks of a process group share each.

    All slices, where samples are not shared: in evaluation, and in a process alone or `apart`. The slices along Z have
    to be a multiple of `network.shrink[0]`; a StudyError is raised where there are too few for so many ranks.

    Args:
        group: of the processes that share a sample; None: all.
    """
    def share(network: UNet, slices: int) -> Share:  # a function is not copied with a network: a group cannot be
        if not network.training or ranks_together() == 1:
            return WHOLE
        found = dealt(network, slices, dist.get_world_size(group))
        return replace(found, rank=dist.get_rank(group), group=group)

    return share


def largest_of(ranks: int) -> Sharing:
    """What tells the largest share that one of so many ranks has, and exchanges nothing."""
    def share(network: UNet, slices: int) -> Share:
        found = dealt(network, slices, ranks)
        every = [replace(found, rank=rank, silent=True) for rank in range(ranks)]
        return max(every, key=lambda one: one.there(slices)[1] - one.there(slices)[0])

    return share


def dealt(network: UNet, slices: int, ranks: int) -> Share:
    """The first rank's share, of so many.

    Raises:
        StudyError: there are too few slices for so many ranks.
    """
    shrink = network.shrink[0]
    beside = max(one.kernel_size[0] // 2 for one in network.modules() if isinstance(one, (nn.Conv2d, nn.Conv3d)))
    coarse = slices // shrink
    if coarse < ranks * beside:
        raise StudyError(
            f"{slices} slices cannot be shared by {ranks} ranks: the coarsest maps have {coarse}, and each rank's "
            f"convolutions look at {beside} of its neighbours'", where="batches.patch",
            expected=f"at least {ranks * beside * shrink} along the first axis",
            fix="Take longer patches, fewer ranks for a sample, or fewer levels")
    return Share(tuple(coarse * rank // ranks for rank in range(ranks + 1)), beside=beside)
