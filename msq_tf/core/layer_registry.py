"""The weights that layers compute with: one table for both Keras.

Layers are matched by class and weights by attribute: names would miss
recurrent kernels and embeddings, and `variable.path` is not unique in nested
models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msq_tf.core import hub_layers
from msq_tf.core.weight_spec import WeightSpec
from msq_tf.weight_layout import Layout

Registry = dict[type, tuple[WeightSpec, ...]]


def _einsum_output_axes(layer: Any) -> tuple[int, ...]:
    operands, output = layer.equation.replace(" ", "").split("->")
    kernel = operands.split(",")[1]
    return tuple(i for i, axis in enumerate(kernel) if axis in output)


_DENSE = (WeightSpec("kernel", (-1,), Layout.DENSE),)
_CONV = (WeightSpec("kernel", (-1,), Layout.CONV),)
_CONV_TRANSPOSE = (WeightSpec("kernel", (-2,), Layout.CONV_TRANSPOSE),)
_SEPARABLE = (
    WeightSpec("depthwise_kernel", (-2, -1), Layout.DEPTHWISE),
    WeightSpec("pointwise_kernel", (-1,), Layout.CONV),
)
# Cells, which are inside of recurrent layers.
_RECURRENT = (
    WeightSpec("kernel", (-1,), Layout.RECURRENT),
    WeightSpec("recurrent_kernel", (-1,), Layout.RECURRENT),
)
_LAYERS = {
    "Dense": _DENSE,
    "Conv1D": _CONV,
    "Conv2D": _CONV,
    "Conv3D": _CONV,
    "Conv1DTranspose": _CONV_TRANSPOSE,
    "Conv2DTranspose": _CONV_TRANSPOSE,
    "Conv3DTranspose": _CONV_TRANSPOSE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "EinsumDense": (WeightSpec("kernel", _einsum_output_axes, Layout.EINSUM),),
    "Embedding": (WeightSpec("embeddings", (-1,), Layout.EMBEDDING),),
    # Where logits have a table of their own, beside that of tokens.
    "ReversibleEmbedding": (
        WeightSpec("reverse_embeddings", (-1,), Layout.DENSE),
    ),
    # Convolutions with the waves of a Fourier transform, a fixed one or not.
    "STFTSpectrogram": (
        WeightSpec("real_kernel", (-1,), Layout.CONV),
        WeightSpec("imag_kernel", (-1,), Layout.CONV),
    ),
    "LSTMCell": _RECURRENT,
    "GRUCell": _RECURRENT,
    "SimpleRNNCell": _RECURRENT,
}
_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")


def registry(layers: Any, depthwise_kernel: str) -> Registry:
    """The weights of all layers that are known, by class.

    Args:
        layers: `keras.layers` or `tf_keras.layers`.
        depthwise_kernel: What depthwise convolutions call their weight there.
    """
    depthwise = (WeightSpec(depthwise_kernel, (-2, -1), Layout.DEPTHWISE),)
    named = _LAYERS | dict.fromkeys(_DEPTHWISE, depthwise)
    # The older Keras lacks some.
    return {
        getattr(layers, name): specs
        for name, specs in named.items()
        if hasattr(layers, name)
    }


def specs_of(
    known: Mapping[type, tuple[WeightSpec, ...]], layer: Any
) -> tuple[WeightSpec, ...]:
    """The weights of a layer that are known, those of its own class first."""
    specs: dict[str, WeightSpec] = {}
    for ancestor in type(layer).__mro__:
        for spec in (*known.get(ancestor, ()), *hub_layers.specs_of(ancestor)):
            specs.setdefault(spec.attribute, spec)
    return tuple(specs.values())
