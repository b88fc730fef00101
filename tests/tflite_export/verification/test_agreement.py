"""Where there is something to decide, and who decides alike."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export
from tflite_export import exporting
from tflite_export.integer import calibrate
from tflite_export.verification import agreement
from tflite_export.verification.agreement import Decision

L = keras.layers


def found(layers, loss, ask=False):
    """Decisions of a small model, compiled with a loss or not."""
    model = keras.Sequential([keras.Input((5,)), *layers])
    qmodel = msq_tf.quantize_model(model)
    if loss is not None:
        qmodel.compile("sgd", loss)
    data = exporting.float_tflite(qmodel)
    (decision,) = agreement.decisions(data, qmodel, ask)
    return decision


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("layers", "loss", "decision"),
    [
        ([L.Dense(10)], "mse", None),
        ([L.Dense(10)], None, None),
        ([L.Dense(10)], LOGITS, Decision()),
        ([L.Dense(10, activation="softmax")], "mse", Decision()),
        ([L.Dense(4), L.Softmax(), L.Reshape((2, 2))], None, Decision()),
        ([L.Dense(1, activation="sigmoid")], None, Decision(0.5)),
        (
            [L.Dense(3, activation="sigmoid")],
            "binary_crossentropy",
            Decision(0.5),
        ),
        # An autoencoder of pixels.
        ([L.Dense(10, activation="sigmoid")], "mse", None),
        (
            [L.Dense(1)],
            keras.losses.BinaryCrossentropy(from_logits=True),
            Decision(0.0),
        ),
        ([L.Dense(10, activation="tanh")], "mae", None),
    ],
)
def test_classes_are_where_model_and_loss_have_them(layers, loss, decision):
    assert found(layers, loss) == decision


def test_a_user_says_that_there_are_classes():
    assert found([L.Dense(10)], None, ask=True) == Decision()
    assert found([L.Dense(10)], "mse", ask=True) is None


@pytest.mark.slow
def test_each_output_has_its_own():
    x = keras.Input((5,))
    outputs = {
        "b": L.Dense(4, activation="softmax")(x),
        "a": L.Dense(4)(x),
        "c": L.Dense(3)(x),
    }
    qmodel = msq_tf.quantize_model(keras.Model(x, outputs))
    qmodel.compile(
        "sgd", {"a": "mse", "b": "categorical_crossentropy", "c": LOGITS}
    )
    data = exporting.float_tflite(qmodel)
    assert agreement.decisions(data, qmodel) == [None, Decision(), Decision()]


def test_what_is_even_is_alike():
    wanted = np.array([[0.50, 0.46, 0.1], [0.9, 0.1, 0.0], [0.0, 0.2, 0.3]])
    got = np.array([[0.4, 0.5, 0.1], [0.1, 0.9, 0.0], [0.0, 0.2, 0.3]])
    alike = Decision().alike(got, wanted, even=0.04)
    assert alike.tolist() == [True, False, True]
    alike = Decision(0.5).alike(
        np.array([0.51, 0.51, 0.7]), np.array([0.49, 0.3, 0.9]), even=0.02
    )
    assert alike.tolist() == [True, False, True]


def test_maps_of_classes_are_decided_place_by_place():
    wanted = np.eye(3)[np.array([[0, 1], [2, 0]])]
    got = np.eye(3)[np.array([[0, 1], [2, 1]])]
    assert Decision().alike(got, wanted, 0.1).tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_how_many_may_differ():
    assert agreement.misses(64, 0.97) == 1
    assert agreement.misses(200, 0.97) == 6
    assert agreement.misses(8, 0.97) == 1
    assert agreement.misses(8, 1.0) == 0


@pytest.mark.slow
def test_a_file_that_decides_otherwise_is_not_handed_over(tmp_path):
    """Calibrated on one input, a file clips all others."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    x[0] *= 1e-3
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(16, activation="relu"),
            L.Dense(8, activation="softmax"),
        ]
    )
    qmodel = msq_tf.quantize_model(model)
    # Scores that differ by more than a unit of a softmax.
    for layer in model.layers:
        layer.kernel.assign(8.0 * layer.kernel)
    arguments = {"target": "cpu_int8", "representative_data": x}

    def clip(ranges):
        return {k: (low / 50, high / 50) for k, (low, high) in ranges.items()}

    right = calibrate.calibrate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "calibrate", lambda *a: clip(right(*a)))
        path = tmp_path / "m.tflite"
        with pytest.raises(ExportError, match=r"min_agreement=0\.97") as error:
            export(qmodel, path, **arguments)
        assert "representative_data that covers" in str(error.value)
        assert not path.exists()
        export(qmodel, path, min_agreement=0.01, **arguments)
    export(qmodel, path, **arguments)
    with pytest.raises(ValueError, match="Received: min_agreement=2"):
        export(qmodel, path, min_agreement=2, **arguments)


def test_a_regressor_is_not_told_of_classes(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    model = keras.Sequential([keras.Input((6,)), L.Dense(10)])
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", "mse")
    report = export(
        qmodel, tmp_path / "m", target="cpu_int8", representative_data=x
    )
    assert all(check.agreement is None for check in report.checks)
    assert not any("class" in note for note in report.notes)
