"""The compiled loss of a tf_keras model, with and without what `fit` adds.

tf_keras adds up the compiled loss and the losses of layers, among them the LSB
penalty (`pull` in names). This module also adds the penalty to a loss that is
not reduced, which tf_keras's sum does not support. A model without any other
loss does not train on the penalty alone.
"""

from __future__ import annotations

from typing import Any

# Not public; what `model.compile` makes of its losses.
from tf_keras.src.engine import compile_utils

from msq_tf.core.penalty import is_pull
from msq_tf.core.penalty import with_pulls
from msq_tf.tfmot.compat.imports import tf_keras

LossesContainer: Any = compile_utils.LossesContainer
_plain_call = LossesContainer.__call__


def total_loss(
    self: Any,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    regularization_losses: Any = None,
) -> Any:
    """The sum of a compiled loss and what `fit` adds; see above."""
    given = y_true, y_pred, sample_weight
    terms = regularization_losses or []
    pulls = [term for term in terms if is_pull(term)]
    if not pulls:
        return _plain_call(self, *given, regularization_losses)
    others = [term for term in terms if not is_pull(term)]
    if not self.built:
        self.build(y_pred)
    losses = [loss for loss in self._losses if loss is not None]
    whole = tf_keras.losses.Reduction.NONE
    if losses and all(loss.reduction != whole for loss in losses):
        return _plain_call(self, *given, terms)
    total = _plain_call(self, *given, others)
    if total is None:
        return None  # tf_keras says what is missing
    return with_pulls(total, pulls)


class LossesWithoutMetrics(compile_utils.LossesContainer):
    """Computes the compiled losses of a model and keeps no mean of them.

    Means of `fit` would change, and inside of a `tf.distribute` strategy they
    cannot be updated where statistics are taken.
    """

    def __init__(self, container: Any):
        super().__init__(
            container._user_losses,
            loss_weights=container._user_loss_weights,
            output_names=container._output_names,
            total_loss_mean=_NoMean(),
        )

    def _create_metrics(self) -> None:
        self._per_output_metrics = [None] * len(self._losses)


class _NoMean:
    def update_state(self, *args: Any, **kwargs: Any) -> None:
        pass
