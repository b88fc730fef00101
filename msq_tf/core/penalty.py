"""The LSB penalty in the gradient of a loss, without its value in the loss.

The printed loss, which callbacks watch and which is compared with that of a
float training, is the loss of the task. So in a training step of Keras the
penalty joins the loss as a term of value zero, and its value is counted here.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable

import tensorflow as tf

from msq_tf.core.scoped import scoped

# Attribute of the terms of a loss that are MSQ's.
_PULL = "_msq_tf_pull"
_APART: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_penalty_apart", default=False
)


def apart() -> contextlib.AbstractContextManager[None]:
    """While open, `as_loss` gives terms without a value."""
    return scoped(_APART, True)


def as_loss(penalty: tf.Tensor) -> tf.Tensor:
    """A term of a loss: the penalty, or where it is kept apart its gradient.

    In `apart` its value is zero, unless the penalty is not finite.
    """
    return penalty - tf.stop_gradient(penalty) if _APART.get() else penalty


def mark_pull(term: tf.Tensor) -> tf.Tensor:
    """Marks the term of a loss that is MSQ's."""
    setattr(term, _PULL, True)
    return term


def is_pull(term: tf.Tensor) -> bool:
    """Whether a term of a loss is MSQ's."""
    return hasattr(term, _PULL)


def with_pulls(loss: tf.Tensor, pulls: Iterable[tf.Tensor]) -> tf.Tensor:
    """Adds the pull to a loss, as both Keras do with losses that are added.

    A loss that is not reduced is one for each sample, and the gradient that of
    their sum; each replica has its share.
    """
    parts = tf.distribute.get_strategy().num_replicas_in_sync * tf.size(loss)
    for pull in pulls:
        loss += tf.cast(pull / tf.cast(parts, pull.dtype), loss.dtype)
    return loss


class PenaltyMean:
    """The mean of the penalty over training steps.

    Two scalars that the training step adds to. They are no part of a model's
    state. Replicas have the same weights, hence the same penalty: that of the
    first counts.
    """

    def __init__(self) -> None:
        self._total, self._steps = (
            tf.Variable(
                0.0,
                trainable=False,
                dtype=tf.float32,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for _ in range(2)
        )

    def add(self, penalty: tf.Tensor) -> None:
        """Adds the penalty of some weights to that of this step."""
        self._total.assign_add(
            tf.cast(tf.stop_gradient(penalty), self._total.dtype)
        )

    def count(self) -> None:
        """Ends a step."""
        self._steps.assign_add(1.0)

    def reset(self) -> None:
        """Begins anew, as at the start of an epoch."""
        self._total.assign(0.0)
        self._steps.assign(0.0)

    def logs(self) -> dict[str, float]:
        """The mean since `reset`, under its name; nothing before a step."""
        steps = float(self._steps.numpy())
        if not steps:
            return {}
        return {"msq_penalty": float(self._total.numpy()) / steps}
