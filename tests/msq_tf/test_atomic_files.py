"""Files appear whole, or the ones before stay and a reason is given."""

from __future__ import annotations

import errno
import os
import pathlib
from concurrent import futures

import pytest

from msq_tf import atomic_files
from msq_tf.atomic_files import NotWrittenError
from msq_tf.atomic_files import replacing


def write(path, text="new"):
    with replacing(path) as partial:
        partial.write_text(text)


def test_a_full_disk_leaves_the_file_before(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(NotWrittenError) as caught:
        with replacing(path) as partial:
            # A device that is always full.
            partial.symlink_to("/dev/full")
            partial.write_text("new")
    assert str(caught.value) == (
        "A file could not be written (No space left on device). Expected room "
        f"there; what was written before is whole. Received: path={path}"
    )
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"
    write(path)
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("fsync", errno.ENOSPC, "Expected room there"),
        ("fsync", errno.EDQUOT, "Expected room there"),
        ("fsync", errno.EIO, "Expected write access there"),
        ("replace", errno.EROFS, "Expected write access there"),
        ("replace", errno.EACCES, "Expected write access there"),
    ],
)
def test_what_the_system_refuses(tmp_path, monkeypatch, name, number, expected):
    path = tmp_path / "a.txt"
    write(path, "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(NotWrittenError, match=expected):
            write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    # Nothing can be removed either; that is not what is told.
    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    with pytest.raises(NotWrittenError, match="Read-only file system") as found:
        write(tmp_path / "a.txt")
    assert found.value.filename == str(tmp_path / "a.txt")


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(NotWrittenError, match=r"a/b\.txt"):
        write(tmp_path / "a" / "b.txt")


def test_a_library_that_gives_no_number(tmp_path):
    with pytest.raises(NotWrittenError, match=r"\(Can't write data\)"):
        with atomic_files.writing(tmp_path / "a.h5"):
            raise OSError("Can't write data")


def test_the_innermost_file_is_named(tmp_path):
    with pytest.raises(NotWrittenError, match="path=inner"):
        with atomic_files.writing("outer"), atomic_files.writing("inner"):
            raise OSError(errno.ENOSPC, "")


def test_other_errors_pass(tmp_path):
    with pytest.raises(KeyError):
        with replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyError
    assert not os.listdir(tmp_path)


def test_what_a_kill_left_is_in_nobodys_way(tmp_path):
    names = ["partial-0123abcd-a.txt", "partial-a.txt"]
    for name in names:
        (tmp_path / name).write_text("a long piece of the one before")
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "new"
    (tmp_path / "partial.txt").write_text("no file of ours")
    found = sorted(path.name for path in atomic_files.left_over(tmp_path))
    assert found == names


def test_two_that_write_one_file(tmp_path):
    """Each writes a whole one, whoever ends first."""
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("sec")
            assert not path.exists()
        assert path.read_text() == "sec"
        first.write_text("the first")
    assert path.read_text() == "the first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_readers_meet_whole_files_while_many_write(tmp_path):
    path = tmp_path / "a.txt"
    # More than one write of the system takes.
    texts = [str(number) * 300_000 for number in range(4)]
    write(path, texts[0])
    with futures.ThreadPoolExecutor(4) as pool:
        done = [pool.submit(write, path, text) for text in 10 * texts]
        while not all(task.done() for task in done):
            assert path.read_text() in texts
    for task in done:
        task.result()
    assert os.listdir(tmp_path) == ["a.txt"]
