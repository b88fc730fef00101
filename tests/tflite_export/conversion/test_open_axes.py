"""Models that leave height, width or length open."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
import tflite_export
from tflite_export.inspect import compare
from tflite_export.runtime import interpreter

L = keras.layers
RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def tokens(*shape):
    return RNG.integers(0, 20, shape).astype(np.int32)


def convolution():
    return keras.Sequential(
        [
            keras.Input((None, None, 1)),
            L.Conv2D(4, 3, activation="relu"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


def two_inputs():
    a = keras.Input((None, None, 1), name="a")
    b = keras.Input((None, None, 1), name="b")
    x = L.Conv2D(4, 3, strides=2, padding="same")(a)
    y = L.Conv2D(4, 5, padding="same")(b)
    added = L.GlobalAveragePooling2D()(L.Add()([x, y]))
    return keras.Model({"a": a, "b": b}, L.Dense(2)(added))


def sequence(*layers, width=4):
    return keras.Sequential([keras.Input((None, width)), *layers, L.Dense(3)])


def of_tokens():
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            L.Embedding(20, 4),
            L.GlobalAveragePooling1D(),
            L.Dense(3),
        ]
    )


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class Positions(L.Layer):
    """Adds one of 24 learned positions."""

    def build(self, shape):
        self.table = self.add_weight(shape=(24, shape[-1]), name="table")

    def call(self, x):
        return x + self.table[None, : keras.ops.shape(x)[1]]


# Model, data, and inputs of a third size.
FLOATS = {
    "images": (convolution, noise(4, 12, 12, 1), noise(2, 9, 17, 1)),
    "width": (
        lambda: keras.Sequential(
            [keras.Input((6, None, 1)), L.Conv2D(2, 3), L.Conv2D(1, 1)]
        ),
        noise(4, 6, 12, 1),
        noise(2, 6, 17, 1),
    ),
    "inputs that depend on each other": (
        two_inputs,
        {"a": noise(4, 12, 16, 1), "b": noise(4, 6, 8, 1)},
        {"a": noise(2, 20, 8, 1), "b": noise(2, 10, 4, 1)},
    ),
    "convolutions of sequences": (
        lambda: sequence(L.Conv1D(4, 3, dilation_rate=2), L.MaxPooling1D()),
        noise(4, 12, 4),
        noise(2, 17, 4),
    ),
    "recurrent": (
        lambda: sequence(L.GRU(3)),
        noise(4, 6, 4),
        noise(2, 9, 4),
    ),
    "tokens": (of_tokens, tokens(4, 6), tokens(2, 11)),
}


def export(model, path, target="min_size", data=None, **options):
    return tflite_export.export(
        model,
        path,
        target=target,
        representative_data=data,
        verbose=False,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOATS)
def test_sizes_stay_open_in_float_files(name, tmp_path):
    make, data, others = FLOATS[name]
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(make())
    report = export(qmodel, tmp_path / "m.tflite", data=data)
    (note,) = [n for n in report.notes if "sizes are open" in n]
    assert " and at " in note
    for x in (data, others):
        got = tflite_export.run(tmp_path / "m.tflite", x)
        wanted = qmodel.predict(x, verbose=0)
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
def test_integer_files_have_the_size_of_the_data(target, tmp_path):
    qmodel = msq_tf.quantize_model(convolution())
    report = export(
        qmodel, tmp_path / "m.tflite", target, data=noise(8, 12, 10, 1)
    )
    assert any("12 x 10 x 1" in n and "fixed" in n for n in report.notes)
    session = interpreter.Session(
        (tmp_path / "m.tflite").read_bytes(), "builtin"
    )
    assert not session.open_inputs
    assert tuple(session.inputs[0]["shape"][1:]) == (12, 10, 1)


def test_integer_files_of_sequences(tmp_path):
    qmodel = msq_tf.quantize_model(sequence(L.Conv1D(4, 3), L.ReLU()))
    report = export(qmodel, tmp_path / "m", "cpu_int8", data=noise(8, 9, 4))
    assert any("9 x 4" in note for note in report.notes)


@pytest.mark.slow
def test_trained_ranges_need_no_data_but_a_size(tmp_path):
    qmodel = msq_tf.quantize_model(
        convolution(), msq_tf.MSQConfig(activation_bits=8)
    )
    qmodel.compile("sgd", "mse")
    qmodel.fit(noise(16, 12, 12, 1), np.zeros((16, 3)), verbose=0)
    with pytest.raises(
        ValueError, match="open.*representative_data.*input_signature.*Received"
    ):
        export(qmodel, tmp_path / "m", "cpu_int8")
    assert not list(tmp_path.iterdir())
    signature = tf.TensorSpec((None, 12, 12, 1))
    report = export(
        qmodel, tmp_path / "m", "cpu_int8", input_signature=signature
    )
    assert report.inputs == "random"


@pytest.mark.slow
def test_batches_of_several_sizes(tmp_path):
    qmodel = msq_tf.quantize_model(convolution())
    batches = [noise(4, 12, 12, 1), noise(4, 9, 17, 1), noise(4, 12, 12, 1)]
    report = export(qmodel, tmp_path / "m", data=iter(batches))
    assert report.checks[0].samples == 8
    assert any(
        "12 x 12 x 1 and at" in n and "9 x 17" in n for n in report.notes
    )
    report = export(qmodel, tmp_path / "m", "cpu_int8", data=batches)
    assert any("left out: 1" in note for note in report.notes)


@pytest.mark.slow
def test_sizes_that_the_model_does_not_take(tmp_path):
    """Half the length where twice is too long; no data, no known length."""
    inputs = keras.Input((None, 4))
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, L.Dense(3)(Positions()(inputs)))
    )
    report = export(qmodel, tmp_path / "m", data=noise(4, 16, 4))
    assert any("16 x 4 and at 'input' of 8 x 4" in n for n in report.notes)
    report = export(qmodel, tmp_path / "m", data=noise(4, 15, 4))
    assert any("15 x 4 only" in note for note in report.notes)
    with pytest.raises(ValueError, match="takes none.*representative_data"):
        export(qmodel, tmp_path / "m")


def test_what_is_not_traced_with_open_sizes_is_fixed(tmp_path):
    """Keras resizes by interpolation to lengths that it knows."""
    inputs = keras.Input((None, None, 1))
    x = L.UpSampling2D(interpolation="bilinear")(L.Conv2D(2, 3)(inputs))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    data = noise(4, 12, 12, 1)
    report = export(qmodel, tmp_path / "m.tflite", data=data)
    assert any("12 x 12 x 1: open ones are refused" in n for n in report.notes)
    np.testing.assert_allclose(
        tflite_export.run(tmp_path / "m.tflite", data),
        qmodel(data),
        atol=1e-5,
    )


def test_a_size_built_into_the_file_is_noticed(tmp_path, monkeypatch):
    """Whatever the reason, the file is then for one size."""
    from tflite_export.conversion import open_axes

    monkeypatch.setattr(open_axes, "_differ", lambda got, wanted: True)
    qmodel = msq_tf.quantize_model(convolution())
    report = export(qmodel, tmp_path / "m", data=noise(4, 12, 12, 1))
    assert any("computes other numbers" in note for note in report.notes)


@pytest.mark.slow
def test_files_with_open_sizes_compare(tmp_path):
    qmodel = msq_tf.quantize_model(convolution())
    data = noise(4, 12, 12, 1)
    paths = [tmp_path / name for name in ("open", "fixed")]
    export(qmodel, paths[0], data=data)
    export(qmodel, paths[1], "cpu_int8", data=data)
    for inputs in (data, None):
        result = compare.compare_files(*paths, inputs)
        assert result.outputs[0].relative_error < 0.1
        assert "?x?x1" in result.files[0].inputs[0]
    with pytest.raises(ValueError, match="don't fit the input"):
        compare.compare_files(paths[0], paths[0], noise(4, 12))
