"""The state of a tf_keras model that layers update, and its batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from msq_tf.tfmot.imports import tf_keras


@contextlib.contextmanager
def state_kept(model: Any) -> Iterator[None]:
    """While open, what layers update is undone at the end.

    Moving statistics, states of recurrent layers, seeds and metrics are; what
    a search writes has no place inside.
    """
    variables = list(model.non_trainable_variables)
    for metric in model.metrics:
        variables += metric.variables
    values = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def fixed_batch_size(model: Any) -> int | None:
    """The one batch size that a model takes; `None` if it takes any."""
    shapes = [tensor.shape for tensor in model.inputs or ()]
    for layer in model._flatten_layers():
        if isinstance(layer, tf_keras.layers.RNN) and layer.stateful:
            states = tf.nest.flatten(layer.states)
            shapes += [state.shape for state in states if state is not None]
    sizes = (shape[0] for shape in shapes if len(shape))
    return next((int(size) for size in sizes if size is not None), None)
