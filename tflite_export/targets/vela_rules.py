"""Restrictions of single operators on Ethos-U, as Vela reports them.

They stand in `vela --supported-ops-report` (5.2.0), and each was tried with a
file of that one operator. Some hold for all accelerators, others for all but
Ethos-U85.
"""

from __future__ import annotations

import math

from ai_edge_litert import schema_py_generated as schema

from tflite_export.targets.nodes import Node

ONLY_U85 = "runs on Ethos-U85 only"
_LONGEST_STRIDE = 3
_WIDEST_PADDED = 8
_LONGEST_MEAN = 4096
_FACTORS = ({2}, {4}, {8})
_POOLS = "filterHeight", "filterWidth"


def vela_strides(node: Node) -> str | None:
    """Long strides with padding, of convolutions and pools."""
    strides = _strides(node)
    if not is_long(node) or not padding(node):
        return None
    return f"has strides {_pair(strides)} and padding: {ONLY_U85}"


def vela_depthwise_strides(node: Node) -> str | None:
    """Long strides of depthwise convolutions."""
    strides = _strides(node)
    if not is_long(node):
        return None
    return f"has strides {_pair(strides)}: {ONLY_U85}"


def vela_average_window(node: Node) -> str | None:
    """Large windows with padding."""
    window = _kernel(node)
    if max(window) <= _WIDEST_PADDED or not padding(node):
        return None
    return (
        f"has a window of {_pair(window)} and padding, expected at most "
        f"{_WIDEST_PADDED}"
    )


def vela_transposed(node: Node) -> str | None:
    """Strides of transposed convolutions, and sizes of what they write."""
    strides, kernel = _strides(node), node.input_shape(1)[1:3]
    read, written = node.input_shape(2)[1:3], node.output_shape()[1:3]
    if len(read) < 2 or len(written) < 2 or len(kernel) < 2:
        return None
    same = node.option("padding") == schema.Padding.SAME
    for axis in (0, 1):
        more = 0 if same else max(kernel[axis] - strides[axis], 0)
        if written[axis] != read[axis] * strides[axis] + more:
            return (
                f"writes {_pair(written)} of {_pair(read)} pixels, which is "
                "another size than its strides and kernel make"
            )
    if strides in ((1, 1), (2, 2)):
        return None
    for axis in (0, 1):
        flat = kernel[axis] == read[axis] == strides[axis] == 1
        if flat and strides[1 - axis] == 2:
            return None
    return f"has strides {_pair(strides)}: {ONLY_U85}"


def vela_bilinear(node: Node) -> str | None:
    """Factors of bilinear resizing."""
    read, written = node.input_shape(0)[1:3], node.output_shape()[1:3]
    if _is_pixel(read) or node.option("alignCorners"):
        return None
    factors = {b / a for a, b in zip(read, written, strict=True)}
    words = f"resizes {_pair(read)} to {_pair(written)} pixels"
    if any(n < 1 or n != 2 ** round(math.log2(n)) for n in factors):
        return f"{words}, expected powers of two as factors"
    if factors == {2} or not node.option("halfPixelCenters"):
        return None
    return f"{words}: {ONLY_U85}"


def vela_nearest(node: Node) -> str | None:
    """Factors of resizing by copies."""
    read, written = node.input_shape(0)[1:3], node.output_shape()[1:3]
    if _is_pixel(read) or read == written or node.option("alignCorners"):
        return None
    if runs_nearest(read, written):
        return None
    return (
        f"resizes {_pair(read)} to {_pair(written)} pixels, expected factors "
        f"of 2, 4 or 8: {ONLY_U85}"
    )


def vela_mean(node: Node) -> str | None:
    """Axes of means."""
    shape = node.input_shape(0)
    over = node.axes(1, len(shape))
    if len(shape) > 4 and math.prod(shape[:-3]) > 1:
        return f"reads more than three axes, of shape {shape}"
    inner = (1, 1, 1, *shape)[-3:]
    if len(shape) - 1 in over and min(inner) > 1:
        return f"reduces the channels of an image, of shape {shape}"
    if any(shape[axis] >= _LONGEST_MEAN for axis in over):
        return (
            f"reduces an axis of {max(shape[axis] for axis in over):,} "
            f"elements, expected less than {_LONGEST_MEAN:,}"
        )
    return None


def vela_reverse(node: Node) -> str | None:
    """Reversed axes."""
    shape = node.input_shape(0)
    if not any(shape[axis] > 1 for axis in node.axes(1, len(shape))):
        return None
    return f"reverses an axis of the shape {shape}: {ONLY_U85}"


def vela_slice(node: Node) -> str | None:
    """Strides of slices."""
    strides = node.constant(3)
    if strides is None or not strides.size:
        return None
    steps = strides.reshape(-1)
    if steps.min() < 0:
        return f"has strides {_pair(tuple(steps.tolist()))}, expected no < 0"
    if steps[-1] > 1:
        return f"takes every {steps[-1]}. channel, expected all of a part"
    return None


def runs_nearest(read: tuple[int, ...], written: tuple[int, ...]) -> bool:
    """Tells whether all accelerators resize an image by copies.

    Args:
        read: Height and width of what is read.
        written: Height and width of what is written.
    """
    factors = {
        b / a for a, b in zip(read, written, strict=True) if (a, b) != (1, 1)
    }
    return factors in _FACTORS


def is_long(node: Node) -> bool:
    """Tells whether an operator has strides that not all accelerators have."""
    return max(_strides(node)) > _LONGEST_STRIDE


def padding(node: Node) -> tuple[tuple[int, int], ...]:
    """Pixels that an operator adds before and behind each axis.

    Returns:
        Two pairs, of the rows and the columns; none where it adds nothing.
    """
    if node.option("padding") != schema.Padding.SAME:
        return ()
    read, strides = node.input_shape(0)[1:3], _strides(node)
    rates = (
        node.option("dilationHFactor", 1),
        node.option("dilationWFactor", 1),
    )
    pairs = []
    for length, step, size, rate in zip(
        read, strides, _kernel(node), rates, strict=False
    ):
        wide = (size - 1) * rate + 1
        missing = max((-(-length // step) - 1) * step + wide - length, 0)
        pairs.append((missing // 2, missing - missing // 2))
    return tuple(pairs) if any(map(any, pairs)) else ()


def _kernel(node: Node) -> tuple[int, ...]:
    if hasattr(node.op.builtinOptions, _POOLS[0]):
        return tuple(node.option(side, 1) for side in _POOLS)
    return node.input_shape(1)[1:3] or (1, 1)


def _strides(node: Node) -> tuple[int, int]:
    return node.option("strideH", 1), node.option("strideW", 1)


def _is_pixel(read: tuple[int, ...]) -> bool:
    """Whether one pixel is copied, or nothing is known."""
    return len(read) < 2 or read == (1, 1) or min(read) < 1


def _pair(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))
