"""Where a runtime requantizes: the outputs that get fake-quantized.

A TFLite runtime holds one integer tensor after every operator *as the
converter fuses them*: a convolution with its bias, batch norm and ReLU is one
operator. So an output is quantized after the fused activation, after additions
and concatenations, and at the model's inputs, but not between a convolution
and its batch norm. Operators that only move numbers keep their input's scale;
softmax, sigmoid and tanh have fixed ones. Those get no range of their own.

The flow of tensors is taken from a trace of the model, so it is the same for
Sequential, Functional, nested and subclassed models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.discovery import walk
from msq_tf.hooks import CallScope
from msq_tf.hooks import install
from msq_tf.overlay import operations
from msq_tf.overlay import symbolic_inputs

INPUT = -1

_LINEAR: tuple[type, ...] = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
# They cut what they read to integers, whose values a grid would change.
_CUTTING = (keras.layers.Embedding,)
_FUSING = (keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply)
# Class names of operations without a public class: `a + b` in a functional
# model.
_FUSING_NAMES = {"Add", "Subtract", "Multiply"}
_MOVING: tuple[type, ...] = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
)
_FUSED_ACTIVATIONS = ("relu", "relu6")
_FIXED_ACTIVATIONS = ("softmax", "sigmoid", "tanh")


@dataclasses.dataclass(frozen=True)
class Site:
    """One place where activations are quantized.

    Attributes:
        path: Unique name: the layer's path; a later call of a shared layer
            has `#2`, `#3` appended. Inputs are `input`, `input#2`, ...
        layer: Position of the layer in the traversal order of the model, or
            `INPUT`.
        call: Which call of the layer, from 0; of an input, which one.
    """

    path: str
    layer: int
    call: int

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class _Call:
    layer: Any
    inputs: list[Any]
    output: Any


class _Recorder:
    """Notes the calls of layers and what flows between them."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def enter(self, layer: Any, inputs: Any) -> Any:
        return inputs

    def leave(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        flat = keras.tree.flatten(outputs)
        if len(flat) == 1 and isinstance(flat[0], tf.Tensor):
            self.calls.append(_Call(layer, keras.tree.flatten(inputs), flat[0]))
        return outputs


def hookable(base: Any) -> list[tuple[str, Any]]:
    """Layers without sublayers, and operations of functional graphs.

    Recurrent layers are opaque: what happens inside their loop has no place
    for a quantizer.
    """
    found = []
    opaque: list[str] = []
    entries = [("", base), *walk(base)] if _has_children(base) else walk(base)
    seen: set[int] = set()
    for path, layer in entries:
        if any(path.startswith(prefix) for prefix in opaque):
            continue
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
            opaque.append(f"{path}/")
        elif _has_children(layer):
            for operation in operations(layer):
                if id(operation) not in seen:
                    seen.add(id(operation))
                    prefix = f"{path}/" if path else ""
                    found.append((f"{prefix}{operation.name}", operation))
            continue
        if not isinstance(layer, keras.layers.InputLayer):
            found.append((path, layer))
    return found


def _has_children(layer: Any) -> bool:
    return bool(layer._flatten_layers(include_self=False))


def input_signature(base: Any, example_inputs: Any = None) -> Any:
    """The inputs of a model as a structure of `tf.TensorSpec`.

    Args:
        base: A built Keras model.
        example_inputs: A batch of inputs; needed for subclassed models.

    Raises:
        ValueError: If the model does not know its inputs and none are given.
    """
    if example_inputs is not None:
        return keras.tree.map_structure(
            lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype),
            keras.tree.map_structure(np.asarray, example_inputs),
        )
    inputs = symbolic_inputs(base)
    if inputs is not None:
        return keras.tree.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), inputs
        )
    raise ValueError(
        "Quantized activations of a subclassed model need to see its inputs. "
        "Expected `quantize_model(..., example_inputs=batch)`. Received: "
        f"{type(base).__name__} '{base.name}' without example_inputs"
    )


def find_sites(base: Any, signature: Sequence[Any]) -> tuple[Site, ...]:
    """Finds where to quantize activations.

    Args:
        base: A built Keras model.
        signature: The model's inputs as a structure of `tf.TensorSpec`.

    Returns:
        Sites in the order of execution, inputs first.
    """
    named = hookable(base)
    install(layer for _, layer in named)
    recorder = _Recorder()
    outputs: list[Any] = []
    read: list[Any] = []

    def run(inputs: Any) -> Any:
        read.extend(keras.tree.flatten(inputs))
        with CallScope(recorder):
            result = base(inputs, training=False)
        outputs.extend(keras.tree.flatten(result))
        return result

    tf.function(run, autograph=False).get_concrete_function(signature)
    position = {id(layer): i for i, (_, layer) in enumerate(named)}
    sites = [
        Site(_numbered("input", i), INPUT, i)
        for i, spec in enumerate(keras.tree.flatten(signature))
        if spec.dtype.is_floating and not _is_cut(read[i], recorder.calls)
    ]
    counts: dict[int, int] = {}
    # A model that was prepared before is hooked itself.
    calls = [call for call in recorder.calls if id(call.layer) in position]
    for call in calls:
        index = position[id(call.layer)]
        number = counts.get(index, 0)
        counts[index] = number + 1
        if call.output.dtype.is_floating and _is_site(call, calls, outputs):
            sites.append(
                Site(_numbered(named[index][0], number), index, number)
            )
    return tuple(sites)


def _is_cut(tensor: Any, calls: Sequence[_Call]) -> bool:
    """Whether an input is only read as integers, such as tokens."""
    readers = [
        call.layer
        for call in calls
        if any(other is tensor for other in call.inputs)
    ]
    return bool(readers) and all(isinstance(x, _CUTTING) for x in readers)


def _numbered(path: str, number: int) -> str:
    return f"{path}#{number + 1}" if number else path


def _is_site(call: _Call, calls: Sequence[_Call], outputs: Any) -> bool:
    layer = call.layer
    if isinstance(layer, _MOVING):
        return False
    activation = _activation(layer)
    if activation in _FIXED_ACTIVATIONS:
        return False
    if activation is not None:
        return True
    follower = _only_consumer(call, calls, outputs)
    if follower is None:
        return True
    fuses = _fuses(follower.layer)
    if isinstance(layer, _LINEAR):
        if isinstance(follower.layer, keras.layers.BatchNormalization):
            return False
        return not fuses
    if isinstance(layer, keras.layers.BatchNormalization):
        return not fuses
    if isinstance(layer, _FUSING) or type(layer).__name__ in _FUSING_NAMES:
        return not fuses
    return True


def _only_consumer(
    call: _Call, calls: Sequence[_Call], outputs: Any
) -> _Call | None:
    """The one call that reads an output, if nothing else does."""
    if any(output is call.output for output in outputs):
        return None
    readers = [
        other
        for other in calls
        if any(tensor is call.output for tensor in other.inputs)
    ]
    return readers[0] if len(readers) == 1 else None


def _activation(layer: Any) -> str | None:
    """Name of what a layer applies last; `None` for nothing."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.RNN):
        return None  # a cell goes on behind its activation
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", None)
    return None if name in (None, "linear") else name


def _fuses(layer: Any) -> bool:
    """Whether TFLite runs this activation inside the operator before it."""
    if isinstance(layer, keras.layers.ReLU):
        return (
            layer.max_value in (None, 6)
            and not layer.negative_slope
            and not layer.threshold
        )
    return (
        isinstance(layer, keras.layers.Activation)
        and _activation(layer) in _FUSED_ACTIVATIONS
    )
