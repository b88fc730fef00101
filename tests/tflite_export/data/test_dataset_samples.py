from __future__ import annotations

import io
import os
import socket
import zipfile

import numpy as np
import pytest

from tflite_export.data import dataset_samples

SET = "fashion_mnist_mini"


@pytest.fixture
def folder(root):
    return str(root / "train" / "data")


def test_arrays(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(
        dataset_samples.read(str(tmp_path / "x.npy")), x
    )
    np.savez(tmp_path / "x.npz", a=x, b=x + 1)
    loaded = dataset_samples.read(str(tmp_path / "x.npz"))
    assert sorted(loaded) == ["a", "b"]


def test_images_of_a_data_set(folder):
    given = {"data_dir": folder, "limit": 5}
    unit = dataset_samples.read(SET, **given)
    assert unit.shape == (5, 28, 28, 1) and unit.dtype == np.float32
    assert unit.min() == 0 and 0.5 < unit.max() <= 1
    raw = dataset_samples.read(f"{SET}:train", pixels="raw", **given)
    np.testing.assert_allclose(raw / 255, unit, rtol=1e-6)
    signed = dataset_samples.read(f"{SET}:train[:3]", pixels="signed", **given)
    np.testing.assert_allclose(signed, 2 * unit[:3] - 1, atol=1e-6)
    test = dataset_samples.read(f"{SET}:1.0.0:test", **given)
    assert not np.array_equal(test, unit)


def test_images_are_resized_to_the_model(folder):
    images = dataset_samples.read(
        SET, (None, 16, 16, 1), data_dir=folder, limit=3
    )
    assert images.shape == (3, 16, 16, 1)


@pytest.mark.parametrize(
    "where, message",
    [
        ("no.npy", "can't be read"),
        ("out dir/x", "Expected a path ending in .npy"),
        ("no_such_set", "can't be read.*no_such_set not found.*--data_dir"),
        ("../../x", "Expected a path ending in .npy"),
        (f"{SET}/..:train", "Expected a path ending in .npy"),
        (f"{SET}:no_split", "can't be read.*no_split"),
        (f"{SET}:train[:0]", "can't be read.*no data"),
    ],
)
def test_errors_are_value_errors_of_one_line(where, message, folder):
    with pytest.raises(ValueError, match=message) as caught:
        dataset_samples.read(where, data_dir=folder)
    assert "\n" not in str(caught.value)


def test_damaged_and_pickled_arrays(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="can't be read"):
        dataset_samples.read(str(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="can't be read"):
        dataset_samples.read(str(path))


def huge(kind):
    """A file of a few bytes whose header claims more than any memory."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 60,)}
    np.lib.format.write_array_header_1_0(stream, header)
    if kind == "npz":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as members:
            members.writestr("x.npy", stream.getvalue())
        stream = archive
    return stream.getvalue()


@pytest.mark.parametrize(
    "name, data",
    [
        ("x.npy", huge("npy")),
        ("x.npz", huge("npz")),
        ("x.npz", b"PK\3\4" + b"junk" * 20),
        ("x.npy", b"\x93NUMPY\1\0\x10\0{'descr': [[[[[[[["),
        ("x.npy", b"\x93NUMPY\1\0\x10\0__import__('os')"),
    ],
)
def test_hostile_arrays(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match="can't be read"):
        dataset_samples.read(str(path))


def test_unknown_pixels(folder):
    with pytest.raises(ValueError, match="unit, signed, raw"):
        dataset_samples.read(SET, pixels="rgb", data_dir=folder, limit=1)


def test_archives_that_ask_for_more_than_they_hold(tmp_path):
    packed = tmp_path / "packed.npz"
    # A thousand to one, below the limit of 64 and what is free.
    np.savez_compressed(packed, x=np.zeros(1 << 20, np.uint8))
    assert dataset_samples.read(str(packed))["x"].shape == (1 << 20,)
    zeros = np.zeros(40 << 20, np.uint8)
    np.savez_compressed(packed, x=zeros, y=zeros)
    with pytest.raises(ValueError, match=r"asks for 83,886,\d+ bytes or more"):
        dataset_samples.read(str(packed))
    # As it is in the file it may be as large as it likes.
    np.savez(packed, x=zeros, y=zeros)
    assert len(dataset_samples.read(str(packed))) == 2


def test_what_is_no_file_of_arrays(tmp_path):
    pipe, other, folder = (tmp_path / k for k in ("p.npy", "p.npz", "f.npy"))
    listener = tmp_path / "s.npy"
    os.mkfifo(pipe)
    os.mkfifo(other)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listener))
        for path in (pipe, other, folder, listener):
            with pytest.raises(ValueError, match="file of arrays"):
                dataset_samples.read(str(path))


def test_holes_do_not_fit_into_memory(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(4))
    os.truncate(path, 1 << 43)
    with pytest.raises(ValueError, match="does not fit into memory"):
        dataset_samples.read(str(path))
