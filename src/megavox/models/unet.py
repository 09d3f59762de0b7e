"""U-Net in 2D and 3D (Ronneberger 2015, arXiv:1505.04597; Cicek 2016, arXiv:1606.06650).

In the form that nnU-Net made standard (Isensee 2021): convolution, normalisation, LeakyReLU; strided
convolutions down, transposed ones up. A thin axis is not halved away: see `level_strides`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.study.sections import UNetModel

SLOPE = 0.01  # of the LeakyReLU
THIN = 8  # an axis with fewer voxels is not halved any more

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_DROPOUT: dict[int, type[nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}


def build(section: UNetModel, *, spatial_dims: int, in_channels: int, out_channels: int,
          patch: tuple[int, ...]) -> nn.Module:
    """The U-Net of a study; see `registry.build_model`."""
    assert isinstance(section.filters, int) and isinstance(section.levels, int), "auto was not resolved"
    widths = [min(section.filters * 2**level, section.max_filters) for level in range(section.levels)]
    return UNet(spatial_dims, in_channels, out_channels, widths=widths,
                strides=level_strides(patch, section.levels), kernel=section.kernel,
                residual_units=section.residual_units, norm=section.norm, dropout=section.dropout,
                deep_supervision=section.deep_supervision)


def multiples(section: UNetModel, size: Sequence[float]) -> tuple[int, ...]:
    """`2**halvings` for each axis, where an axis is halved `levels - 1` times or until it is thin."""
    assert isinstance(section.levels, int), "auto was not resolved"
    halvings = [max(0, math.floor(math.log2(n / THIN)) + 1) for n in size]
    return tuple(2 ** min(most, section.levels - 1) for most in halvings)


def level_strides(patch: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """Stride of every step down, one tuple in the order of `patch` for each level but the first.

    An axis is halved at each level until fewer than 8 voxels are left of it, so that a patch of
    16 x 256 x 256 keeps its few slices.

    Raises:
        StudyError: an odd size would have to be halved, or a level would halve nothing.
    """
    size, strides = list(patch), []
    text = " x ".join(map(str, patch))
    for level in range(1, levels):
        stride = tuple(2 if n >= THIN else 1 for n in size)
        if max(stride) == 1:
            raise StudyError(
                f"{levels} levels are too many for a patch of {text}: level {level + 1} has nothing left "
                "to halve", where="model.levels", expected=f"at most {level}",
                fix="Lower model.levels or enlarge batches.patch")
        for axis, (n, s) in enumerate(zip(size, stride, strict=True)):
            if n % s:
                raise StudyError(
                    f"a patch of {text} cannot be halved {levels - 1} times: axis {axis} has {n} voxels "
                    f"at level {level}", where="batches.patch",
                    expected=f"multiples of {2 ** (levels - 1)} for {levels} levels",
                    fix="Change batches.patch or lower model.levels")
        size = [n // s for n, s in zip(size, stride, strict=True)]
        strides.append(stride)
    return strides


class UNet(nn.Module):
    """Encoder, decoder and skip connections.

    Args:
        dims: 2 or 3.
        in_channels, out_channels: of image and logits.
        widths: feature maps at each level, the finest first.
        strides: stride of each step down, one fewer than `widths`.
        kernel: 3 or 5, along every axis.
        residual_units: residual units a level and side; 0: two plain convolutions.
        norm: `instance` (affine), `batch`, or `group` (8 groups or the next smaller divisor).
        dropout: share of whole feature maps dropped behind every block, in training.
        deep_supervision: in training return the logits of every decoder level.

    Attributes:
        computed: another way to compute the same; None: as `forward` does.
        channels_last: whether images are laid out so on CPUs.
    """

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, widths: Sequence[int],
                 strides: Sequence[tuple[int, ...]], kernel: int = 3, residual_units: int = 0,
                 norm: str = "instance", dropout: float = 0.0, deep_supervision: bool = False) -> None:
        super().__init__()
        assert len(strides) == len(widths) - 1

        def level(inputs: int, outputs: int, stride: int | tuple[int, ...] = 1) -> nn.Sequential:
            block = Residual if residual_units else _ConvNormAct
            layers: list[nn.Module] = []
            for _ in range(residual_units or 2):
                layers.append(block(dims, inputs, outputs, kernel, stride, norm))
                if dropout:
                    layers.append(_DROPOUT[dims](dropout))
                inputs, stride = outputs, 1
            return nn.Sequential(*layers)

        down = list(zip(widths[:-1], widths[1:], strides, strict=True))
        self.encoder = nn.ModuleList([level(in_channels, widths[0]), *(level(*step) for step in down)])
        self.up = nn.ModuleList(_UP[dims](coarse, fine, stride, stride) for fine, coarse, stride in down[::-1])
        self.decoder = nn.ModuleList(level(2 * fine, fine) for fine in widths[-2::-1])
        self.head = _CONV[dims](widths[0], out_channels, 1)
        self.coarse_heads = nn.ModuleList(
            _CONV[dims](width, out_channels, 1) for width in (widths[-2:0:-1] if deep_supervision else []))
        self.deep_supervision = deep_supervision
        self.computed: Callable[[UNet, Tensor], Tensor | list[Tensor]] | None = None
        self.channels_last = dims == 3  # a step takes 14 % less so on a CPU; in 2D it would take more
        self.shrink = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.apply(_he_init)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """`(B, in, *S)` to logits `(B, out, *S)`; S must be a multiple of `self.shrink`.

        Training with deep supervision: a list of them, each level half the size of the one before.
        """
        assert all(n % s == 0 for n, s in zip(x.shape[2:], self.shrink, strict=True)), \
            f"input {tuple(x.shape[2:])} is not a multiple of {self.shrink}"
        if self.channels_last and x.device.type == "cpu":
            x = x.clone(memory_format=torch.channels_last_3d)
        if self.computed is not None:
            return self.computed(self, x)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        features = []
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([up(x), skips.pop()], dim=1))
            features.append(x)
        logits = self.head(x)
        if not (self.training and self.deep_supervision):
            return logits
        coarse = [head(x) for head, x in zip(self.coarse_heads, features, strict=False)]
        return [logits, *reversed(coarse)]


class _ConvNormAct(nn.Sequential):
    """Convolution (no bias: the norm has one), norm, LeakyReLU."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, ...],
                 norm: str) -> None:
        super().__init__(_CONV[dims](inputs, outputs, kernel, stride, kernel // 2, bias=False),
                         _norm(norm, dims, outputs), nn.LeakyReLU(SLOPE, inplace=True))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is projected where the shape changes (He 2015)."""

    def __init__(self, dims: int, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, ...],
                 norm: str) -> None:
        super().__init__()
        self.first = _ConvNormAct(dims, inputs, outputs, kernel, stride, norm)
        self.second = nn.Sequential(_CONV[dims](outputs, outputs, kernel, 1, kernel // 2, bias=False),
                                    _norm(norm, dims, outputs))
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(_CONV[dims](inputs, outputs, 1, stride, bias=False),
                                          _norm(norm, dims, outputs))
        self.act = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.first(x)) + self.shortcut(x))


def _norm(kind: str, dims: int, channels: int) -> nn.Module:
    if kind == "batch":
        return _BATCH_NORM[dims](channels)
    # One group a channel is instance normalisation; torch's group norm is the faster of the two on CPU.
    groups = channels if kind == "instance" else max(g for g in range(1, 9) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def _he_init(module: nn.Module) -> None:
    """Weights from N(0, 2 / ((1 + slope^2) fan_in)) (He 2015, arXiv:1502.01852, eq. 15)."""
    if not isinstance(module, (*_CONV.values(), *_UP.values())):
        return
    weight = module.weight
    assert isinstance(weight, Tensor)
    # Where kernel = stride, each output of a transposed convolution sees one voxel of the input.
    fan_in = weight.shape[0] if isinstance(module, tuple(_UP.values())) else weight[0].numel()
    nn.init.normal_(weight, std=math.sqrt(2 / ((1 + SLOPE**2) * fan_in)))
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
