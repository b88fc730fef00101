"""The state of a tf_keras model that layers update, and its batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf import distribute
from msq_tf.core.quantized_network import YOUNG
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
    state = [*model.trainable_variables, *state_variables(model)]
    state += [v for v in _slots(model) if not _counts_time(v)]
    return [
        variable
        for ref, variable in {v.ref(): v for v in state}.items()
        if ref not in left_out
    ]


def second_moments(model: Any) -> list[Any]:
    """The means of squared gradients that the optimizer holds for long."""
    optimizer = model.optimizer
    if optimizer is None or int(optimizer.iterations.numpy()) < YOUNG:
        return []
    return [v for v in _slots(model) if _is_square(v, optimizer)]


def _is_square(variable: Any, optimizer: Any) -> bool:
    """Whether its name begins so, or ends so as of legacy optimizers."""
    parts = variable.name.split(":")[0].split("/")
    if not hasattr(optimizer, "build"):
        return parts[-1] in ("v", "vhat")
    return parts[parts[0] == optimizer.name] in ("v", "vhat")


def _slots(model: Any) -> list[Any]:
    slots = getattr(model.optimizer, "variables", ())
    return list(slots() if callable(slots) else slots)


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
