"""Whole runs on a few real images: files, report, verdicts, refusals."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tests.train.conftest import RECIPE
from tflite_export.devices import micro
from train import page
from train import pipeline
from train.data import datasets

FILES = {
    "bits.png",
    "cpu_float.tflite",
    "float.tflite",
    "history.jsonl",
    *(["index.html"] if page.installed() else []),
    "min_size.tflite",
    "model.keras",
    "report.json",
    "run.json",
}


def folder_of(settings) -> pathlib.Path:
    return pathlib.Path(settings.output_dir)


def report_of(settings) -> dict:
    return json.loads((folder_of(settings) / "report.json").read_text())


@pytest.mark.slow
def test_a_run_leaves_verified_files_and_a_report(tiny_settings, console):
    settings = tiny_settings()
    results = pipeline.run(settings, console)

    assert results.passed
    assert results.compression >= 7.0
    folder = folder_of(settings)
    assert {path.name for path in folder.iterdir() if path.is_file()} == FILES
    report = report_of(settings)
    assert report["passed"] is True
    assert report["settings"] == settings.identity()
    assert set(report["bits"].values()) <= {8, 4, 2}
    assert set(report["files"]) == {"cpu_float", "min_size"}
    for file in (report["float_file"], *report["files"].values()):
        assert file["bytes"] == (folder / file["name"]).stat().st_size
        assert file["score"]["agreement"] >= 0.999
    assert report["files"]["min_size"]["export"]["tensors"]
    assert len(report["precision"]["layers"]) == 3
    text = console.file.getvalue()
    assert "Precision by layer" in text
    assert "Results on 100 test examples" in text
    assert "FAILED" not in text
    # Where it is, and what each accuracy was measured on.
    assert "min_size.tflite: exporting and verifying" in text
    assert "training accuracy" in text and "validation accuracy" in text


@pytest.mark.slow
def test_the_saved_model_is_the_one_in_the_files(tiny_settings, console):
    settings = tiny_settings(targets=("min_size",))
    results = pipeline.run(settings, console)
    folder = folder_of(settings)
    qmodel = keras.models.load_model(folder / "model.keras")
    assert isinstance(qmodel, msq_tf.MSQModel)
    assert qmodel.bits == results.bits
    assert not (folder / "cpu_float.tflite").exists()

    test = datasets.load("fashion_mnist_mini", test_examples=100).test
    images = test.images.astype(np.float32) / 255.0
    outputs = tflite_export.run(folder / "min_size.tflite", images)
    np.testing.assert_allclose(
        outputs, qmodel.predict(images, verbose=0), atol=1e-3
    )


@pytest.mark.slow
def test_a_missed_target_fails_the_run(tiny_settings, console):
    # In so few steps the thresholds of the paper's rule are not met.
    settings = tiny_settings(
        rule="threshold", allowed_bits=None, targets=("min_size",)
    )
    with pytest.warns(UserWarning, match="target"):
        results = pipeline.run(settings, console)
    assert not results.passed
    assert [check.name for check in results.checks if not check.passed] == [
        "compression"
    ]
    assert "FAILED compression" in console.file.getvalue()
    assert report_of(settings)["passed"] is False


@pytest.mark.slow
def test_a_loss_of_accuracy_fails_the_run_where_one_is_named(
    tiny_settings, console
):
    settings = tiny_settings(targets=("min_size",), max_accuracy_drop=-100.0)
    results = pipeline.run(settings, console)
    assert [check.name for check in results.checks if not check.passed] == [
        "accuracy"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".tflite"])
def test_a_saved_model_replaces_float_training(
    tiny_settings, console, tmp_path, suffix
):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(10, activation="softmax", name="out")(x)
    model = keras.Model(inputs, outputs)
    path = tmp_path / f"mine{suffix}"
    if suffix == ".tflite":
        path.write_bytes(tflite_export.float_tflite(model))
    else:
        keras.saving.save_model(model, path)
    settings = tiny_settings(start_from=str(path), targets=("min_size",))
    results = pipeline.run(settings, console)
    assert results.passed
    (name,) = results.bits
    assert name == "out" or suffix == ".tflite"
    assert not (folder_of(settings) / "checkpoints/float.keras").exists()


@pytest.mark.slow
def test_training_in_mixed_precision(tiny_settings, console):
    settings = tiny_settings(targets=("min_size",), mixed_precision=True)
    results = pipeline.run(settings, console)
    assert results.compression >= 7.0
    assert keras.mixed_precision.dtype_policy().name == "float32"


@pytest.mark.slow
def test_a_second_run_is_refused_and_a_resumed_one_is_the_same(
    tiny_settings, console
):
    settings = tiny_settings(targets=("min_size",))
    first = pipeline.run(settings, console)
    with pytest.raises(ValueError, match="The output folder holds a run"):
        pipeline.run(settings, console)
    again = pipeline.run(
        tiny_settings(targets=("min_size",), resume=True), console
    )
    assert (again.bits, again.files) == (first.bits, first.files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet9"}, "Received: model=resnet9"),
        ({"dataset": "no_such_data"}, "Received: dataset=no_such_data"),
        ({"targets": ("toaster",)}, "no such export target.*cpu_float"),
        ({"targets": ()}, "no such export target"),
        ({"start_from": "missing.keras"}, "cannot be loaded"),
        ({"target_compression": 0.5}, "from 1 to 16"),
        ({"allowed_bits": (8, 2, 1)}, "Received: allowed_bits"),
        ({"min_bits": 0}, "min_bits"),
        ({"output_dir": "/dev/null/run"}, "cannot be written"),
        ({"train_examples": 8}, "fewer training examples"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tiny_settings, console, changes, message
):
    with pytest.raises(ValueError, match=message):
        pipeline.run(tiny_settings(**changes), console)


def test_a_model_for_other_classes_is_refused(tiny_settings, console, tmp_path):
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten()]
        + [keras.layers.Dense(3)]
    )
    path = tmp_path / "three.keras"
    model.save(path)
    with pytest.raises(ValueError, match=r"10 outputs.*shape \(8, 3\)"):
        pipeline.run(tiny_settings(start_from=str(path)), console)


def test_a_model_of_one_batch_size_is_refused(tiny_settings, console, tmp_path):
    inputs = keras.Input(batch_shape=(1, 28, 28, 1))
    rows = keras.ops.reshape(inputs, (1, 28 * 28))
    path = tmp_path / "one.keras"
    keras.Model(inputs, keras.layers.Dense(10)(rows)).save(path)
    with pytest.raises(ValueError, match="batches of 1 alone"):
        pipeline.run(tiny_settings(start_from=str(path)), console)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet9"}, "Received: model=resnet9"),
        ({"model": "keras.applications.ResNet9"}, "applications has no such"),
        ({"targets": ("mcu",), "activation_bits": 16}, "activation_bits=8"),
        ({"targets": ("mcu", "all")}, "`all` alone"),
        ({"recipe": dataclasses.replace(RECIPE, shift=28)}, "shift < 28"),
        (
            {"model": "vit_micro", "targets": ("mcu",), "activation_bits": 8},
            "'mcu': a variance needs float",
        ),
    ],
)
def test_a_refused_run_leaves_nothing_behind(
    tiny_settings, console, changes, message
):
    settings = tiny_settings(**changes)
    with pytest.raises(ValueError, match=message):
        pipeline.run(settings, console)
    assert not folder_of(settings).exists()


def test_a_target_without_its_tools_is_refused_at_once(
    tiny_settings, console, monkeypatch
):
    monkeypatch.setattr(micro, "is_installed", lambda: False)
    settings = tiny_settings(targets=("mcu",))
    with pytest.raises(
        ValueError, match="pip install .tflite-micro.*Received: targets=mcu"
    ):
        pipeline.run(settings, console)
    assert not folder_of(settings).exists()


def test_images_of_another_size_are_refused_at_once(
    tiny_settings, console, tmp_path
):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    path = tmp_path / "m.keras"
    keras.Model(inputs, x).save(path)
    settings = tiny_settings(start_from=str(path), image_size=20)
    with pytest.raises(ValueError, match=r"images of shape \(20, 20, 1\)"):
        pipeline.run(settings, console)
    assert not folder_of(settings).exists()
