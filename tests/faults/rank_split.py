"""On each of some ranks: its share of a sample, beside the plain network with all of it.

    python rank_split.py
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.core.over_ranks import apart
from megavox.core.processes import leave
from megavox.memory.follow import Exercise, go, peak
from megavox.memory.live import Kind
from megavox.memory.streamed.share import WHOLE, Share, among
from megavox.memory.streamed.stream import split
from megavox.models.unet import UNet
from megavox.study.training import RanksSection
from megavox.tasks.losses import deep_supervision_loss, dice_ce
from megavox.training.parallel import Ranks, ranks

FORMS: list[dict] = [
    {}, {"norm": "batch"}, {"norm": "group"}, {"kernel": 5}, {"residual_units": 1}, {"residual_units": 2, "kernel": 5},
    {"dropout": 0.3}, {"deep_supervision": True}, {"norm": "batch", "residual_units": 1, "dropout": 0.2}]
SLICES = {2: 20, 4: 36}  # by the number of ranks: of coarsest maps 2 and 3, and 2, 2, 2 and 3
TINY, SOME = 1, 200_000


def unet(channels: int = 2, dims: int = 3, **settings: object) -> UNet:
    """The weights of its norms are not those of the beginning, at which gradients in front of norms would be noise."""
    torch.manual_seed(0)
    network = UNet(dims, channels, 3, widths=[4, 6, 8], strides=[(2,) * dims] * 2, **settings)  # type: ignore[arg-type]
    for one in network.parameters():
        if one.ndim == 1:
            nn.init.normal_(one)
    return network.double()


def own(share: Share, values: Tensor) -> Tensor:
    low, high = share.own(values.shape[2])
    return values[:, :, low:high]


def results(network: nn.Module, image: Tensor, share: Share) -> tuple[list[Tensor], dict[str, Tensor]]:
    """This share of the outputs; and gradients of weights and image, by name, of a loss that is a sum over voxels."""
    torch.manual_seed(5 + share.rank)  # of dropout
    image = image.clone().requires_grad_()
    found = network(image)
    outputs = found if isinstance(found, list) else [found]
    parts = []
    for level, one in enumerate(outputs):
        shape = (*one.shape[:2], image.shape[2] // 2**level, *one.shape[3:])
        factors = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(level))
        parts.append((one * own(share, factors).to(one)).sum())
    torch.stack(parts).sum().backward()
    gradients = {name: one.grad for name, one in network.named_parameters()} | {"image": image.grad}
    return [one.detach() for one in outputs], gradients  # type: ignore[return-value]


def results_together(network: UNet, image: Tensor) -> tuple[list[Tensor], dict[str, Tensor], Share]:
    """The same of ranks, the gradients summed over them; and this rank's share."""
    share = among()(network, image.shape[2])
    outputs, gradients = results(network, image, share)
    for part in gradients.values():
        dist.all_reduce(part)
    return outputs, gradients, share


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((one.detach() - other.detach()).abs().max() / other.detach().abs().max())


def splitted(network: UNet, slab_bytes: int) -> UNet:
    """A copy that is split, and can itself be copied."""
    network = copy.deepcopy(network)
    split(network, slab_bytes)
    return copy.deepcopy(network)


def check(network: UNet, image: Tensor, slab_bytes: int) -> None:
    other = splitted(network, slab_bytes)
    outputs, gradients = results(network, image, WHOLE)
    own_outputs, totals, share = results_together(other, image)
    for one, whole in zip(own_outputs, outputs, strict=True):
        assert one.shape[2] < whole.shape[2] and far(one, own(share, whole)) <= 1e-12
    for name, total in totals.items():
        assert far(total, gradients[name]) <= 1e-12, name
    for (name, one), (_, buffer) in zip(other.named_buffers(), network.named_buffers(), strict=True):
        assert far(one, buffer) <= 1e-12, name


def check_rounded(image: Tensor) -> None:
    """In float32 near to the truth; in bfloat16 as near as the plain network."""
    network = unet().float()
    truth, true_gradients = results(unet(), image, WHOLE)
    outputs, gradients, share = results_together(splitted(network, SOME), image.float())
    assert far(outputs[0], own(share, truth[0])) <= 1e-4
    for name, one in true_gradients.items():
        assert far(gradients[name], one) <= 1e-4, name

    def error(found: dict[str, Tensor]) -> float:
        return sum(float((one - found[name]).norm() / one.norm()) for name, one in true_gradients.items())

    with torch.autocast("cpu", torch.bfloat16):
        outputs, gradients, _ = results_together(splitted(network, SOME), image.float())
        _, plain = results(network, image.float(), WHOLE)
    assert outputs[0].dtype == torch.bfloat16
    assert error(gradients) < 1.2 * error(plain)


def check_evaluation(here: Ranks) -> None:
    """Each rank may have another case, and computes all of it."""
    network, image = unet().eval(), torch.randn(1, 2, 4 + 4 * here.rank, 8, 8, dtype=torch.float64)
    plain = network(image)
    split(network, SOME)
    assert far(network(image), plain) <= 1e-12


def check_refused(count: int) -> None:
    """A sample that is too thin for so many ranks."""
    for kernel, slices in ((3, 4 * (count - 1)), (5, 4 * (2 * count - 1))):
        network = unet(kernel=kernel)
        split(network, SOME)
        with pytest.raises(StudyError, match=rf"batches\.patch: {slices} slices cannot be shared by {count} ranks"):
            network(torch.zeros(1, 2, slices, 8, 8, dtype=torch.float64))


def check_memory(count: int) -> None:
    """The peak of what a rank has of activations, beside that of one rank with all of the sample."""
    def build() -> UNet:
        network = UNet(3, 1, 2, widths=[8, 16], strides=[(2, 2, 2)])
        split(network, 1)
        return network

    exercise = Exercise(build, (1, 1, 96, 16, 16), lambda logits: logits.square().mean())
    mine = peak(go(exercise)).kinds[Kind.ACTIVATIONS]
    with apart():
        whole = peak(go(exercise)).kinds[Kind.ACTIVATIONS]
    assert mine < (1 / count + 0.1) * whole


def check_trained(here: Ranks, pairs: Sequence[dist.ProcessGroup | None]) -> None:
    """Pairs of ranks with a sample each, batch norms over all ranks, and the loss and the gradients of a training."""
    settings = {"norm": "batch", "deep_supervision": True}
    plain, network = unet(**settings), unet(**settings)
    group, sample = pairs[here.rank // 2], here.rank // 2
    random = torch.Generator().manual_seed(3)
    images = torch.randn(len(pairs), 2, 20, 8, 8, dtype=torch.float64, generator=random)
    targets = torch.randint(0, 3, (len(pairs), 20, 8, 8), generator=random)
    with apart():
        outputs = plain(images)
        loss = deep_supervision_loss(outputs, targets, dice_ce)
        loss.backward()

    share = among(group)
    split(network, SOME, share=share)
    wrapped = here.wrap(network, RanksSection())
    low, high = share(network, 20).own(20)
    found = deep_supervision_loss(wrapped(images[sample:sample + 1]), targets[sample:sample + 1, low:high], dice_ce)
    found.backward()
    total = found.detach().clone()
    dist.all_reduce(total)
    assert far(total / here.count, loss) <= 1e-12
    for (name, one), other in zip(plain.named_parameters(), network.parameters(), strict=True):
        assert far(other.grad, one.grad) <= 1e-12, name  # type: ignore[arg-type]
    for (name, one), (_, buffer) in zip(plain.named_buffers(), network.named_buffers(), strict=True):
        assert far(buffer, one) <= 1e-12, name


if __name__ == "__main__":
    with ranks("cpu") as here:
        random = torch.Generator().manual_seed(1)
        size = (SLICES[here.count], 8, 8)
        image = torch.randn(2, 5, *size, dtype=torch.float64, generator=random)
        for number, settings in enumerate(FORMS):
            check(unet(**settings), image[:, :2], SOME if number % 2 else TINY)
        check(unet(5), image, SOME)  # so many channels that what the first convolution makes is kept
        check(unet(dims=2), image[:, :2, :, 0].repeat(1, 1, 1, 2), TINY)
        check_rounded(image[:, :2])
        check_evaluation(here)
        check_refused(here.count)
        check_memory(here.count)
        check_trained(here, [dist.new_group([first, first + 1]) for first in range(0, here.count, 2)])
    leave(0)
