"""Runs that are told what the accuracy may lose, from flags to the verdict."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
from absl import flags

import msq_tf
from msq_tf.rules import course
from tests.killing import Killed
from tests.train.conftest import RECIPE
from tests.train.conftest import parsed
from train import phases
from train import pipeline
from train import recipes
from train import settings as settings_lib
from train.data import datasets

pytestmark = pytest.mark.usefixtures("restored_flags")


def test_a_tolerance_takes_twice_the_epochs():
    settings = parsed("--max_drop=1")
    recipe = recipes.RECIPES["fashion_mnist_mini"]
    assert settings.max_drop == 1.0
    assert settings.recipe.epochs == 2 * recipe.epochs
    flags.FLAGS["max_drop"].unparse()
    assert parsed("--max_drop=0", "--epochs=5").recipe.epochs == 5
    rule = phases.rule(settings)
    assert isinstance(rule, msq_tf.ToleranceRule)
    assert (rule.max_drop, rule.unit) == (1.0, "points")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_drop=-1"], "Received: max_drop=-1"),
        (["--max_drop=nan"], "Received: max_drop=nan"),
        (["--max_drop=1", "--rule=threshold"], "rule=threshold, max_drop=1"),
        (["--max_drop=1", "--epochs=2"], "epochs of at least 3"),
        (["--max_drop=1", "--target_compression=8"], "Expected one of"),
    ],
)
def test_flags_that_cannot_be_carried_out_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


def test_what_is_held_out_is_neither_trained_on_nor_tested():
    data = datasets.load("fashion_mnist_mini", train_examples=300)
    split = datasets.with_held_out(data)
    assert len(split.held_out) == 60
    assert len(split.train) + len(split.held_out) == 300
    assert split.test is data.test
    both = np.concatenate([split.train.images, split.held_out.images])
    assert {x.tobytes() for x in both} == {
        x.tobytes() for x in data.train.images
    }


@pytest.mark.slow
def test_a_run_keeps_its_promise_killed_or_not(
    tiny_settings, console, monkeypatch, tmp_path
):
    settings = tiny_settings(
        max_drop=4.0,
        recipe=dataclasses.replace(RECIPE, epochs=5, learning_rate=0.005),
        targets=("min_size",),
    )
    results = pipeline.run(settings, console)
    (check, *_) = results.checks
    assert (check.name, check.passed) == ("tolerance", True)
    folder = pathlib.Path(settings.output_dir)
    report = json.loads((folder / "report.json").read_text())
    assert report["settings"]["max_drop"] == 4.0

    # The last thing that a search does, after the last checkpoint.
    again = dataclasses.replace(settings, output_dir=str(tmp_path / "again"))
    end = msq_tf.MSQCallback.on_train_end

    def killed(self, logs=None):
        raise Killed

    monkeypatch.setattr(msq_tf.MSQCallback, "on_train_end", killed)
    with pytest.raises(Killed):
        pipeline.run(again, console)
    monkeypatch.setattr(msq_tf.MSQCallback, "on_train_end", end)
    resumed = pipeline.run(dataclasses.replace(again, resume=True), console)
    assert resumed.bits == results.bits
    whole, other = (
        keras.models.load_model(pathlib.Path(s.output_dir) / "model.keras")
        for s in (settings, again)
    )
    for a, b in zip(whole.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_least_epochs_are_those_of_the_search():
    assert settings_lib.LEAST_EPOCHS == course.LEAST_EPOCHS
