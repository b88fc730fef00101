"""A search by tf_keras's own `fit`, alone or as one of several workers.

python -m tests.tfmot.worker COUNT
"""

from __future__ import annotations

import contextlib
import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf

import msq_tf
from msq_tf import tfmot as msq
from msq_tf.tfmot.compat.imports import tf_keras

STEPS, BATCH, EPOCHS = 8, 64, 3


def main(count: int) -> None:
    """Trains, and prints what is to be compared."""
    strategy = None
    if count > 1:
        # Before anything else that TensorFlow does.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    tf_keras.utils.set_random_seed(3)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(STEPS * BATCH, 16)).astype(np.float32)
    y = x[:, :4].argmax(-1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        layers = tf_keras.layers
        model = msq.quantize_model(
            tf_keras.Sequential(
                [
                    layers.Input((16,)),
                    layers.Dense(32, activation="tanh", name="hidden"),
                    layers.Dense(4, name="head"),
                ]
            ),
            msq.MSQQuantizeScheme(activation_bits=None),
        )
        model.compile(
            tf_keras.optimizers.SGD(0.05, momentum=0.9),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).repeat()
    if strategy:
        whole = data

        def part(context: tf.distribute.InputContext) -> tf.data.Dataset:
            size = context.get_per_replica_batch_size(BATCH)
            first = context.input_pipeline_id * size
            return whole.map(
                lambda x, y: (x[first : first + size], y[first : first + size])
            )

        data = strategy.distribute_datasets_from_function(part)
    rule = msq_tf.BudgetRule(
        target_compression=8.0, end=0.5, allowed_bits=range(2, 9)
    )
    threads: list[int] = []
    counts = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: threads.append(held())
    )
    history = model.fit(
        data,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[msq.MSQCallback(rule, data=(x, y)), counts],
    )
    view = msq.ModelView(model)
    changes = [tuple(change[:4]) for change in view.history_of_bits()]
    norms = [
        float(np.linalg.norm(v.numpy())) for v in model.trainable_variables
    ]
    losses = history.history["loss"]
    print("RESULT", [changes, view.bits, losses, norms, threads])


def held() -> int:
    """Threads of this process, as Linux counts them."""
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
