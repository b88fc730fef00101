"""A sample that is no number is refused with its place."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export

L = keras.layers


@pytest.fixture(scope="module")
def qmodel():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="x"), L.Dense(2)])
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", "mse")
    return qmodel


def samples(row=None, value=np.nan):
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("f")
    if row is not None:
        x[row, 1] = value
    return x


def batches(*arrays):
    for start in range(0, 200, 16):
        found = tuple(array[start : start + 16] for array in arrays)
        yield found if len(found) > 1 else found[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", [lambda x: x, batches])
def test_an_export_names_it(tmp_path, qmodel, value, form):
    wanted = f"'x'. Received: {value} in sample 150$"
    with pytest.raises(ValueError, match=wanted):
        export(
            qmodel,
            tmp_path / "m.tflite",
            representative_data=form(samples(150, value)),
            samples=200,
        )
    assert not list(tmp_path.iterdir())


def test_an_evaluation_names_it(tmp_path, qmodel):
    report = export(qmodel, tmp_path / "m.tflite")
    y = samples()[:, :2]
    report.evaluate(samples(), y)
    for value in (np.nan, np.inf):
        wrong = samples(150, value)
        wrong[180] = value
        message = f"Received: {value} in sample 150 and in 1 more samples"
        with pytest.raises(ValueError, match=f"x for 'x'. {message}"):
            report.evaluate(wrong, y)
        with pytest.raises(ValueError, match=f"{value} in sample 150$"):
            report.evaluate(batches(wrong, y))
        with pytest.raises(ValueError, match=f"in y.*{message}"):
            report.evaluate(samples(), wrong[:, :2])


@keras.saving.register_keras_serializable(package="test_finite_rows")
def known_only(y, prediction):
    known = keras.ops.isfinite(y)
    error = keras.ops.where(known, y, prediction) - prediction
    return keras.ops.mean(error**2, axis=-1)


def test_a_loss_may_leave_targets_out(tmp_path, qmodel):
    other = msq_tf.quantize_model(
        keras.Sequential([keras.Input((4,), name="x"), L.Dense(2)])
    )
    other.compile("sgd", known_only)
    report = export(other, tmp_path / "m.tflite")
    found = report.evaluate(samples(), samples(150)[:, :2])
    assert np.isfinite(found["loss"])
