"""A model as the exporter reads it, and what it needs of one.

Any object with the members of `QuantizedModel` can be exported; with those of
`RangedModel` it is exported with its trained ranges. Nothing here knows how a
model was quantized.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from collections.abc import Sized
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import own_batch_size
from msq_tf.keras3.overlay import state_batch_size
from msq_tf.quantizers.range_average import SiteRange
from tflite_export import files
from tflite_export.conversion import noise
from tflite_export.conversion import other_floats
from tflite_export.conversion import states as states_of
from tflite_export.conversion.sizes import float_bytes
from tflite_export.conversion.states import State
from tflite_export.errors import ExportError

# Batches of one shape after which tracing a graph takes less than it saves: of
# few or not known ones, and of many.
_TRACED_AFTER, _TRACED_SOON, _MANY = 8, 2, 16
# Takes the position of a site and what the model computes there, and returns
# what the model goes on with.
Tap = Callable[[int, tf.Tensor], tf.Tensor]


@runtime_checkable
class QuantizedModel(Protocol):
    """A model that knows its codes: all that an export needs.

    The protocols below are what a model may know besides.
    """

    @property
    def base(self) -> Any:
        """The float Keras model."""

    def quantized_weights(self) -> list[QuantizedWeight]:
        """Codes and steps of all quantized weights."""

    def skipped_weights(self) -> list[SkippedWeight]:
        """Weights that stay float."""

    def quantized_scope(self) -> contextlib.AbstractContextManager[Any]:
        """While entered, `base` reads `codes * step` as its weights."""


@runtime_checkable
class RangedModel(QuantizedModel, Protocol):
    """A model that knows the grids of its activations, too."""

    @property
    def activations(self) -> Any:
        """`bits` of the activations and trained `biases`; `None` for floats."""

    def site_ranges(self) -> list[SiteRange]:
        """The trained range of each site, by its position."""

    def integer_scope(
        self, tap: Tap | None = None
    ) -> contextlib.AbstractContextManager[Any]:
        """As `quantized_scope`, with activations on their grids, see `Tap`."""


@runtime_checkable
class RegraphedModel(Protocol):
    """A model with a graph of its own for integers."""

    @property
    def integer_base(self) -> Any:
        """The Keras model that `integer_scope` is for, in place of `base`."""


@runtime_checkable
class SearchedModel(Protocol):
    """A model whose variables hold the state of a search, too."""

    @property
    def search_variables(self) -> Sequence[Any]:
        """These variables, which inference never reads."""


@runtime_checkable
class CompiledModel(Protocol):
    """A model that knows its loss."""

    @property
    def compiled(self) -> bool:
        """Whether it has one by now."""

    def compiled_losses(self) -> CompiledLosses:
        """The losses that it was compiled with."""


@runtime_checkable
class SeenModel(Protocol):
    """A model that remembers the inputs of its training."""

    @property
    def input_ranges(self) -> Any:
        """Has `seen(count)`: the range of each input; `None` for none."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A Keras model with a flat list of named inputs and outputs.

    Attributes:
        base: The Keras model.
        model: The quantized model around it, or `None` for a plain model.
        structure: Nested structure of `tf.TensorSpec`, as the model takes it.
        trained_ranges: Whether activations read on their trained grids.
        states: What it keeps from call to call, inputs and outputs behind
            its own.
    """

    base: Any
    model: QuantizedModel | None
    structure: Any
    trained_ranges: bool = False
    states: tuple[State, ...] = ()

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """The inputs, flat, each with its name."""
        own = keras.tree.flatten(self.structure)
        return own + [state.spec for state in self.states]

    def call(
        self, flat_inputs: Sequence[Any], aside: Aside
    ) -> tuple[list[str], list[tf.Tensor]]:
        """Runs the model in inference mode; call it inside `scope()`.

        Args:
            flat_inputs: What `specs` says.
            aside: The open scope that keeps what layers write.

        Returns:
            Names of the outputs, and the outputs.
        """
        flat = [tf.convert_to_tensor(x) for x in flat_inputs]
        own = flat[: len(flat) - len(self.states)]
        for state, value in zip(self.states, flat[len(own) :], strict=True):
            aside.lay(state.variable, state.taken(value))
        inputs = keras.tree.pack_sequence_as(self.structure, own)
        nested = self.base(inputs, training=False)
        names = output_names(self.base, nested)
        outputs = keras.tree.flatten(nested)
        for state in self.states:
            names.append(state.output)
            value = aside.get_current_value(state.variable)
            outputs.append(state.given(value))
        return names, outputs

    @property
    def rounds_biases(self) -> bool:
        """Whether the model computes with the biases of integer kernels."""
        if not isinstance(self.model, RangedModel):
            return False
        return bool(getattr(self.model.activations, "biases", ()))

    @property
    def site_ranges(self) -> list[SiteRange]:
        """Trained range of each site, by its position among the sites."""
        if not self.trained_ranges or not isinstance(self.model, RangedModel):
            return []
        return self.model.site_ranges()

    @contextlib.contextmanager
    def scope(self, tap: Tap | None = None) -> Iterator[None]:
        """A scope in which weights read as they shall be exported.

        A `tap` needs trained ranges.
        """
        files.give_back(float_bytes(self.base))
        with contextlib.ExitStack() as stack:
            stack.enter_context(other_floats.in_float32(self.base))
            if self.trained_ranges and isinstance(self.model, RangedModel):
                stack.enter_context(self.model.integer_scope(tap))
            elif self.model is not None:
                stack.enter_context(self.model.quantized_scope())
            yield

    def predict(
        self, batches: Iterable[Sequence[np.ndarray]], tap: Tap | None = None
    ) -> list[list[np.ndarray]]:
        """Outputs of the model for each batch, as a flat list of arrays.

        Behind its inputs a batch may have random numbers that the model gets
        where it would draw some.
        """
        return list(self.predicted(batches, tap))

    def predicted(
        self, batches: Iterable[Sequence[np.ndarray]], tap: Tap | None = None
    ) -> Iterator[list[np.ndarray]]:
        """`predict`, each batch before the next one is asked for."""
        count = len(self.specs)
        many = isinstance(batches, Sized) and len(batches) >= _MANY
        after = _TRACED_SOON if many else _TRACED_AFTER
        # Once for all: it is a pass over all weights.
        with states_of.aside(self.base) as aside, self.scope(tap):
            traced = tf.function(
                lambda inputs: self.call(inputs, aside)[1], autograph=False
            )
            alike: collections.Counter[Any] = collections.Counter()
            for batch in batches:
                own, drawn = batch[:count], batch[count:]
                shapes = tuple(np.shape(x) for x in own)
                with _on_given_values():
                    if tap is None and not drawn and alike[shapes] >= after:
                        outputs = traced([tf.convert_to_tensor(x) for x in own])
                    else:
                        with noise.given(drawn):
                            _, outputs = self.call(own, aside)
                alike[shapes] += 1
                yield [np.asarray(y) for y in outputs]
                aside.forget()


@contextlib.contextmanager
def _on_given_values() -> Iterator[None]:
    """Says of a model that gives up what it can't do."""
    try:
        yield
    except tf.errors.OpError as error:
        # Between the marks of colors, behind the name of a layer.
        found = re.search(r"indices\S* = .*? is not in .*?\)", str(error))
        reason = found[0] if found else " ".join(str(error).split())[:300]
        raise ExportError(
            "The model can't be computed on the verification inputs (argument "
            "representative_data). Expected values that its layers take, such "
            "as ids below the `input_dim` of an Embedding, and layers that "
            "this machine runs: a CPU has no channels_first. Received: "
            f"{reason}"
        ) from error


def from_model(
    model: Any,
    input_signature: Any = None,
    example: Any = None,
    batch_size: int | None = None,
    usual_batch: int | None = None,
) -> Source:
    """Finds out how a model is called.

    Args:
        model: A `QuantizedModel` or a plain Keras model, built.
        input_signature: Nested structure of `tf.TensorSpec` or
            `keras.InputSpec`, needed for subclassed models only.
        example: One batch of inputs that stands in for `input_signature`.
        batch_size: Fixed batch size, `None` for any.
        usual_batch: That of models which don't keep states of another one.

    Raises:
        ValueError: If `model` isn't a built Keras model, its inputs are not
            known, or its states have another batch size.
    """
    wrapped = model if isinstance(model, QuantizedModel) else None
    base = model.base if wrapped is not None else model
    if not _is_keras_model(base) or not base.built:
        raise ValueError(
            "`model` is no model, or not built. Expected a built keras.Model "
            f"or one of msq_tf.quantize_model. Received: model={model!r}"
        )
    kept = state_batch_size(base)
    if batch_size is not None and kept not in (None, batch_size):
        raise ValueError(
            f"The model keeps states of {kept} samples. Expected "
            f"batch_size={kept} or None; for files of another one, build the "
            "model with keras.Input(batch_size=...) and set_weights. Received: "
            f"batch_size={batch_size}"
        )
    batch_size = batch_size or kept
    if batch_size is None and usual_batch is not None:
        batch_size = own_batch_size(base) or usual_batch
    if input_signature is not None:
        nested = input_signature
    elif isinstance(base, keras.Sequential):
        nested = base.inputs[0]
    elif getattr(base, "inputs", None):
        nested = base.input
    elif example is not None:
        nested = keras.tree.map_structure(_spec_like, example)
    else:
        raise ValueError(
            "The inputs of a subclassed model are not known. Expected "
            "input_signature or representative_data. Received: neither"
        )
    flat = keras.tree.flatten(nested)
    names = _input_names(nested, flat)
    specs = [
        _spec(item, name, batch_size)
        for item, name in zip(flat, names, strict=True)
    ]
    return Source(base, wrapped, keras.tree.pack_sequence_as(nested, specs))


def _is_keras_model(base: Any) -> bool:
    """Of Keras 3 or of tf_keras, which is not imported for that."""
    return isinstance(base, keras.Model) or any(
        kind.__name__ == "Model" and kind.__module__.startswith("tf_keras.")
        for kind in type(base).__mro__
    )


def trained_bits(model: Any) -> int | None:
    """Bits of a model's trained activations, `None` for float ones."""
    if not isinstance(model, RangedModel) or model.activations is None:
        return None
    return int(model.activations.bits)


def output_names(base: Any, outputs: Any) -> list[str]:
    """Readable, unique names for a nested structure of outputs."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, dict) and len(outputs) == len(flat):
        return _unique(sorted(outputs))
    if len(flat) == 1:
        return ["output"]
    names = getattr(base, "output_names", None) or []
    if len(names) == len(flat):
        return _unique(names)
    return [f"output_{k}" for k in range(len(flat))]


def _input_names(nested: Any, flat: Sequence[Any]) -> list[str]:
    if isinstance(nested, dict) and len(nested) == len(flat):
        return _unique(sorted(nested))
    names = [getattr(item, "name", None) for item in flat]
    plain = ["input"] if len(flat) == 1 else [f"input_{k}" for k in range(99)]
    # Keras counts unnamed inputs over the whole process.
    return _unique(
        name if name and not name.startswith("keras_tensor") else plain[k]
        for k, name in enumerate(names)
    )


def _unique(names: Any) -> list[str]:
    result: list[str] = []
    for name in names:
        name = re.sub(r"\W", "_", name)
        while name in result:
            name += "_"
        result.append(name)
    return result


def _spec(item: Any, name: str, batch_size: int | None) -> tf.TensorSpec:
    if not hasattr(item, "shape") or not hasattr(item, "dtype"):
        raise ValueError(
            "`input_signature` must be a nested structure of tf.TensorSpec. "
            f"Received: {item!r} for the input '{name}'"
        )
    if item.shape is None or len(item.shape) == 0:
        raise ValueError(
            f"Input '{name}' has no batch axis. Expected a shape whose first "
            f"axis is the batch. Received: shape={item.shape}"
        )
    dtype = tf.as_dtype(item.dtype or "float32")  # as keras.InputSpec means
    if dtype.name in other_floats.NAMES:
        dtype = tf.float32
    if dtype == tf.string:
        raise ValueError(
            f"Input '{name}' is text, which no TFLite file takes. Expected a "
            "model that starts behind its text preprocessing. Received: "
            f"dtype={dtype.name}"
        )
    first = item.shape[0] if batch_size is None else batch_size
    return tf.TensorSpec((first, *item.shape[1:]), dtype, name=name)


def _spec_like(array: Any) -> tf.TensorSpec:
    array = np.asarray(array)
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype
    return tf.TensorSpec((None, *array.shape[1:]), dtype)
