"""Fewer multiplications for the same numbers: upsampling and the convolution after it become one.

A U-Net doubles the coarse features by a transposed convolution, joins them to the features of the finer level, and
convolves both. Convolving what a transposed convolution made is itself a transposed convolution, whose kernel is the
composition of the two: along an axis of stride s and kernel k it has s + k - 1 weights, of which each output needs
every s-th. In three dimensions with s = 2 and k = 3 that is 8 of 64 instead of 27 multiplications, and the doubled
features are never written down. Because convolution is linear, what comes from each side of the joint is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def merge_upsampling(model: Any) -> int:
    """Merge upsampling into the convolutions that follow, in a network as OpenVINO has it.

    Args:
        model: an `openvino.Model` with static shapes; changed in place.

    Returns:
        How many convolutions were changed.
    """
    found = [(node, parts) for node in model.get_ordered_ops() if (parts := _parts(node)) is not None]
    for node, (others, raised) in found:
        node.output(0).replace(_merged(node, others, raised))
    model.validate_nodes_and_infer_types()
    return len(found)


Other = tuple[Any, np.ndarray]  # channels, and the weights `(K, C, *kernel)` that the convolution has for them
Raised = tuple[Any, np.ndarray, np.ndarray]  # coarse channels, weights that raise them, and weights of the convolution


def _parts(node: Any) -> tuple[list[Other], list[Raised]] | None:
    """What a convolution is given: upsampled channels apart from others; None where there are not both."""
    weights = _constant(node.input_value(1)) if node.get_type_name() == "Convolution" else None
    if weights is None:
        return None
    about, joint = node.get_attributes(), node.input_value(0).get_node()
    same = all(2 * pad + 1 == k for pad, k in zip(about["pads_begin"], weights.shape[2:], strict=True))
    if not same or about["pads_begin"] != about["pads_end"] or set(about["strides"] + about["dilations"]) != {1} \
            or about["auto_pad"] != "explicit" or joint.get_type_name() != "Concat" \
            or joint.get_attributes()["axis"] != 1:
        return None
    ends = np.cumsum([value.get_shape()[1] for value in joint.input_values()])
    others, raised = [], []
    for value, then in zip(joint.input_values(), np.split(weights, ends[:-1], axis=1), strict=True):
        found = _upsampling(value)
        if found is None:
            others.append((value, then))
        else:
            raised.append((*found, then))
    return (others, raised) if others and raised else None


def _upsampling(value: Any) -> tuple[Any, np.ndarray] | None:
    """Coarse channels and weights `(C, M, *stride)` of a transposed convolution without overlap; None for others.

    A bias is a channel of ones more: at the border of the image it counts for as many neighbours as there are.
    """
    from openvino import opset13 as ops

    node, bias = value.get_node(), None
    if node.get_type_name() == "Add":
        bias, node = _constant(node.input_value(1)), node.input_value(0).get_node()
        if bias is None or bias.size != value.get_shape()[1]:
            return None
    weights = _constant(node.input_value(1)) if node.get_type_name() == "ConvolutionBackpropData" else None
    if weights is None:
        return None
    about = node.get_attributes()
    if node.get_input_size() != 2 or list(weights.shape[2:]) != list(about["strides"]) \
            or set(about["dilations"]) != {1} \
            or any(about["pads_begin"] + about["pads_end"] + about["output_padding"]):
        return None
    coarse = node.input_value(0)
    if bias is not None:
        shape = [coarse.get_shape()[0], 1, *list(coarse.get_shape())[2:]]
        coarse = ops.concat([coarse, ops.constant(np.ones(shape, np.float32))], 1).output(0)
        more = np.broadcast_to(bias.reshape(1, -1, *[1] * len(about["strides"])), (1, *weights.shape[1:]))
        weights = np.concatenate([weights, more])
    return coarse, weights


def _merged(node: Any, others: list[Other], raised: list[Raised]) -> Any:
    """The sum of what the convolution makes of each side."""
    from openvino import opset13 as ops

    about = node.get_attributes()
    pads = about["pads_begin"]
    channels = others[0][0] if len(others) == 1 else ops.concat([value for value, _ in others], 1)
    kernel = np.concatenate([weights for _, weights in others], axis=1).astype(np.float32)
    total = ops.convolution(channels, ops.constant(kernel), about["strides"], pads, pads, about["dilations"])
    for coarse, first, then in raised:
        kernel = composed(first, then).astype(np.float32)
        total = ops.add(total, ops.convolution_backprop_data(
            coarse, ops.constant(kernel), strides=list(first.shape[2:]), pads_begin=pads, pads_end=pads))
    return total.output(0)


def composed(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The kernel of a transposed convolution followed by a convolution.

    Args:
        first: `(C, M, *s)`, with a stride of s: what it makes does not overlap.
        then: `(K, M, *k)`, with a stride of 1.

    Returns:
        `(C, K, *(s + k - 1))`, for a transposed convolution with a stride of s.
    """
    last = np.array(then.shape[2:]) - 1
    found = np.zeros((len(first), len(then), *(np.array(first.shape[2:]) + last)))
    for a in np.ndindex(*first.shape[2:]):
        for b in np.ndindex(*then.shape[2:]):
            found[:, :, *np.add(a, b)] += first[:, :, *a] @ then[:, :, *(last - b)].T
    return found


def _constant(value: Any) -> np.ndarray | None:
    """The values of a constant, in double precision; None of anything else."""
    node = value.get_node()
    return np.array(node.data, np.float64) if node.get_type_name() == "Constant" else None
