"""Any class of `monai.networks.nets` by name, with what the study already knows filled in."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from megavox.core.errors import StudyError
from megavox.study.sections import MonaiModel


def build(section: MonaiModel, *, spatial_dims: int, in_channels: int, out_channels: int,
          patch: tuple[int, ...]) -> nn.Module:
    """The MONAI network of a study; see `registry.build_model`.

    Raises:
        StudyError: no such class, or arguments that it does not take or refuses.
    """
    kind = _find(section.network)
    takes = _parameters(kind)
    known = {"spatial_dims": spatial_dims, "img_size": tuple(patch), "in_shape": (in_channels, *patch),
             "pretrained": False}
    known |= dict.fromkeys(("in_channels", "n_input_channels"), in_channels)
    known |= dict.fromkeys(("out_channels", "num_classes", "classes"), out_channels)
    filled = {name: value for name, value in known.items() if name in takes}
    for name, value in section.arguments.items():
        if name not in takes:
            raise _refusal(section, f"{section.network} takes no argument {name!r}", takes)
        if name in filled and _plain(value) != _plain(filled[name]):
            raise StudyError(f"{name} is {value!r} but the study needs {filled[name]!r}",
                             where=f"model.arguments.{name}", fix="Remove it: it is filled in")
    from monai.utils import OptionalImportError

    try:
        network = kind(**{**section.arguments, **filled})
    except OptionalImportError as error:
        raise StudyError(f"{section.network} needs a library that is not installed ({_first_line(error)})",
                         where="model.network", fix="Install it with pip, or take another network") from error
    except Exception as error:  # MONAI raises whatever its layers raise
        raise _refusal(section, f"{section.network} refuses its arguments ({_first_line(error)})", takes) from error
    return MonaiNetwork(network)


def multiples(section: MonaiModel, size: Sequence[float]) -> tuple[int, ...]:
    """32: five halvings, the most that MONAI's usual networks make with their default arguments."""
    return (32,) * len(size)


class MonaiNetwork(nn.Module):
    """A MONAI network that returns one tensor: the first, where the network returns several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, *S)` to logits."""
        output = self.network(x)
        return output[0] if isinstance(output, (tuple, list)) else output


def _find(name: str) -> type[nn.Module]:
    from monai.networks import nets

    classes = {key: value for key, value in vars(nets).items()
               if inspect.isclass(value) and issubclass(value, nn.Module)}
    if name in classes:
        return classes[name]
    by_lower = {value.__name__.lower(): value.__name__ for value in classes.values()}
    near = [by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, n=5, cutoff=0.5)]
    raise StudyError(f"monai.networks.nets has no class {name!r}", where="model.network",
                     expected=f"perhaps {', '.join(near)}" if near else "a class name such as SwinUNETR",
                     fix="See https://docs.monai.io/en/stable/networks.html#nets for all of them")


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """Named arguments of the class, those that it hands on to its base with **kwargs included."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        named = {name: p for name, p in parameters.items()
                 if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        found = named | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def _refusal(section: MonaiModel, found: str, takes: Mapping[str, inspect.Parameter]) -> StudyError:
    listed = ", ".join(name if p.default is p.empty else f"{name}={p.default!r}" for name, p in takes.items())
    return StudyError(found, where="model.arguments", expected=f"arguments of {section.network}: {listed}",
                      fix="Correct model.arguments")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
