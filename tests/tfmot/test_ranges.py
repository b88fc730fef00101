"""Ranges that start at those of data."""

import numpy as np
import pytest

from tests.tfmot.samples import export
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import randomize
from tests.tfmot.samples import tf_keras


def small_model():
    return tf_keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, name="a"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax", name="b"),
        ]
    )


def test_ranges_are_those_of_the_float_model():
    plain = small_model()
    randomize(plain)
    x = images(6, count=40)
    qat_model = msq.quantize_model(plain)
    before = {v.name: v.numpy() for v in qat_model.variables}
    msq.calibrate(qat_model, x, batch_size=16)
    found = {v.name: v.numpy() for v in qat_model.variables}
    ranges = {n for n in found if n.endswith(("_min:0", "_max:0"))}
    for name in set(found) - ranges:
        np.testing.assert_array_equal(found[name], before[name])

    quantized = msq.bake(qat_model)
    inputs = tf_keras.Model(quantized.input, quantized.layers[4].output)(x)
    logits = inputs @ quantized.layers[-1].kernel + quantized.layers[-1].bias

    def limits(name):
        return [found[f"{name}_{end}:0"] for end in ("min", "max")]

    (start,) = {n.rpartition("_")[0] for n in ranges if "quantize_layer" in n}
    np.testing.assert_allclose(limits(start), [x.min(), x.max()])
    (relu,) = {n.rpartition("_")[0] for n in ranges if "re_lu" in n}
    top = np.max(inputs)
    np.testing.assert_allclose(limits(relu), [0.0, top], rtol=1e-5)
    np.testing.assert_allclose(
        limits("quant_b/pre_activation"),
        [np.min(logits), np.max(logits)],
        rtol=1e-5,
    )


def test_weights_of_tfmot_keep_their_ranges():
    model = quantization.quantize_model(
        tf_keras.Sequential([layers.Input((6,)), layers.Dense(3)])
    )
    model(images(6), training=True)
    kernel = [v.numpy() for v in model.variables if "kernel_m" in v.name]
    msq.calibrate(model, 9 * images(6))
    assert [v.numpy() for v in model.variables if "kernel_m" in v.name] == (
        kernel
    )


def test_bad_data_is_refused():
    model = msq.quantize_model(small_model())
    variables = {v.name: v for v in model.variables}
    before = {name: v.numpy() for name, v in variables.items()}
    with pytest.raises(ValueError, match="no sample"):
        msq.calibrate(model, images(6)[:0])
    x = images(6)
    x[3] = np.nan
    with pytest.raises(ValueError, match="not finite.*nan"):
        msq.calibrate(model, x)
    for name, value in before.items():
        np.testing.assert_array_equal(value, variables[name])


def ends(model):
    """The ranges of activations by the names of their variables."""
    return {
        v.name: float(v.numpy())
        for v in model.variables
        if v.name.endswith(("_min:0", "_max:0")) and not v.shape.rank
    }


@pytest.mark.first(1)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_enters_a_range(value):
    model = msq.quantize_model(small_model())
    msq.calibrate(model, images(6, count=40))
    x = images(6, count=40)
    x[3] = value
    before = ends(model)
    assert before
    model(x, training=True)
    after = ends(model)
    assert np.isfinite(list(after.values())).all()
    for name, wanted in before.items():
        assert after[name] == pytest.approx(wanted, rel=0.1, abs=0.1)


def test_an_outlier_leaves_a_range():
    model = msq.quantize_model(small_model())
    msq.calibrate(model, images(6, count=40))
    (first,) = (
        name
        for name in ends(model)
        if "quantize_layer" in name and name.endswith("_max:0")
    )
    usual = ends(model)[first]
    outlier = images(6, count=40)
    outlier[3] = 3e38
    model(outlier, training=True)
    assert usual <= ends(model)[first] <= 4 * usual


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [1e-8, 1e-12])
def test_narrow_ranges_are_exported_as_they_are(size, tmp_path):
    tf_keras.utils.set_random_seed(0)
    draw = tf_keras.initializers.RandomNormal(stddev=size)
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, kernel_initializer=draw)(x)
    x = layers.Conv2D(4, 1, activation="relu")(x)
    plain = tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    qat_model = msq.quantize_model(plain)
    data = images(8, 8, 3, count=16)
    msq.calibrate(qat_model, data)
    report = export(
        msq.ModelView(qat_model),
        tmp_path / "m.tflite",
        "cpu_int8",
        representative_data=data,
    )
    assert all(check.ran for check in report.checks)
    assert not any(tensor.silenced for tensor in report.tensors)
