"""What attention computes between its layers is rounded as in a file."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3 import activation_sites
from msq_tf.keras3 import attention
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.call_hooks import Visitor
from msq_tf.keras3.flow import Trace

L = keras.layers
CONFIG = msq_tf.MSQConfig(activation_bits=8)
PLACES = [
    "input",
    "a/query",
    "a/key",
    "a/value",
    "a/softmax/scores",
    "a/softmax",
    "a/attention_output/read",
    "a/attention_output",
]


def data(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def tokens(count=64):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 20, (count, 6))
    return np.where(np.arange(6) < rng.integers(2, 7, (count, 1)), ids, 0)


def model_of(layer, shape=(6, 8), **named):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    x = layer(inputs, inputs, **named)
    return keras.Model(inputs, L.Dense(3, name="dense")(L.Flatten()(x)))


def padded(layer, **named):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=2.0)
    x = L.Embedding(20, 8, mask_zero=True, embeddings_initializer=wide)(inputs)
    x = layer(x, x, **named)
    return keras.Model(inputs, L.Dense(3, name="dense")(x[:, 0]))


def paths(found):
    """Names of sites; Keras numbers a softmax without a name."""
    return [re.sub(r"(softmax)_\d+", r"\1", site.path) for site in found]


class Open(Visitor):
    """A visitor that has attention compute by layers, and changes nothing."""

    def __init__(self, seen):
        self.seen = seen

    def opens(self, layer):
        self.seen.append(layer)
        return True

    def context(self, layer, outputs):
        assert layer is self.seen[-1]
        return outputs


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.MultiHeadAttention(2, 4, name="a"),
        lambda: L.MultiHeadAttention(2, 4, dropout=0.1, name="a"),
        lambda: L.MultiHeadAttention(2, 4, value_dim=5, name="a"),
        lambda: L.GroupQueryAttention(4, 4, 2, name="a"),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_scores_probabilities_and_context_are_sites(layer, causal):
    model = model_of(layer(), use_causal_mask=causal)
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert paths(found) == [*PLACES, "dense"]
    assert [site.fixed for site in found][5] == "softmax"


GATED = [
    *("input", "a/gate/preactivation", "a/gate"),
    *PLACES[1:6],
    "a/softmax/context",
    *PLACES[6:],
]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.MultiHeadAttention(2, 4, use_gate=True, name="a"),
        lambda: L.GroupQueryAttention(4, 4, 2, use_gate=True, name="a"),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_gate_and_the_context_that_it_multiplies_are_sites(layer, times):
    layer = layer()
    inputs = keras.Input((6, 8))
    x = layer(inputs, inputs)
    x = layer(x, inputs) if times > 1 else x
    model = keras.Model(inputs, L.Dense(3, name="dense")(x))
    qmodel = msq_tf.quantize_model(model, CONFIG)
    again = [f"{name}#2" for name in GATED[1:]] * (times - 1)
    found = qmodel.activations.sites
    assert paths(found) == [*GATED, *again, "dense"]
    assert found[2].fixed == "sigmoid"
    x = data(16, 6, 8)
    msq_tf.calibrate(qmodel, x)
    wanted, got = model(x).numpy(), qmodel(x).numpy()
    assert 0.0 < np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)


class Highway(L.Layer):
    """A gate that a layer of one's own multiplies and subtracts."""

    def build(self, shape):
        self.gate = L.Dense(shape[-1], activation="sigmoid", name="gate")
        self.gate.build(shape)
        self.value = L.Dense(shape[-1], name="value")
        self.value.build(shape)

    def call(self, x):
        gate = self.gate(x)
        return self.value(x) * gate + x * (1.0 - gate)


def test_a_gate_in_a_layer_of_ones_own_has_its_grid():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(3, name="d")(Highway(name="a")(inputs)))
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert ("a/gate", "sigmoid") in [(s.path, s.fixed) for s in found]


def test_so_they_are_in_attention_over_two_axes():
    layer = L.MultiHeadAttention(2, 4, attention_axes=(1, 2), name="a")
    found = msq_tf.quantize_model(model_of(layer, (3, 4, 8)), CONFIG)
    assert paths(found.activations.sites)[:-1] == PLACES


@pytest.mark.parametrize(
    ("layer", "before"),
    [
        (lambda: L.Attention(name="a"), []),
        (
            lambda: L.Attention(score_mode="concat", name="a"),
            ["a/pairs", "a/tanh"],
        ),
        (
            lambda: L.AdditiveAttention(name="a"),
            ["a/pairs", "a/tanh", "a/weighted"],
        ),
        (
            lambda: L.AdditiveAttention(use_scale=False, name="a"),
            ["a/pairs", "a/tanh"],
        ),
    ],
)
def test_so_they_are_in_attention_without_weights(layer, before):
    inputs = keras.Input((6, 8))
    model = keras.Model(
        inputs, L.Dense(2, name="dense")(layer()([inputs, inputs]))
    )
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    fixed = [site.fixed for site in found if site.place == "tanh"]
    assert fixed == ["tanh"] * bool(before)
    assert paths(found) == [
        "input",
        *before,
        "a/scores",
        "a/probabilities",
        "a",
        "dense",
    ]


def test_each_call_of_a_shared_layer_has_its_own():
    inputs = keras.Input((6, 8))
    layer = L.MultiHeadAttention(2, 4, name="a")
    model = keras.Model(inputs, layer(layer(inputs, inputs), inputs))
    found = paths(msq_tf.quantize_model(model, CONFIG).activations.sites)
    assert "a/softmax/scores#2" in found
    assert "a/attention_output/read#2" in found


@keras.saving.register_keras_serializable(package="tests")
class ByHand(L.Layer):
    """Attention as KerasHub's backbones write it, with a softmax layer."""

    def build(self, shape):
        for name in ("query", "key", "value", "out"):
            setattr(self, name, L.Dense(shape[-1], name=name))
            getattr(self, name).build(shape)
        self.softmax = L.Softmax(name="softmax")
        self.dropout = L.Dropout(0.1)

    def call(self, x, training=None):
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = keras.ops.einsum("bqd,bkd->bqk", q, k)
        kept = keras.ops.tri(x.shape[1], dtype="bool")[None]
        weights = self.softmax(scores, mask=kept)
        x = keras.ops.einsum("bqk,bkd->bqd", weights, v)
        return self.out(self.dropout(x, training=training))


def test_a_layer_of_ones_own_with_a_softmax_layer():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, ByHand(name="a")(inputs))
    found = msq_tf.quantize_model(model, CONFIG).activations.sites
    assert paths(found) == [
        "input",
        "a/query",
        "a/key",
        "a/value",
        "a/softmax/scores",
        "a/softmax",
        "a/out/read",
        "a/out",
    ]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.MultiHeadAttention(2, 4),
        lambda: L.MultiHeadAttention(2, 4, value_dim=3),
        lambda: L.GroupQueryAttention(4, 4, 2),
    ],
)
@pytest.mark.parametrize("named", [{}, {"use_causal_mask": True}])
def test_layers_compute_what_the_operation_computes(layer, named):
    layer, x, seen = layer(), data(2, 6, 8), []
    wanted = layer(x, x, **named)
    attention.install(layer)
    with CallScope(Open(seen)):
        got = layer(x, x, **named)
    assert seen == [layer]
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_array_equal(layer(x, x, **named), wanted)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Attention(),
        lambda: L.Attention(use_scale=True),
        lambda: L.Attention(score_mode="concat"),
        lambda: L.Attention(use_scale=True, score_mode="concat", dropout=0.5),
        lambda: L.AdditiveAttention(),
        lambda: L.AdditiveAttention(use_scale=False),
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        {},
        {"use_causal_mask": True},
        {"mask": [None, data(2, 6) > 0.0]},
        {"mask": [data(2, 6) > 0.0] * 2, "use_causal_mask": True},
        {"return_attention_scores": True},
    ],
    ids=str,
)
def test_its_parts_compute_what_it_computes(layer, named):
    layer, x, seen = layer(), data(2, 6, 8), []
    wanted = layer([x, x], **named)
    parts = attention.computes(
        layer, layer.call, lambda x, place: seen.append(place) or x
    )
    got = parts([tf.constant(x)] * 2, **named)
    for one, other in zip(
        keras.tree.flatten(got), keras.tree.flatten(wanted), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    before = attention.places_before_scores(layer)
    assert seen == [*before, "scores", "probabilities"]


def test_what_is_masked_has_no_part_in_the_range():
    x = tf.constant([[1.0, -2.0, -1e9], [-1e9, -1e9, -1e9], [-50.0, 3.0, 0.0]])
    got = attention.within_reach(x, L.Softmax(), 8).numpy()
    reach = math.log(256 * 3)
    np.testing.assert_allclose(got[0], [1.0, -2.0, 1.0 - reach], rtol=1e-6)
    np.testing.assert_array_equal(got[1], 0.0)
    np.testing.assert_allclose(got[2], [3.0 - reach, 3.0, 0.0], rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True])
def test_masked_models_are_near_their_float_ones(dropout, causal):
    layer = L.MultiHeadAttention(2, 4, dropout=dropout, name="a")
    model = padded(layer, use_causal_mask=causal)
    qmodel = msq_tf.quantize_model(model, CONFIG)
    x = tokens()
    msq_tf.calibrate(qmodel, x)
    quantizers = qmodel.activation_quantizers
    names = paths(site for site in qmodel.activations.trained_sites)
    ranges = dict(zip(names, quantizers.trained_ranges(), strict=True))
    assert ranges["a/softmax/scores"].low > -40.0
    wanted, got = model(x).numpy(), qmodel(x).numpy()
    assert np.abs(got - wanted).max() < 0.05 * np.ptp(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_it_trains(policy, ranges, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = padded(L.MultiHeadAttention(2, 4, dropout=0.2, name="a"))
        qmodel = msq_tf.quantize_model(
            model, msq_tf.MSQConfig(activation_bits=8, activation_ranges=ranges)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    qmodel.compile("sgd", "mse", jit_compile=False)
    x = tokens(32)
    history = qmodel.fit(x, data(32, 3), verbose=0, epochs=2).history
    assert np.isfinite(history["loss"]).all()
    quantizers = qmodel.activation_quantizers
    names = paths(site for site in qmodel.activations.trained_sites)
    found = dict(zip(names, quantizers.trained_ranges(), strict=True))
    assert -60.0 < found["a/softmax/scores"].low < -1.0
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert loaded.activations == qmodel.activations
    np.testing.assert_array_equal(loaded(x), qmodel(x))


def test_a_model_of_before_computes_as_before(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attention, "has_scores", lambda *_: False)
        patch.setattr(activation_sites, "_reads_between", lambda *_: False)
        patch.setattr(Trace, "is_multiplied", lambda *_: False)
        old = msq_tf.quantize_model(
            model_of(L.MultiHeadAttention(2, 4, name="a")), CONFIG
        )
    places = paths(old.activations.sites)
    assert places == [*PLACES[:4], PLACES[-1], "dense"]
    x = data(16, 6, 8)
    msq_tf.calibrate(old, x)
    seen = []
    attend = keras.ops.dot_product_attention
    monkeypatch.setattr(
        keras.src.ops,
        "dot_product_attention",
        lambda *a, **k: seen.append(0) or attend(*a, **k),
    )
    old.save(tmp_path / "old.keras")
    loaded = keras.saving.load_model(tmp_path / "old.keras")
    assert loaded.activations == old.activations
    np.testing.assert_array_equal(loaded(x), old(x))
    assert seen


def test_without_rounded_activations_layers_are_as_they_were():
    model = model_of(L.MultiHeadAttention(2, 4, name="a"))
    msq_tf.quantize_model(model)
    assert "_compute_attention" not in vars(model.get_layer("a"))
