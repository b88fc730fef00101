"""Models inside of models, which TFMOT refuses, frozen ones among them."""

import numpy as np
import pytest

from tests.tfmot.samples import exported
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import randomize
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import train_step
from tests.tfmot.samples import trained
from tests.tfmot.samples import view_at


@pytest.mark.slow
@pytest.mark.parametrize("application", ["MobileNetV3Small", "MobileNetV2"])
def test_a_whole_application(application, tmp_path):
    """The zoo of tf_keras, with a frozen backbone under a new head."""
    kind = getattr(tf_keras.applications, application)
    backbone = kind((32, 32, 3), alpha=0.35, weights=None, include_top=False)
    backbone.trainable = False
    inputs = layers.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    model = tf_keras.Model(inputs, layers.Dense(3, name="head")(x))
    data = images(32, 32, 3)
    view = view_at(trained(model, data))
    assert not view.skipped_weights()
    assert len(view.model.trainable_variables) == 2
    exported(view, tmp_path / "m.tflite", data, "min_size", "cpu_int8")


def nested_model():
    """A backbone with a block in it, called in inference mode, and a head."""
    block = tf_keras.Sequential(
        [
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
        ],
        name="block",
    )
    start = layers.Input((8, 8, 3))
    features = layers.Conv2D(6, 1, name="conv")(start)
    backbone = tf_keras.Model(
        start, layers.Add()([features, block(features)]), name="backbone"
    )
    inputs = layers.Input((8, 8, 3))
    x = backbone(inputs, training=False)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, layers.Dense(3, name="head")(x))


@pytest.mark.slow
def test_nested_models(tmp_path):
    """`Quantizing a keras Model inside another keras Model is not
    supported`.
    """
    model = nested_model()
    with pytest.raises(ValueError, match="inside another"):
        quantization.quantize_model(model)
    randomize(model)
    x = images(8, 8, 3)
    flat = msq.flatten_model(model)
    np.testing.assert_allclose(flat(x), model(x), atol=1e-6)
    # The backbone was called with training=False: it stays at its statistics.
    np.testing.assert_allclose(
        flat(x, training=True), model(x, training=True), atol=1e-6
    )
    view = view_at(trained(model, x), (4, 3, 5))
    assert view.bits == {"conv": 4, "block_conv": 3, "head": 5}
    exported(view, tmp_path / "m.tflite", x, "min_size", "cpu_int8")


@pytest.mark.slow
def test_a_frozen_backbone_stays_frozen():
    model = nested_model()
    model.get_layer("backbone").trainable = False
    qat_model = msq.quantize_model(model)
    assert {v.name for v in qat_model.trainable_variables} == {
        "head/kernel:0",
        "head/bias:0",
    }
    before = [v.numpy() for v in qat_model.non_trainable_variables]
    x = images(8, 8, 3)
    train_step(qat_model, x, 3)
    kernels = msq.ModelView(qat_model).kernels
    for variable, value in zip(
        qat_model.non_trainable_variables, before, strict=True
    ):
        if any(variable is kernel for kernel in kernels[:2]):
            np.testing.assert_array_equal(variable, value)
