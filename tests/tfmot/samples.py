"""Models and helpers that the tests share; imports TFMOT, or skips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

REASON = "TFMOT or tf_keras is not installed: pip install '.[tfmot]'"

pytest.importorskip("tensorflow_model_optimization", reason=REASON)
tf_keras = pytest.importorskip("tf_keras", reason=REASON)

import tensorflow_model_optimization as tfmot  # noqa: E402

import msq_tf  # noqa: E402
from msq_tf import tfmot as msq  # noqa: E402
from tflite_export import export as export  # noqa: E402

quantization = tfmot.quantization.keras
layers = tf_keras.layers

EPOCHS = 4


def tiny_model(keras=tf_keras):
    """Three weights, no randomness in training, of either Keras."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, name="conv"),
            keras.layers.BatchNormalization(name="bn"),
            keras.layers.ReLU(name="relu"),
            keras.layers.DepthwiseConv2D(3, name="dw"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="head"),
        ],
        name="tiny",
    )


def tiny_data():
    """Images of which quadrant is brightest."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(128, 8, 8, 1)).astype(np.float32)
    quadrants = x.reshape(128, 2, 4, 2, 4).mean((2, 4)).reshape(128, 4)
    return x, quadrants.argmax(-1)


def compile_model(model, keras=tf_keras, **kwargs):
    """Compiles a model for classification by logits."""
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def new_model(**scheme):
    """A compiled `tiny_model`, prepared; the same at every call."""
    tf_keras.utils.set_random_seed(3)
    return compile_model(
        msq.quantize_model(tiny_model(), msq.MSQQuantizeScheme(**scheme))
    )


def budget(**kwargs):
    """A rule that most tests use, of any width."""
    options = {"allowed_bits": range(2, 9), **kwargs}
    return msq_tf.BudgetRule(target_compression=8.0, **options)


def fit(model, data, *callbacks, **kwargs):
    """Trains quietly, in the order of the data."""
    options = {
        "epochs": EPOCHS,
        "batch_size": 32,
        "shuffle": False,
        "verbose": 0,
        **kwargs,
    }
    return model.fit(*data, callbacks=list(callbacks), **options)


def train_step(model, x, outputs):
    """One step on labels at random."""
    compile_model(model)
    y = np.random.default_rng(0).integers(0, outputs, len(x))
    model.train_on_batch(x, y)


def randomize(model):
    """Gives norms and biases values as after training, negative ones too."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in str(variable.dtype):
            value = rng.normal(size=variable.shape)
            if "variance" in getattr(variable, "path", variable.name):
                value = np.abs(value) + 0.3
            variable.assign(value)


def trained(model, x, outputs=3, scheme=None):
    """Quantized, with norms, one step and settled ranges."""
    randomize(model)
    qat_model = msq.quantize_model(model, scheme)
    train_step(qat_model, x, outputs)
    if scheme is None or scheme.activation_bits is not None:
        msq.calibrate(qat_model, x)
    return qat_model


def exported(view, path, x, *targets):
    """Exports for targets; the last report."""
    for target in targets:
        report = export(view, path, target=target, representative_data=x)
        assert {t.name: t.bits for t in report.tensors} == view.bits
        assert all(check.ran for check in report.checks[:2])
    return report


def view_at(model, bits=(8, 4, 2, 3, 6, 5, 7)):
    """A view of a model whose bits cycle through these."""
    view = msq.ModelView(model)
    view.set_bits(dict(zip(view.paths, itertools.cycle(bits), strict=False)))
    return view


def images(*shape, count=32):
    """Normal noise."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype(np.float32)
