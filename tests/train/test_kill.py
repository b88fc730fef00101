"""The same command, killed again and again, ends as if it never was."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.train import killed
from tests.train.conftest import RECIPE
from train import pipeline

# In the order of a run: each command gets past the point of the one before.
POINTS = (
    "rename float/epoch-0002.weights.h5",
    "write msq/epoch-0002.weights.h5",
    "decision",
    "rename run/model.keras",
)
SETTINGS = {
    # A search that goes on after its first checkpoint.
    "recipe": dataclasses.replace(RECIPE, epochs=12),
    "target_compression": 15.0,
    "targets": ("min_size",),
    "resume": True,
}


def command(settings) -> list[str]:
    names = ("output_dir", "model", "target_compression")
    names += ("train_examples", "test_examples")
    values = {name: getattr(settings, name) for name in names}
    values |= {"targets": "min_size"}
    values |= {
        name: value
        for name, value in dataclasses.asdict(settings.recipe).items()
        if value is not None
    }
    return ["--resume", *(f"--{name}={v}" for name, v in values.items())]


@pytest.mark.slow
def test_a_killed_command_ends_as_an_unkilled_one(
    tiny_settings, console, root, tmp_path
):
    settings = tiny_settings(**SETTINGS)
    for point in POINTS:
        done = subprocess.run(
            [sys.executable, "-m", killed.__name__, point, *command(settings)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
    received = pipeline.run(settings, console)
    whole = tiny_settings(**SETTINGS, output_dir=str(tmp_path / "whole"))
    expected = pipeline.run(whole, console)

    assert received.bits == expected.bits
    ours, theirs = (pathlib.Path(run.output_dir) for run in (settings, whole))
    for name in ("history.jsonl", "float.tflite", "min_size.tflite"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    a, b = (
        keras.models.load_model(run / "model.keras") for run in (ours, theirs)
    )
    assert b.history_of_bits()[-1].epoch > 1
    np.testing.assert_equal(a.history_of_bits(), b.history_of_bits())
    # Not the seed generators': Keras saves none, a run sets them by its own.
    pairs = zip(
        a.weights + a.optimizer.variables,
        b.weights + b.optimizer.variables,
        strict=True,
    )
    for x, y in pairs:
        np.testing.assert_array_equal(x.numpy(), y.numpy(), err_msg=y.path)
