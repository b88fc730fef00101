"""Inputs whose columns one grid can't hold."""

import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.tfmot.samples import export
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tflite_export.runtime.interpreter import Session

SCALES = np.logspace(-3, 4, 8)


def norm(mean, variance):
    return layers.Normalization(mean=mean, variance=variance)


def batch_norm(variance):
    layer = layers.BatchNormalization()
    layer.build((None, 8))
    layer.moving_variance.assign(variance)
    return layer


def adapted(x):
    layer = layers.Normalization(name="norm")
    layer.adapt(x)
    return layer


def model_of(layer):
    return tf_keras.Sequential(
        [layers.Input((8,), name="x"), layer, layers.Dense(2, name="d")]
    )


def has_own_range(qat_model):
    return any("quantize_layer" in layer.name for layer in qat_model.layers)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("layer", "own"),
    [
        (lambda: norm(np.zeros(8), np.ones(8)), True),
        (lambda: norm(np.zeros(8), SCALES**2), False),
        (lambda: norm(np.full(8, 2000.0), np.full(8, 5.0)), False),
        (lambda: layers.BatchNormalization(), True),
        (lambda: batch_norm(SCALES**2), False),
        (lambda: layers.Rescaling(1 / 127.5, offset=-1.0), True),
        (lambda: layers.Rescaling((1.0 / SCALES).tolist()), False),
        (lambda: layers.Dense(3), True),
    ],
)
def test_such_an_input_is_not_rounded_but_what_it_becomes(layer, own):
    qat_model = msq.quantize_model(model_of(layer()))
    assert has_own_range(qat_model) == own
    if not own:
        names = [v.name for v in qat_model.variables]
        assert sum("output_max" in name for name in names) == 1


def test_what_something_else_reads_is_rounded():
    inputs = layers.Input((8,))
    x = norm(np.zeros(8), SCALES**2)(inputs)
    x = layers.Concatenate()([x, inputs])
    model = tf_keras.Model(inputs, layers.Dense(2)(x))
    assert has_own_range(msq.quantize_model(model))


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [8, None])
@pytest.mark.parametrize("scales", [SCALES, np.ones(8)])
def test_moments_that_were_adapted_are_kept(bits, scales, tmp_path):
    """TFMOT sets weights behind the layer's back, which made them 0 and 1."""
    x = (images(8) * scales + scales).astype(np.float32)
    model = model_of(adapted(x))
    qat_model = msq.quantize_model(
        model, msq.MSQQuantizeScheme(activation_bits=bits)
    )
    if bits:
        msq.calibrate(qat_model, x)
    np.testing.assert_allclose(qat_model(x), model(x), atol=0.1)
    qat_model.save(tmp_path / "m.keras")
    with quantization.quantize_scope():
        loaded = tf_keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), qat_model(x))
    plain = msq.strip_quantization(qat_model)
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4, atol=1e-5)


def table(*sizes):
    x = np.random.default_rng(0).normal(size=(100, len(sizes)))
    return (x * sizes).astype(np.float32)


def two_inputs():
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    x = layers.Dense(2)(a) + layers.Dense(2)(layers.BatchNormalization()(b))
    return tf_keras.Model([b, a], x)


LOST = table(1.0, 1000.0, 1.0)
WELL = table(1.0, 20.0, 0.0)


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["array", "dict", "dataset"])
def test_columns_that_training_loses_are_named(kind):
    y = np.zeros((100, 2), np.float32)
    model = msq.quantize_model(two_inputs())
    model.compile("sgd", "mse")
    x = {"a": WELL, "b": LOST} if kind == "dict" else (LOST, WELL)
    data = (x, y)
    if kind == "dataset":
        data = tf.data.Dataset.from_tensor_slices(data).batch(50)
    rule = msq_tf.BudgetRule(target_bits=31)
    callback = msq.MSQCallback(rule, data=data, hessian=False, verbose=0)
    with pytest.warns(UserWarning, match=r"Columns \[0, 2\] of input 0"):
        if kind == "dataset":
            model.fit(data, verbose=0, callbacks=[callback])
        else:
            model.fit(x, y, verbose=0, callbacks=[callback])


@pytest.mark.parametrize("batches", [False, True])
def test_columns_of_what_ranges_are_taken_of(batches):
    model = msq.quantize_model(two_inputs())
    x = [LOST, WELL]
    if batches:
        x = tf.data.Dataset.from_tensor_slices((tuple(x),)).batch(50)
    with pytest.warns(UserWarning, match=r"Columns \[0, 2\] of input 0"):
        msq.calibrate(model, x)


@pytest.mark.slow
def test_columns_of_like_size(recwarn):
    msq.calibrate(msq.quantize_model(two_inputs()), [WELL, WELL])
    norm = norm_of(LOST)
    msq.calibrate(msq.quantize_model(norm), LOST)
    plain = msq.MSQQuantizeScheme(activation_bits=None)
    model = msq.quantize_model(two_inputs(), plain)
    msq.ModelView(model).look_at_columns([LOST, LOST])
    assert not [w for w in recwarn if "Columns" in str(w.message)]


def norm_of(x):
    return tf_keras.Sequential(
        [layers.Input((3,)), adapted(x), layers.Dense(2)]
    )


@pytest.mark.slow
def test_such_a_model_and_its_file_are_as_good_as_float(tmp_path):
    z = images(8, count=1000)
    x = (z * SCALES).astype(np.float32)
    y = (np.sin(2 * z[:, 0]) + z[:, 1] * z[:, 2])[:, None]
    model = tf_keras.Sequential(
        [
            layers.Input((8,)),
            adapted(x),
            layers.Dense(32, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(tf_keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=20, verbose=0)
    qat_model = msq.quantize_model(model)
    msq.calibrate(qat_model, x)
    qat_model.compile(tf_keras.optimizers.Adam(0.001), "mse")
    qat_model.fit(x, y, epochs=2, verbose=0)
    # On one grid for all columns nothing was left (R2 below 0.001).
    assert model.evaluate(x, y, verbose=0) < 0.1 * y.var()
    assert qat_model.evaluate(x, y, verbose=0) < 0.1 * y.var()
    path = tmp_path / "m.tflite"
    view = msq.ModelView(qat_model)
    export(view, path, "cpu_int8", representative_data=x[:200])
    error = Session(path.read_bytes(), "builtin")([x])[0] - y
    assert np.mean(error**2) < 0.1 * y.var()
    with pytest.raises(ValueError, match="one grid for all columns"):
        export(view, path, "mcu", representative_data=x[:200])
