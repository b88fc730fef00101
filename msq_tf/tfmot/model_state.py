"""The state of a tf_keras model that layers update, and its batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf import distribute
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras


@contextlib.contextmanager
def kept(variables: Sequence[Any]) -> Iterator[None]:
    """While open, what is assigned to variables is undone at the end.

    Under a strategy with several replicas, which have values of their own,
    nothing is.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        variables = ()
    with distribute.values_kept(variables):
        yield


def state_variables(model: Any) -> list[Any]:
    """All that is not trained, also states that tf_keras does not track."""
    found = list(model.non_trainable_variables)
    for states in _states(model):
        found += [s for s in states if isinstance(s, tf.Variable)]
    return list({variable.ref(): variable for variable in found}.values())


def training_state(model: Any, bits: Sequence[Any]) -> list[Any]:
    """The variables that training moves, without `bits` and counts of steps.

    Slots that the first step would make are made: the state before it has
    them, too.
    """
    left_out = {variable.ref() for variable in bits}
    if model.optimizer is not None:
        with model.distribute_strategy.scope():
            private.make_slots(model.optimizer, model.trainable_variables)
    slots = getattr(model.optimizer, "variables", ())
    slots = slots() if callable(slots) else slots
    state = [*model.trainable_variables, *state_variables(model)]
    state += [v for v in slots if not _counts_time(v)]
    return [
        variable
        for ref, variable in {v.ref(): v for v in state}.items()
        if ref not in left_out
    ]


def _counts_time(variable: Any) -> bool:
    name = variable.name.split("/")[-1].split(":")[0]
    return name in ("iter", "iteration", "iterations", "learning_rate")


def fixed_batch_size(model: Any) -> int | None:
    """The one batch size that a model takes; `None` if it takes any."""
    shapes = [tensor.shape for tensor in model.inputs or ()]
    for states in _states(model):
        shapes += [state.shape for state in states]
    sizes = (shape[0] for shape in shapes if len(shape))
    return next((int(size) for size in sizes if size is not None), None)


def _states(model: Any) -> Iterator[list[Any]]:
    """The states of each recurrent layer that keeps them."""
    for layer in private.all_layers(model):
        if isinstance(layer, tf_keras.layers.RNN) and layer.stateful:
            states = tf.nest.flatten(layer.states)
            yield [state for state in states if state is not None]
