"""A run small enough for a test."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from collections.abc import Iterator

import keras
import pytest
import rich.console
from absl import flags
from absl.testing import flagsaver

from train import flags as train_flags
from train.models import builders
from train.recipes import Recipe
from train.settings import Settings


def tiny(shape: builders.Shape, classes: int, _: float) -> keras.Model:
    """Two convolutions, with all that has a state of its own in training."""
    inputs = keras.Input(shape, name="image")
    x = keras.layers.Conv2D(4, 3, strides=4, use_bias=False, name="a")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5, name="a_bn")(x)
    x = keras.layers.ReLU(name="a_relu")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, name="b")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dropout(0.2, name="drop")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="tiny")


RECIPE = Recipe(
    float_epochs=3,
    epochs=4,
    batch_size=32,
    float_learning_rate=0.05,
    learning_rate=0.02,
    shift=1,
    flip=True,
)


@pytest.fixture
def tiny_settings(monkeypatch, tmp_path) -> Callable[..., Settings]:
    """Makes the settings of a run of seconds on real images."""
    monkeypatch.setitem(builders.BUILDERS, "tiny", tiny)
    settings = Settings(
        output_dir=str(tmp_path / "run"),
        model="tiny",
        dataset="fashion_mnist_mini",
        recipe=RECIPE,
        allowed_bits=(8, 4, 2),
        target_compression=7.0,
        train_examples=160,
        test_examples=100,
    )

    def make(**changes) -> Settings:
        return dataclasses.replace(settings, **changes)

    return make


@pytest.fixture
def console() -> rich.console.Console:
    """Keeps what is printed; `console.file.getvalue()` is the text."""
    return rich.console.Console(file=io.StringIO(), width=120)


def parsed(*arguments: str) -> Settings:
    """Settings of a command line."""
    flags.FLAGS(["train", "--output_dir=out/x", *arguments])
    return train_flags.settings()


@pytest.fixture
def restored_flags() -> Iterator[None]:
    """Flags are after the test what they were before."""
    with flagsaver.flagsaver():
        yield
