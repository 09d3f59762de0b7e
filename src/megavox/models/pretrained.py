"""Pretrained weights from a local file, fitted to another number of channels and classes.

Only tensors are read: safetensors, or `torch.load` with `weights_only=True`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from megavox.core.errors import CheckpointError

STEM, HEAD = "conv1.weight", ("fc.weight", "fc.bias")


def load_torchvision(model: nn.Module, path: Path) -> None:
    """Load a state dict in torchvision's ResNet layout into `model`.

    A stem for another number of channels is made from the sum of the file's over its channels,
    divided evenly, so that a grey image repeated in every channel gives the same features as before.
    The last layer stays fresh where the file has none, or one for another number of classes.

    Raises:
        CheckpointError: the file cannot be read, or a name or shape differs; the first few are named.
    """
    state = read_weights(path)
    own = model.state_dict()
    if STEM in state and state[STEM].ndim == own[STEM].ndim:
        channels = own[STEM].shape[1]
        if state[STEM].shape[1] != channels:
            grey = state[STEM].sum(dim=1, keepdim=True) / channels
            state[STEM] = grey.repeat_interleave(channels, dim=1)
    if any(name not in state or len(state[name]) != len(own[name]) for name in HEAD):
        state.update({name: own[name] for name in HEAD})
    # Counters of batches seen play no part with torch's default momentum; old files lack them.
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    state = counters | state
    if differences := _differences(own, state):
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise CheckpointError(
            f"the weights do not fit the network: {'; '.join(differences[:4])}{more}", where=path,
            expected="a state dict in torchvision's ResNet layout of the same depth, filters and "
                     "dimensions as in the study",
            fix="Check model.depth and model.filters, or remove model.weights")
    model.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors from `.safetensors`, `.pth` or `.pt`.

    Raises:
        CheckpointError: not there, damaged, or something other than tensors by name.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError("the file with the weights is not there", where=path,
                              fix="Correct or remove model.weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a refused or damaged file raises almost anything
        first = str(error).strip().split("\n")[0]
        raise CheckpointError(f"the weights cannot be read ({first})", where=path,
                              expected=".safetensors, or a .pth/.pt file that holds tensors only",
                              fix="Fetch the file again, or save it as safetensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("the file does not hold a flat dictionary of tensors", where=path,
                              expected="a state dict", fix="Save the model's state_dict() alone")
    return dict(state)


def _differences(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """What does not fit, in the order of the network's own names."""
    wrong = []
    for name, value in own.items():
        if name not in state:
            wrong.append(f"{name} is missing")
        elif state[name].shape != value.shape:
            wrong.append(f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}")
    return wrong + [f"{name} is not in the network" for name in state if name not in own]
