"""Training over several workers: the loop of `fit`, by `strategy.run`.

Keras 3.15's own `fit` fails under `MultiWorkerMirroredStrategy`: it takes the
values of several replicas for a tensor where it builds the model, and reduces
scalars along an axis. `model.train_step`, which it calls for one replica and
one step, works, and so do callbacks. This module has only the part in between,
the same loop that docs/custom-loops.md describes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    data: tf.data.Dataset,
    *,
    epochs: int,
    steps_per_epoch: int,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    exchange: Callable[
        [], contextlib.AbstractContextManager[Any]
    ] = contextlib.nullcontext,
) -> None:
    """Trains a compiled model. All workers call this together.

    Unlike those of `fit`, the logs of a batch hold no metrics: to add them up
    over workers costs a message a step. Those of an epoch do.

    Args:
        model: Built and compiled in the strategy's scope.
        strategy: Of all workers.
        data: The batches of this worker's replicas, those of one step after
            another, in each step one for each replica, see
            `batches.training_batches`.
        epochs: Epochs in all.
        steps_per_epoch: Steps in an epoch.
        initial_epoch: Epochs that are done.
        callbacks: As those of `fit`. Whatever reads a metric or a variable
            that is summed over replicas has to be there on every worker.
        exchange: Makes a context for every call that waits for the others.
    """
    with exchange(), strategy.scope():
        model.optimizer.build(model.trainable_variables)
    batches = iter(
        strategy.distribute_datasets_from_function(lambda context: data)
    )

    @tf.function
    def first(iterator: tf.distribute.DistributedIterator) -> None:
        strategy.run(model.train_step, args=(next(iterator),))

    step: Callable[..., Any] | None = None
    called = keras.callbacks.CallbackList(
        list(callbacks),
        model=model,
        epochs=epochs,
        steps=steps_per_epoch,
        verbose=0,
    )
    model.stop_training = False
    called.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        called.on_epoch_begin(epoch)
        for number in range(steps_per_epoch):
            called.on_train_batch_begin(number)
            with exchange():
                if step is None:
                    first(batches)
                    step = with_fixed_keys(first, batches)
                else:
                    step(batches)
            called.on_train_batch_end(number, {})
        with exchange():
            logs = {
                name: float(value)
                for name, value in model.get_metrics_result().items()
            }
        called.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    with exchange():
        model.optimizer.finalize_variable_values(model.trainable_variables)
    called.on_train_end()


def with_fixed_keys(
    function: Callable[..., Any], *args: Any
) -> Callable[..., Any]:
    """A `tf.function` whose collectives leave nothing behind.

    At every call of a `tf.function`, `MultiWorkerMirroredStrategy` gives each
    collective in it a key that was never used, and TensorFlow keeps a record
    of each: 1.6 KB, dozens of times a step, until there is no memory left.
    Here the keys of one call serve for all. They cannot be mixed up: each
    collective of a call has its own, and has ended on a worker only when the
    others have all that they need from it.

    All workers call this together, with the arguments that every call has as
    far as tracing is concerned.
    """
    concrete = function.get_concrete_function(*args)  # type: ignore[attr-defined]
    # Some of what it captures is computed at every call; from now on it is not.
    concrete.set_external_captures(concrete.captured_inputs)
    return concrete
