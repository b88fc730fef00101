"""The same file, with the ends of QUANTIZE's range spelled out.

A QUANTIZE of floats stops at the ends of its grid. The converter to TOSA leaves
that to a cast that wraps around: 130 becomes -126 instead of 127
(tosa-converter-for-tflite 2026.2.0). Limits in front of it are what TFLite
means.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb

_ENDS = {
    kind: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for kind, dtype in (("INT8", np.int8), ("INT16", np.int16))
}


def saturated(data: bytes) -> bytes:
    """A file with a MAXIMUM and a MINIMUM before each QUANTIZE of floats."""
    model = fb.load(data)
    graph = model.subgraphs[0]
    operators: list[schema.OperatorT] = []
    for op in graph.operators:
        if fb.op_name(model, op) == "QUANTIZE":
            source, result = _only(fb.inputs(op)), _only(fb.outputs(op))
            tensor = graph.tensors[result]
            ends = _ENDS.get(fb.type_name(tensor))
            if ends is not None and (
                fb.type_name(graph.tensors[source]) == "FLOAT32"
            ):
                parameters = _grid(tensor)
                limits = zip(("MAXIMUM", "MINIMUM"), ends, strict=True)
                for name, code in limits:
                    end = _end(code, parameters)
                    operators.append(_limit(model, graph, name, source, end))
                    source = _only(fb.outputs(operators[-1]))
                op.inputs = np.array([source], np.int32)
        operators.append(op)
    graph.operators = operators
    return fb.dump(model)


def _only(indices: list[int]) -> int:
    if len(indices) != 1 or indices[0] < 0:
        raise ValueError(
            "QUANTIZE reads one tensor and writes one. Received: tensors "
            f"{indices}"
        )
    return indices[0]


def _grid(tensor: schema.TensorT) -> schema.QuantizationParametersT:
    parameters = tensor.quantization
    for name in ("scale", "zeroPoint"):
        values = getattr(parameters, name, None)
        if values is None or not len(values):
            raise ValueError(
                "QUANTIZE writes what has no grid. Expected a scale and a "
                f"zero point. Received: tensor '{fb.name(tensor)}'"
            )
    return parameters


def _end(code: int, parameters: schema.QuantizationParametersT) -> float:
    """What a code stands for, or the largest float32, where that is more."""
    steps = code - int(parameters.zeroPoint[0])
    most = float(np.finfo(np.float32).max)
    return min(max(steps * float(parameters.scale[0]), -most), most)


def _limit(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    name: str,
    source: int,
    end: float,
) -> schema.OperatorT:
    inputs = [source, edit.new_constant(model, np.array(end, np.float32))]
    result = edit.new_tensor(graph, "FLOAT32", graph.tensors[source])
    options = "MaximumMinimumOptions"
    return edit.new_operator(model, name, 1, inputs, [result], options)
