"""ResNet against the paper's sizes, a second implementation, and weights from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from megavox.core.errors import CheckpointError
from megavox.models.registry import build_model, parameter_count
from megavox.models.resnet import ResNet
from megavox.study.sections import ResNetModel


def resnet(weights: Path | None = None, *, channels: int = 1, classes: int = 3, dims: int = 2,
           filters: int = 8) -> nn.Module:
    section = ResNetModel(family="resnet", filters=filters, weights=weights)
    return build_model(section, spatial_dims=dims, in_channels=channels, out_channels=classes,
                       patch=(32,) * dims)


@pytest.fixture
def colour_state() -> dict[str, Tensor]:
    """As torchvision would write it: 3 channels, 10 classes."""
    torch.manual_seed(3)
    return ResNet(18, 2, 3, 10, filters=8).state_dict()


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032),
                                              (101, 44_549_160), (152, 60_192_808)])
def test_parameters_of_the_paper(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameter_count(ResNet(depth, 2, 3, 1000)) == count


def test_resnet_59_leaves_seven_by_seven_places_of_a_large_picture() -> None:
    with torch.device("meta"):
        network = ResNet(59, 2, 3, 14)
        assert parameter_count(network) == 83_379_278
        seen: list[torch.Size] = []
        network.avgpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        network(torch.empty(1, 3, 896, 896))
    assert seen == [(1, 4096, 7, 7)]


def test_names_are_torchvisions() -> None:
    with torch.device("meta"):
        names = ResNet(50, 2, 3, 1000).state_dict()
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv3.weight", "layer1.0.downsample.0.weight",
            "layer1.0.downsample.1.num_batches_tracked", "layer4.2.bn3.bias", "fc.weight", "fc.bias"} <= set(names)
    assert len(names) == 320  # of torchvision's resnet50
    assert names["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)


@pytest.mark.parametrize("dims", [2, 3])
def test_same_function_as_monai(dims: int) -> None:
    """MONAI's ResNet with a stem of stride 2 and no bias is this network under the same names."""
    from monai.networks.nets import ResNet as Peer

    peer = Peer("basic", [2, 2, 2, 2], [8, 16, 32, 64], spatial_dims=dims, n_input_channels=2,
                conv1_t_size=7, conv1_t_stride=2, num_classes=4, bias_downsample=False).eval()
    own = ResNet(18, dims, 2, 4, filters=8).eval()
    own.load_state_dict(peer.state_dict())
    x = torch.randn(2, 2, *(40, 33, 36)[:dims])
    with torch.no_grad():
        torch.testing.assert_close(own(x), peer(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("filters", [4, 8])
def test_gradients_are_those_of_double_precision(filters: int, dims: int) -> None:
    """The CPU's fast convolutions have had bugs for few channels; float64 takes another path."""
    torch.manual_seed(0)
    model = ResNet(18, dims, 2, 3, filters=filters).eval()  # batch statistics of few voxels magnify rounding
    x = torch.randn(2, 2, *[32] * dims)
    model(x).square().sum().backward()
    single = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.double()(x.double()).square().sum().backward()
    for name, p in model.named_parameters():
        error = (single[name] - p.grad).norm() / p.grad.norm()
        assert error < 1e-3, name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_load_whole(suffix: str, tmp_path: Path, colour_state: dict[str, Tensor]) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(colour_state, path) if suffix == ".safetensors" else torch.save(colour_state, path)
    loaded = resnet(path, channels=3, classes=10).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in colour_state.items())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_stem_for_grey_images_gives_the_same_features(channels: int, tmp_path: Path,
                                                      colour_state: dict[str, Tensor]) -> None:
    save_file(colour_state, tmp_path / "w.safetensors")
    colour = resnet(tmp_path / "w.safetensors", channels=3, classes=10).eval()
    other = resnet(tmp_path / "w.safetensors", channels=channels, classes=10).eval()
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(colour(grey.repeat(1, 3, 1, 1)), other(grey.repeat(1, channels, 1, 1)))


def test_head_stays_fresh_for_other_classes(tmp_path: Path, colour_state: dict[str, Tensor]) -> None:
    save_file(colour_state, tmp_path / "w.safetensors")
    torch.manual_seed(5)
    untrained = resnet(channels=3, classes=3)
    torch.manual_seed(5)
    model = resnet(tmp_path / "w.safetensors", channels=3, classes=3)
    assert torch.equal(model.fc.weight, untrained.fc.weight)
    assert torch.equal(model.layer4[1].conv2.weight, colour_state["layer4.1.conv2.weight"])


def test_files_without_counters_or_head_load(tmp_path: Path, colour_state: dict[str, Tensor]) -> None:
    few = {name: value for name, value in colour_state.items()
           if "num_batches_tracked" not in name and not name.startswith("fc.")}
    save_file(few, tmp_path / "w.safetensors")
    model = resnet(tmp_path / "w.safetensors", channels=3)
    assert torch.equal(model.bn1.weight, colour_state["bn1.weight"])


def test_misfits_are_named(tmp_path: Path, colour_state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    wrong = dict(colour_state)
    wrong["layer2.0.conv9.weight"] = wrong.pop("layer2.0.conv1.weight")
    save_file(wrong, path)
    with pytest.raises(CheckpointError, match=r"layer2\.0\.conv1\.weight is missing; layer2\.0\.conv9.* not in"):
        resnet(path)
    save_file(colour_state, path)
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(8, 1, 7, 7\), not \(16, 1, 7, 7\).*and \d+ more"):
        resnet(path, filters=16)
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(8, 3, 7, 7\), not \(8, 1, 7, 7, 7\)"):
        resnet(path, dims=3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "missing.pth"])
def test_damaged_and_missing_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name != "missing.pth":
        path.write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        resnet(path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        resnet(tmp_path / "w.pth")


def test_whole_checkpoints_are_told_apart(tmp_path: Path, colour_state: dict[str, Tensor]) -> None:
    torch.save({"epoch": 3, "model": colour_state}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="flat dictionary of tensors"):
        resnet(tmp_path / "w.pth")
