"""Weights that inference never reads are left out, and said to be."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export

L = keras.layers


def encoder_with_a_variance():
    """An encoder of which only the mean goes on."""
    inputs = keras.Input((6,))
    x = L.Dense(8, activation="relu", name="hidden")(inputs)
    both = [L.Dense(3, name="mean")(x), L.Dense(3, name="log_variance")(x)]
    encoder = keras.Model(inputs, both, name="encoder")
    outer = keras.Input((6,))
    return keras.Model(outer, L.Dense(6, name="out")(encoder(outer)[0]))


class WithHead(keras.Model):
    """A head for training, a teacher, and a discriminator."""

    def __init__(self, units=5):
        super().__init__()
        self.body = L.Dense(8, activation="relu", name="body")
        self.out = L.Dense(3, name="out")
        self.head = L.Dense(units, name="head")
        self.critic = keras.Sequential(
            [keras.Input((3,)), L.Dense(1, name="score")], name="critic"
        )

    def call(self, x, training=False):
        x = self.body(x)
        unused = self.head(x)
        del unused
        return self.out(x)


def with_head(units=5):
    model = WithHead(units)
    model(np.zeros((1, 6), "f"))
    return model


X = np.random.default_rng(0).normal(size=(8, 6)).astype("f")
MODELS = {
    "nested": (encoder_with_a_variance, None, ["encoder/log_variance"]),
    "subclassed": (with_head, X, ["critic/score", "head"]),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", MODELS)
def test_they_are_warned_of_and_count_nowhere(name, tmp_path):
    build, example, unread = MODELS[name]
    with pytest.warns(UserWarning, match=f"never reads.*{unread[-1]}"):
        qmodel = msq_tf.quantize_model(build(), example_inputs=example)
    assert sorted(w.path for w in qmodel.skipped_weights()) == unread
    assert not set(unread) & set(qmodel.bits)
    assert qmodel.compression == 4.0
    assert "inference never" in str(msq_tf.precision_report(qmodel))
    report = export(qmodel, tmp_path / "m.tflite", representative_data=X)
    assert sorted(report.unread) == unread
    assert {t.name for t in report.tensors} == set(qmodel.bits)
    assert report.average_bits == 8.0
    assert any(unread[0] in note for note in report.notes)


def test_an_export_finds_them_where_the_model_did_not_tell(tmp_path):
    qmodel = msq_tf.quantize_model(with_head())
    assert {"critic/score", "head"} < set(qmodel.bits)
    report = export(qmodel, tmp_path / "m.tflite", representative_data=X)
    assert sorted(report.unread) == ["critic/score", "head"]
    assert {t.name for t in report.tensors} == {"body", "out"}
    assert report.ideal_bytes == 6 * 8 + 8 * 3


def test_equal_weights_are_not_taken_for_each_other(tmp_path):
    """Where one of two equal ones is read, neither is said to be unread."""
    model = with_head(3)
    model.head.set_weights(model.out.get_weights())
    report = export(
        msq_tf.quantize_model(model),
        tmp_path / "m.tflite",
        representative_data=X,
    )
    assert report.unread == ("critic/score",)


def test_what_is_read_is_not_warned_of():
    inputs = keras.Input((6,))
    x = L.Dense(8, name="a")(inputs)
    msq_tf.quantize_model(keras.Model(inputs, [L.Dense(2)(x), L.Dense(3)(x)]))


class Broken(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2, name="dense")
        self.dense.build((None, 6))
        self.built = True

    def call(self, x):
        raise NotImplementedError


def test_a_model_that_cannot_run_is_not_the_finders_matter():
    qmodel = msq_tf.quantize_model(Broken(), example_inputs=X)
    assert list(qmodel.bits) == ["dense"]
