"""Saved models from anyone: loaded without running them, or refused."""

from __future__ import annotations

import io
import json
import os
import socket
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.keras3.loading import load_model
from tflite_export import cli


def model():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, name="d")]
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.keras"
    msq_tf.quantize_model(model()).save(path)
    return path


def rewritten(saved, path, change):
    """The archive with each member as `change(name, bytes)` gives it."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def configured(saved, path, change):
    """The archive with its configuration changed in place."""

    def edit(name, content):
        if name != "config.json":
            return content
        tree = json.loads(content)
        change(tree["config"])
        return json.dumps(tree)

    return rewritten(saved, path, edit)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_in_a_file_is_not_run(suffix, tmp_path, capsys):
    path = tmp_path / f"m.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that HDF5 is legacy
        keras.Sequential(
            [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)]
        ).save(path)
    with pytest.raises(ValueError, match="code from a file is not run"):
        load_model(path)
    arguments = [f"--model={path}", f"--output={tmp_path / 'm.tflite'}"]
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert "a `Lambda` layer" in error and error.count("\n") == 1
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quantizer": "other"}, "`quantizer` is unknown"),
        ({"scale": "other"}, "`scale` is unknown"),
        ({"plan": []}, "The plan does not fit the model"),
        ({"plan": [{}]}, "Unknown granularity"),
        (
            {"activations": {"sites": [], "bits": 99, "ranges": "ema"}},
            "`bits` is unknown",
        ),
        (
            {"activations": {"sites": [], "bits": 8, "ranges": "other"}},
            "`ranges` is unknown",
        ),
        ({"base": {"module": "os", "class_name": "system"}}, "dict"),
    ],
)
def test_configurations_that_nobody_saved(change, message, saved, tmp_path):
    path = configured(saved, tmp_path / "m.keras", lambda c: c.update(change))
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_model(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name, value", [("start_bits", 77), ("min_bits", -1)])
def test_widths_that_nobody_planned(name, value, saved, tmp_path):
    path = configured(
        saved,
        tmp_path / "m.keras",
        lambda config: config["plan"][0].update({name: value}),
    )
    with pytest.raises(ValueError, match=f"`{name}` is out of range"):
        load_model(path)


@pytest.mark.parametrize("width", [0, 9, -(2**31)])
def test_widths_that_no_search_stored(width, saved, tmp_path):
    def change(name, content):
        if not name.endswith(".h5"):
            return content
        stream = io.BytesIO(content)
        with h5py.File(stream, "r+") as file:
            file["layers/search_variables/vars/0"][...] = width
        return stream.getvalue()

    path = rewritten(saved, tmp_path / "m.keras", change)
    with pytest.raises(ValueError, match="widths that no weight can have"):
        load_model(path)


def test_a_width_out_of_range_is_named():
    qmodel = msq_tf.quantize_model(model())
    qmodel.search.bits.assign([9])
    with pytest.raises(ValueError, match=r"`bits\['d'\]` is out of range"):
        qmodel.quantized_weights()


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: None if name == "config.json" else content,
        lambda name, content: None if name.endswith(".h5") else content,
        lambda name, content: content[: len(content) // 2],
        lambda name, content: "[" * 100_000,
        lambda name, content: "null",
    ],
)
def test_archives_that_are_damaged(change, saved, tmp_path):
    path = rewritten(saved, tmp_path / "m.keras", change)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(path)


@pytest.mark.parametrize("size", [0, 3, 100, 5_000])
def test_files_that_are_cut(size, saved, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(path)


@pytest.mark.filterwarnings("ignore:Skipping invalid path")
def test_an_archive_writes_nothing_outside(saved, tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = folder / "m.keras"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../slip", "../../slip", str(tmp_path / "slip")):
            archive.writestr(name, "x")
            archive.writestr(f"assets/{name}", "x")
    monkeypatch.chdir(folder)
    before = sorted(tmp_path.rglob("*"))
    try:
        assert load_model(path).bits == {"d": 8}
    except ValueError as error:
        # Keras 3.12.0 fails as it says what it skips: the file is refused.
        assert "'ZipInfo' object has no attribute 'name'" in str(error)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_is_whole_is_loaded(saved):
    found = load_model(saved)
    assert isinstance(found, msq_tf.MSQModel)
    assert np.isfinite(found(np.ones((1, 4), np.float32))).all()


def test_what_is_no_file_is_not_opened(tmp_path):
    pipe, folder, listener = (tmp_path / f"{k}.keras" for k in "pfs")
    os.mkfifo(pipe)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listener))
        for path in (pipe, folder, listener):
            with pytest.raises(ValueError, match="a folder, pipe, socket"):
                load_model(path)
