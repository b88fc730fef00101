"""Families of keras.applications, small, from quantization to the file.

The whole table is `make bench-zoo`'s; see docs/zoo.md.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras.src.applications import convnext
from keras.src.applications import densenet
from keras.src.applications import nasnet

import msq_tf
from benchmarks.files import zoo_models
from benchmarks.files import zoo_run
from tflite_export import export

SHAPE = (32, 32, 3)


def mobilenet_v2():
    return keras.applications.MobileNetV2(
        SHAPE, alpha=0.35, weights=None, classes=10, classifier_activation=None
    )


def mobilenet_v3():
    """Hard-swish, squeeze and excitation, pixels scaled inside."""
    return keras.applications.MobileNetV3Small(
        SHAPE,
        alpha=0.35,
        weights=None,
        classes=10,
        classifier_activation=None,
        minimalistic=False,
    )


def dense_blocks():
    """Concatenations of concatenations, normalization before convolution."""
    return densenet.DenseNet(
        (1, 1, 1, 1),
        weights=None,
        input_shape=SHAPE,
        classes=10,
        classifier_activation=None,
    )


def residual_v2():
    return keras.applications.ResNet50V2(
        input_shape=SHAPE, weights=None, classes=10, classifier_activation=None
    )


def efficient():
    """Swish, squeeze and excitation, normalization with known statistics."""
    return keras.applications.EfficientNetV2B0(
        input_shape=SHAPE, weights=None, classes=10, classifier_activation=None
    )


def nasnet_cells():
    """Separable convolutions and cells that read two cells before."""
    return nasnet.NASNet(
        input_shape=SHAPE,
        penultimate_filters=96,
        num_blocks=1,
        stem_block_filters=8,
        skip_reduction=False,
        weights=None,
        classes=10,
        classifier_activation=None,
        default_size=32,
    )


def inception():
    """Branches of all sizes, average pooling that ignores the padding."""
    return keras.applications.InceptionV3(
        input_shape=(75, 75, 3),
        weights=None,
        classes=10,
        classifier_activation=None,
    )


def conv_next():
    """Layer normalizations, GELU, layer scale, grouped convolutions."""
    return convnext.ConvNeXt(
        (1, 1, 1, 1),
        (8, 8, 16, 16),
        weights=None,
        input_shape=SHAPE,
        classes=10,
        classifier_activation=None,
    )


def prepared(build):
    """A model as if trained, its inputs and outputs."""
    keras.utils.set_random_seed(0)
    model = build()
    size = model.input_shape[1]
    row = zoo_models.Row("any", "any", size, low=0.0, high=255.0)
    zoo_models.enliven(model, zoo_models.images(row, 32, seed=1))
    inputs = zoo_models.images(row, 8, seed=2)
    return model, inputs, np.asarray(model(inputs, training=False))


def check_all(build, tmp_path, targets):
    model, inputs, wanted = prepared(build)
    qmodel = msq_tf.quantize_model(model)

    facts = zoo_run.coverage(model, qmodel)
    assert facts["quantized"] == facts["elements"] > 0
    assert not facts["left_out"]

    got = np.asarray(qmodel(inputs, training=False))
    error = zoo_run.agreement(wanted, got)["mean"]
    noise = zoo_run.agreement(wanted, zoo_run.with_noise(qmodel, inputs))
    assert 0 < error < 2 * noise["mean"], "more than rounding"

    widths = itertools.cycle(zoo_run.BITS)
    qmodel.set_bits({path: next(widths) for path in qmodel.paths})
    for target in targets:
        report = export(
            qmodel,
            tmp_path / f"{target}.tflite",
            target=target,
            representative_data=inputs,
        )
        names = {t.name for t in report.tensors}
        names |= {also for t in report.tensors for also in t.also}
        assert names == set(qmodel.paths)
        assert not report.float_tensors


@pytest.mark.slow
@pytest.mark.parametrize("build", [mobilenet_v3, dense_blocks, conv_next])
def test_a_small_family(build, tmp_path):
    check_all(build, tmp_path, ("cpu_int8",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [mobilenet_v2, nasnet_cells, efficient, residual_v2, inception]
)
def test_a_large_family(build, tmp_path):
    check_all(build, tmp_path, zoo_run.TARGETS)
