"""Quantized weights as data, for reports and files.

These records hold numpy arrays only, so that everything downstream of
training (reports, the exporter) works the same for any front end that can
state its codes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from msq_tf.weight_layout import Layout

# Codes that are counted at once.
_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """One weight tensor as integer codes.

    `codes * step` in float32 is, bit for bit, the value with which the layer
    computed in training.

    Attributes:
        path: The key in `MSQModel.bits`: the traversal path of the layer from
            the root, with the attribute's name appended when a layer has
            more than one quantized weight.
        layer: Class name of the owning layer, such as `"Conv2D"`.
        attribute: Name of the weight on its layer, such as `"kernel"`.
        layout: Meaning of the axes.
        channel_axes: Axes of the variable that index output channels, also
            where the granularity is per tensor.
        codes: int8 array in the variable's shape, with
            `|codes| <= 2**(bits - 1) - 1`.
        step: float32 array that broadcasts against `codes`; positive. One
            entry per output channel, or a single entry.
        bits: Stored bits, the sign included.
    """

    path: str
    layer: str
    attribute: str
    layout: Layout
    channel_axes: tuple[int, ...]
    codes: np.ndarray
    step: np.ndarray
    bits: int

    @property
    def values(self) -> np.ndarray:
        """float32 array: the quantized weight, `codes * step`."""
        return self.codes.astype(np.float32) * self.step

    @property
    def distinct_codes(self) -> int:
        """Number of different codes in use."""
        return int(np.count_nonzero(count_codes(self.codes)))

    @property
    def entropy_bits(self) -> float:
        """Total Shannon entropy of the codes, in bits (i.i.d. model)."""
        return entropy(self.codes) * self.codes.size


def count_codes(codes: np.ndarray) -> np.ndarray:
    """Counts how often each of int8 codes occurs, by its byte."""
    bytes_ = np.ascontiguousarray(codes, np.int8).view(np.uint8).ravel()
    total = np.zeros(256, np.int64)
    # `bincount` makes eight bytes of each.
    for start in range(0, bytes_.size, _AT_ONCE):
        piece = bytes_[start : start + _AT_ONCE]
        total += np.bincount(piece, minlength=256)
    return total


def entropy(codes: np.ndarray) -> float:
    """Shannon entropy of a code, in bits."""
    counts = count_codes(codes)
    p = counts[counts > 0] / max(codes.size, 1)
    return float(-(p * np.log2(p)).sum()) + 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class SkippedWeight:
    """One weight tensor that stays in float, and the reason.

    Attributes:
        path: Traversal path of the layer and the weight's name.
        layer: Class name of the owning layer.
        attribute: Name of the weight on its layer.
        size: Number of elements.
        reason: A sentence for a person.
        quantizable: Whether MSQ could quantize it; if so, it counts 32 bits an
            element in every compression figure.
        value: float32 array, the weight itself.
        layout: Meaning of the axes, where known.
        channel_axes: Axes that index output channels, where known.
    """

    path: str
    layer: str
    attribute: str
    size: int
    reason: str
    quantizable: bool
    value: np.ndarray
    layout: Layout = Layout.OTHER
    channel_axes: tuple[int, ...] = ()
