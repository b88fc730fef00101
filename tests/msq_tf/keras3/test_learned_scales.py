"""Learned scales: LSQ's formulas, and the variables in a model."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3 import learned_scales
from msq_tf.quantizers import uniform
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import tiny_model

CONFIG = msq_tf.MSQConfig(scale="learned")
STRUCTURE = ("value", "codes", "lsb")

shapes = st.tuples(st.integers(1, 6), st.integers(1, 4))
finite = st.floats(-4, 4, width=32, allow_subnormal=False)
weights = shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=finite))
seeds = st.integers(0, 99)
bit_widths = st.integers(2, 8)
quantizers = st.sampled_from(uniform.QUANTIZERS)
laws = hypothesis.settings(deadline=None, max_examples=20)


def draw(w, seed):
    """A scale a column and an upstream gradient."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 4.0, (1, w.shape[1])).astype(np.float32)
    return scale, rng.normal(size=w.shape).astype(np.float32)


def learned_model(tiny=None, **config):
    keras.utils.set_random_seed(3)
    config = msq_tf.MSQConfig(scale="learned", **config)
    return compile_model(msq_tf.quantize_model(tiny or tiny_model(), config))


def scales_of(qmodel):
    return [v.numpy() for v in qmodel.learned_scales.scale]


@laws
@hypothesis.given(weights, seeds, bit_widths, st.integers(0, 6), quantizers)
def test_codes_and_values_are_those_of_every_scale(w, seed, bits, k, quantizer):
    scale, _ = draw(w, seed)
    arguments = (tf.constant(w), tf.constant(scale), bits, min(k, bits - 2))
    want = uniform.quantize(*arguments, quantizer)
    found = learned_scales.quantize(*arguments, quantizer)
    for name in STRUCTURE:
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))


def reference(w, scale, upstream, bits, quantizer):
    """LSQ's equations 3 and 5 and its gradient scale, in float64 numpy."""
    limit = 2.0 ** (bits - 1) - 1
    levels = limit + 1 if quantizer == "round_clamp" else limit
    # The quotient as float32 rounds it: which side of a half it is on counts.
    x = (w / (scale / np.float32(levels))).astype(np.float64)
    inside = np.abs(x) < limit
    of_step = np.where(inside, np.round(x) - x, np.clip(x, -limit, limit))
    gradient = (upstream * of_step).sum(0, keepdims=True)
    return inside * upstream, gradient / np.sqrt(w.shape[0] * limit)


@laws
@hypothesis.given(weights, seeds, bit_widths, quantizers)
def test_gradients_match_the_float64_reference(w, seed, bits, quantizer):
    scale, upstream = draw(w, seed)
    variables = [tf.Variable(w), tf.Variable(scale)]
    with tf.GradientTape() as tape:
        value = learned_scales.quantize(*variables, bits, 0, quantizer).value
        loss = tf.reduce_sum(value * upstream)
    found = tape.gradient(loss, variables)
    want = reference(w, scale, upstream, bits, quantizer)
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_allclose(found[1], want[1], rtol=1e-4, atol=1e-3)


def test_a_gradient_by_hand():
    """Limit 3, N = 2, step 1/4: 0.3 rounds 1.2 to 1; 2.0 is outside."""
    w, scale = tf.constant([[0.3], [2.0]]), tf.Variable([[1.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(learned_scales.quantize(w, scale, 3).value)
    np.testing.assert_allclose(
        tape.gradient(loss, scale), [[((1 - 1.2) + 3) / np.sqrt(2 * 3)]]
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [9, 576, 20000])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_and_weights_move_alike(size, bits):
    """LSQ's criterion: relative updates differ by no order and a half."""
    w = tf.Variable(tf.random.stateless_normal((size, 40), (0, 1)))
    scale = tf.Variable(learned_scales.fitted_scale(w, (1,), bits))
    upstream = tf.random.stateless_normal(w.shape, (2, 3))
    with tf.GradientTape() as tape:
        value = learned_scales.quantize(w, scale, bits).value
        loss = tf.reduce_sum(value * upstream)
    of_w, of_scale = tape.gradient(loss, [w, scale])
    relative = tf.abs(of_scale) / scale * tf.norm(w, axis=0, keepdims=True)
    ratio = relative / tf.norm(of_w, axis=0, keepdims=True)
    assert 0.03 < np.sqrt(np.mean(ratio.numpy() ** 2)) < 3.0


def test_lsbs_pull_weights_and_no_scale():
    w, scale = tf.Variable([[0.30], [0.25], [2.0]]), tf.Variable([[1.0]])
    with tf.GradientTape() as tape:
        low = learned_scales.quantize(w, scale, 5, 2).lsb
        penalty = uniform.lsb_penalty(low, scale, 5, 2)
    of_w, of_scale = tape.gradient(penalty, [w, scale])
    np.testing.assert_allclose(of_w, [[0.25], [0.0], [0.0]])
    np.testing.assert_array_equal(of_scale, [[0.0]])


def test_second_derivatives_exist():
    w, scale = tf.Variable([[0.3], [-0.7]]), tf.constant([[1.0]])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = learned_scales.quantize(w, scale, 8).value
            loss = tf.reduce_sum(value**3)
        gradient = inner.gradient(loss, w)
    np.testing.assert_allclose(outer.gradient(gradient, w), 6 * value)


def test_a_scale_at_the_floor_can_only_grow():
    scale = tf.Variable([2.0, -1.0, -1.0])
    with tf.GradientTape() as tape:
        used = learned_scales.at_least(scale, tf.constant([0.5, 0.5, 0.5]))
        loss = tf.reduce_sum(used * [3.0, 3.0, -3.0])
    np.testing.assert_array_equal(used, [2.0, 0.5, 0.5])
    np.testing.assert_array_equal(tape.gradient(loss, scale), [3.0, 0.0, -3.0])


def squared_error(w, scale, bits, quantizer="round_clamp"):
    value = uniform.quantize(w, scale, bits, 0, quantizer).value
    return tf.reduce_sum((value - w) ** 2, 0).numpy()


@pytest.mark.slow
@laws
@hypothesis.given(weights, bit_widths, quantizers)
def test_a_fitted_scale_beats_the_largest_magnitude(w, bits, quantizer):
    w = tf.constant(w)
    largest = uniform.max_scale(w, (1,))
    scale = learned_scales.fitted_scale(w, (1,), bits, quantizer)
    assert scale.shape == largest.shape
    assert (scale >= learned_scales.LEAST_SHARE * largest).numpy().all()
    assert (
        squared_error(w, scale, bits, quantizer)
        <= squared_error(w, largest, bits, quantizer)
    ).all()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_fitted_scale_is_near_the_best_of_all(bits):
    w = tf.random.stateless_normal((2000, 1), (0, 1))
    fitted = learned_scales.fitted_scale(w, None, bits)
    best = min(
        squared_error(w, tf.constant([[s]]), bits)[0]
        for s in np.linspace(0.5, 8.0, 500, dtype=np.float32)
    )
    assert squared_error(w, fitted, bits)[0] <= 1.05 * best


def test_dead_channels_start_at_the_mean_scale():
    w = tf.constant([[2.0, 0.0], [1.0, 0.0], [-0.5, 0.0]])
    scale = learned_scales.fitted_scale(w, (1,), 8)
    np.testing.assert_allclose(scale[0, 1], 2.0)
    zeros = learned_scales.fitted_scale(tf.zeros((3, 2)), (1,), 8)
    np.testing.assert_array_equal(zeros, [[1.0, 1.0]])


def test_one_more_variable_a_weight_and_none_by_default(tiny):
    before = [id(v) for v in tiny.trainable_variables]
    assert msq_tf.quantize_model(tiny).learned_scales is None
    qmodel = msq_tf.quantize_model(tiny, CONFIG)
    added = [v for v in qmodel.trainable_variables if id(v) not in before]
    assert [v.shape for v in added] == [(1, 1, 1, 6), (1, 1, 6, 1), (1, 4)]
    per_tensor = msq_tf.MSQConfig(
        scale="learned", granularity=msq_tf.PerTensor()
    )
    qmodel = msq_tf.quantize_model(tiny, per_tensor)
    assert [v.size for v in scales_of(qmodel)] == [1, 1, 1]


@pytest.mark.slow
def test_everything_computes_with_the_trained_scale(tiny_data):
    qmodel = learned_model()
    before = scales_of(qmodel)
    fit(qmodel, tiny_data, epochs=1)
    for old, new in zip(before, scales_of(qmodel), strict=True):
        assert (old != new).all()
    after = scales_of(qmodel)
    qmodel.set_bits({"conv": 4, "dw": 2, "head": 3})
    for old, new, used in zip(
        after, scales_of(qmodel), qmodel.scales(), strict=True
    ):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, used)
    baked = msq_tf.bake(qmodel)
    records = qmodel.quantized_weights()
    for path, value, record, used in zip(
        qmodel.paths,
        qmodel.quantized_values(),
        records,
        qmodel.scales(),
        strict=True,
    ):
        np.testing.assert_array_equal(record.values, value)
        np.testing.assert_array_equal(
            record.step, used / 2.0 ** (record.bits - 1)
        )
        layer = baked.get_layer(path)
        np.testing.assert_array_equal(layer.kernel, value)
    x = tiny_data[0]
    np.testing.assert_array_equal(
        baked(x, training=False), qmodel(x, training=False)
    )


@pytest.mark.slow
def test_survives_every_checkpoint(tiny_data, tmp_path):
    qmodel = learned_model()
    backup = keras.callbacks.BackupAndRestore(
        tmp_path / "backup", delete_checkpoint=False
    )
    fit(qmodel, tiny_data, backup, epochs=1)
    qmodel.save(tmp_path / "m.keras")
    qmodel.save_weights(tmp_path / "m.weights.h5")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.scale == "learned"
    again = compile_model(msq_tf.MSQModel.from_config(qmodel.get_config()))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "m.weights.h5")
    for model in (loaded, again):
        assert_same_codes(model, qmodel)
        for a, b in zip(
            model.optimizer.variables, qmodel.optimizer.variables, strict=True
        ):
            np.testing.assert_array_equal(a, b)
    restored = learned_model()
    fit(restored, tiny_data, backup, epochs=2)
    fit(qmodel, tiny_data, epochs=1)
    assert_same_codes(restored, qmodel)


def assert_same_codes(one, other):
    for a, b in zip(
        one.quantized_weights(), other.quantized_weights(), strict=True
    ):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.step, b.step)


@pytest.mark.first(1)
@pytest.mark.parametrize("loss_scaled", [False, True])
def test_scales_are_not_decayed(loss_scaled, tiny, tmp_path):
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    inner.exclude_from_weight_decay(var_names=["gamma"])
    optimizer = inner
    if loss_scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(inner)
    qmodel = compile_model(msq_tf.quantize_model(tiny, CONFIG), optimizer)
    optimizer.build(qmodel.trainable_variables)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    compile_model(qmodel, optimizer)  # built by now
    for model in (qmodel, loaded):
        kept = {id(v) for v in model.learned_scales.scale}
        if model is qmodel:
            kept.add(id(tiny.get_layer("bn").gamma))
        before = [v.numpy() for v in model.trainable_variables]
        zeros = [tf.zeros_like(v) for v in before]
        model.optimizer.apply(zeros, model.trainable_variables)
        for v, old in zip(model.trainable_variables, before, strict=True):
            decayed = id(v) not in kept
            want = old * (0.95 if decayed else 1.0)
            np.testing.assert_allclose(v, want, rtol=1e-6, err_msg=v.path)


@pytest.mark.slow
def test_the_scale_of_a_frozen_weight_is_frozen(tiny, tiny_data):
    tiny.get_layer("conv").trainable = False
    qmodel = learned_model(tiny)
    before = scales_of(qmodel)
    fit(qmodel, tiny_data, epochs=1)
    moved = [
        (a != b).any() for a, b in zip(before, scales_of(qmodel), strict=True)
    ]
    assert moved == [False, True, True]
    tiny.get_layer("conv").trainable = True
    compile_model(qmodel)
    scale = qmodel.learned_scales.scale[0]
    assert any(v is scale for v in qmodel.trainable_variables)


@pytest.mark.slow
def test_a_scale_that_overshoots_stays_positive_and_comes_back(tiny_data):
    qmodel = learned_model()
    variable = qmodel.learned_scales.scale[0]
    variable.assign(-tf.ones_like(variable))
    largest = np.abs(qmodel.kernels[0].numpy()).max((0, 1, 2), keepdims=True)
    np.testing.assert_array_equal(qmodel.scales()[0], largest / 128)
    record = qmodel.quantized_weights()[0]
    np.testing.assert_array_equal(record.step, largest / 128 / 128)
    np.testing.assert_array_equal(record.values, qmodel.quantized_values()[0])
    kernel = qmodel.kernels[0].numpy()
    with tf.GradientTape() as tape:
        error = tf.reduce_sum((qmodel.quantized_values()[0] - kernel) ** 2)
    assert (tape.gradient(error, variable.value) < 0).numpy().all()
    fit(qmodel, tiny_data, epochs=1)
    assert all((w.step > 0).all() for w in qmodel.quantized_weights())


def test_a_scale_that_is_not_finite():
    qmodel = learned_model()
    variable = qmodel.learned_scales.scale[2]
    variable.assign([[1.0, np.nan, np.inf, 1.0]])
    with pytest.raises(ValueError, match="scale of weight 'head'.*2 of 4"):
        qmodel.quantized_weights()


def test_hessian_and_penalty_know_kernels_only(tiny_data):
    qmodel = learned_model()
    qmodel.search.lsb.assign([1, 2, 1])
    qmodel.search.strength.assign(1.0)
    scales = [v.value for v in qmodel.learned_scales.scale]
    kernels = [v.value for v in qmodel.kernels]
    x, y = (tf.constant(array) for array in tiny_data)
    with tf.GradientTape(persistent=True) as tape:
        loss = qmodel.loss_at(qmodel.quantized_values(), (x, y, None))
        given = qmodel.loss_at(kernels, (x, y, None))
        qmodel(x, training=True)
        penalty = tf.add_n(qmodel.losses)
    # Through the values to the scales, and past them where those are given.
    assert all(np.any(g) for g in tape.gradient(loss, scales))
    assert tape.gradient(given, scales) == [None] * 3
    assert float(penalty) > 0.0
    assert all(np.any(g) for g in tape.gradient(penalty, kernels))
    assert not any(np.any(g) for g in tape.gradient(penalty, scales))


@pytest.mark.slow
def test_a_search_reaches_its_target(tiny_data):
    qmodel = learned_model()
    search = msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8.0))
    history = fit(qmodel, tiny_data, search)
    assert qmodel.compression >= 8.0
    assert np.isfinite(history.history["loss"]).all()
