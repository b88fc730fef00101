"""One operator of a file, as what makes layers of it sees it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: None,
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
    schema.ActivationFunctionType.TANH: "tanh",
}


# Elements of a sample beyond which a file is damaged, or made up.
LARGEST = 1 << 26


class NeedsFixedBatch(Exception):
    """Raised where a graph mixes the batch with other axes."""


@dataclasses.dataclass
class Operator:
    """An operator with the values that it reads.

    Attributes:
        kind: Its name in the schema, such as `"CONV_2D"`.
        name: A name for the layer that is made of it.
        options: Its options, as the schema has them; `None` without any.
        inputs: A symbolic tensor of Keras, an array for a constant, or `None`
            for what is left out.
        given: Shapes of its inputs in the file; `()` for what is left out.
        on_grid: Whether the file has each input as integers of a grid.
        shapes: Shapes of its outputs in the file.
        types: Types of its outputs in the schema, such as `"INT32"`.
        output: Name of its first output, for messages.
        batch: The batch size that the model is made for; `None` for any.
        lengths_open: Whether other axes than the batch are open, too.
        anchor: An input of the model, which says how many samples there are.
        constants: What tells the inputs that are constants from others.
        layers: Layers that were made for constants, by operator and constants;
            what reads the same weights again is the same layer.
        weights: Where layers and the arrays of their weights are noted.
        run: Computes another graph of the file: function of its number, of
            its inputs and of what names of its layers begin with.
    """

    kind: str
    name: str
    options: Any
    inputs: list[Any]
    given: list[tuple[int, ...]]
    on_grid: list[bool]
    shapes: list[tuple[int, ...]]
    types: list[str]
    output: str
    batch: int | None
    lengths_open: bool
    anchor: Any
    constants: tuple[Any, ...]
    layers: dict[Any, keras.layers.Layer]
    weights: list[tuple[keras.layers.Layer, list[np.ndarray]]]
    run: Callable[[int, Sequence[Any], str], list[Any]]

    def check_size(self, shape: Iterable[int]) -> None:
        """Raises a ValueError for a size that no sample has."""
        size = math.prod(max(axis, 1) for axis in shape)
        if size > LARGEST:
            raise self.unknown(f"{size} elements")

    def constant(self, index: int) -> np.ndarray:
        """An input that has to be a constant.

        Raises:
            ValueError: If it is computed.
        """
        value = self.inputs[index]
        if not isinstance(value, np.ndarray):
            raise self.unknown(f"input {index} is computed")
        return value

    def optional(self, index: int) -> np.ndarray | None:
        """A constant that may be left out."""
        if index >= len(self.inputs) or self.inputs[index] is None:
            return None
        return self.constant(index)

    def integers(self, index: int) -> list[int]:
        """A constant as a list of integers."""
        return [int(value) for value in np.ravel(self.constant(index))]

    def leaves_batch(self, axes: Iterable[int], x: Any) -> None:
        """Raises `NeedsFixedBatch` if an open batch is among axes of `x`."""
        for axis in axes:
            # Where lengths are open, too, the batch stays first.
            moved = axis % len(x.shape) == 0 or not self.lengths_open
            if x.shape[axis] is None and moved:
                raise NeedsFixedBatch

    def layer(
        self,
        layer: keras.layers.Layer,
        x: Any,
        weights: Sequence[np.ndarray | None] = (),
    ) -> Any:
        """Calls a layer, or the one that has these weights already.

        Args:
            layer: The layer.
            x: Its input. A constant becomes a symbolic tensor, as what a
                layer makes of it changes with its weights.
            weights: Its weights, `None` for those that it has not.
        """
        settings = {k: v for k, v in layer.get_config().items() if k != "name"}
        key = self.kind, self.constants, repr(settings)
        known = self.layers.setdefault(key, layer)
        y = known(self._symbolic(x) if isinstance(x, np.ndarray) else x)
        if known is layer:
            found = [w for w in weights if w is not None]
            self.weights.append((layer, found))
        return y

    def _symbolic(self, x: np.ndarray) -> Any:
        """A constant for every sample."""
        if self.batch is not None:
            # However many there are, the constant has its own shape.
            first = self.anchor[(0,) * len(self.anchor.shape)]
            return keras.ops.zeros_like(first, dtype=x.dtype) + x
        if x.shape[:1] != (1,):
            raise NeedsFixedBatch
        place = (slice(None), *(0 for _ in self.anchor.shape[1:]))
        zeros = keras.ops.zeros_like(self.anchor[place], dtype=x.dtype)
        return keras.ops.reshape(zeros, (-1, *(1 for _ in x.shape[1:]))) + x

    def activated(self, x: Any) -> Any:
        """The activation that is fused into the operator.

        Raises:
            ValueError: If it is an activation that is not known here.
        """
        fused = getattr(self.options, "fusedActivationFunction", 0)
        if fused == schema.ActivationFunctionType.RELU_N1_TO_1:
            return keras.ops.clip(x, -1.0, 1.0)
        if fused not in _ACTIVATIONS:
            raise self.unknown(f"fused activation {fused}")
        activation = _ACTIVATIONS[fused]
        if activation is None:
            return x
        if isinstance(x, np.ndarray):
            return getattr(keras.activations, activation)(x)
        if activation == "relu6":
            return keras.layers.ReLU(6.0, name=f"{self.name}_relu6")(x)
        return keras.layers.Activation(
            activation, name=f"{self.name}_{activation}"
        )(x)

    @property
    def padding(self) -> str:
        """`"same"` or `"valid"`."""
        same = self.options.padding == schema.Padding.SAME
        return "same" if same else "valid"

    def unknown(self, what: str) -> ValueError:
        """The error for what no layer is made of."""
        return ValueError(
            f"No Keras layer is made of this {self.kind}: {what}. Received: "
            f"the operator that writes '{self.output}'"
        )
