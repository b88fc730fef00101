"""A model without channels computes what it computed with zeros there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import msq_tf
from msq_tf.quantizers import mse_scale
from msq_tf.quantizers import uniform
from tests.msq_tf.channel_samples import draw
from tests.msq_tf.channel_samples import residual_model
from tests.msq_tf.channel_samples import settle
from tests.msq_tf.channel_samples import zero
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import zoo_model

layers = keras.layers


def assert_same(qmodel, smaller, x, tolerance=1e-5):
    """Of two models the second computes what the first does."""
    for one, other in zip(
        qmodel.quantized_weights(), smaller.quantized_weights(), strict=True
    ):
        assert one.path == other.path
        assert one.bits == other.bits
        # Zeros, and nothing else, are gone.
        kept, left = one.codes[one.codes != 0], other.codes[other.codes != 0]
        np.testing.assert_array_equal(kept, left)
    wanted = np.asarray(qmodel(x, training=False))
    found = np.asarray(smaller(x, training=False))
    span = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=tolerance * span)


def shrunk(qmodel, channels=None):
    """The model with zeros, and the one without these channels."""
    channels = draw(qmodel) if channels is None else channels
    assert any(channels.values())
    smaller = msq_tf.remove_channels(qmodel, channels)
    assert sum(smaller.sizes) < sum(qmodel.sizes)
    return zero(qmodel, channels), smaller


BLOCKS = st.tuples(
    st.sampled_from(
        ["conv", "norm", "depthwise", "separable", "residual"]
        + ["join", "pool", "function"]
    ),
    st.integers(2, 9),
    st.booleans(),
)


def network(inputs, first, blocks, flat):
    """A small graph of convolutions, additions, joins and poolings."""
    x = inputs = keras.Input((8, 8, inputs))
    x = layers.Conv2D(first, 3, padding="same")(x)
    for kind, count, flag in blocks:
        if kind == "conv":
            x = layers.Conv2D(
                count, 1 + 2 * flag, padding="same", activation="relu"
            )(x)
        elif kind == "norm":
            x = layers.ReLU(6.0)(layers.BatchNormalization(scale=flag)(x))
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(
                3, padding="same", depth_multiplier=1 + flag
            )(x)
        elif kind == "separable":
            x = layers.SeparableConv2D(
                count, 3, padding="same", depth_multiplier=1 + flag
            )(x)
        elif kind == "residual":
            y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
            x = layers.Add()([x, y]) if flag else x + y
        elif kind == "join":
            x = layers.Concatenate()([x, layers.Conv2D(count, 1)(x)])
        elif kind == "pool" and x.shape[1] > 1:
            x = layers.AveragePooling2D(2)(x)
        else:
            x = layers.Activation("sigmoid")(x)
    x = layers.Flatten()(x) if flat else layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(first, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    inputs=st.integers(1, 3),
    first=st.integers(2, 9),
    blocks=st.lists(BLOCKS, min_size=1, max_size=4),
    flat=st.booleans(),
    bits=st.integers(2, 8),
    granularity=st.sampled_from([msq_tf.PerTensor(), msq_tf.PerChannel()]),
    quantizer=st.sampled_from(["round_clamp", "dorefa"]),
    scale=st.sampled_from(["held", "mse", "max", "learned"]),
    seed=st.integers(0, 100),
)
def test_any_graph(
    inputs, first, blocks, flat, bits, granularity, quantizer, scale, seed
):
    model = network(inputs, first, blocks, flat)
    config = msq_tf.MSQConfig(
        start_bits=bits,
        granularity=granularity,
        quantizer=quantizer,
        scale=scale,
    )
    qmodel = msq_tf.quantize_model(settle(model, seed), config)
    channels = draw(qmodel, 0.5, seed)
    smaller = msq_tf.remove_channels(qmodel, channels)
    x = np.random.default_rng(seed).normal(size=(3, *model.input.shape[1:]))
    assert_same(zero(qmodel, channels), smaller, x.astype(np.float32))


@pytest.mark.parametrize("bits", [2, 8])
def test_a_residual_network(bits):
    config = msq_tf.MSQConfig(start_bits=bits)
    qmodel = msq_tf.quantize_model(settle(residual_model()), config)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    zeros, smaller = shrunk(qmodel)
    assert_same(zeros, smaller, x)
    shapes = [tuple(kernel.shape) for kernel in smaller.kernels]
    assert shapes == [
        *((3, 3, 3, 5), (3, 3, 5, 8), (3, 3, 8, 5)),
        *((3, 3, 5, 10), (1, 1, 5, 10), (10, 5)),
    ]


@pytest.mark.slow
def test_every_kind_of_layer(zoo_data):
    config = msq_tf.MSQConfig(start_bits=5)
    qmodel = msq_tf.quantize_model(settle(zoo_model()), config)
    assert_same(*shrunk(qmodel), zoo_data[0])


@pytest.mark.slow
def test_ranges_of_activations_and_rounded_biases_go_on():
    config = msq_tf.MSQConfig(start_bits=4, activation_bits=8)
    model = residual_model()
    qmodel = compile_model(msq_tf.quantize_model(settle(model), config))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    qmodel.fit(x, rng.integers(0, 5, 32), epochs=2, verbose=0)
    zeros, smaller = shrunk(qmodel)
    for name in ("low", "high"):
        one = getattr(qmodel.activation_quantizers, name)
        other = getattr(smaller.activation_quantizers, name)
        np.testing.assert_array_equal(one, other)
    # Some numbers come to the neighbouring code by rounding in float32.
    assert_same(zeros, smaller, x, tolerance=0.02)
    assert smaller.input_ranges.seen(1) == qmodel.input_ranges.seen(1)


def test_weights_in_float_lose_channels_too():
    qmodel = msq_tf.quantize_model(
        settle(residual_model()), filters=["a$", "stem$"]
    )
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    zeros, smaller = shrunk(qmodel, {"b": [0, 3], "a": [1]})
    assert smaller.float_size < qmodel.float_size
    assert_same(zeros, smaller, x)


def test_mixed_precision_keeps_its_policies():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = residual_model()
    finally:
        keras.config.set_dtype_policy("float32")
    smaller = msq_tf.remove_channels(
        msq_tf.quantize_model(settle(model)), {"a": [0]}
    )
    assert smaller.dtype_policy.name == "mixed_float16"
    assert smaller.base.get_layer("a").dtype_policy.name == "mixed_float16"


def test_a_frozen_layer_stays_frozen():
    model = residual_model()
    model.get_layer("a").trainable = False
    smaller = msq_tf.remove_channels(msq_tf.quantize_model(model), {"a": [0]})
    assert len(smaller.trainable_variables) == len(model.trainable_variables)
    assert not smaller.base.get_layer("a").trainable


@pytest.mark.slow
def test_the_search_goes_on(tmp_path):
    qmodel = compile_model(msq_tf.quantize_model(settle(residual_model())))
    rng = np.random.default_rng(0)
    data = (
        rng.normal(size=(64, 8, 8, 3)).astype(np.float32),
        rng.integers(0, 5, 64),
    )

    def search(model, compression):
        rule = msq_tf.BudgetRule(target_compression=compression, end=0.5)
        callback = msq_tf.MSQCallback(rule, interval=1)
        model.fit(*data, epochs=4, verbose=0, callbacks=[callback])

    search(qmodel, 5)
    smaller = msq_tf.remove_channels(qmodel, draw(qmodel))
    assert smaller.bits == qmodel.bits
    assert smaller.history_of_bits() == qmodel.history_of_bits() != []
    search(compile_model(smaller), 12)
    assert smaller.compression >= 12
    smaller.save(tmp_path / "smaller.keras")
    loaded = msq_tf.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(
        loaded.predict(data[0], verbose=0), smaller.predict(data[0], verbose=0)
    )
    assert loaded.plan == smaller.plan
    # Once more, of a model that has lost some.
    again = msq_tf.remove_channels(loaded, {"a": [0, 1]})
    assert_same(zero(loaded, {"a": [0, 1]}), again, data[0])


@pytest.mark.slow
def test_a_strategy_trains_what_is_made_in_its_scope():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    with strategy.scope():
        qmodel = msq_tf.quantize_model(settle(residual_model()))
        smaller = compile_model(msq_tf.remove_channels(qmodel, draw(qmodel)))
    before = smaller.predict(x, verbose=0)
    smaller.fit(x, rng.integers(0, 5, 16), batch_size=8, verbose=0)
    assert smaller.distribute_strategy.num_replicas_in_sync == 2
    assert np.isfinite(before).all()
    assert not np.array_equal(smaller.predict(x, verbose=0), before)


def test_the_base_keeps_what_it_was_compiled_with():
    model = compile_model(residual_model())
    qmodel = msq_tf.quantize_model(model)
    smaller = msq_tf.remove_channels(qmodel, {"a": [0]})
    assert model.compiled
    assert not smaller.compiled


WRONG = {
    "unknown": ({"z": [0]}, "names no weight that makes channels"),
    "an output": ({"head": [1]}, "Channel 1 of 'head' can't be removed: it is"),
    "no place": ({"a": [12]}, "integers from 0 to 11"),
    "before all": ({"a": [-1]}, "integers from 0 to 11"),
    "no integers": ({"a": [0.5]}, "integers from 0 to 11"),
    "a mask": ({"a": [True, False]}, "integers from 0 to 11"),
    "all": ({"a": list(range(12))}, "No channel would be left.*'a'"),
    "no mapping": (["a"], "`channels`"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_channel_is_refused(kind):
    channels, message = WRONG[kind]
    qmodel = msq_tf.quantize_model(residual_model())
    with pytest.raises(ValueError, match=message):
        msq_tf.remove_channels(qmodel, channels)


def test_none_is_a_copy():
    qmodel = msq_tf.quantize_model(settle(residual_model()))
    copy = msq_tf.remove_channels(qmodel, {"a": []})
    assert copy.plan == qmodel.plan
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(copy(x), qmodel(x))
    assert not {id(v) for v in copy.variables} & {
        id(v) for v in qmodel.variables
    }


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 300), st.integers(1, 4)),
    share=st.floats(0.0, 1.0),
    bits=st.integers(2, 8),
    seed=st.integers(0, 1000),
)
def test_scales_do_not_change_where_zeros_go(shape, share, bits, seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=shape).astype(np.float32)
    kept = rng.uniform(size=shape[0]) >= share
    kept[0] = True
    zeros = tf.constant(w * kept[:, None])
    cut = tf.constant(w[kept])
    for kind in uniform.STATISTICS:
        for axes, count in (((1,), shape[0]), (None, w.size)):
            wanted = mse_scale.scale_by(kind, zeros, bits, axes, "dorefa")
            found = mse_scale.scale_by(kind, cut, bits, axes, "dorefa", count)
            np.testing.assert_array_equal(found, wanted)
