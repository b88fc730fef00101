"""Saved configurations are checked as arguments are."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.keras3.activations import ActivationPlan


def network(name="first"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(4, activation="relu", name=name)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="second")(x))


@pytest.fixture(scope="module")
def config():
    qmodel = msq_tf.quantize_model(
        network(), msq_tf.MSQConfig(activation_bits=8)
    )
    return qmodel.get_config()


def put(*way):
    """A change of one value: its way, and the value."""
    *steps, last, value = way

    def change(config):
        for step in steps:
            config = config[step]
        config[last] = value

    return change


def doubled(*way):
    """A change that has the first entry of a list twice."""

    def change(config):
        *steps, last = way
        for step in steps:
            config = config[step]
        config[last] = [config[last][0], *config[last]]

    return change


SITES = ("activations", "sites")
BIASES = ("activations", "biases")
CASES = [
    (put("plan", 0, "path", 7), "path=7"),
    (put("plan", 0, "path", ""), "path=''"),
    (put("plan", 0, "path", "a\x1b[2Jb"), r"a\\x1b\[2Jb"),
    (put("plan", 0, "path", "a\u202eb"), r"a\\u202eb"),
    (put("plan", 0, "layer", "De\nnse"), r"De\\nnse"),
    (put("plan", 0, "attribute", None), "attribute=None"),
    (put("plan", 0, "skip_reason", ["x"]), "skip_reason="),
    (put("plan", 0, "quantizable", 1), "quantizable=1"),
    (put("plan", 0, "start_bits", 8.0), "start_bits=8.0"),
    (put("plan", 0, "min_bits", True), "min_bits=True"),
    (put("plan", 0, "start_bits", None), "start_bits=None"),
    (put("plan", 0, "granularity", ["per_tensor"]), "granularity"),
    (put("plan", 0, "channel_axes", [1.0]), "axis="),
    (put("plan", 0, "channel_axes", [1, 1]), "axis="),
    (put("plan", 0, "channel_axes", [9]), "no such axis"),
    (put("plan", 0, "layout", "round"), "round"),
    (put("plan", 0, "scale_count", -1), "scale_count=-1"),
    (put("plan", 0, "scale_count", 9.0), "scale_count=9.0"),
    (put("plan", 0, "scale_count", 1 << 80), "more than a weight can have"),
    (put("plan", 0, "more", 1), "saved WeightPlan"),
    (put("plan", {"a": 1}), "list of mappings"),
    (put("plan", [1]), "list of mappings"),
    (doubled("plan"), "path.*two of 'first'"),
    (put(*SITES, 0, "path", 7), "path=7"),
    (put(*SITES, 0, "path", "\x00"), "x00"),
    (put(*SITES, 0, "layer", -5), "layer=-5"),
    (put(*SITES, 0, "layer", 1.0), "layer=1.0"),
    (put(*SITES, 0, "layer", True), "layer=True"),
    (put(*SITES, 1, "layer", 99), "more than 99 layers"),
    (put(*SITES, 0, "call", -1), "call=-1"),
    (put(*SITES, 0, "like", 0.0), "like=0.0"),
    (put(*SITES, 0, "like", 0), "earlier one"),
    (put(*SITES, 0, "place", 1.0), "place=1.0"),
    (put(*SITES, 0, "more", 1), "saved Site"),
    (put(*SITES, "sites"), "list of mappings"),
    (doubled(*SITES), "layer, call and place"),
    (put(*BIASES, 0, "layer", -1), "layer=-1"),
    (put(*BIASES, 0, "site", 99), "at its 3 sites"),
    (put(*BIASES, 0, "norm", -2), "norm=-2"),
    (put(*BIASES, 0, "norm_call", 0.5), "norm_call=0.5"),
    (doubled(*BIASES), "of a bias"),
    (put("activations", "bits", 8.0), "bits=8.0"),
    (put("activations", "more", 1), "saved ActivationPlan"),
    (put("optimizers", {"optimizer": [-1]}), "at least 0"),
    (put("optimizers", {"optimizer": "all"}), "lists of variables"),
    (put("optimizers", []), "mapping"),
    (put("quantizer", 1.0), "quantizer=1.0"),
]


@pytest.mark.parametrize("change, reason", CASES)
def test_what_only_a_made_up_file_says(change, reason, config):
    changed = copy.deepcopy(config)
    change(changed)
    with pytest.raises(ValueError, match=reason) as caught:
        msq_tf.MSQModel.from_config(changed)
    assert str(caught.value).isprintable()


def test_fewest_bits_beyond_the_first(config):
    entry = config["plan"][0] | {"start_bits": 4, "min_bits": 5}
    with pytest.raises(ValueError, match="cannot exceed.*min_bits=5"):
        WeightPlan.from_config(entry)


@pytest.mark.parametrize("field", ["path", "layer", "granularity"])
def test_a_field_that_is_missing(field, config):
    entry = dict(config["plan"][0])
    del entry[field]
    with pytest.raises(ValueError, match="Received"):
        WeightPlan.from_config(entry)
    with pytest.raises(ValueError, match="saved ActivationPlan"):
        ActivationPlan.from_config({"sites": [], "bits": 8})


def test_what_was_saved_before_comes_back(config):
    old = copy.deepcopy(config)
    for entry in old["plan"]:
        del entry["layout"], entry["channel_axes"]
        del entry["skip_reason"], entry["quantizable"], entry["scale_count"]
    del old["activations"]["biases"], old["optimizers"]
    loaded = msq_tf.MSQModel.from_config(old)
    assert loaded.bits == {"first": 8, "second": 8}
    again = msq_tf.MSQModel.from_config(config).get_config()
    for key in ("plan", "activations", "optimizers"):
        assert again[key] == config[key]


def test_a_layer_that_is_called_like_the_input(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    qmodel = msq_tf.quantize_model(
        network("input"), msq_tf.MSQConfig(activation_bits=8)
    )
    paths = [site.path for site in qmodel.activations.sites]
    assert paths == ["input", "input_1", "second"]
    # Files from before have the name twice.
    config = qmodel.get_config()
    config["activations"]["sites"][1]["path"] = "input"
    loaded = msq_tf.MSQModel.from_config(config)
    np.testing.assert_array_equal(loaded(x).shape, (8, 2))


@pytest.mark.parametrize("bits", [8.0, True])
def test_bits_that_equal_an_integer(bits):
    with pytest.raises(ValueError, match="activation_bits="):
        msq_tf.MSQConfig(activation_bits=bits)
