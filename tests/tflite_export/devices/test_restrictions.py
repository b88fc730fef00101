"""Restrictions of operators that the network of the other tests lacks."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_export import targets
from tflite_export.targets.nodes import Node
from tflite_export.targets.restrictions import RESTRICTIONS


def node(inputs, output=(1, 4, 4, 2), options=None):
    """An operator; inputs are shapes or int32 constants."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.buffers, graph.tensors = [schema.BufferT()], []
    for value in (*inputs, tuple(output)):
        tensor = schema.TensorT()
        tensor.type = schema.TensorType.INT8
        tensor.shape = list(value) if isinstance(value, tuple) else []
        tensor.buffer = 0
        if isinstance(value, np.ndarray):
            tensor.shape = list(value.shape)
            tensor.type = schema.TensorType.INT32
            tensor.buffer = len(model.buffers)
            buffer = schema.BufferT()
            buffer.data = value.astype(np.int32).ravel().view(np.uint8)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    op = schema.OperatorT()
    op.inputs, op.outputs = list(range(len(inputs))), [len(inputs)]
    op.builtinOptions = options
    return Node(model, graph, op)


def options(kind, **fields):
    made = getattr(schema, kind)()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


IMAGE = (1, 4, 4, 2)
ONES, ZERO = np.ones(4), np.zeros(1)
CASES = [
    ("pack_not_batch", [IMAGE], options("PackOptionsT", axis=0), False),
    ("pack_not_batch", [IMAGE], options("PackOptionsT", axis=3), True),
    ("pad_not_batch", [IMAGE, np.array([[1, 0], [0, 0]])], None, False),
    ("pad_not_batch", [IMAGE, np.array([[0, 0], [1, 1]])], None, True),
    ("alpha_along_depth", [IMAGE, (4, 4, 2)], None, False),
    ("alpha_along_depth", [IMAGE, (1, 1, 2)], None, True),
    ("split_not_batch", [ZERO, IMAGE], None, False),
    ("split_not_batch", [np.array([-1]), IMAGE], None, True),
    ("leading_ones", [(5, 1, 10)], None, False),
    ("leading_ones", [(1, 5, 10)], None, True),
    ("unit_strides", [IMAGE, ZERO, ZERO, 2 * ONES], None, False),
    (
        "unit_strides",
        [IMAGE, ZERO, ZERO, ONES],
        options("StridedSliceOptionsT", newAxisMask=1),
        False,
    ),
    (
        "unit_strides",
        [IMAGE, ZERO, ZERO, ONES],
        options("StridedSliceOptionsT"),
        True,
    ),
    ("zero_constant", [IMAGE, ONES], None, False),
    ("zero_constant", [IMAGE, ZERO], None, True),
    ("zero_constant", [IMAGE, IMAGE, ZERO], None, False),
    ("zero_constant", [IMAGE, IMAGE, IMAGE], None, True),
    ("large_reshape", [IMAGE], None, True),
]


@pytest.mark.parametrize("name, inputs, given, allowed", CASES)
def test_restriction(name, inputs, given, allowed):
    text = RESTRICTIONS[name](node(inputs, options=given))
    assert (text is None) == allowed, text


def test_sizes_only_the_compiler_can_judge_are_notes():
    for name, shape in (
        ("large_reshape", (1, 1024, 1024)),
        ("resize_precision", IMAGE),
    ):
        text = RESTRICTIONS[name](node([IMAGE], shape))
        assert text.startswith("note: ")


def test_targets_name_restrictions_that_exist():
    for name in targets.names():
        rules = targets.load(name).options.get("rules", {})
        for listed in rules.get("operators", {}).values():
            assert set(listed) <= set(RESTRICTIONS)
