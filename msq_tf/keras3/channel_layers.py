"""Effects of layers on channels: make, read, hand on, tie, or none of it.

A channel may go if all its readers read it by separate weights. Then these
weights go with it, whatever numbers it carried. So the layers between one
kernel and the next must keep channels apart: every number of their results has
to come from one channel.

Only the classes of Keras themselves are known, as a subclass may do something
else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from msq_tf.keras3.activation_grid import ActivationGrid
from msq_tf.keras3.lora import is_enabled

layers = keras.layers

# Functions of one number at a time.
_FUNCTIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu"),
    *("silu", "sigmoid", "hard_sigmoid", "hard_silu", "tanh", "softplus"),
    *("softsign", "exponential", "mish", "hard_tanh", "squareplus"),
    *("log_sigmoid", "hard_shrink", "soft_shrink", "tanh_shrink", "threshold"),
)
_POINTWISE = {
    function
    for name in _FUNCTIONS
    if (function := getattr(keras.activations, name, None)) is not None
}
_POINTWISE_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)
# Operations of a graph, by the names of their classes.
_POINTWISE_OPERATIONS = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid"),
    *(
        "HardSigmoid",
        "HardSilu",
        "Tanh",
        "Softplus",
        "Abs",
        "Square",
        "Negative",
    ),
)
_MERGING_OPERATIONS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
# What keeps channels apart where they are on the last axis.
_KEEPING = (
    *_POINTWISE_LAYERS,
    *(layers.GaussianNoise, layers.GaussianDropout, layers.Identity),
    *(ActivationGrid, layers.SpatialDropout1D, layers.SpatialDropout2D),
    *(layers.SpatialDropout3D, layers.RepeatVector),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D),
    *(layers.AveragePooling3D, layers.GlobalMaxPooling1D),
    *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.GlobalAveragePooling3D, layers.ZeroPadding1D),
    *(layers.ZeroPadding2D, layers.ZeroPadding3D, layers.Cropping1D),
    *(layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D),
    *(layers.UpSampling2D, layers.UpSampling3D),
)
_MERGING = (
    *(layers.Add, layers.Subtract, layers.Multiply, layers.Average),
    *(layers.Maximum, layers.Minimum),
)
_CONVS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
# Where the configuration of a layer has the number of channels that it makes.
SIZES = {
    layers.Dense: "units",
    layers.Embedding: "output_dim",
    **dict.fromkeys((*_CONVS, *_TRANSPOSED, *_SEPARABLE), "filters"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Flow:
    """A stand-in for a tensor.

    Attributes:
        spec: Its shape and type, a `keras.KerasTensor`.
        ids: The channel of each place on its last axis; empty where that is
            not known.
    """

    spec: Any
    ids: np.ndarray


def follow(
    net: Any, layer: Any, flows: Sequence[Flow], given: Sequence[Any], to: Any
) -> np.ndarray | None:
    """The channels of what a layer or operation gives.

    Args:
        net: The `ChannelFlow` that learns which variables go with them.
        layer: The layer or operation.
        flows: The tensors that it is called with.
        given: Everything that it is called with, flat.
        to: Shape and type of its result.

    Returns:
        A number for each place on the last axis; `None` where the layer does
        not keep channels apart.
    """
    kind = type(layer)
    if kind is not layers.Embedding and not all(len(x.ids) for x in flows):
        return None
    if not isinstance(layer, layers.Layer):
        numbers = [x for x in given if isinstance(x, int | float)]
        return _operation(net, kind, flows, len(numbers), len(given))
    if is_enabled(layer) or getattr(layer, "quantization_mode", None):
        return None
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    if kind in _MERGING:
        return _merged(net, flows)
    if kind is layers.Concatenate:
        return _joined(net, layer, flows)
    if kind in _RULES and len(flows) == 1:
        return _RULES[kind](net, layer, flows[0], to)
    return None


def _operation(
    net: Any, kind: type, flows: Sequence[Flow], numbers: int, count: int
) -> np.ndarray | None:
    if not kind.__module__.startswith("keras."):
        return None
    if kind.__name__ in _POINTWISE_OPERATIONS and len(flows) == 1:
        return flows[0].ids
    if kind.__name__ in _MERGING_OPERATIONS and len(flows) + numbers == count:
        return _merged(net, flows)
    return None


def _is_pointwise(function: Any) -> bool:
    return (
        function is None
        or type(function) in _POINTWISE_LAYERS
        or any(function is known for known in _POINTWISE)
    )


def _merged(net: Any, flows: Sequence[Flow]) -> np.ndarray | None:
    first = flows[0]
    for flow in flows[1:]:
        if len(flow.spec.shape) != len(first.spec.shape) or len(
            flow.ids
        ) != len(first.ids):
            return None
        net.ids.tie(first.ids, flow.ids)
    return first.ids


def _joined(net: Any, layer: Any, flows: Sequence[Flow]) -> np.ndarray | None:
    last = len(flows[0].spec.shape) - 1
    if layer.axis in (-1, last):
        return np.concatenate([flow.ids for flow in flows])
    return _merged(net, flows)


def _kept(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return x.ids


def _activation(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return x.ids if _is_pointwise(layer.activation) else None


def _dropout(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return x.ids if layer.noise_shape is None else None


def _rescaling(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    scalar = np.ndim(layer.scale) == np.ndim(layer.offset) == 0
    return x.ids if scalar else None


def _permute(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return x.ids if layer.dims[-1] == len(layer.dims) else None


def _reshape(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    before, after = x.spec.shape[1:], to.shape[1:]
    if None in (*before, *after) or not after:
        return None
    rows = np.broadcast_to(x.ids, before).reshape(-1, after[-1])
    if (rows != rows[0]).any():
        return None
    return net.reshape(layer, rows[0].copy())


def _norm(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    last = len(x.spec.shape) - 1
    if layer.axis not in (-1, last) or getattr(layer, "renorm", False):
        return None
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        variable = getattr(layer, name, None)
        if variable is not None:
            net.lay(layer, variable, 0, x.ids)
    return x.ids


def _linear(
    net: Any, layer: Any, x: Flow, kernel: Any, reads: int, makes: int
) -> np.ndarray | None:
    if not _is_pointwise(layer.activation) or getattr(layer, "groups", 1) != 1:
        return None
    net.lay(layer, kernel, reads, x.ids)
    return _biased(net, layer, net.make(layer, kernel, makes))


def _biased(net: Any, layer: Any, ids: np.ndarray) -> np.ndarray:
    if layer.bias is not None:
        net.lay(layer, layer.bias, 0, ids)
    return ids


def _conv(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return _linear(net, layer, x, layer.kernel, -2, -1)


def _transposed(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    return _linear(net, layer, x, layer.kernel, -1, -2)


def _depthwise(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    if not _is_pointwise(layer.activation):
        return None
    net.lay(layer, layer.kernel, -2, x.ids)
    return _biased(net, layer, _multiplied(net, layer, layer.kernel, x))


def _separable(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    if not _is_pointwise(layer.activation):
        return None
    net.lay(layer, layer.depthwise_kernel, -2, x.ids)
    between = _multiplied(net, layer, layer.depthwise_kernel, x)
    middle = dataclasses.replace(x, ids=between)
    return _linear(net, layer, middle, layer.pointwise_kernel, -2, -1)


def _multiplied(net: Any, layer: Any, kernel: Any, x: Flow) -> np.ndarray:
    """Each channel as often as a depthwise kernel makes something of it."""
    return np.repeat(x.ids, kernel.shape[-1])


def _embedding(net: Any, layer: Any, x: Flow, to: Any) -> np.ndarray | None:
    net.ids.pin(x.ids, f"is read by Embedding '{layer.name}'")
    return net.make(layer, layer.embeddings, -1)


_RULES: dict[type, Callable[[Any, Any, Flow, Any], np.ndarray | None]] = {
    **dict.fromkeys(_KEEPING, _kept),
    layers.Activation: _activation,
    layers.Dropout: _dropout,
    layers.Rescaling: _rescaling,
    layers.Permute: _permute,
    layers.Reshape: _reshape,
    layers.Flatten: _reshape,
    layers.BatchNormalization: _norm,
    layers.Dense: _conv,
    layers.Embedding: _embedding,
    **dict.fromkeys(_CONVS, _conv),
    **dict.fromkeys(_TRANSPOSED, _transposed),
    **dict.fromkeys(_DEPTHWISE, _depthwise),
    **dict.fromkeys(_SEPARABLE, _separable),
}
