"""Models of integer files compute on the grids of these files."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import msq_tf
import tflite_export
from msq_tf.keras3.activation_grid import ActivationGrid
from tests.tflite_export.importing.networks import autoencoder
from tests.tflite_export.importing.networks import calibrate
from tests.tflite_export.importing.networks import detector
from tests.tflite_export.importing.networks import keyword
from tests.tflite_export.importing.networks import mobile
from tests.tflite_export.importing.networks import samples
from tests.tflite_export.importing.networks import segmenter
from tests.tflite_export.importing.networks import settle
from tests.tflite_export.importing.networks import written
from tflite_export.flatbuffer import model as flat

L = keras.layers
INT8X8 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
INT16X8 = (
    tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
)


def many():
    """Operators that the others have not."""
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu6")(L.ZeroPadding2D(1)(x))
    x = L.AveragePooling2D(2)(x)
    y = L.Activation("tanh")(L.Conv2D(4, 1)(x))
    z = L.Activation("hard_silu")(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.Subtract()([L.Multiply()([x, L.Activation("sigmoid")(z)]), y])
    x = L.UpSampling2D(2, interpolation="bilinear")(x)
    x = L.Concatenate()([x, L.UpSampling2D(2)(z)])
    x = L.LeakyReLU(0.1)(L.Conv2D(4, 3, 2)(x))
    x = L.Dense(8, activation="relu")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(x))


def quantized(
    model, path, ops=INT8X8, ends=None, channels=True, representative=None
):
    """A file of integers, as a user of TensorFlow makes it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [ops]
    converter._experimental_disable_per_channel = not channels
    if ends is not None:
        converter.inference_input_type = ends
        converter.inference_output_type = ends
    x = samples(model, 50) if representative is None else representative
    calibrate(converter, x)
    return written(converter, path)


def values_of_file(path, x):
    """Real values of its outputs, and the value of one code of each."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    found = []
    for sample in x:
        interpreter.set_tensor(given["index"], codes_of(sample, given)[None])
        interpreter.invoke()
        found.append(
            [
                real(interpreter.get_tensor(entry["index"])[0], entry)
                for entry in interpreter.get_output_details()
            ]
        )
    steps = [last_step(path, i) for i in range(len(found[0]))]
    return [np.stack(column) for column in zip(*found, strict=True)], steps


def codes_of(values, entry):
    scale, zero = entry["quantization"]
    if not scale:
        return values
    kind = np.iinfo(entry["dtype"])
    codes = np.round(values.astype(np.float64) / scale) + zero
    return np.clip(codes, kind.min, kind.max).astype(entry["dtype"])


def real(codes, entry):
    scale, zero = entry["quantization"]
    return (codes.astype(np.float64) - zero) * scale if scale else codes


def last_step(path, place):
    """Scale of an output, or of the integers before it."""
    model = flat.load(path.read_bytes())
    graph = model.subgraphs[0]
    at = flat.outputs(graph)[place]
    for op in reversed(graph.operators):
        kind = flat.op_name(model, op)
        if flat.outputs(op)[0] == at and kind in ("DEQUANTIZE", "QUANTIZE"):
            at = flat.inputs(op)[0]
    return float(graph.tensors[at].quantization.scale[0])


def in_steps(path, model, count=32):
    """Differences to the file in codes of each output, and that to a grid."""
    x = samples(model, count)
    wanted, steps = values_of_file(path, x)
    got = keras.tree.flatten(model.predict(x, batch_size=count, verbose=0))
    return [
        (
            np.abs(a - b) / step,
            np.abs(b / step - np.round(b / step)).max(),
        )
        for a, b, step in zip(wanted, got, steps, strict=True)
    ]


# The interpreter's own sets of kernels differ from each other by as much.
def check(path, model, equal=0.9, near=0.99):
    for apart, off in in_steps(path, model):
        assert np.mean(apart < 0.5) >= equal
        assert np.mean(apart < 1.5) >= near
        assert off < 0.01


@pytest.mark.first(1)
@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize(
    "network", [keyword, autoencoder, detector, segmenter, mobile, many]
)
def test_outputs_are_those_of_the_file(network, channels, tmp_path):
    path = quantized(
        settle(network()), tmp_path / "m.tflite", channels=channels
    )
    check(path, msq_tf.from_tflite(path))


@pytest.mark.slow
@pytest.mark.parametrize("ends", [tf.int8, tf.uint8])
def test_ends_of_integers(ends, tmp_path):
    path = quantized(settle(keyword()), tmp_path / "m.tflite", ends=ends)
    model = msq_tf.from_tflite(path)
    assert model.inputs[0].dtype == "float32"
    check(path, model)


@pytest.mark.slow
@pytest.mark.parametrize("network", [keyword, autoencoder, detector])
def test_activations_of_16_bits(network, tmp_path):
    path = quantized(settle(network()), tmp_path / "m.tflite", INT16X8)
    # Codes are fine, and multipliers and tables of kernels have fewer bits.
    model = msq_tf.from_tflite(path)
    check(path, model, equal=0.5, near=0.9)
    assert max(apart.max() for apart, _ in in_steps(path, model)) < 32


def test_real_numbers_where_asked_for(tmp_path):
    path = quantized(settle(autoencoder()), tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path, round_activations=False)
    assert not grids_of(model)
    ((_, off),) = in_steps(path, model)
    assert off > 0.1


def grids_of(model):
    return [x for x in model.layers if isinstance(x, ActivationGrid)]


def weights_of(path):
    """Codes of kernels, and the grids of what they write, in their order."""
    model = flat.load(path.read_bytes())
    graph = model.subgraphs[0]
    kinds = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    found = []
    for op in graph.operators:
        if flat.op_name(model, op) in kinds:
            kernel = graph.tensors[flat.inputs(op)[1]]
            output = graph.tensors[flat.outputs(op)[0]]
            found.append(
                (
                    flat.constant(model, kernel),
                    float(output.quantization.scale[0]),
                    int(output.quantization.zeroPoint[0]),
                )
            )
    return found


@pytest.mark.first(1)
@pytest.mark.parametrize("network", [keyword, autoencoder])
def test_the_round_trip_gives_the_same_integers(network, tmp_path):
    path = quantized(settle(network()), tmp_path / "m.tflite", ends=tf.int8)
    check_again(path, tmp_path / "again.tflite", "cpu_int8")


def check_again(path, again, target):
    """A file of what a file says has its integers, and no range is measured."""
    # As the converter, DoReFa divides the largest weight by 127.
    config = msq_tf.MSQConfig(activation_bits=8, quantizer="dorefa")
    qmodel = msq_tf.quantize_model(msq_tf.from_tflite(path), config)
    x = samples(qmodel.base, 32)
    tflite_export.export(
        qmodel, again, target=target, batch_size=1, representative_data=x[:2]
    )
    before, after = weights_of(path), weights_of(again)
    assert len(before) == len(after)
    for (codes, scale, zero), (own, own_scale, own_zero) in zip(
        before, after, strict=True
    ):
        np.testing.assert_array_equal(own.reshape(codes.shape), codes)
        assert own_scale == pytest.approx(scale, rel=1e-6)
        assert own_zero == zero
    (wanted,), (step,) = values_of_file(path, x)
    (got,), _ = values_of_file(again, x)
    assert np.abs(got - wanted).max() < 1.5 * step


@pytest.mark.slow
@pytest.mark.parametrize("target", ["mcu", "cpu_int8"])
def test_our_own_integer_files(target, tmp_path):
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(settle(keyword()), config)
    x = samples(qmodel.base, 32)
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    tflite_export.export(
        qmodel, path, target=target, batch_size=1, representative_data=x
    )
    check(path, msq_tf.from_tflite(path))
    check_again(path, tmp_path / "again.tflite", target)


@pytest.mark.slow
def test_it_trains_on_the_grid(tmp_path):
    path = quantized(settle(autoencoder()), tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    x = samples(model, 64)
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    before = model.evaluate(x, x, verbose=0)
    model.fit(x, x, epochs=5, verbose=0)
    assert model.evaluate(x, x, verbose=0) < 0.98 * before
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_a_quantized_model_rounds_by_its_own_ranges(tmp_path):
    path = quantized(settle(autoencoder()), tmp_path / "m.tflite")
    plain = msq_tf.from_tflite(path, round_activations=False)
    model = msq_tf.from_tflite(path)
    x = samples(model, 8)
    on_grid, in_floats = (m.predict(x, verbose=0) for m in (model, plain))
    assert np.abs(on_grid - in_floats).max() > 1e-3
    qmodel = msq_tf.quantize_model(model)
    np.testing.assert_allclose(
        qmodel.predict(x, verbose=0),
        msq_tf.quantize_model(plain).predict(x, verbose=0),
        atol=1e-6,
    )
    # The model itself is what it was.
    np.testing.assert_array_equal(model.predict(x, verbose=0), on_grid)
    baked = msq_tf.bake(qmodel)
    assert not grids_of(baked)
    np.testing.assert_allclose(
        baked.predict(x, verbose=0), qmodel.predict(x, verbose=0), atol=1e-6
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_ranges_begin_with_those_of_the_file(bits, tmp_path):
    path = quantized(settle(autoencoder()), tmp_path / "m.tflite")
    model = msq_tf.from_tflite(path)
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=bits)
    )
    ranges = [grid.range for grid in grids_of(model)]
    found = qmodel.activation_quantizers.trained_ranges()
    assert len(found) == len(ranges)
    for own, (low, high) in zip(found, ranges, strict=True):
        most = max(-low, high)
        wanted = (-most, most) if bits == 16 else (low, high)
        np.testing.assert_allclose((own.low, own.high), wanted, rtol=1e-6)


def test_a_state_of_zeros_has_a_grid_of_zero(tmp_path):
    """As the converter writes the first state of an unrolled layer."""
    inputs = keras.Input((5, 4))
    plain = settle(keras.Model(inputs, L.LSTM(6, unroll=True)(inputs)))
    path = quantized(plain, tmp_path / "m.tflite", INT16X8)
    file = flat.read(path.read_bytes())
    scales = [
        float(tensor.quantization.scale[0])
        for tensor in file.subgraphs[0].tensors
        if tensor.quantization is not None
        and tensor.quantization.scale is not None
    ]
    assert 0.0 in scales
    model = msq_tf.from_tflite(path)
    x = samples(model, 4)
    (wanted,), _ = values_of_file(path, x)
    np.testing.assert_allclose(model(x), wanted, atol=1e-3)
