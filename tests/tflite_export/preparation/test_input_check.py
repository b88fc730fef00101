"""Representative data on another scale than training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export

L = keras.layers


def images(scale=1.0, count=64, offset=0.0):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(count, 6, 6, 1)) + offset
    return (scale * x).astype(np.float32)


def trained(x, **config):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:], name="image"),
            L.Conv2D(4, 3, activation="relu"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(**config))
    qmodel.compile(keras.optimizers.SGD(1e-9), "mse")
    qmodel.fit(x, np.zeros((len(x), 2)), verbose=0)
    return qmodel


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("scale", "factor", "words"),
    [
        (1.0, 255.0, "times as large as.*about 0.0.* to .*Received: .* to"),
        (255.0, 1 / 255.0, "times smaller than"),
        (1.0, 100.0, "times as large as"),
    ],
)
def test_no_right_file_comes_of_another_scale(tmp_path, scale, factor, words):
    qmodel = trained(images(scale))
    with pytest.raises(ValueError, match=f"'image' is on another.*{words}"):
        export(
            qmodel,
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=images(scale * factor),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_saved_model_knows_it_too(tmp_path):
    trained(images()).save(tmp_path / "m.keras")
    qmodel = keras.models.load_model(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="on another scale"):
        export(
            qmodel,
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=images(255.0),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: 1.3 * x,
        lambda x: 0.5 * x,
        lambda x: 2.0 * x - 1.0,
        # A few outliers, a few samples.
        lambda x: np.where(np.arange(36).reshape(6, 6, 1) == 5, 40.0, x),
        lambda x: x[:10],
    ],
)
def test_natural_variation_is_nothing_to_speak_of(tmp_path, change):
    report = export(
        trained(images()),
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=change(images()).astype(np.float32),
    )
    assert not [note for note in report.notes if "image" in note]


@pytest.mark.slow
@pytest.mark.parametrize("outlier", [50.0, 1000.0])
def test_standardized_data_with_outliers(tmp_path, outlier):
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 1)).astype(np.float32)
    with_outlier = x.copy()
    with_outlier[3, 2, 2, 0] = outlier
    for fitted, given in ((with_outlier, x), (x, with_outlier)):
        report = export(
            trained(fitted),
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=given,
        )
        assert not [note for note in report.notes if "image" in note]


@pytest.mark.first(1)
@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_what_may_be_right_is_noted(tmp_path, factor):
    report = export(
        trained(images()),
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=images(factor),
    )
    (note,) = [note for note in report.notes if "'image'" in note]
    assert "preprocessing" in note and " times " in note


@pytest.mark.slow
@pytest.mark.parametrize("factor", [255.0, 1 / 255.0])
def test_files_that_measure_nothing_are_right_all_the_same(tmp_path, factor):
    report = export(
        trained(images()),
        tmp_path / "m.tflite",
        target="min_size",
        representative_data=images(factor),
    )
    assert [note for note in report.notes if "'image' ranges from" in note]


@pytest.mark.slow
def test_trained_ranges_are_not_measured(tmp_path):
    qmodel = trained(images(), activation_bits=8)
    with pytest.raises(ValueError, match="on another scale"):
        export(
            qmodel,
            tmp_path / "m.tflite",
            target="cpu_int8",
            representative_data=images(255.0),
        )
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=images(1 / 100.0),
    )
    assert [note for note in report.notes if "times smaller" in note]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "word"), [(1, "1 sample:"), (3, "3 samp")])
def test_few_samples_get_a_word(tmp_path, count, word):
    qmodel = trained(images())
    options = {"target": "cpu_int8"}
    path = tmp_path / "m.tflite"
    few = export(qmodel, path, representative_data=images()[:count], **options)
    assert [note for note in few.notes if word in note]
    many = export(qmodel, path, representative_data=images(), **options)
    assert not [note for note in many.notes if "sample" in note]


def test_nan_in_any_variable_is_named(tmp_path):
    qmodel = trained(images())
    bias = qmodel.base.layers[-1].bias
    bias.assign([0.0, np.nan])
    with pytest.raises(ExportError, match="NaN in '.*bias'"):
        export(qmodel, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
