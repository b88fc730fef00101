"""What is no argument at all: a message for each, before any work."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf import extras
from msq_tf.rules import target_limits
from tests.msq_tf.samples import budget


@pytest.mark.parametrize(
    "arguments",
    [
        {"samples": "256"},
        {"batch_size": 1.5},
        {"interval": [1]},
        {"lsb_strength": "x"},
        {"lsb_strength": -1.0},
        {"ranking": "best"},
        {"hessian": "no"},
        {"hessian_every": 0},
        {"max_probes": True},
        {"tolerance": "0.1"},
        {"seed": "a"},
        {"verbose": "yes"},
        {"log_dir": 3},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_of_the_callback(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        msq_tf.MSQCallback(budget(), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"overrides": [1]},
        {"overrides": {3: msq_tf.LayerConfig()}},
        {"targets": 8},
        {"targets": [["mcu"]]},
        {"activation_bits": 8.0},
        {"start_bits": "8"},
    ],
)
def test_of_the_config(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        msq_tf.MSQConfig(**arguments)
    with pytest.raises(ValueError, match="skip.*Received"):
        msq_tf.LayerConfig(skip="yes")


@pytest.mark.parametrize("callbacks", [list, lambda rules: rules[0]])
def test_a_rule_is_no_callback(tiny, tiny_data, callbacks):
    qmodel = msq_tf.quantize_model(tiny)
    qmodel.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"MSQCallback\(rule\).*Received"):
        qmodel.fit(*tiny_data, callbacks=callbacks([budget()]), verbose=0)


@pytest.mark.parametrize("bits", [4, ["conv"], None, "conv"])
def test_bits_that_are_no_dictionary(tiny, bits):
    qmodel = msq_tf.quantize_model(tiny)
    with pytest.raises(ValueError, match="dictionary.*Received: bits="):
        qmodel.set_bits(bits)


def test_of_quantize_model(tiny):
    with pytest.raises(ValueError, match="an MSQConfig.*Received"):
        msq_tf.quantize_model(tiny, {"activation_bits": 8})
    with pytest.raises(ValueError, match=r"filters.*unterminated.*Received"):
        msq_tf.quantize_model(tiny, filters="(")


@pytest.mark.parametrize("x", [None, "x", np.zeros((4, 5), np.float32)])
def test_of_calibrate(x):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    with pytest.raises(ValueError, match="(?s)Expected.*Received: x"):
        msq_tf.calibrate(qmodel, x)


@pytest.mark.parametrize("path", [3, "", "a.txt"])
def test_of_a_picture(tiny, path):
    report = msq_tf.precision_report(msq_tf.quantize_model(tiny))
    with pytest.raises(ValueError, match="Received: path="):
        report.plot(path)


def test_tools_that_are_missing_are_told_of_before_training(tiny, monkeypatch):
    config = msq_tf.MSQConfig(activation_bits=8, targets=("mcu", "min_size"))
    monkeypatch.setitem(extras.MODULES, "mcu", ("no_such_module",))
    (said,) = target_limits.not_installed(config.targets)
    assert said.startswith("target 'mcu' needs no_such_module: pip install '")
    with pytest.warns(UserWarning, match="'mcu' needs no_such_module"):
        msq_tf.quantize_model(tiny, config)


@pytest.mark.parametrize("extra", extras.MODULES)
def test_an_extra_can_be_installed_without_a_clone(extra):
    """The package is on no index, so `msq-tf[mcu]` is nothing to install."""
    said = extras.install(extra)
    assert re.fullmatch(r"pip install( '[a-z_-]+(>=[\w.]+)?')+", said)


def test_what_is_not_installed_is_installed_from_the_clone(monkeypatch):
    monkeypatch.setattr(extras, "_PROJECT", "no-such-project")
    assert extras.install("mcu").startswith("pip install '.[mcu]' in a clone")


def test_extras_are_those_of_the_project(root):
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    known = set(project["optional-dependencies"]) - {"dev"}
    assert set(extras.MODULES) == known
