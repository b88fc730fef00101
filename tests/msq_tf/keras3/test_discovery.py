"""Weights of layers that MSQ does not know: found, named, brought back."""

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.keras3 import registry


@keras.saving.register_keras_serializable(package="discovery_tests")
class Mixer(keras.layers.Layer):
    """Weights in an attribute of another name, a list, and nowhere."""

    def build(self, shape):
        n = shape[-1]
        self.gate = self.add_weight(shape=(n, n), name="w_gate")
        self._hidden = self.add_weight(shape=(n, n))
        self.kernels = [self.add_weight(shape=(n, n)) for _ in range(2)]
        lost = self.add_weight(shape=(n, 1))
        self._read = lambda: lost
        self.bias = self.add_weight(shape=(1, n), name="bias")
        self.gamma = self.add_weight(shape=(n,))

    def call(self, x):
        for w in (self.gate, self._hidden, *self.kernels):
            x = keras.ops.tanh(keras.ops.matmul(x, w))
        return x * self.gamma + keras.ops.matmul(x, self._read()) + self.bias


UNKNOWN = [
    "mixer/gate",
    "mixer/_hidden",
    "mixer/kernels/0",
    "mixer/kernels/1",
    "mixer/variables/4",
]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            Mixer(name="mixer"),
            keras.layers.Dense(2, name="head"),
        ]
    )


def quantized(model, overrides, **kwargs):
    config = msq_tf.MSQConfig(overrides=overrides)
    return msq_tf.quantize_model(model, config, **kwargs)


def test_unknown_weights_are_listed_with_what_to_do(model):
    qmodel = msq_tf.quantize_model(model)
    assert qmodel.bits == {"head": 8}
    assert [w.path for w in qmodel.skipped_weights()] == UNKNOWN
    for weight in qmodel.skipped_weights():
        assert not weight.quantizable
        assert f"name '{weight.path}' in `overrides`" in weight.reason
        assert "register_quantizable" in weight.reason
    assert qmodel.compression == 4.0
    assert "mixer/gate" in str(msq_tf.precision_report(qmodel))


@pytest.mark.parametrize(
    ("key", "paths"),
    [
        ("mixer/gate", UNKNOWN[:1]),
        (".*/gate", UNKNOWN[:1]),
        (r"mix\w+/_hidden", UNKNOWN[1:2]),
        ("mixer/kernels/1", UNKNOWN[3:4]),
        (r".*/kernels/\d", UNKNOWN[2:4]),
        ("mixer/variables/4", UNKNOWN[4:]),
    ],
)
def test_an_override_that_spells_the_attribute_quantizes(model, key, paths):
    qmodel = quantized(model, {key: msq_tf.LayerConfig(start_bits=6)})
    assert qmodel.bits == {**dict.fromkeys(paths, 6), "head": 8}
    left = [w.path for w in qmodel.skipped_weights()]
    assert left == [path for path in UNKNOWN if path not in paths]


@pytest.mark.parametrize("key", [".*", "mixer/.*"])
def test_a_pattern_that_does_not_spell_it_changes_nothing(model, key):
    """A setting for the rest of a block does not reach unknown weights."""
    config = msq_tf.LayerConfig(start_bits=4)
    overrides = {key: config, "head": msq_tf.LayerConfig()}
    if key == ".*":
        assert quantized(model, {".*": config}).bits == {"head": 4}
    with pytest.raises(ValueError, match="spell its attribute.*Received"):
        quantized(model, overrides)
    skip = msq_tf.LayerConfig(skip=True)
    assert quantized(model, {"mixer/.*": skip}).bits == {"head": 8}


def test_the_axis_of_a_named_weight(model):
    qmodel = quantized(
        model,
        {
            "mixer/gate": msq_tf.LayerConfig(axis=0),
            "mixer/_hidden": msq_tf.LayerConfig(axis=(0, 1)),
            "mixer/kernels/0": msq_tf.LayerConfig(
                granularity=msq_tf.PerTensor()
            ),
            "mixer/kernels/1": msq_tf.LayerConfig(),
        },
    )
    steps = {w.path: w.step.shape for w in qmodel.quantized_weights()}
    assert steps == {
        "mixer/gate": (4, 1),
        "mixer/_hidden": (4, 4),
        "mixer/kernels/0": (1, 1),
        "mixer/kernels/1": (1, 4),
        "head": (1, 2),
    }


@pytest.mark.parametrize(
    ("key", "axis", "message"),
    [
        ("mixer/gate", 2, "'gate' of layer 'mixer' has no such axis"),
        ("mixer/gate", (0, -2), "each once"),
        ("head", -1, "known from the layer's class"),
    ],
)
def test_an_axis_that_cannot_be(model, key, axis, message):
    overrides = {key: msq_tf.LayerConfig(axis=axis)}
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        quantized(model, overrides)


@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        ("mixer|head", ["head"]),
        (["/gate$", "head"], ["mixer/gate", "head"]),
        ("^mixer/kernels", UNKNOWN[2:4]),
        (["mixer/variables/4"], UNKNOWN[4:]),
    ],
)
def test_filters_reach_what_they_spell(model, filters, paths):
    qmodel = msq_tf.quantize_model(model, filters=filters)
    assert list(qmodel.bits) == paths


def test_functions_and_broad_filters_reach_no_unknown_weight(model):
    for filters in (lambda layer: True, "", ["mixer", "head"]):
        qmodel = msq_tf.quantize_model(model, filters=filters)
        assert list(qmodel.bits) == ["head"]
    with pytest.raises(ValueError, match="no layer to quantize.*mixer/gate"):
        msq_tf.quantize_model(model, filters="mixer")


def test_an_override_applies_to_what_a_filter_named(model):
    qmodel = quantized(
        model, {".*": msq_tf.LayerConfig(start_bits=5)}, filters="mixer/gate"
    )
    assert qmodel.bits == {"mixer/gate": 5}
    # A filter leaves out what an override names.
    overrides = {"mixer/gate": msq_tf.LayerConfig()}
    qmodel = quantized(model, overrides, filters="head")
    assert qmodel.bits == {"head": 8}
    reasons = {w.path: w.reason for w in qmodel.skipped_weights()}
    assert reasons["mixer/gate"] == "not selected by `filters`"


def test_extra_weights_of_a_known_layer_are_not_overlooked():
    class Squared(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.extra = self.add_weight(shape=(self.units, self.units))

        def call(self, x):
            return keras.ops.matmul(super().call(x), self.extra)

    model = keras.Sequential([keras.Input((3,)), Squared(4, name="d")])
    qmodel = msq_tf.quantize_model(model)
    assert qmodel.bits == {"d": 8}
    assert [w.path for w in qmodel.skipped_weights()] == ["d/extra"]
    qmodel = quantized(model, {"d/extra": msq_tf.LayerConfig()})
    assert qmodel.bits == {"d": 8, "d/extra": 8}


def test_a_shared_weight_counts_once_where_it_is_known(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    class Tied(keras.layers.Layer):
        def __init__(self, embedding, **kwargs):
            super().__init__(**kwargs)
            self.table = embedding.embeddings

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.table))

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            embedding = keras.layers.Embedding(9, 4, name="words")
            embedding.build()
            self.out = Tied(embedding, name="tied")  # first in traversal
            self.embedding = embedding

        def call(self, x):
            return self.out(self.embedding(x))

    net = Net()
    x = np.arange(6).reshape(2, 3)
    net(x)
    qmodel = msq_tf.quantize_model(net)
    assert qmodel.bits == {"words": 8}
    assert qmodel.skipped_weights() == []
    qmodel.set_bits({"words": 2})
    with qmodel.quantized_scope():
        inside = np.asarray(net.out.table.value)
    np.testing.assert_array_equal(inside, qmodel.quantized_weights()[0].values)


NAMED = {
    "mixer/gate": msq_tf.LayerConfig(axis=0),
    ".*/_hidden": msq_tf.LayerConfig(),
    r".*/kernels/\d+": msq_tf.LayerConfig(granularity=msq_tf.PerTensor()),
    "mixer/variables/4": msq_tf.LayerConfig(),
}


def assert_same(a, b, x):
    assert a.bits == b.bits
    for ours, theirs in zip(
        a.quantized_weights(), b.quantized_weights(), strict=True
    ):
        assert ours.channel_axes == theirs.channel_axes
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        np.testing.assert_array_equal(ours.step, theirs.step)
    np.testing.assert_array_equal(a(x), b(x))


def test_named_weights_are_saved_and_baked(model, tmp_path):
    qmodel = quantized(model, NAMED)
    assert len(qmodel.bits) == 6
    qmodel.set_bits({path: 2 + i for i, path in enumerate(qmodel.paths)})
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.plan == qmodel.plan
    assert_same(loaded, qmodel, x)
    for copy in (qmodel, loaded):
        np.testing.assert_array_equal(msq_tf.bake(copy)(x), qmodel(x))


def test_a_model_saved_with_a_registration_loads_without_it(
    model, tmp_path, monkeypatch
):
    """Axes and layouts are in the file: other ones would change the codes."""
    known = dict(registry._REGISTRY)
    monkeypatch.setattr(registry, "_REGISTRY", known)
    msq_tf.register_quantizable("kernels", "gate", axis=0)(Mixer)
    qmodel = msq_tf.quantize_model(model)
    assert len(qmodel.bits) == 4
    qmodel.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    del known[Mixer]
    assert_same(keras.models.load_model(tmp_path / "m.keras"), qmodel, x)
    msq_tf.register_quantizable("kernels", "gate", axis=1)(Mixer)
    assert_same(keras.models.load_model(tmp_path / "m.keras"), qmodel, x)


def test_a_plan_of_an_older_file_takes_axes_from_the_classes(model):
    qmodel = msq_tf.quantize_model(model)
    old = []
    for entry in qmodel.plan:
        config = entry.to_config()
        del config["channel_axes"], config["layout"]
        old.append(WeightPlan.from_config(config))
    loaded = msq_tf.MSQModel(model, old)
    (weight,) = loaded.quantized_weights()
    assert weight.channel_axes == (1,)
    assert weight.layout is msq_tf.Layout.DENSE


def test_a_weight_that_only_its_registration_finds_says_so(
    tmp_path, monkeypatch
):
    known = dict(registry._REGISTRY)
    monkeypatch.setattr(registry, "_REGISTRY", known)

    @keras.saving.register_keras_serializable(package="discovery_tests")
    class Behind(keras.layers.Layer):
        def build(self, shape):
            self._w = self.add_weight(shape=(shape[-1], 2))

        @property
        def weight(self):
            return self._w

        def call(self, x):
            return keras.ops.matmul(x, self.weight)

    msq_tf.register_quantizable("weight")(Behind)
    model = keras.Sequential([keras.Input((3,)), Behind(name="b")])
    qmodel = msq_tf.quantize_model(model)
    assert qmodel.plan[0].attribute == "weight"
    qmodel.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").bits == {"b": 8}
    del known[Behind]
    with pytest.raises(ValueError, match="does not fit.*register_quantizable"):
        keras.models.load_model(tmp_path / "m.keras")


@keras.saving.register_keras_serializable(package="discovery_tests")
class Distances(keras.layers.Layer):
    """A table of biases by distance, as T5 has it, and true biases."""

    def build(self, shape):
        self.relative_attention_bias = self.add_weight(shape=(8, shape[-1]))
        self.row_bias = self.add_weight(shape=(1, shape[-1]))

    def call(self, x):
        return x + self.relative_attention_bias[2] + self.row_bias


def distances():
    layers = [keras.Input((4,)), Distances(name="t5")]
    return keras.Sequential([*layers, keras.layers.Dense(2, name="head")])


def test_a_table_of_biases_is_listed_and_can_be_named():
    path = "t5/relative_attention_bias"
    qmodel = msq_tf.quantize_model(distances())
    assert [w.path for w in qmodel.skipped_weights()] == [path]
    qmodel = quantized(distances(), {path: msq_tf.LayerConfig(start_bits=4)})
    assert qmodel.bits == {path: 4, "head": 8}


def test_models_of_versions_that_did_not_list_it_come_back():
    qmodel = msq_tf.quantize_model(distances())
    config = qmodel.get_config()
    config["plan"] = [e for e in config["plan"] if e["layer"] == "Dense"]
    loaded = msq_tf.MSQModel.from_config(config)
    assert loaded.bits == qmodel.bits and not loaded.skipped_weights()


def language_model(tied):
    """Logits by the table of the tokens, or by one of their own."""
    tokens = keras.Input((6,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(
        24, 8, tie_weights=tied, name="table"
    )
    x = keras.layers.Dense(8, activation="relu", name="hidden")(table(tokens))
    return keras.Model(tokens, table(x, reverse=True))


def test_logits_may_have_a_table_of_their_own():
    both = {"table/embeddings": 8, "table/reverse_embeddings": 8}
    qmodel = msq_tf.quantize_model(language_model(tied=False))
    assert qmodel.bits == {**both, "hidden": 8}
    assert not qmodel.skipped_weights()
    tied = msq_tf.quantize_model(language_model(tied=True))
    assert tied.bits == {"table": 8, "hidden": 8}


def test_a_model_that_was_saved_without_it_keeps_it_in_float():
    qmodel = msq_tf.quantize_model(language_model(tied=False))
    config = qmodel.get_config()
    own = config["plan"][1]
    assert own["attribute"] == "reverse_embeddings"
    own["quantizable"], own["skip_reason"] = False, "no weight is known"
    config["plan"][0]["path"] = "table"
    loaded = msq_tf.MSQModel.from_config(config)
    assert loaded.bits == {"table": 8, "hidden": 8}
    assert [w.path for w in loaded.skipped_weights()] == [own["path"]]
