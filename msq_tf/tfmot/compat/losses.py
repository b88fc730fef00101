"""The compiled loss of a tf_keras model, apart from the metrics of `fit`."""

from __future__ import annotations

from typing import Any

# Not public; what `model.compile` makes of its losses.
from tf_keras.src.engine import compile_utils


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
