"""A missing folder is said in one way by whatever writes a file."""

from __future__ import annotations

import errno
import io

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from msq_tf.atomic_files import NoFolderError

L = keras.layers


@pytest.fixture(scope="module")
def qmodel():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)])
    return msq_tf.quantize_model(model)


WRITERS = {
    "x.png": lambda q, path: msq_tf.precision_report(q).plot(path),
    "m.keras": lambda q, path: q.save(path),
    "m.weights.h5": lambda q, path: q.save_weights(path),
    "m.tflite": tflite_export.export,
    "f.tflite": tflite_export.float_file,
    "x.npz": lambda q, path: tflite_export.export(
        q, path.parents[1] / "m.tflite", save_failure_to=path
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_missing_folder_is_named(tmp_path, qmodel, name, folder):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / folder / name
    with pytest.raises(NoFolderError) as caught:
        WRITERS[name](qmodel, path)
    # Whichever of the two a program is ready for.
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OSError)
    expected = errno.ENOENT if folder == "none" else errno.ENOTDIR
    assert caught.value.errno == expected
    assert f"Received: folder={tmp_path / folder}, path=" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_what_is_there_or_no_path_is_written(tmp_path, qmodel, monkeypatch):
    monkeypatch.chdir(tmp_path)
    qmodel.save("m.keras")
    qmodel.save_weights("m.weights.h5")
    tflite_export.float_file(qmodel, "m.tflite")
    again = keras.models.load_model("m.keras")
    x = np.ones((2, 4), "f")
    np.testing.assert_array_equal(again(x), qmodel(x))
    with pytest.raises(ValueError, match="Invalid filepath extension"):
        # Keras's own word on what is no path.
        qmodel.save(io.BytesIO())
