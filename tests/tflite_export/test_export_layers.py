"""Every kind of layer, at bits 2 to 8, through both targets."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export import run
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing

L = keras.layers
TARGETS = ("cpu_float", "min_size")


def convolutions():
    x = inputs = keras.Input((12, 12, 4))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, padding="valid", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    x = L.SeparableConv2D(8, 3, padding="same", activation="relu")(x)
    x = L.Conv2D(8, 3, dilation_rate=2, padding="same")(x)
    x = L.Conv2D(8, 3, groups=2, strides=2, padding="same")(x)
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.DepthwiseConv2D(3, dilation_rate=2)(x)
    x = L.GlobalAveragePooling2D()(L.Conv2D(5, 1)(x))
    return keras.Model(
        inputs, L.Dense(10, use_bias=False, activation="softmax")(x)
    )


def sequences():
    x = inputs = keras.Input((16, 4), name="signal")
    x = L.Conv1D(8, 3, padding="causal", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    x = L.Conv1D(8, 3, dilation_rate=2, padding="same")(x)
    x = L.SeparableConv1D(8, 3)(L.DepthwiseConv1D(3)(x))
    x = L.BatchNormalization()(L.Conv1DTranspose(6, 3, strides=2)(x))
    return keras.Model(inputs, L.Dense(9)(x))


def volumes():
    x = inputs = keras.Input((6, 6, 6, 2))
    x = L.BatchNormalization()(L.Conv3D(4, 3, padding="same")(x))
    return keras.Model(inputs, L.Conv3DTranspose(3, 3, strides=2)(x))


def attention():
    """Two inputs as a dict, two outputs as a dict, nesting and sharing."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    extra = keras.Input((5,), name="extra")
    x = L.Embedding(20, 8)(tokens)
    x = L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])
    x = L.EinsumDense("abc,cde->abde", output_shape=(None, 3, 5))(x)
    x = L.EinsumDense("abde,fde->abf", output_shape=(None, 8))(x)
    shared = L.Dense(8, activation="tanh")
    x = shared(shared(x))
    block_in = keras.Input((8,))
    block = keras.Model(
        block_in, L.BatchNormalization()(L.Dense(8)(block_in)), name="block"
    )
    x = block(L.GlobalAveragePooling1D()(x))
    y = keras.Sequential([L.Dense(8), L.Dense(4)], name="tail")(x)
    z = L.Concatenate()([x, extra])
    return keras.Model(
        {"tokens": tokens, "extra": extra}, {"y": y, "z": L.Dense(2)(z)}
    )


def normalized():
    """The converter multiplies the second kernel along its inputs."""
    x = inputs = keras.Input((6, 6, 2))
    x = L.BatchNormalization()(x)
    x = L.Flatten()(L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    x = L.BatchNormalization()(L.Dense(10)(x))
    x = L.BatchNormalization()(L.ReLU()(L.Dense(7)(x)))
    return keras.Model(inputs, L.Dense(5)(x))


def unrolled():
    x = inputs = keras.Input((4, 5))
    x = L.LSTM(4, return_sequences=True, unroll=True)(x)
    return keras.Model(inputs, L.GRU(3, unroll=True, reset_after=False)(x))


def recurrent():
    x = inputs = keras.Input((4, 5))
    x = L.LSTM(4, return_sequences=True)(x)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    return keras.Model(inputs, L.SimpleRNN(3)(x))


MODELS = (
    convolutions,
    sequences,
    volumes,
    attention,
    normalized,
    unrolled,
    recurrent,
)


def random_inputs(model, count=5):
    rng = np.random.default_rng(3)
    arrays = {}
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if "int" in tensor.dtype:
            array = rng.integers(0, 20, shape)
        else:
            array = rng.normal(size=shape)
        arrays[tensor.name] = array.astype(tensor.dtype)
    if isinstance(model.input, dict):
        return arrays
    return arrays.popitem()[1]


def by_name(outputs):
    return outputs if isinstance(outputs, dict) else {"output": outputs}


def stored_codes(path):
    """Codes of every named weight in a file, flat, signs dropped."""
    model = fb.load(path.read_bytes())
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            bits = {"INT2": 2, "INT4": 4, "INT8": 8}.get(fb.type_name(tensor))
            if bits:
                codes = packing.unpack(
                    fb.raw_data(model, tensor),
                    bits,
                    int(np.prod(fb.shape(tensor))),
                )
                # Names are unique: pieces of a weight have a number behind.
                name = re.sub(r":\d+$", "", fb.name(tensor))
                found.setdefault(name, []).append(codes)
    return found


@pytest.mark.first(1)
@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_codes_and_numbers_survive(build, tmp_path):
    qmodel = quantized(build())
    inputs = random_inputs(qmodel.base)
    expected = by_name(qmodel(inputs, training=False))
    for target in TARGETS:
        path = tmp_path / f"{target}.tflite"
        report = export(qmodel, path, target=target, representative_data=inputs)
        assert all(check.ran for check in report.checks)
        assert {t.name for t in report.tensors} == set(qmodel.bits)
        assert report.inputs == "given"
        if build in (convolutions, sequences):
            assert sum(t.dead for t in report.tensors) >= 1
            assert sum(t.flipped for t in report.tensors) >= 1
        fixed = any("batch size fixed to 1" in note for note in report.notes)
        assert fixed == (build is recurrent)
        if build is normalized:
            assert [t.unfolded for t in report.tensors].count(True) == 2
        assert path.stat().st_size == report.file_bytes
        # Readback is the exporter's own work; here once more, from outside.
        codes = stored_codes(path)
        for weight in qmodel.quantized_weights():
            magnitudes = np.sort(np.abs(weight.codes), axis=None)
            parts = codes[weight.path]
            if sum(part.size for part in parts) == weight.codes.size:
                parts = [np.concatenate(parts)]
            for part in parts:
                np.testing.assert_array_equal(np.sort(np.abs(part)), magnitudes)
        outputs = by_name(run(path, inputs, batch_size=4))
        assert outputs.keys() == expected.keys()
        for name, output in outputs.items():
            np.testing.assert_allclose(
                output, expected[name], rtol=1e-3, atol=1e-4
            )


@pytest.mark.slow
def test_per_tensor_granularity(tmp_path):
    qmodel = quantized(convolutions(), granularity=msq_tf.PerTensor())
    report = export(qmodel, tmp_path / "m.tflite")
    granularities = [t.granularity for t in report.tensors]
    # Folding a batch normalization makes factors per channel.
    assert granularities[0] == "per_channel"
    assert granularities[-1] == "per_tensor"


def test_mixed_precision_policy(tmp_path):
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, dtype="mixed_float16")(x)
    outputs = L.Dense(3, dtype="mixed_float16")(L.Flatten()(x))
    qmodel = quantized(keras.Model(inputs, outputs))
    report = export(qmodel, tmp_path / "m.tflite")
    assert len(report.tensors) == 2
