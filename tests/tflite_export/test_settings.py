"""Settings of layers that a device can't run, or runs in another form.

What is refused before the training is what an export refuses, and no more.
"""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.keras3 import target_checks
from tests.tflite_export.test_coverage import ops
from tflite_export import ExportError
from tflite_export import check
from tflite_export import export
from tflite_export.devices import micro
from tflite_export.devices import qualcomm_tools

L = keras.layers
OPS = keras.ops
U85 = "U85"
DEVICES = ("mcu", "ethos_u", "edgetpu", "qualcomm_npu")
# What can't run: by case the layers, the shape of an image, and the targets
# that refuse it; of the Ethos-U, `U85` where that one runs it.
CASES = {
    "transposed, 2x2": (L.Conv2DTranspose(3, 3, 2, "same"), (5, 6, 3), {}),
    "transposed, 2x2 of 4x4": (
        L.Conv2DTranspose(3, 4, 2, "same", activation="relu"),
        (5, 6, 3),
        {},
    ),
    "transposed, 3x3": (
        L.Conv2DTranspose(3, 3, 3, "same"),
        (5, 6, 3),
        {"ethos_u": U85},
    ),
    "transposed, 1x2": (
        L.Conv2DTranspose(3, 3, (1, 2), "same"),
        (5, 6, 3),
        {"ethos_u": U85},
    ),
    "transposed, a row": (
        L.Conv2DTranspose(3, (1, 4), (1, 2), "same"),
        (1, 6, 3),
        {},
    ),
    "transposed, gaps": (
        L.Conv2DTranspose(3, 2, 3),
        (5, 6, 3),
        {"ethos_u": U85},
    ),
    "transposed sequence": (L.Conv1DTranspose(3, 4, 2, "same"), (7, 3), {}),
    "transposed, dilated": (
        L.Conv2DTranspose(3, 3, dilation_rate=2),
        (5, 6, 3),
        dict.fromkeys((*DEVICES, "cpu_float", "cpu_int8"), "no"),
    ),
    "convolution, 4x4": (L.Conv2D(3, 6, 4, "same"), (17, 18, 3), {}),
    "convolution, 1x4": (L.Conv2D(3, 3, (1, 4), "same"), (9, 18, 3), {}),
    "convolution, 4x4, padded before": (
        lambda x: L.Conv2D(3, 5, 4)(L.ZeroPadding2D(2)(x)),
        (17, 18, 3),
        {},
    ),
    "depthwise, 4x4": (
        L.DepthwiseConv2D(5, 4, "same"),
        (17, 18, 3),
        {"ethos_u": U85},
    ),
    "largest of 5x5, 4x4": (
        L.MaxPooling2D(5, 4, "same"),
        (17, 18, 3),
        {"ethos_u": U85},
    ),
    "largest of 4x4": (L.MaxPooling2D(4), (16, 16, 3), {}),
    "average of 9x9, padded": (
        L.AveragePooling2D(9, 1, "same"),
        (12, 12, 3),
        {"ethos_u": "no"},
    ),
    "twice as high": (L.UpSampling2D((2, 1)), (5, 6, 3), {}),
    "three times": (L.UpSampling2D(3), (5, 6, 3), {}),
    "blended, twice": (
        L.UpSampling2D(2, interpolation="bilinear"),
        (5, 6, 3),
        {},
    ),
    "blended, four times": (
        L.UpSampling2D(4, interpolation="bilinear"),
        (5, 6, 3),
        {"ethos_u": U85},
    ),
    "blended, three times": (
        L.UpSampling2D(3, interpolation="bilinear"),
        (5, 6, 3),
        {"ethos_u": "no"},
    ),
    "blended from a pixel": (
        L.UpSampling2D((5, 7), interpolation="bilinear"),
        (1, 1, 3),
        {},
    ),
    "resized to 7x9": (L.Resizing(7, 9), (6, 6, 3), {"ethos_u": "no"}),
    "resized to 12x12": (L.Resizing(12, 12), (6, 6, 3), {}),
    "copied to 7x9": (
        L.Resizing(7, 9, interpolation="nearest"),
        (6, 6, 3),
        {"ethos_u": U85},
    ),
    "mean of a volume": (
        L.GlobalAveragePooling3D(),
        (3, 4, 4, 2),
        {"edgetpu": "no"},
    ),
    "mean, channels first": (
        L.GlobalAveragePooling2D(data_format="channels_first"),
        (3, 6, 8),
        {},
    ),
    "mean of channels": (
        lambda x: OPS.mean(x, -1, keepdims=True),
        (6, 5, 4),
        {},
    ),
    "mean of five channels": (
        lambda x: OPS.mean(x, -1),
        (6, 5),
        {"edgetpu": "no"},
    ),
    "unit of five channels": (
        L.UnitNormalization(),
        (6, 5),
        {"edgetpu": "no"},
    ),
    "backwards": (lambda x: OPS.flip(x, 1), (6, 5), {"edgetpu": "no"}),
    "cropped volume": (
        L.Cropping3D(1),
        (4, 4, 4, 2),
        {"mcu": "no", "edgetpu": "no"},
    ),
}


@pytest.fixture(autouse=True)
def _without_arenas(monkeypatch):
    monkeypatch.setattr(micro, "smallest_arena", lambda data, x, most: most)


def model(name):
    """The layer before a dense one."""
    keras.utils.set_random_seed(0)
    make, shape, _ = CASES[name]
    if isinstance(make, L.Layer):
        # A layer that was called belongs to a model.
        make = type(make).from_config(make.get_config())
    inputs = keras.Input(shape)
    return keras.Model(inputs, L.Dense(2)(L.Flatten()(make(inputs))))


def said_before(given, target):
    """What training says: nothing, `U85`, or no."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            target_checks.check_model(given, (target,))
        except ValueError:
            return "no"
    texts = [str(one.message) for one in caught]
    return U85 if any("only U85" in text for text in texts) else None


@pytest.mark.parametrize("name", CASES)
def test_what_training_says(name):
    given = model(name)
    refused = CASES[name][2]
    for target in (*DEVICES, "cpu_float", "cpu_int8"):
        # What computes wrong numbers on five axes is another matter.
        if target == "qualcomm_npu" and len(CASES[name][1]) > 3:
            continue
        assert said_before(given, target) == refused.get(target), target


def _qmodel(name):
    given = model(name)
    x = np.random.default_rng(0).normal(size=(8, *CASES[name][1])).astype("f")
    qmodel = msq_tf.quantize_model(given, msq_tf.MSQConfig(activation_bits=8))
    qmodel(x, training=True)
    return qmodel, x


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_exports_refuse_the_same(name, tmp_path):
    if name == "transposed, dilated":
        pytest.skip("TensorFlow can't compute it on a CPU")
    qmodel, x = _qmodel(name)
    for target in DEVICES:
        word = CASES[name][2].get(target)
        options = {
            "ethos_u": {"accelerators": ["ethos-u55-128"]},
            "qualcomm_npu": {"socs": []},
        }.get(target)
        path = tmp_path / f"{target}.tflite"
        if word is None:
            check(qmodel, target, x)
            export(qmodel, path, target, x, device_options=options)
            continue
        with pytest.raises(ExportError):
            check(qmodel, target, x)
        with pytest.raises(ExportError):
            export(qmodel, path, target, x, device_options=options)
        assert not path.exists()
        if word == U85:
            options = {"accelerators": ["ethos-u85-256"]}
            export(qmodel, path, target, x, device_options=options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if "transposed" in n])
def test_the_npu_takes_transposed_convolutions(
    name, root, monkeypatch, tmp_path
):
    monkeypatch.setenv(qualcomm_tools.ENVIRONMENT, str(root / ".venv-qnn"))
    if qualcomm_tools.folder() is None:
        pytest.skip("no .venv-qnn; `make setup-qnn` makes it")
    if "qualcomm_npu" in CASES[name][2]:
        pytest.skip("refused")
    qmodel, x = _qmodel(name)
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        "qualcomm_npu",
        x,
        device_options={"socs": ["SM8650"]},
        verbose=False,
    )
    found = report.device["socs"]["SM8650"]
    assert not found["cpu_operators"] and found["max_units"] <= 2


@pytest.mark.slow
def test_forms_for_ethos_u(tmp_path):
    """The same codes, in operators that Vela takes."""
    for name, words in (
        ("convolution, 4x4", {"PAD", "SLICE", "CONV_2D"}),
        ("mean of channels", {"RESHAPE", "MEAN"}),
        ("mean of a volume", {"RESHAPE", "MEAN"}),
        ("backwards", {"SLICE", "CONCATENATION"}),
    ):
        qmodel, x = _qmodel(name)
        path = tmp_path / "m.tflite"
        export(
            qmodel,
            path,
            "ethos_u",
            x,
            device_options={"accelerators": ["ethos-u55-128"]},
        )
        assert words <= set(ops(path))


@pytest.mark.slow
def test_a_layer_that_this_machine_lacks_is_refused_in_words(tmp_path):
    inputs = keras.Input((3, 8, 8))
    x = L.Conv2D(4, 3, data_format="channels_first")(inputs)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    data = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("float32")
    try:
        qmodel(data)
    except tf.errors.OpError:
        pass
    else:  # Some processors have kernels for it; then the file is verified.
        export(qmodel, tmp_path / "m.tflite", "cpu_float", data)
        return
    with pytest.raises(ExportError, match="channels_first.*Received: .*NCHW"):
        export(qmodel, tmp_path / "m.tflite", "cpu_float", data)
    assert not list(tmp_path.iterdir())
