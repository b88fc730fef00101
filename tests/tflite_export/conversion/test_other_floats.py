"""Files of models that train in another float type than float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export.conversion import other_floats
from tflite_export.flatbuffer import model as fb

L = keras.layers


@pytest.fixture(params=["float16", "bfloat16", "float64", "everything"])
def policy(request):
    """One of the pure policies, or float64 for all that Keras makes."""
    name = request.param
    if name == "everything":
        name = "float64"
        keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    yield name
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def network(dtype=None):
    x = inputs = keras.Input((8, 8, 3), dtype=dtype)
    norm = L.Normalization()
    norm.adapt(np.random.default_rng(1).normal(1.0, 2.0, (16, 8, 8, 3)))
    x = L.Conv2D(4, 3, use_bias=False)(norm(x))
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3)(x) + 1.0
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize(
    ("bits", "target"), [(None, "min_size"), (8, "cpu_int8")]
)
def test_files_hold_what_was_trained(
    policy, bits, target, own_inputs, tmp_path
):
    keras.utils.set_random_seed(0)
    model = network(policy if own_inputs else None)
    data = networks.samples(network())
    config = msq_tf.MSQConfig(start_bits=4, activation_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile("sgd", "mse")
    qmodel.fit(data, np.zeros((len(data), 2)), verbose=0)
    before = [layer.dtype_policy for layer in model._flatten_layers()]
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, target, representative_data=data)
    assert all(check.ran for check in report.checks)
    assert len(report.tensors) == 3
    assert not any(tensor.silenced for tensor in report.tensors)
    file = fb.read(path.read_bytes())
    operators = file.subgraphs[0].operators
    assert "CAST" not in {fb.op_name(file, op) for op in operators}
    after = [layer.dtype_policy for layer in model._flatten_layers()]
    assert after == before
    assert model(data).dtype.name == policy


def test_weights_that_stay_float(policy, tmp_path):
    """Of heads of attention even a bias has two axes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 6)),
            L.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de"),
            L.Flatten(),
            L.Dense(5, name="plain"),
            L.Dense(2, name="head"),
        ]
    )
    config = msq_tf.MSQConfig(
        overrides={"plain": msq_tf.LayerConfig(skip=True)}
    )
    qmodel = msq_tf.quantize_model(model, config)
    data = np.random.default_rng(0).normal(size=(4, 4, 6)).astype("float32")
    report = export(
        qmodel, tmp_path / "m.tflite", "min_size", representative_data=data
    )
    assert len(report.tensors) == 2
    assert {f.name for f in report.float_tensors} == {"plain"}


def test_integer_scope_is_of_the_model_s_type(policy):
    keras.utils.set_random_seed(0)
    model = network()
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(model, config)
    data = networks.samples(network())
    msq_tf.calibrate(qmodel, data)
    with qmodel.integer_scope():
        assert model(data).dtype.name == policy


def test_inputs_are_rounded_as_the_model_rounds_them():
    inputs = [np.array([1.0001, 0.1], np.float32), np.array([1, 2])]
    first = keras.Input((1,), dtype="float16")
    second = keras.Input((1,), dtype="int32")
    both = keras.Model([first, second], [first + 1, second + 1])
    got = other_floats.as_read(both, inputs)
    np.testing.assert_array_equal(got[0], [1.0, np.float16(0.1)])
    assert got[0].dtype == np.float32
    assert got[1] is inputs[1]
