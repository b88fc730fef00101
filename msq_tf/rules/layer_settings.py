"""Settings of layers that some export targets can't run.

Each function looks at a layer or operation of either Keras, and tells whether
it has the setting. What depends on the input's shape is false where that is not
known before a call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_DEPTHWISE = (
    *("DepthwiseConv1D", "DepthwiseConv2D"),
    *("SeparableConv1D", "SeparableConv2D"),
)
_POOLS = (
    *("AveragePooling1D", "AveragePooling2D"),
    *("MaxPooling1D", "MaxPooling2D"),
)
_AVERAGES = ("AveragePooling1D", "AveragePooling2D")
_REDUCTIONS = ("Mean", "Norm", "Sum", "UnitNormalization", "Var")
# Longest strides and widest padded windows of Ethos-U55 and U65.
_STRIDE, _WINDOW = 3, 8
_CHANNELS = 4


def uneven_dilation(layer: Any) -> bool:
    """Whether a convolution is dilated by different steps along its axes."""
    rates = getattr(layer, "dilation_rate", 1)
    sizes = getattr(layer, "kernel_size", 1)
    if not isinstance(rates, Sequence) or not isinstance(sizes, Sequence):
        return False
    # Along a kernel of one pixel there is nothing to dilate.
    wide = {r for r, n in zip(rates, sizes, strict=True) if n > 1}
    return len(wide) > 1


def dilated_transposed(layer: Any) -> bool:
    """Whether a transposed convolution is dilated."""
    return _is(layer, _TRANSPOSED) and _most(layer, "dilation_rate") > 1


def deep(layer: Any) -> bool:
    """Whether a layer with variables reads sequences of images."""
    return len(_built_for(layer)) > 4


def four_long_axes(layer: Any) -> bool:
    """Whether anything reads more than three axes beside the batch's."""
    return any(n is None or n > 1 for n in input_shape(layer)[1:-3])


def has_threshold(layer: Any) -> bool:
    """Whether a ReLU begins elsewhere than at zero."""
    return _is(layer, ("ReLU",)) and bool(getattr(layer, "threshold", 0))


def reflects(layer: Any) -> bool:
    """Whether something is padded with other numbers than zeros."""
    return _is(layer, ("Pad",)) and layer.mode != "constant"


def odd_depth(layer: Any) -> bool:
    """Whether channels are reduced that are no multiple of four."""
    shape = input_shape(layer)
    if not _is(layer, _REDUCTIONS) or len(shape) < 2:
        return False
    axis = getattr(layer, "axis", None)
    axes = axis if isinstance(axis, Sequence) else [axis]
    last = any(a is None or a in (-1, len(shape) - 1) for a in axes)
    return last and (shape[-1] or 0) % _CHANNELS > 0


def long_strides(layer: Any) -> bool:
    """Whether a pool has long strides with padding, or a depthwise any."""
    if _most(layer, "strides") <= _STRIDE:
        return False
    return _is(layer, _DEPTHWISE) or (_is(layer, _POOLS) and _pads(layer))


def wide_average(layer: Any) -> bool:
    """Whether an average is over a large window with padding."""
    most = _most(layer, "pool_size")
    return _is(layer, _AVERAGES) and most > _WINDOW and _pads(layer)


def unusual_transposed(layer: Any) -> bool:
    """Whether a transposed convolution has other strides than 1 or 2."""
    if not _is(layer, _TRANSPOSED[:2]):
        return False
    strides, sizes = _numbers(layer, "strides"), _numbers(layer, "kernel_size")
    if len(strides) == 1:
        return strides[0] > 2
    if strides in ((1, 1), (2, 2)):
        return False
    lengths = input_shape(layer)[1:3]
    return not any(
        sizes[k] == strides[k] == 1
        and lengths[k : k + 1] == (1,)
        and strides[1 - k] == 2
        for k in (0, 1)
    )


def other_than_powers(layer: Any) -> bool:
    """Whether an image is blended to a size that no power of two makes."""
    return any(
        factor < 1 or factor != 2 ** round(math.log2(factor))
        for factor in _factors(layer, "bilinear")
    )


def other_than_doubled(layer: Any) -> bool:
    """Whether an image is resized otherwise than Ethos-U55 and U65 do."""
    blended = set(_factors(layer, "bilinear"))
    if blended:
        return blended != {2.0}
    # Up-sampling by copies goes as copies.
    if _is(layer, ("UpSampling2D",)):
        return False
    copied = set(_factors(layer, "nearest"))
    return bool(copied) and copied not in ({2.0}, {4.0}, {8.0})


def input_shape(layer: Any) -> tuple[int | None, ...]:
    """The shape that a layer was built for or called with; `()` if unknown.

    The batch is its first element; open axes are `None`.
    """
    found = _built_for(layer)
    if found:
        return found
    try:
        shape = getattr(layer.input, "shape", ())
    except (AttributeError, ValueError, RuntimeError):
        return ()  # it has no call, or several
    return _shape(tuple(shape))


def _built_for(layer: Any) -> tuple[int | None, ...]:
    if not hasattr(layer, "get_build_config"):
        return ()
    return _shape((layer.get_build_config() or {}).get("input_shape"))


def _shape(given: Any) -> tuple[int | None, ...]:
    if not isinstance(given, Sequence) or not all(
        n is None or isinstance(n, int) for n in given
    ):
        return ()
    return tuple(given)


def _is(layer: Any, names: Sequence[str]) -> bool:
    return any(kind.__name__ in names for kind in type(layer).__mro__)


def _numbers(layer: Any, name: str) -> tuple[int, ...]:
    value = getattr(layer, name, None)
    if isinstance(value, int):
        return (value,)
    return tuple(value) if isinstance(value, Sequence) else ()


def _most(layer: Any, name: str) -> int:
    return max(_numbers(layer, name), default=1)


def _pads(layer: Any) -> bool:
    return str(getattr(layer, "padding", "valid")).lower() != "valid"


def _factors(layer: Any, interpolation: str) -> tuple[float, ...]:
    """By what an image is resized along its two axes; none if it is not."""
    if getattr(layer, "interpolation", None) != interpolation or any(
        getattr(layer, f"{way}_to_aspect_ratio", False)
        for way in ("crop", "pad")
    ):
        return ()
    first = 2 if getattr(layer, "data_format", "") == "channels_first" else 1
    shape = input_shape(layer)[first : first + 2]
    if shape == (1, 1):  # one pixel is copied
        return ()
    size = _numbers(layer, "size")
    if _is(layer, ("UpSampling2D",)):
        return tuple(map(float, size))
    if _is(layer, ("Resizing",)):
        size = (layer.height, layer.width)
    if len(size) != 2 or not shape or shape == tuple(size):
        return ()
    pairs = zip(shape, size, strict=True)
    return tuple(b / a for a, b in pairs if a)
