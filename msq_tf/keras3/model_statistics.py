"""Outputs and losses of a Keras model at given values of its kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf import distribute
from msq_tf.core.batches import Batch
from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.keras3.overlay import fixed_batch_size
from msq_tf.keras3.step_scope import statistics_scope
from msq_tf.sensitivity.divergence import relative_distance


class TakesStatistics:
    """The part of `QuantizedNetwork` that statistics are taken with.

    A mixin, before `own_training.TrainsAsItsBase`.
    """

    # Of the other bases.
    __call__: Any
    _add_losses_here: Any
    _outputs_of_step: Any
    base: Any
    compute_loss: Any
    get_compile_config: Any
    loss: Any
    metrics_variables: Any
    distribute_strategy: tf.distribute.Strategy
    has_loss: bool
    has_teacher: bool
    kernels: Sequence[Any]
    _own: frozenset[str]

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
        x, y, sample_weight = batch
        if not self.has_loss:
            # Its second derivatives are those of the Gauss-Newton matrix.
            outputs = self.outputs_at(values, x)
            before = tf.nest.map_structure(tf.stop_gradient, outputs)
            return relative_distance(before, outputs)

        def loss(y_pred: Any) -> tf.Tensor:
            return self.compute_loss(
                x=x,
                y=y,
                y_pred=y_pred,
                sample_weight=sample_weight,
                training=False,
            )

        if "compute_loss" in self._own:
            with statistics_scope(values):
                total = loss(self(x, training=False))
        else:
            total = loss(self.outputs_at(values, x))
        # Keras divides by the replicas of the strategy in scope, for `fit` to
        # sum over them; statistics are taken on one.
        count = tf.distribute.get_strategy().num_replicas_in_sync
        # Training sums up what a loss does not reduce.
        return tf.reduce_sum(tf.cast(total, tf.float32)) * count

    def outputs_at(self, values: Sequence[tf.Tensor], x: Any) -> Any:
        with statistics_scope(values) as scope:
            if self.has_loss:
                outputs = self(x, training=False)
            else:
                outputs = self._outputs_of_step(x)
        self._add_losses_here(scope.losses)
        return outputs

    def mixes_samples(self, x: Any) -> bool:
        known = getattr(self.base, "outputs", None)
        if not self.has_loss or (known is not None and not _open(known)):
            return False

        def spec(array: Any) -> tf.TensorSpec:
            dtype = tf.as_dtype(array.dtype)
            return tf.TensorSpec((None, *array.shape[1:]), dtype)

        try:
            traced = tf.function(
                self.outputs_at, autograph=False
            ).get_concrete_function(
                [tf.TensorSpec(k.shape, k.dtype) for k in self.kernels],
                tf.nest.map_structure(spec, x),
            )
            return _open(traced.structured_outputs)
        # It takes no batch of an open size, or its outputs have no known rank.
        except (TypeError, ValueError, tf.errors.OpError):
            return False

    @property
    def needs_targets(self) -> bool:
        # A loss of the model's own may do without.
        known = not self._own and getattr(self, "loss", None) is not None
        return known and not self.has_teacher

    def statistics_batch(self, batch: Batch) -> Batch:
        # A step of the model's own knows what is in its data.
        return batch if self.has_loss else (_packed(batch), None, None)

    @property
    def fixed_batch_size(self) -> int | None:
        return fixed_batch_size(self.base)

    def compiled_losses(self) -> CompiledLosses:
        if not self.has_loss:
            return CompiledLosses(
                None, keras.losses, None, None, relative_distance
            )
        if "compute_loss" in self._own:
            return CompiledLosses(self.base.compute_loss, keras.losses)
        config = self.get_compile_config() or {}
        return CompiledLosses(
            self.loss,
            keras.losses,
            config.get("loss_weights"),
            getattr(self, "output_names", None),
        )

    @contextlib.contextmanager
    def metrics_kept(self) -> Iterator[None]:
        # Each replica's own: to read their sum, all workers have to be there.
        parts = [
            part
            for variable in self.metrics_variables
            for part in self.distribute_strategy.experimental_local_results(
                variable.value
            )
        ]
        with distribute.values_kept(parts):
            yield


def _open(outputs: Any) -> bool:
    """Whether an axis behind the first has no known length."""
    return any(
        None in tuple(output.shape)[1:]
        for output in tf.nest.flatten(outputs)
        if output is not None and len(output.shape) > 1
    )


def _packed(batch: Batch) -> Any:
    """A batch as a step gets it: without what is absent at its end."""
    x, y, weight = batch
    if weight is not None:
        return x, y, weight
    return x if y is None else (x, y)
