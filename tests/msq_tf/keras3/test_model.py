"""MSQModel: what it finds, computes, trains and saves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

ZOO_PATHS = {
    "c1": (3, 3, 4, 8),
    "block/c1": (3, 3, 8, 8),
    "block/grouped": (1, 1, 4, 8),
    "block/dw": (3, 3, 8, 2),
    "block/sep/depthwise_kernel": (3, 3, 16, 1),
    "block/sep/pointwise_kernel": (1, 1, 16, 6),
    "up": (2, 2, 4, 6),
    "c3d": (2, 2, 2, 4, 4),
    "c1d": (3, 32, 6),
    "words": (11, 6),
    "mha/query": (6, 2, 3),
    "mha/key": (6, 2, 3),
    "mha/value": (6, 2, 3),
    "mha/attention_output": (2, 3, 6),
    "einsum": (6, 6),
    "gru/gru_cell/kernel": (6, 15),
    "gru/gru_cell/recurrent_kernel": (5, 15),
    "left": (4, 6),
    "right": (5, 6),
    "shared": (6, 6),
    "head": (12, 3),
}


def cycle_bits(qmodel):
    qmodel.set_bits({p: 2 + i % 7 for i, p in enumerate(qmodel.paths)})


def test_finds_every_kind_of_layer(zoo):
    qmodel = msq_tf.quantize_model(zoo)
    found = {
        path: tuple(variable.shape)
        for path, variable in zip(qmodel.paths, qmodel.kernels, strict=True)
    }
    assert found == ZOO_PATHS
    assert qmodel.skipped_weights() == []


def test_scales_follow_the_output_channels(zoo):
    qmodel = msq_tf.quantize_model(zoo)
    steps = {w.path: w.step.shape for w in qmodel.quantized_weights()}
    assert steps["c1"] == (1, 1, 1, 8)
    assert steps["block/dw"] == (1, 1, 8, 2)
    assert steps["up"] == (1, 1, 4, 1)
    assert steps["mha/query"] == (1, 2, 3)
    assert steps["mha/attention_output"] == (1, 1, 6)
    assert steps["words"] == (1, 6)


def test_trainable_variables_are_those_of_the_float_model(zoo):
    before = [id(v) for v in zoo.trainable_variables]
    qmodel = msq_tf.quantize_model(zoo)
    assert [id(v) for v in qmodel.trainable_variables] == before
    assert qmodel.base is zoo


def test_computes_with_codes_times_step(zoo, zoo_data):
    """The overlay equals a plain model that holds the quantized values."""
    qmodel = msq_tf.quantize_model(zoo)
    cycle_bits(qmodel)
    x, _ = zoo_data
    inside = qmodel(x, training=False).numpy()
    with qmodel.quantized_scope():
        scoped = zoo(x, training=False).numpy()
    latent = [variable.numpy() for variable in qmodel.kernels]
    weights = qmodel.quantized_weights()
    for variable, weight in zip(qmodel.kernels, weights, strict=True):
        assert weight.codes.dtype == np.int8
        assert np.abs(weight.codes).max() <= 2 ** (weight.bits - 1) - 1
        assert (weight.step > 0).all()
        variable.assign(weight.values)
    plain = zoo(x, training=False).numpy()
    for variable, value in zip(qmodel.kernels, latent, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(inside, plain)
    np.testing.assert_array_equal(scoped, plain)
    assert np.abs(inside - zoo(x, training=False).numpy()).max() > 0


def test_the_quantized_scope_opens_inside_a_trace(tiny, tiny_data):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.set_bits({"conv": 3})

    @tf.function
    def run(x):
        with qmodel.quantized_scope():
            return tiny(x, training=False)

    x = tf.constant(tiny_data[0])
    want = qmodel(x, training=False)
    np.testing.assert_allclose(run(x), want, atol=1e-6)
    # Constants of the trace: what changes later does not reach it.
    qmodel.set_bits({"conv": 2})
    np.testing.assert_allclose(run(x), want, atol=1e-6)


@pytest.mark.slow
def test_trains_all_layers_and_keeps_every_loss(zoo, zoo_data, compiled):
    qmodel = compiled(msq_tf.quantize_model(zoo))
    x, y = zoo_data
    before = [v.numpy() for v in qmodel.trainable_variables]
    statistics = zoo.get_layer("bn1").moving_mean.numpy()
    qmodel.fit(x, y, batch_size=8, epochs=2, verbose=0)
    for variable, old in zip(qmodel.trainable_variables, before, strict=True):
        # A key's bias has no influence on a softmax over keys.
        if not variable.path.endswith("key/bias"):
            assert np.abs(variable.numpy() - old).max() > 0, variable.path
    moved = zoo.get_layer("bn1").moving_mean.numpy() - statistics
    assert np.abs(moved).max() > 0


@pytest.mark.slow
def test_losses_added_inside_are_kept(subclassed, compiled):
    x = np.arange(14, dtype=np.int32).reshape(2, 7)
    y = np.array([0, 1])
    plain = compiled(subclassed)
    want = plain.evaluate(x, y, verbose=0)[0]
    only_data = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        y, plain(x)
    )
    assert want > float(only_data) + 1e-4
    qmodel = compiled(msq_tf.quantize_model(subclassed))
    assert qmodel.evaluate(x, y, verbose=0)[0] == pytest.approx(want, rel=2e-2)
    assert qmodel.evaluate(x, y, verbose=0)[0] > float(only_data)


def test_activity_and_weight_regularizers(compiled):
    def loss(model):
        return compiled(model).evaluate(np.ones((4, 3)), np.zeros(4), verbose=0)

    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(
                2, activity_regularizer="l2", kernel_regularizer="l1"
            ),
        ]
    )
    # At 8 bits the losses differ by the rounding of activations only.
    plain = loss(model)[0]
    assert loss(msq_tf.quantize_model(model))[0] == pytest.approx(
        plain, rel=5e-3
    )


@pytest.mark.slow
def test_frozen_layers_are_quantized_and_stay(tiny, tiny_data, compiled):
    tiny.get_layer("conv").trainable = False
    qmodel = compiled(msq_tf.quantize_model(tiny))
    assert "conv" in qmodel.bits
    kernel = tiny.get_layer("conv").kernel.numpy()
    qmodel.fit(*tiny_data, verbose=0)
    np.testing.assert_array_equal(tiny.get_layer("conv").kernel, kernel)


@pytest.mark.slow
def test_jit_compiled_training_equals_the_plain_one(tiny_data, compiled):
    def train(jit):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(4),
            ]
        )
        qmodel = msq_tf.quantize_model(model)
        compiled(qmodel, jit_compile=jit)
        qmodel.set_bits({path: 4 for path in qmodel.paths})
        qmodel.search.lsb.assign([1, 1])
        qmodel.search.strength.assign(0.1)
        return qmodel.fit(
            *tiny_data, batch_size=32, shuffle=False, verbose=0
        ).history["loss"]

    np.testing.assert_allclose(train(True), train(False), rtol=1e-4)


@pytest.mark.slow
def test_mixed_float16_computes_codes_in_float32(tiny_data, compiled):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3, name="conv"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(4, dtype="float32"),
            ]
        )
        qmodel = compiled(msq_tf.quantize_model(model))
        qmodel.fit(*tiny_data, verbose=0)
        assert model.get_layer("conv").compute_dtype == "float16"
        assert qmodel.kernels[0].dtype == "float32"
        seen = []
        with qmodel.quantized_scope():
            seen.append(np.asarray(model.get_layer("conv").kernel.value))
        np.testing.assert_array_equal(
            seen[0], qmodel.quantized_weights()[0].values
        )
        assert np.isfinite(qmodel.predict(tiny_data[0], verbose=0)).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_overrides_filters_and_skips(zoo):
    qmodel = msq_tf.quantize_model(
        zoo,
        msq_tf.MSQConfig(
            granularity=msq_tf.PerTensor(),
            overrides={
                "head": msq_tf.LayerConfig(start_bits=6, min_bits=5),
                r"mha/.*": msq_tf.LayerConfig(skip=True),
                "c1": msq_tf.LayerConfig(granularity=msq_tf.PerChannel()),
            },
        ),
        filters=["c1", "mha", "head"],
    )
    assert qmodel.bits == {"c1": 8, "block/c1": 8, "c1d": 8, "head": 6}
    steps = {w.path: w.step.size for w in qmodel.quantized_weights()}
    assert steps == {"c1": 8, "block/c1": 1, "c1d": 1, "head": 1}
    reasons = {w.path: w.reason for w in qmodel.skipped_weights()}
    assert reasons["mha/query"] == "skipped by `overrides`"
    assert reasons["up"] == "not selected by `filters`"
    assert qmodel.average_bits > 16  # what is skipped counts 32 bits


def test_dense_layers_may_have_a_granularity_of_their_own(zoo):
    config = msq_tf.MSQConfig(dense_granularity=msq_tf.PerTensor())
    qmodel = msq_tf.quantize_model(zoo, config)
    steps = {w.path: w.step.size for w in qmodel.quantized_weights()}
    assert steps["head"] == steps["mha/query"] == 1
    assert steps["c1"] == 8


def test_filters_as_in_keras(zoo):
    by_function = msq_tf.quantize_model(
        zoo, filters=lambda layer: isinstance(layer, keras.layers.Dense)
    )
    assert set(by_function.bits) == {"left", "right", "shared", "head"}
    by_expression = msq_tf.quantize_model(zoo, filters="^block/")
    assert len(by_expression.bits) == 5


def test_lora_is_quantized_as_the_sum():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="adapted"),
            keras.layers.Dense(2, name="plain"),
        ]
    )
    model.get_layer("adapted").enable_lora(2)
    qmodel = msq_tf.quantize_model(model)
    assert set(qmodel.bits) == {"adapted", "plain"}
    assert not qmodel.skipped_weights()
    layer = model.get_layer("adapted")
    layer.lora_kernel_b.assign(np.random.default_rng(0).normal(size=(2, 4)))
    merged = keras.models.clone_model(model)
    merged.set_weights(model.get_weights())
    adapted = merged.get_layer("adapted")
    adapted._kernel.assign(layer.kernel)
    adapted.lora_kernel_b.assign(np.zeros((2, 4)))
    x = np.eye(4, dtype="float32")
    np.testing.assert_array_equal(qmodel(x), msq_tf.quantize_model(merged)(x))


def test_a_weight_shared_by_two_layers_counts_once():
    class Tied(keras.layers.Dense):
        def __init__(self, other, **kwargs):
            super().__init__(**kwargs)
            self.other = other

        def build(self, shape):
            super().build(shape)
            self._kernel = self.other._kernel

    first = keras.layers.Dense(4, name="first")
    model = keras.Sequential(
        [keras.Input((4,)), first, Tied(first, units=4, name="tied")]
    )
    assert set(msq_tf.quantize_model(model).bits) == {"first"}


def test_sizes_and_both_conventions(tiny):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.set_bits({"conv": 4, "dw": 2, "head": 8})
    sizes = {"conv": 54, "dw": 54, "head": 24}
    stored = 54 * 4 + 54 * 2 + 24 * 8
    assert dict(zip(qmodel.paths, qmodel.sizes, strict=True)) == sizes
    assert qmodel.average_bits == pytest.approx(stored / 132)
    assert qmodel.compression == pytest.approx(32 * 132 / stored)
    report = msq_tf.precision_report(qmodel)
    assert report.paper_bits == pytest.approx(stored / 132 - 1)


def test_inside_an_enclosing_stateless_scope(tiny, tiny_data):
    """`stateless_call`: values come in and updates go out, nothing leaks."""
    qmodel = msq_tf.quantize_model(tiny)
    x = tiny_data[0][:4]
    mean = tiny.get_layer("bn").moving_mean
    before = mean.numpy()
    halved = [v.value * 0.5 for v in qmodel.trainable_variables]
    outputs, updates = qmodel.stateless_call(
        halved,
        [v.value for v in qmodel.non_trainable_variables],
        x,
        training=True,
    )
    np.testing.assert_array_equal(mean, before)
    index = next(
        i for i, v in enumerate(qmodel.non_trainable_variables) if v is mean
    )
    assert np.abs(updates[index] - before).max() > 0
    # A later layer's halved kernel halves the result; a stale one would not.
    assert np.abs(outputs).max() < np.abs(qmodel(x, training=True)).max()


@pytest.mark.slow
def test_under_mirrored_strategy(tiny_data, compiled):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")
    strategy = tf.distribute.MirroredStrategy([d.name for d in devices[:2]])
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(4),
            ]
        )
        qmodel = compiled(msq_tf.quantize_model(model))
    history = qmodel.fit(
        *tiny_data,
        epochs=2,
        batch_size=32,
        verbose=0,
        callbacks=[
            msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8.0))
        ],
    )
    assert qmodel.compression >= 8.0
    assert np.isfinite(history.history["loss"]).all()
