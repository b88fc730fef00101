"""The builtin kernels' arithmetic, to the bit."""

import copy

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.verification import fixed_point


def gemmlowp(x, real):
    """`MultiplyByQuantizedMultiplier` in Python's integers."""
    mantissa, exponent = np.frexp(real)
    fixed = int(np.floor(mantissa * 2**31 + 0.5))
    if fixed == 2**31:
        fixed, exponent = fixed // 2, exponent + 1
    product = x * 2 ** max(int(exponent), 0) * fixed
    total = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
    high = abs(total) >> 31
    high = high if total >= 0 else -high
    shift = max(-int(exponent), 0)
    mask = (1 << shift) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> shift) + ((high & mask) > threshold)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    st.integers(-(2**23), 2**23), st.floats(1e-6, 2.0, exclude_max=True)
)
def test_rescale_is_gemmlowps(x, real):
    got = fixed_point.rescale(np.array([x]), np.array([real]))
    assert got[0] == gemmlowp(x, real)
    assert abs(got[0] - x * real) <= 1.0


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Few-bit codes, so that ties are frequent."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 4))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, strides=2, activation="relu6")(x)
    x = keras.layers.Conv2D(8, 3, dilation_rate=2, padding="same")(x)
    x = keras.layers.Conv2D(8, 1, strides=2)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    images = np.random.default_rng(0).normal(size=(16, 12, 12, 4))
    images = images.astype(np.float32)
    path = tmp_path_factory.mktemp("fixed") / "m.tflite"
    report = export(qmodel, path, target="cpu_int8", representative_data=images)
    return path.read_bytes(), images, report


@pytest.mark.parametrize("kernels", ["reference", "builtin"])
def test_equals_the_kernels(kernels, file):
    data, images, report = file
    inputs = [p.quantize(images) for p in ports.inputs(data)]
    want = interpreter.Session(data, kernels)(inputs)
    (got,) = fixed_point.FixedPoint(data, kernels)(inputs)
    np.testing.assert_array_equal(got, want[0])
    units = {check.kernels: check.max_units for check in report.checks}
    assert units[kernels] == 0
    assert units["xnnpack"] <= 2


def test_computes_every_convolution_itself(file):
    model = fb.load(file[0])
    graph = model.subgraphs[0]
    names = [fb.op_name(model, op) for op in graph.operators]
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} <= set(names)
    for op, name in zip(graph.operators, names, strict=True):
        source = graph.tensors[fb.inputs(op)[0]]
        shape = (2, *fb.shape(source)[1:])
        values = {fb.inputs(op)[0]: np.zeros(shape, np.int8)}
        result = fixed_point._convolved(model, op, values, False)
        assert (result is not None) == name.endswith("CONV_2D"), name


@pytest.mark.first(1)
@pytest.mark.parametrize(("channels", "multiplier"), [(3, 1), (12, 1), (5, 2)])
def test_channels_beside_the_vectors(channels, multiplier, tmp_path):
    """Eight channels at a time break ties upwards, the rest away from zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, channels))
    layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=multiplier)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, layer(inputs)))
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    x = np.random.default_rng(0).normal(size=(8, 12, 12, channels))
    x = x.astype(np.float32)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    data = path.read_bytes()
    quantized = [p.quantize(x) for p in ports.inputs(data)]
    for kernels in ("builtin", "reference"):
        (want,) = interpreter.Session(data, kernels)(quantized)
        (got,) = fixed_point.FixedPoint(data, kernels)(quantized)
        np.testing.assert_array_equal(got, want)


def test_constants_alone_as_xnnpack_rounds_them(tmp_path):
    """DeBERTa multiplies a table of distances by trained weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 16))
    model = keras.Model(inputs, keras.layers.Dense(64)(inputs))
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 3))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 32, 16)).astype(np.float32)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=x)
    file = fb.load(path.read_bytes())
    graph = file.subgraphs[0]
    op = next(
        o for o in graph.operators if fb.op_name(file, o) == "FULLY_CONNECTED"
    )
    read, written = fb.inputs(op)[0], fb.outputs(op)[0]
    rows = rng.integers(-128, 128, (1, 32, 16)).astype(np.int8)
    table, result = (
        edit.new_tensor(graph, "INT8", graph.tensors[like])
        for like in (read, written)
    )
    for new, like in ((table, read), (result, written)):
        graph.tensors[new].quantization = graph.tensors[like].quantization
        graph.tensors[new].type = graph.tensors[like].type
        graph.tensors[new].shape = np.array(
            [1, *fb.shape(graph.tensors[like])[1:]], np.int32
        )
        graph.tensors[new].shapeSignature = None
    graph.tensors[table].buffer = edit.new_buffer(file, rows)
    second = copy.copy(op)
    second.inputs = np.array([table, *fb.inputs(op)[1:]], np.int32)
    second.outputs = np.array([result], np.int32)
    graph.operators.append(second)
    graph.outputs = np.array([*fb.outputs(graph), result], np.int32)
    file.signatureDefs = None
    data = fb.dump(file)
    want = interpreter.Session(data, "xnnpack")([x])[1]
    other = interpreter.Session(data, "builtin")([x])[1]
    assert (other != want).any()
    everything = frozenset(range(len(graph.operators)))
    got = fixed_point.FixedPoint(data, "builtin", everything)([x])[1]
    np.testing.assert_array_equal(got, want)
