"""Tables of positions that float operators read, as a ViT has them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import inspect_file
from tflite_export import run

L = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class WithPositions(L.Layer):
    """Adds a table that is read at known places, as KerasHub's ViT does."""

    def build(self, shape):
        self.table = L.Embedding(
            shape[1],
            shape[2],
            embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="table",
        )
        self.table.build()

    def call(self, x):
        return x + self.table(keras.ops.arange(x.shape[1])[None])


def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    x = WithPositions(name="positions")(L.Dense(8)(inputs))
    x = L.LayerNormalization()(x)
    x = L.Dense(8, activation="relu")(x)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("width", [8, 4, 2])
@pytest.mark.parametrize("activations", [8, None])
def test_a_table_before_a_normalization(width, activations, tmp_path):
    """XNNPACK has nothing to run where all that is read are constants."""
    x = np.random.default_rng(0).normal(size=(32, 6, 8)).astype(np.float32)
    qmodel = quantized(model(), activation_bits=activations)
    qmodel.set_bits({"positions/table": width})
    if activations:
        msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    for target in ("cpu_int8", "min_size"):
        report = export(qmodel, path, target=target, representative_data=x)
        assert {t.name: t.bits for t in report.tensors} == qmodel.bits
        wanted = qmodel(x, training=False).numpy()
        close = 0.05 if target == "cpu_int8" else 0.1
        assert np.abs(run(path, x) - wanted).max() < close * np.ptp(wanted)
    assert "DEQUANTIZE" in {op.split()[0] for op in inspect_file(path).ops}
