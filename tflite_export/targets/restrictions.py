"""Restrictions of single operators, by the names that targets use.

Each says what stands against an operator of a file, or `None`. A sentence
that starts with "note:" warns of what only the compiler can decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tflite_export.targets import vela_rules
from tflite_export.targets.nodes import Node

_LONGEST_SOFTMAX = 16_000
_LARGE_RESHAPE = 1 << 20


def _no_fused_activation(node: Node) -> str | None:
    if node.option("fusedActivationFunction"):
        return "has a fused activation function"
    return None


def _same_dilation(node: Node) -> str | None:
    x = node.option("dilationWFactor", 1)
    y = node.option("dilationHFactor", 1)
    return None if x == y else f"has dilations {y} and {x} along y and x"


def _zero_constant(node: Node) -> str | None:
    count = len(node.inputs)
    for position in range(count):
        tensor = node.input(position)
        if tensor is None or node.constant(position) is None:
            continue
        q = tensor.quantization
        zeros = [0] if q is None or q.zeroPoint is None else q.zeroPoint
        zero = int(zeros[0]) if len(zeros) else 0
        if count != 2 or not node.is_throughout(position, zero):
            return "joins a constant that isn't one tensor of zeros"
    return None


def _default_weights_format(node: Node) -> str | None:
    if node.option("weightsFormat"):
        return "has weights in a shuffled format"
    return None


def _one_dimensional_output(node: Node) -> str | None:
    shape = node.output_shape()
    if any(n > 1 for n in shape[:-1]):
        return f"has an output of shape {shape}, which isn't one-dimensional"
    return None


def _axes(node: Node) -> frozenset[int]:
    return node.axes(1, len(node.input_shape(0)))


def _axes_not_batch(node: Node) -> str | None:
    if node.output_shape() and 0 in _axes(node):
        return "reduces the batch axis"
    return None


def _depth_mean_by_4(node: Node) -> str | None:
    shape = node.input_shape(0)
    if len(shape) > 1 and len(shape) - 1 in _axes(node) and shape[-1] % 4:
        return f"reduces {shape[-1]} channels, which is no multiple of 4"
    return None


def _one_grid(node: Node) -> str | None:
    if node.input(0) is None or not node.outputs:
        return None
    if node.grid(node.inputs[0]) != node.grid(node.outputs[0]):
        return "has an output on another grid, to which it does not rescale"
    return None


def _pack_not_batch(node: Node) -> str | None:
    return None if node.option("axis") else "packs along the batch axis"


def _pad_not_batch(node: Node) -> str | None:
    paddings = node.constant(1)
    # One row an axis: before and behind.
    if paddings is not None and paddings.ravel()[:2].any():
        return "pads the batch axis"
    return None


def _alpha_along_depth(node: Node) -> str | None:
    shape = node.input_shape(1)
    if any(n > 1 for n in shape[:-1]):
        return f"has slopes of shape {shape}; set shared_axes=[1, 2]"
    return None


def _four_axes(node: Node) -> str | None:
    shape = node.input_shape(0)
    return f"reads {len(shape)} axes, of shape {shape}" if shape[4:] else None


def _has_bias(node: Node) -> str | None:
    return None if node.input(2) is not None else "has no bias"


def _large_reshape(node: Node) -> str | None:
    # "Certain reshapes might not be mapped for large tensor sizes": no figure
    # is published.
    if math.prod(node.output_shape()) >= _LARGE_RESHAPE:
        return "note: may not be mapped, as its tensor is large"
    return None


def _resize_precision(node: Node) -> str | None:
    return (
        "note: may not be mapped, depending on its sizes, to avoid a loss of "
        "precision"
    )


def _softmax_length(node: Node) -> str | None:
    shape = node.output_shape()
    if any(n > 1 for n in shape[:-1]):
        return f"has an input of shape {shape}, which isn't one-dimensional"
    if shape and shape[-1] > _LONGEST_SOFTMAX:
        return f"has more than {_LONGEST_SOFTMAX:,} elements"
    return None


def _split_not_batch(node: Node) -> str | None:
    axis, rank = node.constant(0), len(node.input_shape(1))
    if axis is None or not axis.size or axis.dtype.kind not in "iu":
        return None
    if rank and int(axis.flat[0]) % rank == 0:
        return "splits the batch axis"
    return None


def _leading_ones(node: Node) -> str | None:
    shape = node.input_shape(0)
    seen = False
    for length in shape:
        if seen and length == 1:
            return f"removes an axis behind longer ones, of shape {shape}"
        seen = seen or length > 1
    return None


def _unit_strides(node: Node) -> str | None:
    if not node.is_throughout(3, 1):
        return "has strides other than 1"
    if node.option("ellipsisMask") or node.option("newAxisMask"):
        return "has an ellipsis or a new axis"
    return None


RESTRICTIONS: dict[str, Callable[[Node], str | None]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        _alpha_along_depth,
        _axes_not_batch,
        _default_weights_format,
        _depth_mean_by_4,
        _four_axes,
        _has_bias,
        _large_reshape,
        _leading_ones,
        _no_fused_activation,
        _one_dimensional_output,
        _one_grid,
        _pack_not_batch,
        _pad_not_batch,
        _resize_precision,
        _same_dilation,
        _softmax_length,
        _split_not_batch,
        _unit_strides,
        _zero_constant,
        vela_rules.vela_average_window,
        vela_rules.vela_bilinear,
        vela_rules.vela_depthwise_strides,
        vela_rules.vela_mean,
        vela_rules.vela_nearest,
        vela_rules.vela_reverse,
        vela_rules.vela_slice,
        vela_rules.vela_strides,
        vela_rules.vela_transposed,
    )
}
