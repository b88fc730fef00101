"""The table of KerasHub's layers, which it need not be installed for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.core import hub_layers

BANK = "_expert_feedforward_output_dense"


class PositionEmbedding(keras.layers.Layer):
    """As KerasHub's, by its name and its weight's."""

    def build(self, shape):
        self.position_embeddings = self.add_weight(
            shape=(4, shape[-1]),
            initializer="normal",
            name="position_embeddings",
        )

    def call(self, x):
        return x + self.position_embeddings


class MixtralMoeExperts(keras.layers.Layer):
    def build(self, shape):
        setattr(self, BANK, self.add_weight(shape=(3, shape[-1], 2), name="w"))

    def call(self, x):
        return keras.ops.einsum("bti,eih->bth", x, getattr(self, BANK))


def quantized(layer):
    inputs = keras.Input((4, 5))
    head = keras.layers.Dense(2, name="head")
    return msq_tf.quantize_model(keras.Model(inputs, head(layer(inputs))))


@pytest.fixture
def of_keras_hub(monkeypatch):
    for kind in (PositionEmbedding, MixtralMoeExperts):
        monkeypatch.setattr(kind, "__module__", "keras_hub.src.layers")


def test_a_class_of_that_name_elsewhere_is_not_known():
    qmodel = quantized(PositionEmbedding(name="positions"))
    assert set(qmodel.bits) == {"head"}


def test_positions_have_one_scale(of_keras_hub):
    qmodel = quantized(PositionEmbedding(name="positions"))
    assert set(qmodel.bits) == {"positions", "head"}
    (weight,) = [w for w in qmodel.quantized_weights() if w.path != "head"]
    assert weight.step.size == 1


def test_subclasses_are_known(of_keras_hub):
    class Own(PositionEmbedding):
        pass

    assert "positions" in quantized(Own(name="positions")).bits


def test_a_bank_has_a_scale_for_each_expert_and_feature(of_keras_hub):
    qmodel = quantized(MixtralMoeExperts(name="experts"))
    (weight,) = [w for w in qmodel.quantized_weights() if w.path != "head"]
    assert weight.step.shape == (3, 1, 2)
    assert weight.codes.shape == (3, 5, 2)
    assert np.unique(weight.step).size == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_table_names_layers_and_weights_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    from benchmarks.files import hub_models

    found = {}
    for name in ("Mixtral", "Bert", "ViTDet", "RWKV7", "DeiT", "T5"):
        model = hub_models.build(hub_models.row(name))
        for layer in model._flatten_layers():
            for spec in hub_layers.specs_of(type(layer)):
                key = type(layer).__name__, spec.attribute
                # Only the first layer of T5 has a table, for instance.
                there = hasattr(layer, spec.attribute)
                found[key] = found.get(key, False) or there
    assert hub.__version__ and len(found) > 15
    assert all(found.values())
