"""`fit` in a process that is killed, with what it kept and backed up."""

import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf import killed


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic_sums")
def test_a_killed_search_ends_with_the_same_front(root, tmp_path):
    folder = tmp_path / "killed"
    # The second epoch's model is there, the index does not name it yet.
    done = subprocess.run(
        [sys.executable, "-m", killed.__name__]
        + ["rename kept/pareto.json 3", str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = msq_tf.pareto_front(folder / "kept")
    assert left.epoch == 1
    assert left.load().bits == left.bits
    assert len(list((folder / "kept").glob("epoch-*.keras"))) == 2

    received = killed.search(folder)
    expected = killed.search(tmp_path / "whole")
    for x, y in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(x.numpy(), y.numpy(), err_msg=y.path)
    fronts = [
        msq_tf.pareto_front(run / "kept")
        for run in (folder, tmp_path / "whole")
    ]
    assert fronts[0]
    for a, b in zip(*fronts, strict=True):
        assert a.path.name == b.path.name
        assert (a.metric, a.packed_bytes) == (b.metric, b.packed_bytes)
        ours, theirs = a.load(), b.load()
        assert ours.bits == theirs.bits
        for x, y in zip(ours.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(x.numpy(), y.numpy(), err_msg=y.path)
    names = {path.name for path in (folder / "kept").iterdir()}
    assert names == {e.path.name for e in fronts[0]} | {"pareto.json"}


@pytest.mark.slow
def test_keras_goes_back_to_the_backup_before(
    tiny, compiled, tiny_data, tmp_path
):
    """What docs/checkpoints.md says of a kill inside Keras's own write."""
    x, y = tiny_data

    def backup():
        return keras.callbacks.BackupAndRestore(
            tmp_path / "backup", double_checkpoint=True, delete_checkpoint=False
        )

    model = compiled(msq_tf.quantize_model(tiny))
    model.fit(x, y, epochs=2, verbose=0, callbacks=[backup()])
    latest = tmp_path / "backup" / "latest.weights.h5"
    latest.write_bytes(latest.read_bytes()[:2000])
    epochs = []
    model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        callbacks=[
            backup(),
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: epochs.append(epoch)
            ),
        ],
    )
    assert epochs == [1, 2]
