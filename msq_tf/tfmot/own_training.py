"""Training methods of a tf_keras model, and the penalty beside them.

TFMOT rebuilds a model as a plain Functional one and loses the training methods
of its class. This module puts the class around the result again.
"""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from msq_tf.core.penalty import PenaltyMean
from msq_tf.core.penalty import apart
from msq_tf.core.penalty import as_loss
from msq_tf.core.penalty import mark_pull
from msq_tf.core.scoped import scoped
from msq_tf.tfmot.compat.imports import tf_keras

_NAMES = (
    "compile",
    "compute_loss",
    "compute_metrics",
    "make_train_function",
    "metrics",
    "predict_step",
    "test_step",
    "train_step",
)
_MEANS: weakref.WeakKeyDictionary[Any, PenaltyMean] = (
    weakref.WeakKeyDictionary()
)
# The mean of the step that runs, and the weights that it has counted.
_COUNTING: contextvars.ContextVar[tuple[PenaltyMean, set[Any]] | None] = (
    contextvars.ContextVar("msq_tf_counting_penalty", default=None)
)


def own_methods(model: Any) -> list[str]:
    """The names of what a model's class replaces of tf_keras's training."""
    kinds = type(model).__mro__
    owners = {
        name: next((k for k in kinds if name in vars(k)), object)
        for name in _NAMES
    }
    return [
        name
        for name, owner in owners.items()
        if owner.__module__.split(".")[0] not in ("tf_keras", "keras")
    ]


def check_no_methods(model: Any) -> None:
    """Raises a ValueError if TFMOT would drop what a class replaces."""
    own = own_methods(model)
    if own:
        kind = type(model).__name__
        raise ValueError(
            f"TFMOT rebuilds models, and `{kind}` would lose its own training. "
            "Expected a plain Functional or Sequential model, around which the "
            f"class is put once it is quantized: `{kind}(inputs=q.inputs, "
            f"outputs=q.outputs)`. Received: {own}"
        )


def with_methods_of(model: Any, quantized: Any) -> Any:
    """The quantized model in the class of the float one.

    Raises:
        ValueError: If that class has to be told more than inputs and outputs.
    """
    if not own_methods(model):
        return quantized
    kind = type(model)
    plain = isinstance(model, tf_keras.Model) and not isinstance(
        model, tf_keras.Sequential
    )
    owner = next(k for k in kind.__mro__ if "__init__" in vars(k))
    if not plain or owner.__module__.split(".")[0] not in ("tf_keras", "keras"):
        check_no_methods(model)
    return kind(
        inputs=quantized.inputs, outputs=quantized.outputs, name=quantized.name
    )


def penalty_loss(weight: Any, penalty: tf.Tensor) -> tf.Tensor:
    """The term of a loss for the penalty of a weight, in the weight's type."""
    counting = _COUNTING.get()
    if counting is not None:
        mean, counted = counting
        # A step may ask for the losses twice.
        if weight.ref() not in counted:
            counted.add(weight.ref())
            mean.add(penalty)
    # As those of weight regularizers are.
    return mark_pull(tf.cast(as_loss(penalty), weight.dtype))


def keep_penalty_apart(model: Any) -> PenaltyMean:
    """Has the steps of a model report its loss without the penalty.

    They are replaced once. Returns the mean of the penalty over its training
    steps.
    """
    if model in _MEANS:
        return _MEANS[model]
    with model.distribute_strategy.scope():
        mean = PenaltyMean()
    _MEANS[model] = mean
    model.train_step = _counting(model.train_step, mean)
    model.test_step = _apart(model.test_step)
    # `fit` has made its function before callbacks hear of it.
    if model.train_function is not None:
        model.train_function = model.make_train_function(force=True)
    model.test_function = None
    return mean


def _counting(step: Callable[..., Any], mean: PenaltyMean) -> Any:
    @functools.wraps(step)
    def counted(data: Any) -> Any:
        with scoped(_COUNTING, (mean, set())), apart():
            logs = step(data)
        mean.count()
        return logs

    return counted


def _apart(step: Callable[..., Any]) -> Any:
    @functools.wraps(step)
    def tested(data: Any) -> Any:
        with apart():
            return step(data)

    return tested
