"""A file that answers the same to everything is refused."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export
from tflite_export.conversion.source import from_model
from tflite_export.verification import alike

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = X[:, :3].argmax(1)


def trained(activation=None, bits=8):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,), name="x"),
            L.Dense(16, activation="relu", name="a"),
            L.Dense(3, activation=activation, name="b"),
        ]
    )
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=not activation),
    )
    qmodel.fit(X, Y, epochs=5, verbose=0)
    return qmodel


@pytest.mark.slow
@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("site", [0, 1])
def test_a_range_that_an_outlier_left_is_refused(tmp_path, activation, site):
    """As files of before may have one: Keras computes with it just as badly."""
    qmodel = trained(activation)
    qmodel.activation_quantizers.high[site].assign(9e30)
    with pytest.raises(
        ExportError, match="does not.*Training loses it.*varies"
    ):
        export(
            qmodel,
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=X,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_loses_what_training_keeps_is_told(tmp_path):
    """As where a grid of the file is not the trained one."""
    qmodel = trained()
    source = dataclasses.replace(
        from_model(qmodel), base=qmodel.base, trained_ranges=True
    )
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=X)
    data = path.read_bytes()
    with pytest.raises(ExportError, match="The file loses it, not training"):
        alike.check(data, source, [[X]], [True], even=1.0)


@pytest.mark.slow
def test_an_outlier_in_the_data_itself_is_told_before(tmp_path):
    x = X.copy()
    x[3] = 1e12
    with pytest.raises(ValueError, match="on another scale"):
        export(
            trained(bits=None),
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=x,
        )


@pytest.mark.slow
def test_a_model_that_answers_the_same_is_right(tmp_path):
    qmodel = trained()
    head = qmodel.base.layers[-1]
    head.kernel.assign(np.zeros(head.kernel.shape))
    export(
        qmodel, tmp_path / "m.tflite", target="cpu_int8", representative_data=X
    )


@pytest.mark.slow
def test_inputs_that_are_the_same_prove_nothing(tmp_path):
    export(
        trained(),
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=np.repeat(X[:1], 8, axis=0),
    )
