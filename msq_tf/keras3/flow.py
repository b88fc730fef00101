"""The tensors that flow through a model, call by call.

The flow of tensors is taken from a trace of the model, so it is the same for
Sequential, Functional, nested and subclassed models.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3 import attention
from msq_tf.keras3 import lifting
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.call_hooks import Visitor
from msq_tf.keras3.call_hooks import install
from msq_tf.keras3.discovery import walk
from msq_tf.keras3.overlay import child_layers
from msq_tf.keras3.overlay import operations
from msq_tf.keras3.overlay import symbolic_inputs
from msq_tf.keras3.places import Places

# Kinds of TensorFlow's operators that only move numbers.
_MOVING = {
    "Cast",
    "ExpandDims",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "StopGradient",
    "StridedSlice",
    "Transpose",
}
# Those that keep some of the numbers.
_CHOOSING = _MOVING | {"Select", "SelectV2"}
PRODUCTS = {
    "BatchMatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Einsum",
    "MatMul",
}
# What else a runtime computes from the grid that it reads.
_COMPUTING = PRODUCTS | {"Add", "AddV2", "Mul", "Sub"}


# Lengths to try where a layer needs one.
_SIZES = (16, 64)


@dataclasses.dataclass
class Call:
    """One call of a layer or operation, as a trace of the model has it.

    Attributes:
        layer: The layer or operation.
        index: Its position among those of `hookable`.
        number: Which call of it, from 0.
        inputs: All that it was called with, flat.
        output: The tensor that it returned.
        activated: How often it called its activation function.
    """

    layer: Any
    index: int
    number: int
    inputs: list[Any]
    output: Any
    activated: int

    @property
    def tensors(self) -> list[tf.Tensor]:
        """The tensors among `inputs`."""
        return [x for x in self.inputs if isinstance(x, tf.Tensor)]


@dataclasses.dataclass
class Trace:
    """The tensors that flow through a model.

    Attributes:
        paths: Path of each hookable layer or operation.
        inputs: The tensors of the model's inputs.
        calls: Calls with one output, in order.
        outputs: The tensors of the model's outputs.
    """

    paths: list[str]
    inputs: list[Any]
    calls: list[Call]
    outputs: list[Any]

    def readers(self, tensor: Any) -> list[Call]:
        """The calls that read a tensor."""
        return [
            call for call in self.calls if any(x is tensor for x in call.inputs)
        ]

    def only_reader(self, tensor: Any) -> Call | None:
        """The one call that reads a tensor, if nothing else does."""
        if self.ends(tensor):
            return None
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 else None

    def ends(self, tensor: Any) -> bool:
        """Whether a tensor is an output of the model."""
        return any(output is tensor for output in self.outputs)

    def is_between(self, tensor: Any) -> bool:
        """Whether no call wrote a tensor that depends on the inputs.

        What only moves the numbers of another one counts as that.
        """
        while tensor.name not in self._written:
            if tensor.op.type not in _MOVING:
                return tensor.name in self._flowing
            tensor = tensor.op.inputs[0]
        return False

    def is_multiplied(self, tensor: Any) -> bool:
        """Whether a product or sum that is no call reads a tensor."""
        return any(
            operation.type in _COMPUTING
            or (
                operation.type in _CHOOSING
                and any(map(self.is_multiplied, operation.outputs))
            )
            for operation in tensor.consumers()
        )

    def is_position(self, tensor: Any) -> bool:
        """Whether a tensor counts things, and no activation meets it."""
        return tensor in self._places

    @functools.cached_property
    def _places(self) -> Places:
        return Places(self.inputs[0].graph, self.inputs, self.outputs)

    @functools.cached_property
    def _written(self) -> set[str]:
        """Names of inputs, and of what calls wrote."""
        # A dropout gives what it read.
        wrote = [
            call.output
            for call in self.calls
            if all(call.output is not x for x in call.inputs)
        ]
        return {x.name for x in (*self.inputs, *wrote)}

    @functools.cached_property
    def _flowing(self) -> set[str]:
        """Names of what depends on the inputs."""
        found = {x.name for x in self.inputs}
        for operation in self.inputs[0].graph.get_operations():
            if any(x.name in found for x in operation.inputs):
                found.update(x.name for x in operation.outputs)
        return found


class _Recorder(Visitor):
    """Notes the calls of layers and what flows between them."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._position = {id(layer): i for i, layer in enumerate(layers)}
        self._counts: dict[int, int] = {}
        self._activated: dict[int, int] = {}
        self.calls: list[Call] = []

    def enter(self, layer: Any, inputs: Any) -> Any:
        self._activated[id(layer)] = 0
        return inputs

    def opens(self, layer: Any) -> bool:
        return True

    def activate(
        self, layer: Any, inputs: Any, function: Callable[[Any], Any]
    ) -> Any:
        if isinstance(inputs, tf.Tensor) and inputs.dtype.is_floating:
            self._activated[id(layer)] = self._activated.get(id(layer), 0) + 1
        return function(inputs)

    def leave(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        # A model that was prepared before is hooked itself.
        index = self._position.get(id(layer))
        flat = keras.tree.flatten(outputs)
        if (
            index is None
            or len(flat) != 1
            or not isinstance(flat[0], tf.Tensor)
        ):
            return outputs
        number = self._counts.get(index, 0)
        self._counts[index] = number + 1
        self.calls.append(
            Call(
                layer,
                index,
                number,
                keras.tree.flatten(inputs),
                flat[0],
                self._activated.get(id(layer), 0),
            )
        )
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
    return bool(child_layers(layer))


def input_signature(base: Any, example_inputs: Any = None) -> Any:
    """The inputs of a model as a structure of `tf.TensorSpec`.

    Raises:
        ValueError: If the model does not know its inputs, as a subclassed one,
            and no `example_inputs` are given.
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


def trace(base: Any, signature: Any) -> Trace:
    """Runs a model in inference mode and notes what flows through it.

    Some layers take no open length, as they loop over it in Python. What flows
    where is the same for any length.
    """
    sizes = [signature, *(_closed(signature, size) for size in _SIZES)]
    if not any(
        None in spec.shape[1:] for spec in keras.tree.flatten(signature)
    ):
        del sizes[1:]
    for number, sized in enumerate(sizes):
        try:
            return _traced(base, sized)
        # What a layer says of it is of no single kind.
        except Exception:
            if number + 1 == len(sizes):
                # In its own words for what the model has.
                return _traced(base, signature)
    raise AssertionError("there is one at least")


def _closed(signature: Any, size: int) -> Any:
    """A signature without open sizes; the batch stays open."""
    return keras.tree.map_structure(
        lambda spec: tf.TensorSpec(
            [
                size if k and length is None else length
                for k, length in enumerate(spec.shape)
            ],
            spec.dtype,
            spec.name,
        ),
        signature,
    )


def _traced(base: Any, signature: Any) -> Trace:
    named = hookable(base)
    install(layer for _, layer in named)
    attention.install(base)
    recorder = _Recorder([layer for _, layer in named])
    flows: tuple[list[Any], list[Any]] = [], []

    def run(inputs: Any) -> Any:
        with CallScope(recorder), lifting.lifted():
            result = base(inputs, training=False)
        flows[0].extend(keras.tree.flatten(inputs))
        flows[1].extend(keras.tree.flatten(result))
        return result

    tf.function(run, autograph=False).get_concrete_function(signature)
    inputs, outputs = flows
    return Trace([p for p, _ in named], inputs, recorder.calls, outputs)


def resizes(layer: Any) -> bool:
    """Whether a kernel resizes as a layer or an operation does."""
    added = layer.fill_value if layer.pad_to_aspect_ratio else 0
    return (
        layer.interpolation in ("bilinear", "nearest")
        and not layer.antialias
        and added == 0
    )
