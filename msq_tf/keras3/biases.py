"""Biases as integer kernels have them: whole units of the accumulator.

A kernel sums products of integer inputs and codes, and adds the bias to the
sum. So a bias is a multiple of the input's unit times the weight's step, which
is coarse for codes of few bits. Without this rounding in training, the file
would compute other numbers.

If the converter folds a batch norm into the layer, the unit of a channel is
that of the layer times the factor of the batch norm, and the rounded number is

    beta + (bias - mean) * gamma / sqrt(variance + epsilon)

The gradient goes straight through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.keras3.activation_sites import LINEAR
from msq_tf.keras3.activation_sites import MIDDLE
from msq_tf.keras3.activation_sites import Site
from msq_tf.keras3.activation_sites import grids_of
from msq_tf.keras3.activation_sites import positions
from msq_tf.keras3.flow import Call
from msq_tf.keras3.flow import Trace
from msq_tf.keras3.overlay import read_float32
from msq_tf.keras3.separable import SEPARABLE


@dataclasses.dataclass(frozen=True)
class Bias:
    """One call of a layer whose bias is rounded.

    Attributes:
        layer: Position of the layer in the traversal order of the model.
        call: Which call of it, from 0.
        site: Position of the site whose grid the kernel's input has.
        norm: Position of the batch norm that is folded into the layer; -1
            for none.
        norm_call: Which call of the batch norm.
    """

    layer: int
    call: int
    site: int
    norm: int = -1
    norm_call: int = 0

    def __post_init__(self) -> None:
        """Refuses what only a damaged or made-up file can say."""
        for name in ("layer", "call", "site", "norm_call"):
            saved.check_integer(name, getattr(self, name), 0)
        saved.check_integer("norm", self.norm, -1)

    @property
    def place(self) -> tuple[int, int]:
        """The layer whose variable changes, and which call of it."""
        if self.norm < 0:
            return self.layer, self.call
        return self.norm, self.norm_call


def find_biases(found: Trace, sites: Sequence[Site]) -> tuple[Bias, ...]:
    """Finds the biases that integer kernels add, in the order of execution."""
    grids = grids_of(found, sites)
    middles = positions(sites, MIDDLE)
    biases = []
    for call in found.calls:
        if not isinstance(call.layer, LINEAR) or not call.tensors:
            continue
        site = grids.get(id(call.tensors[0]))
        if isinstance(call.layer, SEPARABLE):
            site = middles.get((call.index, call.number))
        if site is None:
            continue
        norm = _folded(call, found)
        if norm is not None:
            biases.append(
                Bias(call.index, call.number, site, norm.index, norm.number)
            )
        elif getattr(call.layer, "bias", None) is not None:
            biases.append(Bias(call.index, call.number, site))
    return tuple(biases)


def _folded(call: Call, found: Trace) -> Call | None:
    """The batch norm that a converter folds into a layer."""
    function = getattr(call.layer, "activation", None)
    if getattr(function, "__name__", "") != "linear":
        return None
    reader = found.only_reader(call.output)
    if reader is None or not isinstance(
        reader.layer, keras.layers.BatchNormalization
    ):
        return None
    last = len(call.output.shape) - 1
    return reader if reader.layer.axis in (-1, last) else None


def biased_kernel(layer: Any) -> Any:
    """The kernel to whose sums a layer adds its bias; `None` for none."""
    # A separable convolution adds it to the sums of the second of its kernels.
    name = "pointwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"
    return getattr(layer, name, None)


def rounded(
    layer: Any, norm: Any, step: tf.Tensor, unit: tf.Tensor
) -> list[tuple[Any, tf.Tensor]]:
    """Values to lay over variables so that a bias is whole units.

    Args:
        layer: A layer with a kernel.
        norm: The batch norm that is folded into it; `None` for none.
        step: Steps of the layer's codes, in a shape that broadcasts against
            the kernel.
        unit: Unit of the layer's input, a scalar; 0 where it is not known.

    Returns:
        A pair of a variable and its value; none where the steps do not belong
        to the channels of the bias.
    """
    if norm is None:
        steps = _along(step, layer.bias.shape)
        if steps is None:
            return []
        bias = read_float32(layer.bias)
        return [(layer.bias, bias + _to_whole(bias, unit * steps))]
    mean = read_float32(norm.moving_mean)
    steps = _along(step, mean.shape)
    if steps is None:
        return []
    factor = tf.math.rsqrt(read_float32(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor *= read_float32(norm.gamma)
    own = 0.0
    if getattr(layer, "bias", None) is not None:
        own = read_float32(layer.bias)
    folded = (own - mean) * factor
    if not norm.center:
        change = _to_whole(folded, unit * steps * tf.abs(factor))
        value = mean - tf.math.divide_no_nan(change, factor)
        return [(norm.moving_mean, value)]
    beta = read_float32(norm.beta)
    change = _to_whole(beta + folded, unit * steps * tf.abs(factor))
    return [(norm.beta, beta + change)]


def _along(step: tf.Tensor, shape: Sequence[int]) -> tf.Tensor | None:
    """Steps in the shape of a bias."""
    sizes = [size for size in step.shape if size != 1]
    wanted = [size for size in shape if size != 1]
    if not sizes:
        return tf.reshape(step, [])
    # A depthwise kernel has two axes of channels, its bias has one.
    if sizes != wanted and (
        len(wanted) > 1 or step.shape.num_elements() != shape[0]
    ):
        return None
    return tf.reshape(step, shape)


def _to_whole(values: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    """What is missing to the nearest whole units, no gradient."""
    whole = tf.round(tf.math.divide_no_nan(values, unit)) * unit
    return tf.stop_gradient(tf.where(unit > 0.0, whole - values, 0.0))
