"""MLPerf Tiny: its inputs, its scores, and one small row from end to end."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from benchmarks.accuracy.mlperf_tiny import idle
from benchmarks.accuracy.mlperf_tiny import inputs
from benchmarks.accuracy.mlperf_tiny import machines
from benchmarks.accuracy.mlperf_tiny import networks
from benchmarks.accuracy.mlperf_tiny import published
from benchmarks.accuracy.mlperf_tiny import row
from benchmarks.accuracy.mlperf_tiny import run
from benchmarks.accuracy.mlperf_tiny import scenes
from benchmarks.accuracy.mlperf_tiny import scores
from benchmarks.accuracy.mlperf_tiny import speech
from benchmarks.accuracy.mlperf_tiny import tables
from benchmarks.harness import record
from tflite_export.devices import ethos_u
from tflite_export.devices import micro

L = keras.layers
NETWORK = networks.NETWORKS[1]


def test_scores_count_decisions_and_pairs():
    found = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    wanted = np.array([[0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert scores.agreement(found, wanted) == pytest.approx(2 / 3)
    assert scores.accuracy(found, np.array([1, 1, 0])) == pytest.approx(2 / 3)
    # Normal, anomaly, normal, anomaly: one of the four pairs is wrong.
    float_scores = np.array([1.0, 3.0, 2.0, 1.5])
    assert scores.roc_area(float_scores) == 0.75
    other = np.array([1.0, 3.0, 1.2, 1.5])
    assert scores.roc_area(other) == 1.0
    assert scores.same_order(other, float_scores) == 0.75
    assert scores.relative(other, float_scores) == 0.0


def test_a_recording_has_the_mean_error_of_its_windows():
    x = np.zeros((4, 2))
    y = np.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0], [2.0, 0.0]])
    assert scores.anomalies(x, y, windows=2).tolist() == [1.5, 1.0]


def test_windows_have_five_frames_in_a_row():
    energies = np.arange(7 * 3).reshape(7, 3)
    rows = machines.windows(energies)
    assert rows.shape == (3, 15)
    assert rows[1].tolist() == list(range(3, 18))


def test_an_anomaly_is_louder_and_all_else_is_the_same():
    spectrum = np.full(machines.BANDS, -30.0)
    plain, loud = (
        machines.recording(spectrum, anomaly, np.random.default_rng(1))
        for anomaly in (0.0, 20.0)
    )
    assert plain.shape == (200, machines.BANDS)
    assert abs(np.log10(np.mean(10 ** (plain / 10))) + 3) < 0.3
    assert np.all(loud >= plain)
    assert 0 < np.mean(loud > plain) < 0.3


def test_spectra_go_through_the_autoencoder_twice():
    calls = []

    def reconstruct(x):
        calls.append(x)
        return x / 2

    found = machines.spectra(3, reconstruct, np.random.default_rng(0))
    assert found.shape == (3, machines.BANDS)
    assert [x.shape for x in calls] == [(3, 640), (3, 640)]
    np.testing.assert_allclose(found, calls[0][:, :128] / 4, rtol=1e-6)


def test_scenes_are_pieces_of_mosaics():
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3))
    rng = np.random.default_rng(1)
    found = np.stack([scenes.scene(images, rng) for _ in range(8)])
    assert found.shape == (8, 96, 96, 3)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    ramp = np.arange(4.0)[:, None, None] * np.ones((1, 4, 3))
    big = scenes.enlarged(ramp, 7)
    np.testing.assert_allclose(big[:, 3, 0], np.arange(7) / 2)


def test_mfccs_are_frames_of_30_ms_every_20():
    seconds = np.random.default_rng(0).normal(size=(2, speech.RATE))
    found = speech.mfccs(seconds)
    assert found.shape == (2, 49, 10, 1)
    assert found.dtype == np.float32
    # A louder second has a larger first coefficient, and no other one moves.
    louder = speech.mfccs(10.0 * seconds) - found
    np.testing.assert_allclose(louder[..., 1:, :], 0.0, atol=1e-3)
    np.testing.assert_allclose(
        louder[..., 0, :], np.log(10.0) * np.sqrt(2.0 * 40), rtol=1e-3
    )


def test_a_tone_stays_one_at_a_lower_rate():
    time = np.arange(22050) / 22050
    found = speech.at_rate(np.sin(2 * np.pi * 440 * time), 22050, 16000)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.skipif(
    shutil.which(speech.PROGRAM) is None, reason=speech.missing() or "there"
)
def test_a_word_is_spoken():
    rng = np.random.default_rng(0)
    word = speech.spoken("stop", "en-us+f2", rng)
    assert 0.15 < len(word) / speech.RATE < 1.0
    assert np.abs(word).max() == 1.0
    second = speech.clip(word, rng)
    assert second.shape == (speech.RATE,)
    assert second.max() == 1.0


def test_inputs_are_kept(tmp_path):
    made = inputs.Inputs(*(np.full((n, 2), n, "float32") for n in (1, 2, 3)))
    inputs.save(tmp_path / "a" / "x.npz", dataclasses.replace(made, windows=7))
    found = inputs.load(tmp_path / "a" / "x.npz")
    assert found.windows == 7
    np.testing.assert_array_equal(found.test, made.test)
    assert len(found.test_labels) == 0


def test_another_file_of_that_name_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "MODELS", tmp_path)
    content = b"published"
    file = published.File("f", "m.tflite", hashlib.sha256(content).hexdigest())
    assert file.missing() == "m.tflite is not at hand"
    (tmp_path / "m.tflite").write_bytes(content)
    assert file.missing() == ""
    (tmp_path / "m.tflite").write_bytes(b"another")
    assert "is another file than at 1afd2c9820f7" in file.missing()


def test_without_files_all_is_skipped_with_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "MODELS", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    found = run.measure()
    assert not found["rows"]
    assert set(found["skipped"]) == {n.name for n in networks.NETWORKS}
    text = tables.markdown(
        {
            "environment": {"command": "c", "date": "d", "cores": 1},
            "results": found,
        }
    )
    assert "**ResNet-8** was not measured: pretrainedResnet.tflite is" in text


def test_channels_without_weights_are_idle():
    kernel = np.ones((3, 3, 2, 4))
    kernel[..., 1] = 1e-30
    kernel[0, 0, 0, 1] = 1e-12
    kernel[..., 3] = 1e-3
    assert idle.idle_channels(kernel) == [1]


def test_idle_channels_go_without_a_trace():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(8, 3, activation="relu", name="a"),
            L.DepthwiseConv2D(3, activation="relu"),
            L.Conv2D(4, 1, name="b"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="c"),
        ]
    )
    for name, axis in (("a", 3), ("b", 2)):
        kernel = np.array(model.get_layer(name).kernel)
        index = [slice(None)] * axis + [[1, 6]]
        kernel[tuple(index)] = 1e-30
        model.get_layer(name).kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    wanted = model(x).numpy()
    qmodel = msq_tf.quantize_model(model)
    assert idle.idle_groups(qmodel) == {"a": [1, 6]}
    smaller = msq_tf.remove_channels(qmodel, idle.idle_groups(qmodel))
    np.testing.assert_allclose(smaller.base(x), wanted, atol=1e-6)
    assert smaller.base.get_layer("a").filters == 6


def entry(name, size, score, flash=None, **more):
    found = {
        "network": NETWORK.name,
        "row": name,
        "bytes": size,
        "score": score,
        "details": {"agreement": score, "classes": [3, 4, 3]},
        **more,
    }
    if flash is not None:
        found["vela"] = {
            "flash_bytes": flash,
            "sram_bytes": 2048,
            "estimated_ms": 0.5,
        }
        found["arena_bytes"] = 4096
    return found


def content(*rows):
    return {
        "environment": {
            "command": "python -m benchmarks mlperf_tiny",
            "date": "2026-11-30",
            "cores": 2,
        },
        "results": {
            "networks": [NETWORK.plan()],
            "accelerator": "ethos-u55-128",
            "planned": 24,
            "skipped": {},
            "rows": list(rows),
        },
    }


REFERENCE = (
    entry("float", 4000, 1.0),
    entry("int8", 1000, 0.96, flash=800),
)


def test_a_line_has_bytes_beside_int8():
    bits = {"bits": {"a": 4}, "average_bits": 4.0}
    text = tables.markdown(
        content(
            *REFERENCE,
            entry("min_size", 500, 0.99, **bits),
            entry("ethos_u", 1100, 0.97, flash=480, **bits),
        )
    )
    assert "4 of the 24 rows of the plan" in text
    lines = [x for x in text.splitlines() if x.startswith("| DS-CNN")]
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    assert cells[0][1:8] == [
        *("float, published", "4,000", "4.00x", "", "100.00", "", "100.00")
    ]
    assert cells[1][8:] == ["0.500", "2.0", "0.8", "1.00x", "4,096", ""]
    assert cells[2][1:7] == [
        *("`min_size`", "500", "0.50x", "4.00", "99.00", "-1.00")
    ]
    assert cells[2][-1] == "yes"
    assert cells[3][-1] == "too large"
    assert NETWORK.unmeasured in text


@pytest.mark.parametrize(
    ("size", "score", "said"),
    [
        (500, 0.99, "yes"),
        (500, 0.97, "as int8"),
        (500, 0.95, "loses more"),
        (501, 0.96, "too large"),
        (501, 0.95, "neither"),
    ],
)
def test_the_goal_is_half_of_int8_as_good(size, score, said):
    assert (
        tables.goal(entry("min_size", size, score), NETWORK.plan(), *REFERENCE)
        == said
    )


def test_the_list_below_tells_what_was_left_out():
    removed = {"channels": 971, "weights": 1234, "difference": 4e-6}
    ours = entry("min_size", 500, 0.99, bits={}, average_bits=4.0)
    text = tables.markdown(content(*REFERENCE, ours | {"removed": removed}))
    assert "971 channels have no weights" in text
    assert "1,234 parameters" in text
    assert "at most 4e-06" in text


def test_records_of_another_plan_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert run.kept(NETWORK, "int8") is None
    record.write(run.NAME, content(*REFERENCE)["results"])
    assert run.kept(NETWORK, "int8") == REFERENCE[1]
    assert run.kept(NETWORK, "mcu") is None
    other = {"networks": [NETWORK.plan() | {"epochs": 1}], "rows": REFERENCE}
    record.write(run.NAME, other)
    assert run.kept(NETWORK, "int8") is None


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A network of which one row takes seconds."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(8, 3, activation="relu"),
            L.Conv2D(16, 3, activation="relu"),
            L.Flatten(),
            L.Dense(3, activation="softmax"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(192, 6, 6, 1)).astype("float32")
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    msq_tf.calibrate(qmodel, x[:64])
    monkeypatch.setattr(published, "MODELS", tmp_path)
    files = []
    for name, target in (("f", "cpu_float"), ("i", "ethos_u")):
        path = tmp_path / f"{name}.tflite"
        if target == "cpu_float":
            path.write_bytes(tflite_export.float_tflite(model))
        else:
            tflite_export.export(
                qmodel,
                path,
                target=target,
                representative_data=x[:64],
                device_options={"accelerators": []},
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(published.File("f", path.name, digest))
    return dataclasses.replace(
        NETWORK,
        name="tiny",
        float_file=files[0],
        int8_file=files[1],
        make=lambda _: inputs.Inputs(x[:64], x[64:128], x[128:]),
        needs=lambda: "",
        goal=5.0,
        epochs=3,
        steps=2,
        batch_size=32,
    )


@pytest.mark.slow
def test_a_row_of_a_small_network(tiny, tmp_path, monkeypatch):
    data = tiny.load(tmp_path)
    monkeypatch.setattr(networks.Network, "load", lambda _: data)
    reference = row.run(tiny, row.FLOAT)
    ours = row.run(tiny, "min_size")
    assert reference["score"] == 1.0
    assert reference["bytes"] > ours["bytes"] > 1000
    assert ours["promise"] >= 5.0
    assert set(ours["bits"].values()) <= {8, 4, 2}
    assert ours["outcome"]["reference"] == 1.0
    assert 0.5 < ours["score"] <= 1.0


@pytest.mark.slow
@pytest.mark.skipif(
    not (ethos_u.is_installed() and micro.is_installed()),
    reason="without Vela or TFLite Micro",
)
def test_rows_of_devices(tiny, tmp_path, monkeypatch):
    data = tiny.load(tmp_path)
    monkeypatch.setattr(networks.Network, "load", lambda _: data)
    for name in ("int8", "ethos_u", "mcu", "cpu_int8"):
        found = row.run(tiny, name)
        assert found["score"] > 0.5
        assert ("vela" in found) == (name in ("int8", "ethos_u"))
        assert ("arena_bytes" in found) == (name != "cpu_int8")


@pytest.mark.parametrize("network", networks.NETWORKS, ids=lambda n: n.name)
def test_published_files_become_models(network):
    if network.missing():
        pytest.skip(network.missing())
    rng = np.random.default_rng(0)
    model = network.float_model()
    x = rng.normal(size=(4, *model.input_shape[1:])).astype("float32")
    found = row.outputs(network.float_file.path.read_bytes(), x)
    # The published float file of the DS-CNN has int8 weights, and rounds.
    limit = 0.2 if network.name == "DS-CNN" else 1e-5
    difference = np.abs(row.predicted(model, x) - found).max()
    assert difference <= limit * (found.max() - found.min())
    integers = msq_tf.from_tflite(network.int8_file.path)
    for ours, theirs in zip(model.weights, integers.weights, strict=True):
        if "kernel" in theirs.path:
            apart = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
            assert apart <= 0.01 * np.abs(np.asarray(ours)).max()


def test_the_committed_results_are_of_the_plan():
    results = record.load(run.NAME)["results"]
    planned = [network.plan() for network in networks.NETWORKS]
    assert results["networks"] == planned
