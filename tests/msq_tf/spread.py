"""The same training on one device and on several of one machine.

python -m tests.msq_tf.spread FOLDER DEVICES KIND... writes `KIND.npz` for
each kind, trained on that many logical devices of the CPU.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from tests.msq_tf.samples import compile_model

EPOCHS, BATCH = 3, 64
# Kinds of models, by what is between the first two layers.
KINDS = {
    "plain": None,
    "synchronized": {"synchronized": True},
    "activations": None,
    "per_replica": {},
}
# How many times the layers computed in inference mode, by a counter's name.
COUNTS: dict[str, int] = {}


class Trained(NamedTuple):
    """What is compared."""

    changes: list[tuple]
    weights: list[np.ndarray]
    logs: dict[str, list[float]]
    passes: int
    model: msq_tf.MSQModel


class CountsPasses(keras.layers.Layer):
    """Counts forward passes in inference mode, on whichever device."""

    def call(self, inputs, training=None):
        if training:
            return inputs

        def count(x):
            COUNTS[self.name] = COUNTS.get(self.name, 0) + 1
            return x

        counted = tf.numpy_function(count, [inputs[:1, :1, :1]], tf.float32)
        with tf.control_dependencies([counted]):
            return tf.identity(inputs)


def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(512, 8, 8, 1)).astype(np.float32)
    quadrants = x.reshape(512, 2, 4, 2, 4).mean((2, 4)).reshape(512, 4)
    return x, quadrants.argmax(-1)


def model_of(kind, counter):
    """Smooth: no edge at which a last bit makes a difference but rounding."""
    norm = KINDS[kind]
    layers = [
        keras.Input((8, 8, 1)),
        CountsPasses(name=counter),
        keras.layers.Conv2D(6, 3, name="conv"),
    ]
    if norm is not None:
        layers.append(keras.layers.BatchNormalization(name="bn", **norm))
    return keras.Sequential(
        [
            *layers,
            keras.layers.Activation("tanh", name="tanh"),
            keras.layers.DepthwiseConv2D(3, name="dw"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(16, activation="tanh", name="hidden"),
            keras.layers.Dense(4, name="head"),
        ]
    )


def strategy_of(devices):
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(devices)],
        # Collectives of two strategies in one process take each other's keys.
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def trained(kind, devices):
    """Trains as anybody would; on one device without a strategy."""
    keras.utils.set_random_seed(3)
    counter = f"counts_{devices}"
    COUNTS[counter] = 0
    bits = 8 if kind == "activations" else None
    scope = contextlib.nullcontext()
    if devices > 1:
        scope = strategy_of(devices).scope()
    with scope:
        qmodel = msq_tf.quantize_model(
            model_of(kind, counter), msq_tf.MSQConfig(activation_bits=bits)
        )
        compile_model(qmodel)
    rule = msq_tf.BudgetRule(
        target_compression=8.0, end=0.5, allowed_bits=range(2, 9)
    )
    history = qmodel.fit(
        *data(),
        batch_size=BATCH,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule)],
    )
    return Trained(
        [tuple(change[:4]) for change in qmodel.history_of_bits()],
        [v.numpy() for v in qmodel.base.weights],
        history.history,
        COUNTS[counter],
        qmodel,
    )


if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]),
    )
    tf.config.experimental.enable_op_determinism()
    for name in sys.argv[3:]:
        result = trained(name, int(sys.argv[2]))
        np.savez(
            pathlib.Path(sys.argv[1]) / f"{name}.npz",
            *result.weights,
            changes=np.array(result.changes, object).astype(str),
            passes=result.passes,
        )
