"""Banks of experts, which have a scale for each expert and feature."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export.conversion.seals import _merged
from tflite_export.conversion.seals import _order

L = keras.layers
EXPERTS, WIDTH, INNER = 3, 4, 6


@keras.saving.register_keras_serializable(package="tests")
@msq_tf.register_quantizable("up", "down", axis=(0, -1))
class Experts(L.Layer):
    """All experts of every token, as KerasHub has them."""

    def build(self, shape):
        self.up = self.add_weight(shape=(EXPERTS, WIDTH, INNER), name="up")
        self.down = self.add_weight(shape=(EXPERTS, INNER, WIDTH), name="down")

    def call(self, x):
        inner = keras.ops.relu(keras.ops.einsum("bh,ehm->ebm", x, self.up))
        each = keras.ops.einsum("ebi,eih->ebh", inner, self.down)
        return keras.ops.sum(each, axis=0)


@pytest.mark.slow
def test_a_bank_is_a_matrix_in_the_file(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((WIDTH,))
    model = keras.Model(inputs, L.Dense(2)(Experts(name="experts")(inputs)))
    qmodel = quantized(model)
    qmodel.set_bits({"experts/up": 4, "experts/down": 2})
    x = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    report = export(
        qmodel, tmp_path / "m.tflite", "min_size", representative_data=x
    )
    tensors = {t.name: t for t in report.tensors}
    down = tensors["experts/down"]
    assert down.shape == (EXPERTS * WIDTH, INNER)
    assert down.granularity == "per_channel" and down.exact_scale
    assert down.container == "INT2"
    assert tensors.keys() == qmodel.bits.keys()


@pytest.mark.parametrize(
    ("shape", "step", "order"),
    [
        ((3, 4, 5), (3, 1, 5), (0, 2, 1)),
        ((3, 4, 5), (3, 4, 1), (0, 1, 2)),
        ((3, 4, 5), (1, 1, 5), ()),
        ((3, 1, 5), (3, 1, 5), (0, 2, 1)),
        ((4, 5), (1, 1), ()),
    ],
)
def test_the_matrix_has_a_scale_for_each_row(shape, step, order):
    rng = np.random.default_rng(0)
    weight = msq_tf.QuantizedWeight(
        path="w",
        layer="L",
        attribute="w",
        layout=msq_tf.Layout.OTHER,
        channel_axes=(0,),
        codes=rng.integers(-7, 8, shape).astype(np.int8),
        step=rng.uniform(0.5, 1.5, step).astype(np.float32),
        bits=4,
    )
    assert _order(weight) == order
    if order:
        merged = _merged(weight, order)
        rows = int(np.prod(step))
        assert merged.codes.shape[0] == rows and merged.step.shape == (rows, 1)
        split = merged.values.reshape([shape[k] for k in order])
        np.testing.assert_array_equal(
            split.transpose(np.argsort(order)), weight.values
        )
