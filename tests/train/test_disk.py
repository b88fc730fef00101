"""A disk that is full or read-only costs no more than a kill does."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from msq_tf.atomic_files import NotWrittenError
from train import __main__ as command
from train import pipeline
from train.folder import checkpoints
from train.folder.workspace import HISTORY


@contextlib.contextmanager
def limited(size):
    """No file of this process may grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leave_room_until(monkeypatch, phase, epoch, room):
    """Has the disk full at the end of an epoch."""
    end = checkpoints.EpochCheckpoint.on_epoch_end

    def on_epoch_end(self, number, logs=None):
        if (self._phase, number + 1) == (phase, epoch):
            with room:
                end(self, number, logs)
        else:
            end(self, number, logs)

    monkeypatch.setattr(
        checkpoints.EpochCheckpoint, "on_epoch_end", on_epoch_end
    )


@contextlib.contextmanager
def full_history():
    """The row of an epoch is cut short."""
    fsync = os.fsync

    def refuse(descriptor):
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == HISTORY:
            os.truncate(path, path.stat().st_size - 9)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = refuse
    try:
        yield
    finally:
        os.fsync = fsync


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "epoch", "room", "name"),
    [
        # HDF5 meets the limit in the middle of its file.
        ("msq", 3, limited(20_000), "checkpoints/msq/epoch-0003.weights.h5"),
        pytest.param(
            "float", 2, full_history(), HISTORY, marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_goes_on_when_there_is_room_again(
    tiny_settings, console, tmp_path, monkeypatch, phase, epoch, room, name
):
    settings = tiny_settings(targets=("min_size",), resume=True)
    folder = pathlib.Path(settings.output_dir)
    with monkeypatch.context() as patch:
        leave_room_until(patch, phase, epoch, room)
        with pytest.raises(NotWrittenError) as caught:
            pipeline.run(settings, console)
    assert caught.value.filename == str(folder / name)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    kept = sorted((folder / "checkpoints" / phase).iterdir())
    # The last two states, whole, and nothing half done.
    names = [f"epoch-{n:04d}.weights.h5" for n in range(1, epoch)]
    assert [path.name for path in kept] == names[-2:]
    for path in kept:
        with h5py.File(path) as file:
            assert len(file) > 0

    received = pipeline.run(settings, console)
    text = console.file.getvalue()
    assert f"Resuming {phase} training at epoch {epoch}." in text
    whole = tiny_settings(
        targets=("min_size",), output_dir=str(tmp_path / "whole")
    )
    expected = pipeline.run(whole, console)
    assert received.bits == expected.bits
    for name in (HISTORY, "float.tflite", "min_size.tflite"):
        ours, theirs = folder / name, tmp_path / "whole" / name
        assert ours.read_bytes() == theirs.read_bytes(), name
    np.testing.assert_equal(
        received.to_dict()["float_accuracy"],
        expected.to_dict()["float_accuracy"],
    )


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_line(root, tmp_path):
    arguments = ["--model=resnet8", "--train_examples=64", "--batch_size=64"]
    done = subprocess.run(
        [sys.executable, "-m", "train", f"--output_dir={tmp_path}", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        # Room for the settings, not for a checkpoint.
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (60_000, 60_000)
        ),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "error: A file could not be written (File too large). Expected room "
        "there; what was written before is whole. Received: path="
        f"{tmp_path}/checkpoints/float/epoch-0001.weights.h5\n"
    )
    assert not list((tmp_path / "checkpoints" / "float").iterdir())
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    "error",
    [
        NotWrittenError(errno.ENOSPC, "A file could not be written", "x"),
        OSError(errno.EROFS, "Read-only file system", "x"),
    ],
)
def test_what_the_system_refuses_is_no_traceback(
    tmp_path, monkeypatch, capsys, error
):
    def refuse(settings):
        raise error

    monkeypatch.setattr(pipeline, "run", refuse)
    monkeypatch.setattr(command.train_flags, "settings", lambda: None)
    if not command.flags.FLAGS.is_parsed():
        command.flags.FLAGS(["train"])
    assert command.main(["train"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place, options):
    subprocess.run(
        ["mount", "-o", f"remount,{options}", str(place)], check=True
    )


@pytest.mark.slow
def test_a_disk_that_fills_up_and_one_that_is_read_only(disk, root):
    """As a user meets them: the same command, until it ends."""
    folder, filler = disk / "run", disk / "filler"
    # Three checkpoints of a ResNet-8 are 2.2 MB at once.
    filler.write_bytes(bytes(1_300_000))

    def run():
        return subprocess.run(
            [
                *(sys.executable, "-m", "train", "--resume"),
                f"--output_dir={folder}",
                *("--model=resnet8", "--train_examples=64", "--batch_size=32"),
                *("--test_examples=50", "--float_epochs=4", "--epochs=1"),
                *("--target_compression=5", "--targets=min_size"),
            ],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = run()
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "written (No space left on device). Expected room" in done.stderr
    assert "epoch-0003.weights.h5" in done.stderr
    kept = [f"epoch-{n:04d}.weights.h5" for n in (1, 2)]
    float_folder = folder / "checkpoints" / "float"
    assert sorted(p.name for p in float_folder.iterdir()) == kept

    remount(disk, "ro")
    done = run()
    assert done.returncode == 2, done.stderr
    assert "written (Read-only file system). Expected write" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in float_folder.iterdir()) == kept

    remount(disk, "rw,size=9m")
    done = run()
    assert done.returncode in (0, 1), done.stderr
    assert "Resuming float training at epoch 3." in done.stdout
    assert (folder / "min_size.tflite").exists()
