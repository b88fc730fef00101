"""An exported file is whole or not there, and leaves nothing beside it."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from tests.tflite_export.samples import dense_model
from tflite_export import export
from tflite_export import float_file
from tflite_export.output_files import fill
from tflite_export.output_files import staged


def write(path, data=b"new"):
    with staged(path) as temporary:
        fill(temporary, data, path)


def refuse(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("fsync", errno.ENOSPC),
        ("fsync", errno.EDQUOT),
        ("replace", errno.EROFS),
        ("replace", errno.EACCES),
    ],
)
def test_what_cannot_be_written_leaves_the_file_before(
    tmp_path, monkeypatch, name, number
):
    path = tmp_path / "m.tflite"
    write(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse(number))
        with pytest.raises(ValueError) as caught:
            write(path)
    assert str(caught.value) == (
        f"The file can't be written ({os.strerror(number)}). Expected room "
        "and write permission; a file of that name is as it was. Received: "
        f"path='{path}'"
    )
    assert os.listdir(tmp_path) == ["m.tflite"]
    assert path.read_bytes() == b"old"
    write(path)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_folder_that_takes_no_file(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "open", refuse(number))
    with pytest.raises(
        ValueError, match=rf"written \({os.strerror(number)}\).*m\.tflite"
    ):
        write(tmp_path / "m.tflite")


def test_what_a_kill_left_is_removed(tmp_path):
    left = tmp_path / ".m.tflite.0123abcd.tmp"
    left.write_bytes(b"half")
    others = [".n.tflite.0123abcd.tmp", ".m.tflite.tmp", "m.tflite.old"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    write(tmp_path / "m.tflite")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "m.tflite"])


def test_what_another_process_writes_stays(tmp_path):
    path = tmp_path / "m.tflite"
    with staged(path) as theirs:
        fill(theirs, b"theirs", path)
        write(path, b"ours")
        assert theirs.read_bytes() == b"theirs"
        assert path.read_bytes() == b"ours"
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["m.tflite"]


def test_a_name_that_is_swept_before_its_lock_is_given_up(
    tmp_path, monkeypatch
):
    lock = fcntl.flock
    swept = []

    def sweep_and_lock(descriptor, operation):
        if not swept:
            (found,) = tmp_path.iterdir()
            found.unlink()
            swept.append(found)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_and_lock)
    write(tmp_path / "m.tflite")
    assert swept and os.listdir(tmp_path) == ["m.tflite"]


def test_locks_are_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    (tmp_path / ".m.tflite.0123abcd.tmp").write_bytes(b"whose?")
    write(tmp_path / "m.tflite")
    assert (tmp_path / "m.tflite").read_bytes() == b"new"
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.slow
def test_an_export_to_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    qmodel = dense_model()
    path = tmp_path / "m.tflite"
    export(qmodel, path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse(errno.ENOSPC))
        with pytest.raises(ValueError, match="No space left on device"):
            export(qmodel, path)
        with pytest.raises(ValueError, match="No space left on device"):
            float_file(qmodel.base, path)
    assert os.listdir(tmp_path) == ["m.tflite"]
    assert path.read_bytes() == before
    export(qmodel, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5"])
def test_a_model_of_keras_is_not_written_over(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"trained")
    with pytest.raises(ValueError, match="ends in .tflite. Received: path="):
        export(dense_model(), path)
    with pytest.raises(ValueError, match="that of a Keras model"):
        float_file(dense_model(), path)
    assert path.read_bytes() == b"trained"
    assert list(tmp_path.iterdir()) == [path]
