"""A run that is interrupted and resumed ends as one that is not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.killing import Killed
from train import phases
from train.context import Context
from train.data import datasets
from train.folder import checkpoints
from train.folder.workspace import FLOAT_MODEL
from train.folder.workspace import HISTORY
from train.folder.workspace import MODEL
from train.folder.workspace import Workspace
from train.progress import EpochProgress

STEPS = 5


@pytest.fixture(autouse=True)
def deterministic():
    tf.config.experimental.enable_op_determinism()


@pytest.fixture
def context_of(tiny_settings, tmp_path, console):
    """Makes the context of a run in a folder of its own."""

    def make(name):
        settings = tiny_settings(output_dir=str(tmp_path / name))
        data = datasets.load(
            settings.dataset,
            train_examples=settings.train_examples,
            test_examples=settings.test_examples,
        )
        return Context(settings, data, Workspace(settings.output_dir), console)

    return make


def train(context):
    phases.float_model(context, phases.check(context))
    return phases.quantized_model(context)


def kill_at(monkeypatch, step):
    """Ends training in the middle of the given step, once."""
    steps = iter(range(10_000))
    advance = EpochProgress.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if next(steps) == step:
            raise Killed
        advance(self, batch, logs)

    monkeypatch.setattr(EpochProgress, "on_train_batch_end", on_train_batch_end)


def rows(context):
    return checkpoints.history(context.workspace)


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([2], id="before the first checkpoint"),
        # The second time, two epochs of float training are left to do.
        pytest.param([STEPS + 1, 3 * STEPS + 2], id="in each phase"),
    ],
)
def test_the_end_is_that_of_an_uninterrupted_run(
    context_of, monkeypatch, steps
):
    whole = context_of("whole")
    expected = train(whole)
    broken = context_of("broken")
    for step in steps:
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(Killed):
                train(broken)
    received = train(broken)

    assert received.bits == expected.bits
    assert received.compression >= 7.0
    pairs = zip(received.variables, expected.variables, strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(
            np.asarray(ours), np.asarray(theirs), err_msg=theirs.path
        )
    assert rows(broken) == rows(whole)


@pytest.mark.slow
def test_a_finished_run_is_loaded(context_of, monkeypatch):
    context = context_of("run")
    expected = train(context)
    kill_at(monkeypatch, 0)  # no step is taken again
    received = train(context)
    assert received.bits == expected.bits
    images = tf.zeros((2, 28, 28, 1))
    np.testing.assert_array_equal(received(images), expected(images))


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [True, False])
def test_a_damaged_model_is_made_again(context_of, monkeypatch, sealed):
    context = context_of("run")
    workspace = context.workspace
    if sealed:
        workspace.claim(context.settings.identity(), True, False)
    expected = train(context)
    # The last checkpoints are as good: no step is taken again.
    kill_at(monkeypatch, 0)
    for name in (FLOAT_MODEL, MODEL):
        path = workspace.path(name)
        data = path.read_bytes()
        middle = len(data) // 2
        other = bytes(255 - byte for byte in data[middle : middle + 64])
        path.write_bytes(data[:middle] + other + data[middle + 64 :])
    received = train(context)
    text = context.console.file.getvalue()
    told = " ".join(text.split())
    assert told.count("A model is damaged and made again: ") == 2
    assert received.bits == expected.bits
    for ours, theirs in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(
            np.asarray(ours), np.asarray(theirs), err_msg=theirs.path
        )
    for name in (FLOAT_MODEL, MODEL):
        workspace.check(name)


@pytest.mark.slow
def test_a_torn_checkpoint_gives_way_to_the_one_before(context_of, monkeypatch):
    context = context_of("run")
    with monkeypatch.context() as patch:
        kill_at(patch, 2 * STEPS + 1)
        with pytest.raises(Killed):
            train(context)
    folder = context.workspace.path("checkpoints/float")
    last = folder / "epoch-0002.weights.h5"
    last.write_bytes(last.read_bytes()[:100])
    history = context.workspace.path(HISTORY)
    history.write_text(history.read_text() + '{"phase": "fl')

    phases.float_model(context, phases.check(context))
    assert (
        "Resuming float training at epoch 2." in context.console.file.getvalue()
    )
    assert [row["epoch"] for row in rows(context)] == [1, 2, 3]
    assert len(list(folder.iterdir())) == 2
