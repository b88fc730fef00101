"""The evidence behind the targets' tables: every cell, run for real."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from msq_tf.weight_layout import Layout
from tests.tflite_export.samples import HandMade
from tests.tflite_export.samples import weight
from tflite_export import export
from tflite_export import targets

L = keras.layers
BITS = (2, 4, 8)


class Positions(L.Embedding):
    """Adds a table's rows in their order, which the converter looks up."""

    def call(self, inputs):
        return inputs + super().call(np.arange(self.input_dim))


# operator -> input shape, layer, layout, channel axes of its weight
CASES = {
    "ADD": (
        (4, 5),
        functools.partial(Positions, 4, 5),
        Layout.EMBEDDING,
        (1,),
    ),
    "BATCH_MATMUL": (
        (3, 4),
        functools.partial(L.EinsumDense, "abc,bcd->abd", (3, 5)),
        Layout.EINSUM,
        (2,),
    ),
    "CONV_2D": (
        (6, 5, 3),
        functools.partial(L.Conv2D, 4, 3),
        Layout.CONV,
        (3,),
    ),
    "CONV_3D": (
        (4, 5, 4, 2),
        functools.partial(L.Conv3D, 3, 2),
        Layout.CONV,
        (4,),
    ),
    "CONV_3D_TRANSPOSE": (
        (2, 3, 2, 2),
        functools.partial(L.Conv3DTranspose, 3, 2),
        Layout.CONV_TRANSPOSE,
        (3,),
    ),
    "DEPTHWISE_CONV_2D": (
        (6, 5, 3),
        functools.partial(L.DepthwiseConv2D, 3, depth_multiplier=2),
        Layout.DEPTHWISE,
        (2, 3),
    ),
    "FULLY_CONNECTED": (
        (7,),
        functools.partial(L.Dense, 5),
        Layout.DENSE,
        (1,),
    ),
    "GATHER": (
        (4,),
        functools.partial(L.Embedding, 11, 5),
        Layout.EMBEDDING,
        (1,),
    ),
    "TRANSPOSE_CONV": (
        (4, 3, 3),
        functools.partial(L.Conv2DTranspose, 4, 3, strides=2),
        Layout.CONV_TRANSPOSE,
        (2,),
    ),
}


def hand_made(op: str, granularity: str) -> HandMade:
    """Three layers side by side, one for each container."""
    shape, layer, layout, axes = CASES[op]
    rng = np.random.default_rng(0)
    is_index = op == "GATHER"
    inputs = keras.Input(shape, dtype="int32" if is_index else "float32")
    layers = [layer() for _ in BITS]
    base = keras.Model(inputs, [one(inputs) for one in layers])
    variables = [one.weights[0] for one in layers]
    weights = []
    for bits, variable in zip(BITS, variables, strict=True):
        top = 2 ** (bits - 1) - 1
        scales = [
            n if a in axes and granularity == "per_channel" else 1
            for a, n in enumerate(variable.shape)
        ]
        weights.append(
            weight(
                rng.integers(-top, top + 1, variable.shape),
                rng.uniform(0.01, 0.1, scales),
                layout,
                axes,
                bits,
                f"at_{bits}",
            )
        )
    return HandMade(base, weights, variables=variables)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", targets.GRANULARITIES)
@pytest.mark.parametrize("op", sorted(CASES))
def test_cell(op, granularity, tmp_path):
    model = hand_made(op, granularity)
    for name in ("cpu_float", "min_size"):
        report = export(model, tmp_path / "m.tflite", target=name)
        target = targets.load(name)
        assert all(check.ran for check in report.checks)
        for tensor in report.tensors:
            assert tensor.ops == (op,)
            assert tensor.granularity == granularity
            assert tensor.container == target.container(tensor.bits)


def test_every_cell_is_tested():
    for name in targets.names():
        for cell in targets.load(name).cells:
            assert set(cell.ops) <= set(CASES)
