"""Models of other kinds: text, several inputs, signals, loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from msq_tf.page import document
from tests.tflite_export.samples import quantized
from tflite_export.flatbuffer import model as fb
from tflite_export.looking import shown

L = keras.layers


def look(model, data, tmp_path, target="cpu_int8", **arguments):
    qmodel = quantized(model)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 4))
    path = tmp_path / "m.tflite"
    tflite_export.export(
        qmodel,
        path,
        target=target,
        representative_data=data,
        min_agreement=0.0,
    )
    found = tflite_export.look(
        path, model=qmodel, representative_data=data, **arguments
    )
    (side,) = found.page.sides
    found.to_json()
    document.embedded(found.page)
    return qmodel, side


@pytest.mark.slow
def test_text_is_shown_in_words(tmp_path):
    x = inputs = keras.Input((12,), dtype="int32", name="tokens")
    x = L.Embedding(20, 8, name="words")(x)
    x = L.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    data = np.random.default_rng(0).integers(0, 20, (16, 12), np.int32)
    words = [f"word{k}" for k in range(20)]
    qmodel, side = look(model, data, tmp_path, words=words)
    # The mean of the words is a convolution of its own in the file.
    keys = [layer.key for layer in side.layers]
    assert [key for key in keys if key in qmodel.paths] == list(qmodel.paths)
    sample = side.samples[0]
    assert sample.inputs[0].form == "tokens"
    assert sample.inputs[0].data == [words[k] for k in data[sample.number]]
    assert side.tensors and side.missing.keys() == {"search"}


@pytest.mark.slow
def test_several_inputs_by_name(tmp_path):
    a = keras.Input((8, 8, 1), name="picture")
    b = keras.Input((32, 2), name="signal")
    y = L.Conv2D(4, 3, name="conv")(a)
    y = L.Concatenate()([L.Flatten()(y), L.Flatten()(b)])
    model = keras.Model([a, b], L.Dense(2, name="head")(y))
    rng = np.random.default_rng(0)
    data = {
        "picture": rng.uniform(0, 1, (8, 8, 8, 1)).astype(np.float32),
        "signal": rng.normal(size=(8, 32, 2)).astype(np.float32),
    }
    _, side = look(model, data, tmp_path)
    forms = {x.name: x.form for x in side.samples[0].inputs}
    assert forms == {"picture": "picture", "signal": "curves"}
    assert {t.layer for t in side.tensors} >= {"conv", "head"}


def swapped(data):
    """A file whose ends come in the other order."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = graph.inputs[::-1], graph.outputs[::-1]
    return fb.dump(model)


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("named", [True, False])
def test_a_converters_file_may_have_another_order(named, tmp_path):
    """Of inputs and outputs: they go by their names."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    ends = {"first": L.Dense(2, activation="softmax", name="first")(a)}
    ends["second"] = L.Dense(2, activation="softmax", name="second")(b)
    model = keras.Model([a, b], ends if named else list(ends.values()))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    data = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    path, pages = tmp_path / "m.tflite", []
    for change in (bytes, swapped):
        path.write_bytes(change(converter.convert()))
        (side,) = tflite_export.look(
            path,
            float_model=model,
            representative_data={"a": data[0], "b": data[1]},
        ).page.sides
        assert side.figures["disagreement"] == 0.0
        assert ("decides otherwise than in float", "0.0 % of 16") in side.facts
        sample = side.samples[0]
        pages.append({answer.name: answer for answer in sample.answers})
        assert sample.distance < 1e-5
    assert pages[0].keys() == pages[1].keys()


@pytest.mark.slow
def test_pixels_are_decided_one_by_one(tmp_path):
    x = inputs = keras.Input((8, 8, 3), name="photo")
    x = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = L.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    data = np.random.default_rng(0).normal(size=(8, 8, 8, 3))
    _, side = look(keras.Model(inputs, x), data.astype(np.float32), tmp_path)
    text = dict(side.facts)["decides otherwise than in float"]
    assert text.endswith(" % of 512")
    assert 0 < side.figures["disagreement"] < 50


@pytest.mark.slow
def test_a_loop_is_compared_at_its_end(tmp_path):
    """Its tensors can't be told apart; its answers can."""
    inputs = keras.Input((6, 4), name="x")
    y = L.LSTM(5, name="lstm")(inputs)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(y))
    data = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    _, side = look(model, data, tmp_path, target="min_size")
    assert side.samples and side.samples[0].answers[0].float_model


def test_how_samples_are_shown():
    rng = np.random.default_rng(0)
    picture = shown.shown("x", rng.uniform(0, 1, (2, 200, 100, 3)), 0)
    assert (picture.form, picture.width, picture.height) == ("picture", 34, 67)
    assert picture.note == "one pixel of 3"
    assert shown.shown("x", rng.integers(0, 255, (2, 9, 9, 3)), 0).width == 9
    curves = shown.shown("x", rng.normal(size=(2, 1000, 8)), 1)
    assert len(curves.data) == 6 and len(curves.data[0]) == 250
    assert "2 more channels" in curves.note
    tokens = shown.shown("x", np.arange(600).reshape(2, 300), 0, ["a", "b"])
    assert tokens.data[:3] == ["a", "b", "2"] and "100 more" in tokens.note
    numbers = shown.shown("x", np.array([[1.0, np.nan]]), 0)
    assert numbers.form == "numbers" and numbers.data == [1.0, None]
