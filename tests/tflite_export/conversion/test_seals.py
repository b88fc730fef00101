"""Weights that the converter would fold into something keep their codes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import float_tflite
from tflite_export.flatbuffer import model as fb

L = keras.layers
POSITIONS, WIDTH = 6, 8


class Positions(L.Layer):
    """A biased Dense beside a table of positions, as in a ViT."""

    def __init__(self, rows):
        super().__init__(name="patches")
        self.dense = L.Dense(WIDTH, name="dense")
        self.table = L.Embedding(rows, WIDTH, name="table")

    def build(self, shape):
        self.dense.build(shape)
        self.table.build(None)
        self.built = True

    def call(self, x):
        places = keras.ops.expand_dims(keras.ops.arange(0, POSITIONS), 0)
        return self.dense(x) + self.table(places)


def positions(rows):
    inputs = keras.Input((POSITIONS, 5))
    x = L.Flatten()(Positions(rows)(inputs))
    return keras.Model(inputs, L.Dense(2, name="head")(x))


def exact(qmodel, folder, target="cpu_float", **options):
    """Exports, and asserts that every weight is there by its trained codes."""
    report = export(qmodel, folder / "m.tflite", target=target, **options)
    names = {t.name for t in report.tensors}
    names |= {also for t in report.tensors for also in t.also}
    assert names == set(qmodel.bits)
    return report


@pytest.mark.first(1)
@pytest.mark.parametrize("rows", [POSITIONS, 20])
def test_a_table_of_positions_is_not_added_to_a_bias(rows, tmp_path):
    report = exact(quantized(positions(rows)), tmp_path, "min_size")
    (table,) = [t for t in report.tensors if "table" in t.name]
    # Rows that no position has are not in the file.
    assert table.shape[-2:] == (POSITIONS, WIDTH) and table.exact_scale
    assert "ADD" in table.ops


class Relative(L.Layer):
    """T5's biases of attention by distance, read more often than they are."""

    def build(self, shape):
        self.relative_attention_bias = self.add_weight(
            shape=(4, 2), initializer="normal", name="relative_attention_bias"
        )

    def call(self, x):
        places = np.abs(np.arange(3)[:, None] - np.arange(3)[None])
        return x + keras.ops.take(self.relative_attention_bias, places, axis=0)


def test_a_table_that_is_read_several_times_stays_a_table(tmp_path):
    inputs = keras.Input((3, 3, 2))
    model = keras.Model(inputs, L.Dense(3)(Relative(name="bias")(inputs)))
    qmodel = msq_tf.quantize_model(
        model, filters=["dense", "bias/relative_attention_bias"]
    )
    report = exact(qmodel, tmp_path)
    (table,) = [t for t in report.tensors if "relative" in t.name]
    assert table.shape == (4, 2) and table.ops == ("GATHER",)


class Tied(L.Layer):
    """Tokens are looked up in the matrix that the outputs are made with."""

    def build(self, shape):
        self.table = L.Embedding(12, 8, name="table")
        self.table.build(None)
        self.dense = L.Dense(8, name="dense")
        self.dense.build((None, 8))

    def call(self, x):
        x = self.dense(self.table(x))
        return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings))


def test_a_table_that_is_multiplied_with_too_is_there_once(tmp_path):
    inputs = keras.Input((5,), dtype="int32")
    qmodel = quantized(keras.Model(inputs, Tied(name="tied")(inputs)))
    report = exact(qmodel, tmp_path)
    (table,) = [t for t in report.tensors if t.name == "tied/table"]
    assert set(table.ops) == {"GATHER", "FULLY_CONNECTED"}


class Standardized(L.Conv2D):
    """A convolution whose filters are normalized before use."""

    def call(self, x):
        kernel = self.kernel
        kernel = kernel - keras.ops.mean(kernel, axis=(0, 1, 2))
        kernel = kernel / (keras.ops.std(kernel, axis=(0, 1, 2)) + 1e-3)
        return keras.ops.conv(x, kernel, 1, "valid")


@pytest.mark.slow
def test_filters_that_are_normalized_are_normalized_in_the_file(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            Standardized(4, 3, name="conv"),
            L.ReLU(),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    for target in ("cpu_float", "min_size"):
        exact(quantized(model), tmp_path, target)


class OfConstants(L.Layer):
    """Distances, which are numbers, through a projection, as in XLNet."""

    def build(self, shape):
        self.project = L.EinsumDense("td,dh->th", (8,), name="project")
        self.project.build((6, 4))
        self.dense = L.Dense(8, name="dense")
        self.dense.build(shape)

    def call(self, x):
        known = np.sin(np.arange(24).reshape(6, 4)).astype("f")
        projected = self.project(keras.ops.convert_to_tensor(known))
        return keras.ops.matmul(self.dense(x), keras.ops.transpose(projected))


def test_a_weight_that_only_numbers_meet_is_multiplied_in_the_file(tmp_path):
    inputs = keras.Input((6, 5))
    exact(quantized(keras.Model(inputs, OfConstants()(inputs))), tmp_path)


@pytest.mark.slow
def test_an_average_with_a_factor_an_element_is_no_weight(tmp_path):
    """A LayerNormalization's gamma has as many elements as the last kernel."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(16, name="first"),
            L.LayerNormalization(),
            L.Dense(1, name="last"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("f")
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.Adam(1e-2), "mse")
    qmodel.fit(x, x[:, :1], epochs=5, verbose=0)
    report = exact(qmodel, tmp_path, representative_data=x)
    assert [t.ops for t in report.tensors] == [("FULLY_CONNECTED",)] * 2


def test_kernels_that_any_codes_would_explain_are_told_apart(tmp_path):
    """With one input each output has one weight, and a factor of its own."""
    inputs = keras.Input((1,))
    branches = []
    for name in "ab":
        x = L.Dense(16, use_bias=False, name=name)(inputs)
        branches.append(L.ReLU()(L.BatchNormalization()(x)))
    outputs = L.Dense(2, name="c")(L.Concatenate()(branches))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 2, variable.shape))
    config = msq_tf.MSQConfig(granularity=msq_tf.PerTensor())
    report = exact(msq_tf.quantize_model(model, config), tmp_path)
    assert all(t.exact_scale for t in report.tensors if t.name in "ab")


@pytest.mark.slow
def test_a_spectrogram_is_no_weight_left_behind(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((512,)),
            L.MelSpectrogram(fft_length=64, num_mel_bins=8, sampling_rate=8000),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    report = exact(quantized(model), tmp_path)
    reasons = {f.reason for f in report.float_tensors}
    # Its matrices are constants of the traced graph.
    assert reasons == {"written in the model's code"}


@pytest.mark.slow
def test_the_waves_of_a_short_time_transform_have_codes(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((256, 1)),
            L.STFTSpectrogram(
                frame_length=32, frame_step=16, fft_length=32, name="stft"
            ),
            L.GlobalAveragePooling1D(),
            L.Dense(2, name="head"),
        ]
    )
    qmodel = quantized(model)
    assert set(qmodel.bits) == {"stft/real_kernel", "stft/imag_kernel", "head"}
    report = exact(qmodel, tmp_path)
    assert not report.float_tensors


@pytest.mark.slow
def test_a_layer_that_stays_in_float_blocks_nothing(tmp_path):
    """A convolutional LSTM cuts its filters into those of its gates."""
    model = keras.Sequential(
        [
            keras.Input((3, 6, 6, 2)),
            L.ConvLSTM2D(4, 3, padding="same", name="lstm"),
            L.Flatten(),
            L.Dense(2, name="dense"),
        ]
    )
    config = msq_tf.MSQConfig(
        overrides={"lstm/.*": msq_tf.LayerConfig(skip=True)}
    )
    report = exact(msq_tf.quantize_model(model, config), tmp_path)
    names = {f.name.rpartition("/")[2] for f in report.float_tensors}
    assert names == {"kernel", "recurrent_kernel"}


@pytest.mark.slow
def test_a_wrong_code_is_still_found(tmp_path, monkeypatch):
    qmodel = quantized(positions(20))
    records = qmodel.quantized_weights()

    def changed():
        table = next(w for w in records if "table" in w.path)
        table.codes[3, 2] += 1
        return records

    # The graph is traced with the codes as they are.
    wanted = export(qmodel, tmp_path / "m.tflite").tensors
    scope = qmodel.quantized_scope()
    monkeypatch.setattr(qmodel, "quantized_scope", lambda: scope)
    monkeypatch.setattr(qmodel, "quantized_weights", changed)
    with pytest.raises(ValueError, match="table"):
        export(qmodel, tmp_path / "m.tflite")
    assert len(wanted) == 3


def test_a_plain_model_is_converted_as_it_is():
    model = positions(20)
    graph = fb.load(float_tflite(model)).subgraphs[0]
    assert len(graph.inputs) == 1
