"""States that a model keeps from one call to the next.

A file computes its outputs from its inputs alone, so a state becomes an input
and an output. The caller passes the output of each call to the matching input
of the next. A recurrent layer with `stateful=True` has such states; so has a
layer that assigns a variable in inference, if results depend on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.attributes import variable_attributes
from msq_tf.keras3.discovery import walk
from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import kept_states
from msq_tf.keras3.overlay import own_variables
from tflite_export.flatbuffer.port_info import NEXT

# Of calls in a row that show what a state becomes.
_LEAST_CALLS = 4


@dataclasses.dataclass(frozen=True)
class State:
    """A variable that is an input and an output of the file.

    Attributes:
        variable: The variable, of Keras or, in tf_keras, of TensorFlow.
        name: Name of the input.
        owner: Path of the layer that keeps it.
        initial: What it begins with.
        rows: Size of the batch, where the variable has no axis for it: the
            port has one all the same, along which the value repeats.
    """

    variable: Any
    name: str
    owner: str
    initial: np.ndarray
    rows: int | None = None

    @property
    def output(self) -> str:
        """Name of the output."""
        return self.name + NEXT

    @property
    def spec(self) -> tf.TensorSpec:
        """The input."""
        shape = tuple(self.variable.shape)
        if self.rows is not None:
            shape = (self.rows, *shape)
        return tf.TensorSpec(shape, self.variable.dtype, name=self.name)

    def begin(self) -> np.ndarray:
        """The value that the input is given first."""
        return np.broadcast_to(self.initial, self.spec.shape)

    def taken(self, given: Any) -> tf.Tensor:
        """The value of the variable that an input stands for."""
        value = tf.cast(given, self.variable.dtype)
        return value if self.rows is None else value[0]

    def given(self, value: Any) -> tf.Tensor:
        """The output that stands for a value of the variable."""
        value = tf.convert_to_tensor(value)
        if self.rows is None:
            return tf.ensure_shape(value, self.variable.shape)
        # An operator that every target has.
        return tf.concat([value[tf.newaxis]] * self.rows, 0)


def named(
    base: Any,
    variables: Sequence[Any],
    batch: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> tuple[State, ...]:
    """States for some variables of a model, in the order of its layers.

    `batch` is the size of its batches; the names of its own inputs and outputs
    are taken.
    """
    places = _places(base)
    found: list[State] = []
    order = {key: number for number, key in enumerate(places)}
    for variable in sorted(
        variables, key=lambda v: order.get(id(v), len(order))
    ):
        owner, name, zero = places.get(
            id(variable), (variable.name, variable.name, False)
        )
        name = re.sub(r"\W", "_", name)
        taken = {*inputs, *(state.name for state in found)}
        while name in taken or name + NEXT in outputs:
            name += "_"
        value = np.asarray(tf.convert_to_tensor(variable))
        leads = len(variable.shape) and variable.shape[0] == batch
        found.append(
            State(
                variable,
                name,
                owner,
                np.zeros_like(value) if zero else value,
                None if leads else batch,
            )
        )
    return tuple(found)


def handle(variable: Any) -> tf.Tensor:
    """The tensors that a graph captures to read a variable."""
    if isinstance(variable, keras.Variable):
        variable = variable.value
    return variable.handle


def _places(base: Any) -> dict[int, tuple[str, str, bool]]:
    """Layer, name, and whether zeros are the beginning, by variable."""
    found: dict[int, tuple[str, str, bool]] = {}
    for path, layer in walk(base) if isinstance(base, keras.Model) else ():
        for number, state in enumerate(kept_states(layer)):
            found[id(state)] = path, f"{path}_state_{number}", True
        attributes = variable_attributes(layer)
        for variable in own_variables(layer):
            name = f"{path}_{attributes[id(variable)]}"
            found.setdefault(id(variable), (path, name, False))
    for layer in all_layers(base):
        for number, state in enumerate(kept_states(layer)):
            name = f"{layer.name}_state_{number}"
            found.setdefault(id(state), (layer.name, name, True))
    return found


class _StandIn:
    """What a recurrent layer of tf_keras has in the place of a variable.

    Such layers assign to variables of TensorFlow, which know no scopes.
    """

    def __init__(self, variable: tf.Variable, scope: Aside):
        self.dtype, self.shape = variable.dtype, variable.shape
        self._variable, self._scope = variable, scope

    def __tf_tensor__(  # noqa: PLW3201 (TensorFlow's protocol)
        self, dtype: Any = None, name: str | None = None
    ) -> tf.Tensor:
        value = self._scope.get_current_value(self._variable)
        return tf.convert_to_tensor(value, dtype, name=name)

    def assign(self, value: Any, name: str | None = None) -> None:
        """Keeps what the layer writes aside."""
        del name
        self._scope.add_update((self._variable, value))


@contextlib.contextmanager
def aside(base: Any) -> Iterator[Aside]:
    """A scope in which no layer of a model changes its states.

    The model is one of Keras 3 or tf_keras.
    """
    changed: list[tuple[Any, Any]] = []
    with Aside() as scope:
        for layer in all_layers(base):
            if any(isinstance(s, tf.Variable) for s in kept_states(layer)):
                changed.append((layer, layer.states))
        try:
            for layer, kept in changed:
                layer.states = keras.tree.map_structure(
                    lambda variable: _StandIn(variable, scope), kept
                )
            yield scope
        finally:
            for layer, kept in changed:
                layer.states = kept


def reached(source: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Samples with the states that a model reaches on them.

    It is called on the samples one batch after the other, and begins as its
    states do. The samples are repeated until they make several calls of whole
    batches; behind them is one array per state.
    """
    states: Sequence[State] = source.states
    if not states:
        return list(inputs)
    size = states[0].spec.shape[0]
    calls = max(-(-len(inputs[0]) // size), _LEAST_CALLS)
    own = [_filled(array, calls * size) for array in inputs]
    current = [state.begin() for state in states]
    seen: list[list[np.ndarray]] = []

    def batches() -> Iterator[list[np.ndarray]]:
        for start in range(0, calls * size, size):
            seen.append(current.copy())
            yield [*(a[start : start + size] for a in own), *current]

    for outputs in source.predicted(batches()):
        current[:] = outputs[-len(states) :]
    return own + [np.concatenate(rows) for rows in zip(*seen, strict=True)]


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    repeats = -(-rows // len(array))
    return np.concatenate([array] * repeats)[:rows]


@dataclasses.dataclass(frozen=True)
class StateReport:
    """An input and an output of a file that hold a state.

    Attributes:
        input: Name of the input.
        output: Name of the output, which the input is given in the next call.
        layer: Path of the layer that keeps it.
        shape: Shape of both.
        initial: What the input is given first: one number where all are the
            same, else nested lists.
        input_grid: Scale and zero point of the input, `None` where it is
            float or exact.
        output_grid: Those of the output.
    """

    input: str
    output: str
    layer: str
    shape: tuple[int, ...]
    initial: Any
    input_grid: tuple[float, int] | None = None
    output_grid: tuple[float, int] | None = None

    def __str__(self) -> str:
        first = self.initial
        if isinstance(first, list):
            first = "the values in the report's `states`"
        code = ""
        if self.input_grid and not isinstance(self.initial, list):
            scale, zero = self.input_grid
            code = f" (code {round(self.initial / scale) + zero})"
        return (
            f"input '{self.input}' begins with {first}{code} and is given "
            f"output '{self.output}' in the next call"
        )


def report(
    states: Sequence[State], inputs: Sequence[Any], outputs: Sequence[Any]
) -> tuple[StateReport, ...]:
    """Reports on states, by the `Port`s of the exported file."""
    ports = zip(
        states,
        inputs[len(inputs) - len(states) :],
        outputs[len(outputs) - len(states) :],
        strict=True,
    )
    return tuple(
        StateReport(
            input=state.name,
            output=state.output,
            layer=state.owner,
            shape=tuple(state.spec.shape),
            initial=_initial(state.begin()),
            input_grid=_grid(taken),
            output_grid=_grid(given),
        )
        for state, taken, given in ports
    )


def _grid(port: Any) -> tuple[float, int] | None:
    if port.scale is None or port.dtype.kind == "f":
        return None
    return port.scale, port.zero_point


def _initial(value: np.ndarray) -> Any:
    if value.size and (value == value.flat[0]).all():
        return value.flat[0].item()
    return value.tolist()


def _count(states: int) -> str:
    return "a state" if states == 1 else f"{states} states"


def note(reports: Sequence[StateReport]) -> list[str]:
    """The line of a report that says how such a file is called."""
    if not reports:
        return []
    return [
        f"the model keeps {_count(len(reports))} from call to call, an "
        "input and an output of the file each: " + "; ".join(map(str, reports))
    ]
