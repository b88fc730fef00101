from __future__ import annotations

import keras
import numpy as np
import pytest

from train.models import builders

WEIGHTS = (keras.layers.Conv2D, keras.layers.Dense)


def weight_layers(model):
    return [layer for layer in model.layers if isinstance(layer, WEIGHTS)]


def test_resnet8_is_that_of_mlperf_tiny():
    model = builders.build("resnet8", (32, 32, 3), 10)
    layers = weight_layers(model)
    # The eight of its name, and two shortcuts.
    assert len(layers) == 10
    # MLPerf Tiny's has 78,666 parameters. The biases that it has in front of
    # batch normalization, which takes them out again, are left out here.
    normalized = [layer for layer in layers if not layer.use_bias]
    biases = sum(layer.filters for layer in normalized)
    assert len(normalized) == 7
    assert model.count_params() + biases == 78_666


@pytest.mark.parametrize(("name", "count"), [("resnet8", 10), ("resnet20", 22)])
def test_resnets_have_their_weight_layers_and_logits(name, count):
    model = builders.build(name, (28, 28, 1), 7)
    assert len(weight_layers(model)) == count
    outputs = model(np.zeros((2, 28, 28, 1), np.float32))
    assert outputs.shape == (2, 7)
    assert model.layers[-1].activation is keras.activations.linear


def test_names_are_the_same_however_often_a_model_is_built():
    first, second = (builders.build("resnet8", (28, 28, 1), 3) for _ in "12")
    assert [x.name for x in first.layers] == [x.name for x in second.layers]


@pytest.mark.slow
def test_mobilenet_v2_takes_a_width():
    model = builders.build("mobilenet_v2", (32, 32, 3), 10, alpha=0.35)
    assert model.output_shape == (None, 10)
    assert model.count_params() < 450_000


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "count"), [("deit_tiny", 5_910_800), ("swin_tiny", 28_288_354)]
)
def test_transformers_are_those_of_the_papers(name, count):
    """As many parameters as the authors' models have."""
    model = builders.build(name, (224, 224, 3), 1000)
    assert model.count_params() == count
    assert model.output_shape == (None, 1000)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["vit_micro", "swin_micro"])
@pytest.mark.parametrize("size", [28, 32])
def test_small_transformers_take_small_images(name, size):
    model = builders.build(name, (size, size, 1), 7)
    outputs = model(np.zeros((2, size, size, 1), np.float32))
    assert outputs.shape == (2, 7)
    assert model.count_params() < 250_000


def test_any_keras_application_can_be_named():
    model = builders.build(
        "keras.applications.MobileNetV3Small", (32, 32, 1), 5
    )
    assert model.input_shape == (None, 32, 32, 1)
    assert model.output_shape == (None, 5)


@pytest.mark.parametrize(
    "name",
    [
        "resnet9",
        "keras.applications.Nothing",
        "keras.applications.resnet",
        "keras.layers.Dense",
    ],
)
def test_an_unknown_model_is_refused(name):
    with pytest.raises(ValueError, match=f"Received: model={name}"):
        builders.build(name, (32, 32, 3), 10)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_micro", 30, "multiples of patch=4"),
        ("deit_tiny", 40, "multiples of patch=16"),
        ("swin_micro", 31, "multiples of patch=2"),
        ("swin_micro", 22, "windows of up to 7x7"),
        ("swin_tiny", 28, "even height and width"),
    ],
)
def test_images_that_do_not_divide_are_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        builders.build(name, (size, size, 3), 10)


def test_images_that_a_model_does_not_take_are_refused():
    with pytest.raises(ValueError, match="--image_size resizes"):
        builders.build("mobilenet_v2", (28, 28, 1), 10)
