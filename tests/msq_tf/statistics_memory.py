"""Says how much memory a search's statistics take beside a training step.

A process of its own, because peaks of memory are those of a process.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from benchmarks.harness import child
from benchmarks.harness.networks import Network
from benchmarks.training_cost.statistics_run import measure


class Wide:
    """Fifty million weights, hardly any activations."""

    def build(self):
        keras.utils.set_random_seed(0)
        inputs = x = keras.Input((2500,))
        for _ in range(8):
            x = keras.layers.Dense(2500, activation="tanh")(x)
        return keras.Model(inputs, keras.layers.Dense(10)(x))

    def batch(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(32, 2500))
        return tf.constant(x, tf.float32), tf.constant(rng.integers(0, 10, 32))


NETWORKS = {
    # Hardly any weights, activations of a gigabyte.
    "images": Network("resnet8", (96, 96, 3), 64),
    "wide": Wide(),
}


if __name__ == "__main__":
    name, result = sys.argv[1:]
    child.write(result, measure(NETWORKS[name], 5))
