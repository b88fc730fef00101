"""What a look finds in files, with and without a model and data."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tflite_export
from msq_tf.core.bit_history import BitChange
from msq_tf.page import charts
from msq_tf.page import document
from msq_tf.reports.bit_changes import describe
from msq_tf.rules.records import Candidate
from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.samples import quantized
from tflite_export.cli import main
from tflite_export.looking import side as side_lib
from tflite_export.runtime import ports

L = keras.layers


@pytest.fixture
def library(monkeypatch):
    """Pages without the charting library, which a test may lack."""
    monkeypatch.setattr(charts, "javascript", lambda: "")
    monkeypatch.setattr(charts, "check_installed", lambda: None)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, data in files().items():
        (folder / f"{name}.tflite").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A quantized model, its integer file and inputs."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = L.DepthwiseConv2D(3, name="depthwise")(x)
    x = L.Flatten()(x)
    x = L.Dense(4, activation="softmax", name="head")(x)
    qmodel = quantized(keras.Model(inputs, x))
    qmodel.set_bits({"conv": 8, "depthwise": 8, "head": 2})
    path = tmp_path_factory.mktemp("trained") / "m.tflite"
    data = np.random.default_rng(0).uniform(0, 1, (24, 8, 8, 3))
    data = data.astype(np.float32)
    tflite_export.export(
        qmodel, path, target="cpu_int8", representative_data=data
    )
    return qmodel, path, data


def test_a_file_alone(paths):
    found = tflite_export.look(paths / "int8.tflite")
    (side,) = found.page.sides
    kinds = [layer.kind for layer in side.layers]
    assert kinds == [
        *("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED")
    ]
    for layer in side.layers:
        assert layer.type == "INT8" and layer.bits == 8
        assert layer.stored_bytes == layer.ideal_bytes == layer.size
        assert sum(count for _, count in layer.codes) == layer.size
        assert layer.next_bits == 4 and 0 < layer.next_noise < 1
        assert layer.next_saves == layer.size - -(-layer.size // 2)
    # One of nine weights of a channel stands at an end by its scale.
    depthwise = side.layers[1]
    assert depthwise.rim >= 1 / 9 and depthwise.remarks == ()
    stored = sum(layer.stored_bytes for layer in side.layers)
    assert sum(x.share for x in side.layers) == pytest.approx(
        stored / (paths / "int8.tflite").stat().st_size
    )
    # What is left out is said, and why.
    assert set(side.missing) == {"search", "tensors", "samples"}
    assert "representative_data" in side.missing["tensors"]
    here = side.targets[0]
    assert here.runs and here.latency_ms > 0
    assert dict(here.accelerated)["CONV_2D"] == 2
    # XNNPACK has no softmax of integers.
    assert set(dict(here.left)) == {"SOFTMAX"}
    assert {t.name for t in side.targets[1:]} == set(
        tflite_export.targets.names()
    )
    json.loads(found.to_json())


def test_errors_of_tensors_without_a_model(paths):
    found = tflite_export.look(
        paths / "int8.tflite", representative_data=images(8)
    )
    (side,) = found.page.sides
    assert [t.operator for t in side.tensors] == [
        *("INPUT", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD"),
        *("MAX_POOL_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"),
    ]
    for tensor in side.tensors:
        assert tensor.clipped == 0.0
        assert 20 < tensor.accumulated and 20 < tensor.isolated
        assert tensor.units < 20 and 0 <= tensor.rim < 0.1
        assert not tensor.wrong
    # A maximum of integers is as exact as what it reads.
    assert len(side.samples) == 8
    sample = side.samples[0]
    assert sample.inputs[0].form == "picture"
    assert sample.answers[0].float_model and sample.answers[0].file
    assert side.figures["max_units"] < 20


def test_a_range_that_is_too_narrow_is_told(paths):
    """On inputs three times as large as those it was measured on."""
    x = 3 * images(8)
    found = tflite_export.look(paths / "int8.tflite", representative_data=x)
    (side,) = found.page.sides
    image = side.tensors[0]
    (port,) = ports.inputs(files()["int8"])
    low, high = port.real(np.array([-128, 127], np.int8))
    outside = np.maximum(x - high, low - x)
    assert image.clipped == pytest.approx(
        (outside > 1.5 * port.scale).mean(), abs=1e-3
    )
    lost = np.square(np.maximum(outside, 0)).sum()
    by_hand = 10 * np.log10(np.square(x).sum() / lost)
    assert image.isolated == image.accumulated
    assert image.isolated == pytest.approx(by_hand, abs=0.5)
    told = side.findings["tensors"][-1]
    assert told.startswith("ranges are too narrow for these inputs at ")
    assert f"{image.clipped:.1%} of the values of image lie beyond" in told


def test_a_model_tells_what_was_decided_and_has_the_float_weights(trained):
    qmodel, path, data = trained
    found = tflite_export.look(path, model=qmodel, representative_data=data)
    (side,) = found.page.sides
    assert [layer.key for layer in side.layers] == list(qmodel.bits)
    assert [layer.bits for layer in side.layers] == [8, 8, 2]
    assert side.search is None and side.missing["search"]
    by_layer = {t.layer: t for t in side.tensors if t.layer}
    # Two bits lose far more than eight, alone and all in all.
    assert by_layer["head"].isolated < by_layer["conv"].isolated - 15
    head = side.layers[2]
    assert head.measured > 10 * max(x.measured for x in side.layers[:2])
    assert all("no search has run" in x.why[0] for x in side.layers)


def test_isolated_errors_are_those_of_arithmetic(trained):
    """Against the dense layer computed by hand."""
    qmodel, path, data = trained
    found = tflite_export.look(path, model=qmodel, representative_data=data)
    (row,) = [t for t in found.page.sides[0].tensors if t.layer == "head"]
    base = qmodel.base
    inner = keras.Model(base.input, base.get_layer("head").input)
    x = np.asarray(inner(data))
    weight = dict(zip(qmodel.paths, qmodel.quantized_weights(), strict=True))
    latent = dict(zip(qmodel.paths, qmodel.latent_weights(), strict=True))
    bias = np.asarray(base.get_layer("head").bias)
    wanted = x @ latent["head"].numpy() + bias
    got = x @ weight["head"].values + bias
    by_hand = 10 * np.log10(
        np.square(wanted).sum() / np.square(got - wanted).sum()
    )
    # The grid of the output adds little to the error of two bits.
    assert row.isolated == pytest.approx(by_hand, abs=1.0)


def test_weights_that_are_no_model_are_not_compared_with(trained):
    """After a search; before one they are what was quantized."""
    qmodel, path, data = trained
    arguments = {"model": qmodel, "representative_data": data}
    (before,) = tflite_export.look(path, **arguments).page.sides
    assert before.layers[2].measured is not None
    qmodel.search.epoch.assign(1.0)
    try:
        (after,) = tflite_export.look(path, **arguments).page.sides
    finally:
        qmodel.search.epoch.assign(0.0)
    low = before.figures["disagreement"] > 20
    assert low == (after.layers[2].measured is None)
    if low:
        assert "no model by themselves" in after.findings["tensors"][0]
        assert after.figures["min_snr"] > before.figures["min_snr"]


def test_answers_of_a_float_model_count(trained):
    qmodel, path, data = trained
    zero = keras.models.clone_model(qmodel.base)
    found = tflite_export.look(
        path, model=qmodel, float_model=zero, representative_data=data
    )
    sample = found.page.sides[0].samples[0]
    wanted = np.asarray(zero(data))[sample.number]
    (answer,) = sample.answers
    np.testing.assert_allclose(
        answer.float_model, wanted[list(answer.places)], rtol=1e-4
    )


def test_two_files_are_matched_by_layer(trained, tmp_path):
    qmodel, path, data = trained
    other = tmp_path / "min_size.tflite"
    tflite_export.export(
        qmodel, other, target="min_size", representative_data=data
    )
    found = tflite_export.look(
        path, other, model=qmodel, representative_data=data
    )
    page = found.page
    assert [(p.first, p.second) for p in page.pairs] == [(0, 0), (1, 1), (2, 2)]
    assert any("times as many" in text for text in page.changes)
    assert any("class is the same" in text for text in page.changes)
    # The layers of two searches, too.
    report = side_lib.precision_report(qmodel)
    searches = tflite_export.look(report, report)
    assert len(searches.page.pairs) == 3


def test_without_a_model_layers_correspond_by_order(paths):
    found = tflite_export.look(paths / "float.tflite", paths / "int8.tflite")
    pairs = found.page.pairs
    assert [(p.first, p.second) for p in pairs] == [(k, k) for k in range(4)]


def test_labels_give_accuracies_and_limits_a_failure(trained):
    qmodel, path, data = trained
    labels = np.asarray(qmodel.base(data)).argmax(-1)
    found = tflite_export.look(
        path, model=qmodel, representative_data=data, labels=labels
    )
    figures = found.page.sides[0].figures
    # The labels are what the float model says.
    assert figures["accuracy"] + figures["accuracy_drop"] == 100
    assert figures["disagreement"] == pytest.approx(figures["accuracy_drop"])
    assert found.failures("bytes>100000, accuracy<0") == []
    (text,) = found.failures("bytes>10, min_snr<-100")
    assert text.startswith("bytes is ") and text.endswith("> 10")
    with pytest.raises(ValueError, match="Expected what it takes.*Received"):
        found.failures("compression>1")
    with pytest.raises(ValueError, match="Labels don't fit"):
        tflite_export.look(path, representative_data=data, labels=labels[:3])


@pytest.mark.parametrize(
    "text",
    ["", "bytes", "bytes>", "byte>1", "bytes>1;x<2", "bytes=1", "bytes>-"],
)
def test_a_limit_that_is_none_is_refused(trained, text):
    from tflite_export.looking import limits

    with pytest.raises(ValueError, match="No such limit.*Received"):
        limits.parse(text)


def test_the_command(trained, library, tmp_path, capsys):
    qmodel, path, data = trained
    np.save(tmp_path / "x.npy", data)
    qmodel.save(tmp_path / "m.keras")
    arguments = ["look", str(path), f"--model={tmp_path / 'm.keras'}"]
    arguments += [f"--representative_data={tmp_path / 'x.npy'}"]
    page, folder = tmp_path / "m.html", tmp_path / "nodes"
    assert main([*arguments, f"--output={page}", f"--node_data={folder}"]) == 0
    assert str(page) in capsys.readouterr().out
    assert '"key":"conv"' in page.read_text()
    bits = json.loads((folder / "bits.json").read_text())["main"]
    assert sorted(r["value"] for r in bits["results"].values()) == [2, 8, 8]
    assert main([*arguments, "--json", "--fail_if=bytes>1"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["sides"][0]["layers"] and "bytes is" in err
    assert main(["look"]) == 2
    assert main([*arguments, "--fail_if=x>1"]) == 1
    assert "No such limit" in capsys.readouterr().err


def test_decisions_of_a_saved_model_are_shown(trained, tmp_path, capsys):
    """With the reason of each, and what was next in line."""
    qmodel, path, _ = trained
    following = Candidate("conv", 4, 0.5)
    change = BitChange(
        7, 1.0, "head", 8, 2, 0.25, 0.5, 0.1, 0.01, following, "it is large"
    )
    qmodel.search.change(change, qmodel.paths)
    try:
        qmodel.save(tmp_path / "m.keras")
    finally:
        qmodel.search.restart(qmodel.search.bits.numpy())
    arguments = ["look", str(path), f"--model={tmp_path / 'm.keras'}"]
    assert main([*arguments, "--json"]) == 0
    (side,) = json.loads(capsys.readouterr().out)["sides"]
    why = {layer["key"]: layer["why"] for layer in side["layers"]}
    assert why["head"] == [describe(change)]
    assert "next in line: conv → 4" in why["head"][0]
    assert why["head"][0].endswith("why: it is large")
    assert "began at 8 bits" in why["conv"][0]
    assert "it was next in line: conv → 4 (+5.0e-01)" in why["conv"][1]
    assert why["depthwise"] == ["no decision changed it: it began at 8 bits"]
    (move,) = side["search"]["moves"]
    assert move["text"] == describe(change)


def test_what_is_no_argument_is_refused(paths):
    path = paths / "int8.tflite"
    with pytest.raises(ValueError, match="samples=0"):
        tflite_export.look(path, samples=0)
    with pytest.raises(ValueError, match="labels alone"):
        tflite_export.look(path, labels=[1])
    with pytest.raises(ValueError, match="as `float_model`.*Received: model="):
        tflite_export.look(path, model=keras.Sequential())
    with pytest.raises(ValueError, match="`history` belongs to"):
        tflite_export.look(path, history={})
    with pytest.raises(ValueError, match="Expected shape"):
        tflite_export.look(path, representative_data=np.zeros((4, 3)))


def test_a_page_of_a_file(paths, library, tmp_path):
    path = tmp_path / "m.html"
    found = tflite_export.look(paths / "int8.tflite", output=path)
    assert path.read_text() == document.render(found.page)
    assert "CONV_2D" in path.read_text() and "bytes of the file" in str(found)
