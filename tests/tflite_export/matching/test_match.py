"""The matcher on hand-made files: one FULLY_CONNECTED or CONV_2D each."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.weight_layout import Layout
from tests.tflite_export.samples import weight
from tflite_export import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.match import match

RNG = np.random.default_rng(0)
CODES = RNG.integers(-7, 8, (6, 4))
STEP = RNG.uniform(0.01, 0.1, (1, 4)).astype(np.float32)


def file_with(*tensors, op="FULLY_CONNECTED"):
    """A graph with one operator per weight tensor (never run)."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    model.subgraphs = [graph]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.version = 1
    model.operatorCodes = [code]

    def add(shape, data=None):
        tensor = schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.name = b"t%d" % len(graph.tensors)
        buffer = schema.BufferT()
        if data is not None:
            data = np.ascontiguousarray(data, np.float32)
            buffer.data = data.reshape(-1).view(np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    x = add((1, 6))
    for data in tensors:
        node = schema.OperatorT()
        node.opcodeIndex = 0
        inputs = [x, add(data.shape, data), -1]
        node.inputs = np.array(inputs, np.int32)
        node.outputs = np.array([add((1, 4))], np.int32)
        graph.operators.append(node)
    graph.inputs = np.array([x], np.int32)
    graph.outputs = node.outputs
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return fb.load(bytes(builder.Output()))


def stored(codes=CODES, step=STEP):
    return (codes * step).T.astype(np.float32)


def test_codes_of_a_transposed_weight():
    found = match(file_with(stored()), [weight(CODES, STEP)], [])
    (only,) = found.matches
    np.testing.assert_array_equal(only.codes, CODES.T)
    assert only.fit.exact
    assert only.constant.readers == ("FULLY_CONNECTED",)


def test_negative_factors_flip_the_stored_codes():
    gamma = np.array([[1], [-1], [-2], [3]], np.float32)
    model = file_with(stored() * gamma)
    (only,) = match(model, [weight(CODES, STEP)], []).matches
    np.testing.assert_array_equal(only.codes, CODES.T * np.sign(gamma))


def test_shared_layer_folded_differently():
    gamma = np.array([[0.5], [2], [-3], [0.1]], np.float32)
    model = file_with(stored(), stored() * gamma)
    found = match(model, [weight(CODES, STEP)], [])
    assert [m.weight.path for m in found.matches] == ["layer", "layer"]


def test_equal_layers_each_get_a_tensor():
    weights = [weight(CODES, STEP, path=p) for p in "ab"]
    found = match(file_with(stored(), stored()), weights, [])
    assert sorted(m.weight.path for m in found.matches) == ["a", "b"]


def test_equal_layers_may_share_one_tensor():
    weights = [weight(CODES, STEP, path=p) for p in "ab"]
    (only,) = match(file_with(stored()), weights, []).matches
    assert only.weight.path == "a"
    assert [twin.weight.path for twin in only.twins] == ["b"]


def test_exact_step_decides_between_equal_codes():
    weights = [weight(CODES, STEP * 2, path="a"), weight(CODES, STEP, path="b")]
    found = match(file_with(stored(), stored() * 2), weights, [])
    assert [m.weight.path for m in found.matches] == ["b", "a"]


@pytest.mark.parametrize("turn", [1, -1])
def test_one_output_channel_has_one_factor(turn):
    """A factor for each element would explain one weight by the other."""
    rng = np.random.default_rng(3)
    codes = [rng.integers(1, 8, (1, 1, 8, 1)) for _ in range(2)]
    tensors = [
        factor * c.reshape(1, 1, 1, 8).astype(np.float32)
        for factor, c in zip((0.3, -0.7), codes, strict=True)
    ]
    weights = [
        weight(c, 0.1 * np.ones((1, 1, 1, 1)), Layout.CONV, path=name)
        for name, c in zip("ab", codes, strict=True)
    ]
    found = match(
        file_with(*tensors, op="CONV_2D"), weights[::turn], []
    ).matches
    assert [m.weight.path for m in found] == ["a", "b"]
    assert [m.fit.axis for m in found] == [None, None]


def test_gates_in_separate_tensors():
    codes = RNG.integers(-7, 8, (3, 9))
    step = RNG.uniform(0.1, 1, (1, 9)).astype(np.float32)
    whole = stored(codes, step)
    record = weight(codes, step, Layout.RECURRENT)
    found = match(file_with(whole[:6], whole[6:]), [record], [])
    assert [m.codes.shape for m in found.matches] == [(6, 3), (3, 3)]
    with pytest.raises(ExportError, match="no tensor"):
        match(file_with(whole[:6]), [record], [])


@pytest.mark.parametrize(
    "layout, shape, axes, tensor_shape, order",
    [
        (Layout.CONV, (3, 2, 4, 5), (3,), (5, 3, 2, 4), (3, 0, 1, 2)),
        (Layout.CONV, (3, 4, 5), (2,), (5, 1, 3, 4), (2, 0, 1)),
        (Layout.CONV, (3, 2, 2, 4, 5), (4,), (3, 2, 2, 4, 5), range(5)),
        (Layout.CONV_TRANSPOSE, (3, 2, 5, 4), (2,), (5, 3, 2, 4), (2, 0, 1, 3)),
        (Layout.DEPTHWISE, (3, 2, 4, 2), (2, 3), (1, 3, 2, 8), range(4)),
        (Layout.DENSE, (6, 4), (1,), (6, 4), range(2)),
        (Layout.EMBEDDING, (6, 4), (1,), (6, 4), range(2)),
        (Layout.EINSUM, (6, 2, 3), (1, 2), (6, 6), (1, 2, 0)),
        (Layout.EINSUM, (2, 6, 3), (2,), (3, 12), (2, 0, 1)),
        (Layout.OTHER, (2, 3, 4), (1,), (4, 2, 3), (2, 0, 1)),
    ],
)
def test_layouts(layout, shape, axes, tensor_shape, order):
    codes = RNG.integers(-7, 8, shape)
    record = weight(codes, 0.25, layout, axes)
    expected = codes.transpose(tuple(order)).reshape(tensor_shape)
    model = file_with((expected * 0.25).astype(np.float32), op="CONV_2D")
    (only,) = match(model, [record], []).matches
    np.testing.assert_array_equal(only.codes, expected)


def test_near_miss_names_layer_operator_and_figure():
    near = CODES.copy()
    near[0, 0] += 1
    with pytest.raises(ExportError) as caught:
        match(file_with(stored(near)), [weight(CODES, STEP, path="c/d")], [])
    message = str(caught.value)
    assert "'c/d'" in message and "FULLY_CONNECTED" in message
    assert "Received: an error of 0." in message


def test_lost_precision_is_said():
    rough = stored().astype(np.float16).astype(np.float32)
    with pytest.raises(ExportError, match="lost precision"):
        match(file_with(rough), [weight(CODES, STEP)], [])


def test_weight_that_is_not_in_the_file():
    with pytest.raises(ExportError, match="No constant of that size"):
        match(file_with(np.ones((2, 2))), [weight(CODES, STEP)], [])


def test_float_weights_are_listed_and_unknown_ones_refused():
    value = RNG.normal(size=(3, 5)).astype(np.float32)
    known = SkippedWeight(
        path="head",
        layer="Dense",
        attribute="kernel",
        size=value.size,
        reason="skipped",
        quantizable=True,
        value=value,
        layout=Layout.DENSE,
        channel_axes=(1,),
    )
    model = file_with(stored(), value.T * np.float32(1.7))
    found = match(model, [weight(CODES, STEP)], [known])
    assert [float_.path for _, float_ in found.floats] == ["head"]
    with pytest.raises(ExportError, match="no weight of the model"):
        match(model, [weight(CODES, STEP)], [])


def test_initial_states_are_no_weights():
    model = file_with(stored(), np.zeros((6, 4)), op="ADD")
    found = match(model, [weight(CODES, STEP)], [])
    assert len(found.matches) == 1 and found.others == 1
