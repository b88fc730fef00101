"""Activations: numerics, where they are quantized, ranges, gradients."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.activations import fake_quantize
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import tiny_model

activations = hnp.arrays(
    np.float32, 30, elements=st.floats(-50, 50, width=32, allow_subnormal=False)
)
ends = st.floats(0.015625, 40, width=32)
laws = hypothesis.settings(deadline=None, max_examples=60)


def reference(x, low, high, bits):
    """The module's formulas in float64."""
    levels = 2**bits - 1 if bits < 16 else 2**16 - 2
    scale = (np.float64(high) - low) / levels
    zero_point = np.round(-low / scale)
    codes = np.clip(np.round(x / scale) + zero_point, 0, levels)
    return (codes - zero_point) * scale, scale


@laws
@hypothesis.given(activations, ends, ends, st.sampled_from([2, 4, 8, 16]))
def test_numerics_are_those_of_an_integer_tensor(x, below, above, bits):
    low, high = (-above, above) if bits == 16 else (-below, above)
    want, scale = reference(x, low, high, bits)
    # A zero point halfway between two codes may become either.
    hypothesis.assume(bits == 16 or abs(-low / scale % 1 - 0.5) > 1e-3)
    value = fake_quantize(tf.constant(x), low, high, bits).numpy()
    # A tie may round to either side, and values are float32: at 16 bits a
    # step can be as small as a few of its units.
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(want) + scale)
    assert (np.abs(value - want) <= scale + rounding).all()
    ties = np.abs(value - want) > scale * 1e-2
    fraction = x[ties].astype(np.float64) / scale
    assert np.all(np.abs(np.abs(fraction % 1) - 0.5) < 1e-2)


@laws
@hypothesis.given(activations, ends, ends)
def test_laws(x, below, above):
    low, high = tf.constant(-below), tf.constant(above)
    value = fake_quantize(tf.constant(np.sort(x)), low, high, 8)
    again = fake_quantize(value, low, high, 8)
    np.testing.assert_allclose(again, value, rtol=1e-5, atol=1e-6)
    assert (np.diff(value) >= 0).all()
    assert np.unique(value).size <= 256
    zero = fake_quantize(tf.zeros(1), low, high, 8)
    np.testing.assert_array_equal(zero, [0.0])


def test_gradients_pass_inside_and_reach_the_ends_outside():
    x = tf.constant([-3.0, -0.5, 0.5, 9.0])
    low, high = tf.Variable(-1.0), tf.Variable(4.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = fake_quantize(x, low, high, 8)
        loss = tf.reduce_sum(value * [1.0, 2.0, 3.0, 5.0])
    dx, dlow, dhigh = tape.gradient(loss, [x, low, high])
    np.testing.assert_array_equal(dx, [0.0, 2.0, 3.0, 0.0])
    assert float(dlow) == 1.0
    assert float(dhigh) == 5.0


@pytest.mark.slow
def test_the_hessian_goes_through():
    qmodel = compile_model(
        msq_tf.quantize_model(tiny_model(), msq_tf.MSQConfig(activation_bits=8))
    )
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 8, 8, 1)), rng.integers(0, 4, 64)
    fit(qmodel, data, msq_tf.MSQCallback(budget()))
    assert qmodel.compression >= 8.0
    assert np.abs(qmodel.search.trace.numpy()).max() > 0


def sites(model, **kwargs):
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(model, config, **kwargs)
    return qmodel.activation_quantizers.sites


def test_sites_are_where_a_runtime_requantizes():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="c1")(inputs)
    x = keras.layers.BatchNormalization(name="bn1")(x)
    x = keras.layers.ReLU(6.0, name="relu1")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    y = keras.layers.BatchNormalization(name="bn2")(y)
    z = keras.layers.Add(name="add")([x, y])
    z = keras.layers.Activation("relu", name="relu2")(z)
    z = keras.layers.Concatenate(name="concat")([z, x])
    z = keras.layers.MaxPooling2D(name="pool")(z)
    z = keras.layers.Conv2D(4, 1, activation="relu", name="c2")(z)
    z = keras.layers.Dropout(0.1)(z)
    z = keras.layers.GlobalAveragePooling2D(name="mean")(z)
    z = keras.layers.Dense(3, activation="softmax", name="head")(z)
    assert sites(keras.Model(inputs, z)) == [
        "input",
        "relu1",
        "bn2",
        "relu2",
        "concat",
        "c2",
        "mean",
        "head/preactivation",
    ]


def test_a_result_that_is_used_twice_is_a_tensor_of_its_own():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4, name="dense")(inputs)
    y = keras.layers.ReLU(name="relu")(x)
    model = keras.Model(inputs, keras.layers.Add(name="add")([x, y]))
    assert sites(model) == ["input", "dense", "relu", "add"]


def test_sites_of_nested_shared_and_operator_calls():
    block = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="d"),
            keras.layers.ReLU(name="r"),
        ],
        name="block",
    )
    inputs = keras.Input((4,))
    x = block(inputs)
    x = block(x) + inputs
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    found = sites(model)
    assert found[:3] == ["input", "block/r", "block/r#2"]
    assert found[3].startswith("add")
    assert found[4:] == ["head"]


def test_a_subclassed_model_needs_an_example(subclassed):
    with pytest.raises(ValueError, match="example_inputs.*Subclassed"):
        sites(subclassed)

    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a = keras.layers.Dense(4, activation="relu", name="a")
            self.b = keras.layers.Dense(2, name="b")

        def call(self, x):
            return self.b(self.a(x))

    model = Two()
    batch = np.ones((2, 3), np.float32)
    model(batch)
    assert sites(model, example_inputs=batch) == ["input", "a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 16, 4])
def test_trains_saves_and_computes_with_its_ranges(bits, tiny_data, tmp_path):
    model = tiny_model()
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = compile_model(msq_tf.quantize_model(model, config))
    extra = len(qmodel.trainable_variables) - len(model.trainable_variables)
    count = len(qmodel.activation_quantizers.sites)
    assert extra == (2 * count if bits < 8 else 0)
    with pytest.raises(ValueError, match="not trained.*input"):
        qmodel.activation_quantizers.trained_ranges()
    fit(qmodel, tiny_data, epochs=2)
    x = tiny_data[0]
    found = qmodel(x, training=False).numpy()
    head = qmodel.activation_quantizers.trained_ranges()[-1]
    levels = 2**bits - (2 if bits == 16 else 1)
    unit = (head.high - head.low) / levels
    codes = found / unit
    np.testing.assert_allclose(codes, np.round(codes), atol=2e-2)
    with qmodel.integer_scope():
        constant = model(x, training=False).numpy()
    # Ranges as constants: a number on the edge of a bin may fall next door.
    assert np.abs(constant - found).max() <= 1.01 * unit
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x, training=False), found)


def test_the_base_stays_a_float_model(tiny, tiny_data):
    x = tiny_data[0]
    before = tiny(x, training=False).numpy()
    qmodel = msq_tf.quantize_model(tiny, msq_tf.MSQConfig(activation_bits=8))
    qmodel(x, training=True)
    again = tiny_model()
    again.set_weights(tiny.get_weights())
    np.testing.assert_array_equal(
        tiny(x, training=False), again(x, training=False)
    )
    assert np.abs(tiny(x, training=False) - before).max() > 0  # batch norm
    msq_tf.bake(qmodel)
    with (
        pytest.raises(ValueError, match="float activations"),
        msq_tf.quantize_model(again).integer_scope(),
    ):
        pass


def test_ranges_follow_the_data():
    layer = ActivationQuantizers(["a"], 8)
    rng = np.random.default_rng(0)
    for _ in range(3):
        layer(tf.constant(rng.uniform(1, 2, 100)), index=0, training=True)
    (found,) = layer.trained_ranges()
    assert found.low == 0.0  # a range holds zero
    assert 1.9 < found.high <= 2.0
    assert not layer.trainable_variables


def test_a_constant_zero_activation_has_a_range():
    layer = ActivationQuantizers(["a"], 8)
    zero = layer(tf.zeros((2, 3)), index=0, training=True)
    np.testing.assert_array_equal(zero, np.zeros((2, 3)))
    (found,) = layer.trained_ranges()
    assert found.high > found.low


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation_bits": 1},
        {"activation_bits": 12},
        {"activation_bits": 8, "activation_ranges": "percentile"},
        {"activation_ranges": "ema"},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="activation.*Received"):
        msq_tf.MSQConfig(**arguments)


def test_a_model_that_was_prepared_before_is_prepared_again(tiny):
    config = msq_tf.MSQConfig(activation_bits=8)
    first, second = (msq_tf.quantize_model(tiny, config) for _ in "ab")
    assert len(first.activations.sites) > 1
    assert second.activations.sites == first.activations.sites
