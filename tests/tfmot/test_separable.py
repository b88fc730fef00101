"""The seam of a separable convolution has a range."""

import numpy as np
import pytest

from tests.tfmot.samples import exported
from tests.tfmot.samples import images
from tests.tfmot.samples import layers
from tests.tfmot.samples import msq
from tests.tfmot.samples import quantization
from tests.tfmot.samples import tf_keras
from tests.tfmot.samples import trained
from tests.tfmot.samples import view_at

SEQUENCE = (12, 3)
IMAGE = (10, 10, 3)


def model_of(layer, shape):
    return tf_keras.Sequential(
        [layers.Input(shape), layer, layers.Flatten(), layers.Dense(3)]
    )


def ranges(qat_model):
    return {
        v.name.removesuffix("_max:0")
        for v in qat_model.variables
        if v.name.endswith("_max:0") and not v.shape.rank
    }


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("make", "shape", "options"),
    [
        (layers.SeparableConv1D, SEQUENCE, {}),
        (layers.SeparableConv1D, SEQUENCE, {"strides": 2, "padding": "same"}),
        (
            layers.SeparableConv1D,
            SEQUENCE,
            {"dilation_rate": 2, "padding": "causal", "activation": "relu"},
        ),
        (
            layers.SeparableConv1D,
            SEQUENCE,
            {"depth_multiplier": 2, "use_bias": False, "activation": "tanh"},
        ),
        (layers.SeparableConv2D, IMAGE, {"padding": "same", "strides": 2}),
        (layers.SeparableConv2D, IMAGE, {"dilation_rate": 2}),
    ],
)
def test_its_parts_compute_what_it_computes(make, shape, options):
    model = model_of(make(4, 3, name="s", **options), shape)
    qat_model = msq.quantize_model(model)
    x = images(*shape)
    plain = msq.strip_quantization(qat_model)
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-5, atol=1e-6)
    assert "quant_s_depthwise/post_activation" in ranges(qat_model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (
            lambda: layers.SeparableConv1D(4, 3, padding="causal", name="s"),
            SEQUENCE,
        ),
        (lambda: layers.SeparableConv2D(4, 3, name="s"), IMAGE),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_the_file_rounds_nothing_that_training_does_not(
    layer, shape, own, tmp_path
):
    made = layer()
    if own:
        made = quantization.quantize_annotate_layer(
            made, msq.MSQQuantizeConfig(start_bits=6)
        )
    x = images(*shape)
    qat_model = trained(model_of(made, shape), x)
    bits = msq.ModelView(qat_model).bits
    assert bits["s_depthwise"] == bits["s_pointwise"] == (6 if own else 8)
    path = tmp_path / "m.tflite"
    report = exported(view_at(qat_model), path, x, "cpu_int8")
    assert "no site" not in " ".join(report.notes)
    qat_model.save(tmp_path / "m.keras")
    with quantization.quantize_scope():
        loaded = tf_keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), qat_model(x))


def test_it_keeps_its_float_type():
    model = model_of(
        layers.SeparableConv1D(4, 3, name="s", dtype="mixed_float16"), SEQUENCE
    )
    qat_model = msq.quantize_model(model)
    parts = [layer for layer in qat_model.layers if "quant_s_" in layer.name]
    assert [part.layer.compute_dtype for part in parts] == ["float16"] * 2


def test_weights_that_are_named_stay_together():
    layer = quantization.quantize_annotate_layer(
        layers.SeparableConv1D(4, 3, name="s"),
        msq.MSQQuantizeConfig(weights=["pointwise_kernel"]),
    )
    qat_model = msq.quantize_model(model_of(layer, SEQUENCE))
    assert "s" in msq.ModelView(qat_model).bits
