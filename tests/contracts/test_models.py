"""What every network family promises, in 2D and in 3D."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megavox.models.registry import FAMILIES, build_model, multiples, parameter_count
from megavox.study.sections import DenseNetModel, ModelSection, MonaiModel, ResNetModel, UNetModel, VGGModel

CLASSES = 3
SEGMENTERS: dict[str, ModelSection] = {
    "unet": UNetModel(family="unet", filters=4, levels=3),
    "unet-residual-group": UNetModel(family="unet", filters=6, levels=2, residual_units=1, norm="group"),
    "unet-batch-5": UNetModel(family="unet", filters=4, levels=2, kernel=5, norm="batch", dropout=0.2),
    "unet-deep": UNetModel(family="unet", filters=4, levels=3, deep_supervision=True),
    "monai-segresnet": MonaiModel(family="monai", network="SegResNet"),
}
CLASSIFIERS: dict[str, ModelSection] = {
    "resnet18": ResNetModel(family="resnet", filters=4),
    "resnet50": ResNetModel(family="resnet", depth=50, filters=4, dropout=0.2),
    "densenet121": DenseNetModel(family="densenet121"),
    "vgg": VGGModel(family="vgg", filters=4, hidden=16, depth=11),
    "monai-senet": MonaiModel(family="monai", network="SEResNet50",
                              arguments={"layers": [1, 1, 1, 1], "inplanes": 8}),
}
SECTIONS = SEGMENTERS | CLASSIFIERS


def patch_of(section: ModelSection, dims: int) -> tuple[int, ...]:
    return (32,) * dims if section.family != "unet" else (16, 8, 24)[:dims]


def fresh(section: ModelSection, dims: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_model(section, spatial_dims=dims, in_channels=2, out_channels=CLASSES,
                       patch=patch_of(section, dims))


def images(section: ModelSection, dims: int, batch: int) -> torch.Tensor:
    return torch.randn(batch, 2, *patch_of(section, dims), generator=torch.Generator().manual_seed(1))


each = pytest.mark.parametrize(("name", "dims"), [(name, dims) for name in SECTIONS for dims in (2, 3)])


def test_every_family_is_under_contract() -> None:
    assert {section.family for section in SECTIONS.values()} == set(FAMILIES)


@each
def test_training_reaches_every_parameter(name: str, dims: int) -> None:
    section = SECTIONS[name]
    model = fresh(section, dims).train()
    outputs = model(images(section, dims, 2))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(output.square().mean() for output in outputs).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not without
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@each
def test_evaluation_shape_determinism_and_single_case(name: str, dims: int) -> None:
    section = SECTIONS[name]
    model = fresh(section, dims).eval()
    batch = images(section, dims, 2)
    with torch.no_grad():
        first, second, alone = model(batch), model(batch), model(batch[:1])
    shape = patch_of(section, dims) if name in SEGMENTERS else ()
    assert first.shape == (2, CLASSES, *shape)
    assert first.isfinite().all() and first.std() > 0
    assert torch.equal(first, second)
    torch.testing.assert_close(alone, first[:1], rtol=1e-3, atol=1e-4)


@each
def test_weights_survive_a_file_and_follow_the_seed(name: str, dims: int, tmp_path: Path) -> None:
    section = SECTIONS[name]
    model, twin, other = fresh(section, dims), fresh(section, dims), fresh(section, dims, seed=1)
    state = model.state_dict()
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in state.items())
    assert not all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())
    save_file(state, tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    batch = images(section, dims, 1)
    with torch.no_grad():
        assert torch.equal(model.eval()(batch), other.eval()(batch))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_patch_of_the_multiples_fits(name: str) -> None:
    section = SECTIONS[name]
    patch = tuple(factor * -(-40 // factor) for factor in multiples(section, (40, 40)))
    model = build_model(section, spatial_dims=2, in_channels=1, out_channels=2, patch=patch).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, *patch)).shape[1] == 2
    assert parameter_count(model) == sum(p.numel() for p in model.parameters())
