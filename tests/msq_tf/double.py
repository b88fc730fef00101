"""One training on several numbers of devices, all of it in float64.

python -m tests.msq_tf.double FOLDER writes `DEVICES.npz` for each number of
logical devices of the CPU in `DEVICES`. In a process of its own: the width of
a float is changed for all of it.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from benchmarks.reliability import replicas_run
from tests.msq_tf import spread

DEVICES = (1, 2, 4)
EXAMPLES, BATCH = 256, 32
EPOCHS = 5
STEPS = EPOCHS * EXAMPLES // BATCH


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images of noise whose class is their brightest quadrant."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(EXAMPLES, 8, 8, 1))
    quadrants = x.reshape(EXAMPLES, 2, 4, 2, 4).mean((2, 4))
    return x, quadrants.reshape(EXAMPLES, 4).argmax(-1)


def residual_network() -> keras.Model:
    """A block of a ResNet: batch norm over all replicas, ReLU, a shortcut."""

    def normalized(x, filters, strides, name):
        x = keras.layers.Conv2D(
            filters, 3, strides, "same", use_bias=False, name=name
        )(x)
        return keras.layers.BatchNormalization(
            momentum=0.9, synchronized=True, name=f"{name}_bn"
        )(x)

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.ReLU()(normalized(inputs, 8, 1, "stem"))
    y = keras.layers.ReLU()(normalized(x, 16, 2, "conv1"))
    y = normalized(y, 16, 1, "conv2")
    x = keras.layers.Conv2D(16, 1, 2, name="shortcut")(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))


def trained(devices: int) -> dict[str, np.ndarray]:
    """Trains from random weights, with a search, as the command line does.

    Returns:
        What was decided, and all weights, one after the other, after every
        epoch.
    """
    keras.utils.set_random_seed(3)
    scope = contextlib.nullcontext()
    if devices > 1:
        scope = spread.strategy_of(devices).scope()
    with scope:
        qmodel = msq_tf.quantize_model(residual_network())
        qmodel.compile(
            keras.optimizers.SGD(
                keras.optimizers.schedules.CosineDecay(0.05, STEPS),
                momentum=0.9,
                nesterov=True,
                weight_decay=5e-4,
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    snapshots, pulls = [], []

    def keep(epoch, logs):
        parts = [v.numpy().ravel() for v in qmodel.base.weights]
        snapshots.append(np.concatenate(parts))

    def note(batch, logs):
        pulls.append(float(qmodel.search.strength.numpy()))

    qmodel.fit(
        *data(),
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[
            msq_tf.MSQCallback(
                msq_tf.BudgetRule(
                    target_compression=8.0, end=0.7, allowed_bits=range(2, 9)
                ),
                lsb_strength=0.5,
            ),
            keras.callbacks.LambdaCallback(
                on_epoch_end=keep, on_train_batch_end=note
            ),
        ],
    )
    changes = [tuple(change[:4]) for change in qmodel.history_of_bits()]
    return {
        "changes": np.array(changes, object).astype(str),
        "bits": np.array(list(qmodel.bits.values())),
        "traces": qmodel.search.trace.numpy(),
        "costs": qmodel.search.cost.numpy(),
        "pulls": np.array(pulls),
        "weights": np.array(snapshots),
    }


if __name__ == "__main__":
    replicas_run.use_float64()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * max(DEVICES),
    )
    tf.config.experimental.enable_op_determinism()
    for count in DEVICES:
        np.savez(pathlib.Path(sys.argv[1]) / f"{count}.npz", **trained(count))
