"""A training that has diverged ends in words, whatever phase it is in."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from train import pipeline
from train.diverged import StopAtNaN


def model():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    return net


def fit(net, x, epochs=3):
    return net.fit(
        x,
        x[:, :1],
        epochs=epochs,
        verbose=0,
        callbacks=[StopAtNaN("msq", "learning_rate")],
    )


def test_weights_that_are_nan_are_named():
    x = np.ones((8, 2), np.float32)
    x[3] = np.nan
    with pytest.raises(
        ValueError,
        match="msq training has diverged in epoch 1.*--learning_rate"
        ".*loss=nan, NaN in .*kernel and 1 more weights",
    ):
        fit(model(), x)


def test_a_step_that_was_skipped_is_no_reason():
    net = model()
    net.optimizer.learning_rate = 0.0
    callback = StopAtNaN("msq", "learning_rate")
    callback.set_model(net)
    callback.on_epoch_end(0, {"loss": np.nan})
    callback.on_epoch_end(1, {"loss": 0.5})
    callback.on_epoch_end(2, {"loss": np.inf})
    with pytest.raises(ValueError, match="epoch 4.*loss=nan, finite weights"):
        callback.on_epoch_end(3, {"loss": np.nan})


def test_finite_training_goes_on():
    history = fit(model(), np.ones((8, 2), np.float32)).history
    assert len(history["loss"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learning_rate", "float_learning_rate"])
def test_a_run_whose_learning_rate_is_too_large(tiny_settings, console, name):
    settings = tiny_settings()
    recipe = dataclasses.replace(settings.recipe, **{name: 1e30})
    with pytest.raises(ValueError, match="not finite|training has diverged"):
        pipeline.run(dataclasses.replace(settings, recipe=recipe), console)
    assert "loss nan" not in console.file.getvalue()
