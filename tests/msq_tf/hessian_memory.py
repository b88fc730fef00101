"""Says how much memory a gradient and Hessian probes of a model take.

A process of its own, because what the system counts is a peak that never
falls. `python -m tests.msq_tf.hessian_memory resnet50` prints what
`docs/sensitivity.md` quotes.
"""

import argparse
import json
import resource

import keras
import numpy as np
import tensorflow as tf

from msq_tf.sensitivity.hessian import BlockHessian


def resnet50():
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None
    )


def wide():
    """Four million weights in two layers, hardly any activations."""
    inputs = keras.Input((2000,))
    x = keras.layers.Dense(2000, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


MODELS = {"resnet50": resnet50, "wide": wide}


def peak():
    """Most bytes that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name, batch_size):
    """Peaks of memory above that before, in copies of the weights."""
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    variables = model.trainable_variables
    state = model.non_trainable_variables
    rng = np.random.default_rng(0)
    shape = (batch_size, *model.input_shape[1:])
    batch = tf.constant(rng.normal(size=shape), tf.float32)
    values = [tf.identity(v.value) for v in variables]

    def loss(values, x):
        outputs, _ = model.stateless_call(values, state, x, training=False)
        return tf.reduce_mean(outputs**2)

    @tf.function(autograph=False)
    def gradient(values, x):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = loss(values, x)
        return tape.gradient(result, values)

    hessian = BlockHessian(loss)
    size = 4.0 * sum(int(tf.size(value)) for value in values)
    peaks = {}
    before = peak()

    def probes(count):
        hessian.traces(
            values, [batch], max_probes=count, min_probes=count, tolerance=0.0
        )

    for label, run in (
        ("gradient", lambda: gradient(values, batch)),
        ("probe", lambda: probes(1)),
        ("probes", lambda: probes(12)),
    ):
        run()
        peaks[label] = (peak() - before) / size
    return {"weights": size / 4, "copies": peaks}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--batch_size", type=int, default=8)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.model, arguments.batch_size)))
