"""Networks on sequences, from a search to files: keywords and vibrations."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tflite_export import ExportError
from tflite_export import export

L = keras.layers
FRAMES, FEATURES, WORDS = 49, 10, 4
# An unrolled loop has as many operators as frames.
FEW = 4
CELLS = pytest.mark.parametrize(
    "layer",
    [L.GRU, pytest.param(L.LSTM, marks=pytest.mark.slow)],
    ids=lambda layer: layer.__name__,
)


def spotter(layer, frames=FRAMES, **options):
    """Keywords in frames of 10 cepstral coefficients."""
    inputs = keras.Input((frames, FEATURES), name="mfcc")
    x = layer(16, name="cell", **options)(inputs)
    return keras.Model(inputs, L.Dense(WORDS, name="words")(x))


def convolutional():
    inputs = keras.Input((FRAMES, FEATURES), name="signal")
    x = L.Conv1D(16, 5, strides=2, padding="same", use_bias=False)(inputs)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.SeparableConv1D(16, 3, padding="same", activation="relu")(x)
    x = L.MaxPooling1D(2)(x)
    x = L.Conv1D(16, 3, dilation_rate=2, padding="causal")(x)
    x = L.GlobalAveragePooling1D()(L.ReLU()(x))
    return keras.Model(inputs, L.Dense(WORDS, name="words")(x))


def data(model, count=32):
    rng = np.random.default_rng(0)
    shape = (count, *model.input_shape[1:])
    x = rng.normal(size=shape).astype(np.float32)
    return x, x[:, :, :WORDS].mean(1).argmax(-1)


def searched(model, bits=None):
    """A model after a search, with the Hessian of every kernel."""
    keras.utils.set_random_seed(0)
    x, y = data(model)
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=bits)
    )
    qmodel.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callback = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6.0),
        interval=1,
        ranking="hessian",
        max_probes=2,
    )
    qmodel.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    assert qmodel.compression >= 6.0
    assert (qmodel.search.trace.numpy() != 0).all()
    return qmodel


def exported(qmodel, folder, target, **options):
    report = export(
        qmodel,
        folder / f"{target}.tflite",
        target=target,
        representative_data=data(qmodel.base, 8)[0],
        **options,
    )
    assert {t.name for t in report.tensors} == set(qmodel.bits)
    assert all(check.ran for check in report.checks)
    return report


@pytest.mark.slow
def test_convolutions(tmp_path):
    qmodel = searched(convolutional(), bits=8)
    for target in ("cpu_float", "min_size", "cpu_int8"):
        report = exported(qmodel, tmp_path, target)
    assert "on trained ranges" in report.activations


@pytest.mark.slow
@CELLS
def test_a_loop(layer, tmp_path):
    qmodel = searched(spotter(layer, FEW))
    assert set(qmodel.bits) == {
        f"cell/{layer.__name__.lower()}_cell/kernel",
        f"cell/{layer.__name__.lower()}_cell/recurrent_kernel",
        "words",
    }
    path = tmp_path / "m.keras"
    qmodel.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.bits == qmodel.bits
    for target in ("cpu_float", "min_size"):
        report = exported(loaded, tmp_path, target)
        assert any("batch size fixed to 1" in note for note in report.notes)
    # The loop is a graph of its own, whose tensors have no grids: float on a
    # CPU, and nothing for a device.
    exported(loaded, tmp_path, "cpu_int8")
    with pytest.raises(ExportError, match="unroll=True"):
        exported(loaded, tmp_path, "mcu")
    assert not (tmp_path / "mcu.tflite").exists()


@pytest.mark.slow
@CELLS
def test_unrolled(layer, tmp_path):
    qmodel = searched(spotter(layer, FEW, unroll=True))
    for target in ("min_size", "cpu_int8"):
        report = exported(qmodel, tmp_path, target)
        assert not any("batch size" in note for note in report.notes)


def test_a_bias_is_no_slice_of_gates(tmp_path):
    """With one row the biases of a GRU are matrices as weights are."""
    qmodel = msq_tf.quantize_model(spotter(L.GRU, FEW, unroll=True))
    for variable in qmodel.base.trainable_variables:
        if variable.name == "bias":
            variable.assign(
                np.random.default_rng(0).normal(size=variable.shape)
            )
    exported(qmodel, tmp_path, "cpu_float", batch_size=1)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [L.GRU, L.LSTM], ids=lambda x: x.__name__)
def test_unrolled_over_a_second(layer, tmp_path):
    qmodel = searched(spotter(layer, unroll=True))
    for target in ("cpu_float", "min_size", "cpu_int8"):
        exported(qmodel, tmp_path, target)


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [False, True])
def test_filters_of_convolutional_cells_have_codes(unroll, tmp_path):
    """Each gate reads its part of the filters, as a tensor of its own."""
    inputs = keras.Input((3, 6, 6, 2))
    x = L.ConvLSTM2D(
        4, 3, padding="same", return_sequences=True, unroll=unroll, name="first"
    )(inputs)
    x = L.Bidirectional(L.ConvLSTM2D(2, 2, unroll=unroll), name="both")(x)
    model = keras.Model(inputs, L.Dense(2, name="head")(L.Flatten()(x)))
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(model)
    assert len(qmodel.bits) == 7
    assert not qmodel.skipped_weights()
    qmodel.set_bits(dict(zip(qmodel.bits, (2, 8, 4, 3, 5, 8, 4), strict=True)))
    x = np.random.default_rng(0).normal(size=(4, 3, 6, 6, 2)).astype("f")
    for target in ("min_size", "cpu_float", "cpu_int8"):
        path = tmp_path / f"{target}.tflite"
        report = export(qmodel, path, target=target, representative_data=x)
        assert {t.name for t in report.tensors} == set(qmodel.bits)
        assert not report.float_tensors
        wanted = qmodel.predict(x, verbose=0)
        limit = 0.05 if target == "cpu_int8" else 1e-5
        np.testing.assert_allclose(
            tflite_export.run(path, x), wanted, atol=limit * np.ptp(wanted)
        )
