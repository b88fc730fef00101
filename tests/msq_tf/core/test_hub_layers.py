"""The table of KerasHub's layers, which it need not be installed for."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

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
    # For the training of teachers.
    del found["DeiTEmbeddings", "mask_token"]
    assert hub.__version__ and len(found) > 15
    assert all(found.values())


def matrices(source):
    """`(class, attribute)` of weights of two or more axes that code adds."""
    for owner in ast.walk(ast.parse(source)):
        if not isinstance(owner, ast.ClassDef):
            continue
        for node in ast.walk(owner):
            match node:
                case ast.Assign(
                    targets=[ast.Attribute(attr=attribute)],
                    value=ast.Call(func=ast.Attribute(attr="add_weight")),
                ):
                    call = node.value
                case _:
                    continue
            named = {word.arg: word.value for word in call.keywords}
            shape = named.get("shape", call.args[0] if call.args else None)
            kind = named.get("dtype")
            whole = kind is not None and "int" in ast.unparse(kind)
            if len(getattr(shape, "elts", ())) > 1 and not whole:
                yield owner.name, attribute


@pytest.mark.slow
def test_every_matrix_of_keras_hub_has_a_rule():
    """A release with another layer shows up here."""
    found = importlib.util.find_spec("keras_hub")
    if found is None:
        pytest.skip("keras-hub is not installed (extra `hub`)")
    seen = set()
    for path in Path(found.origin).parent.glob("src/**/*.py"):
        seen.update(matrices(path.read_text()))
    # What only its training reads, is found by tracing.
    seen.discard(("VectorQuantizerEMA", "ema_w"))
    assert len(seen) > 40
    known = {
        (owner, spec.attribute)
        for owner, specs in hub_layers._LAYERS.items()
        for spec in specs
    }
    assert not seen - known


def test_the_cell_of_a_convolutional_lstm_is_known():
    inputs = keras.Input((3, 4, 4, 1))
    layer = keras.layers.ConvLSTM2D(2, 2, name="lstm")
    head = keras.layers.Dense(2, name="head")
    outputs = head(keras.layers.Flatten()(layer(inputs)))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, outputs))
    cell = f"lstm/{layer.cell.name}"
    assert set(qmodel.bits) == {
        f"{cell}/kernel",
        f"{cell}/recurrent_kernel",
        "head",
    }
    kernel = qmodel.quantized_weights()[0]
    assert kernel.step.shape == (1, 1, 1, 8)
