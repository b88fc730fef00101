"""The same file, with CAST of a code as TFLite means it.

A CAST of an int8 tensor with a grid gives its codes. The converter to TOSA
subtracts the zero point, as if the tensor held numbers: code -103 of a grid
whose zero is at -128 becomes 25 (tosa-converter-for-tflite 2026.2.0). Adding
the zero point behind it gives the codes again.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb

_CODES = ("INT8", "INT16")
_WIDE = "INT32"


def recast(data: bytes) -> bytes:
    """A file for TOSA's tools, with an ADD behind each CAST of codes."""
    model = fb.load(data)
    graph = model.subgraphs[0]
    operators: list[schema.OperatorT] = []
    for op in graph.operators:
        operators.append(op)
        if fb.op_name(model, op) != "CAST":
            continue
        source, result = (
            graph.tensors[fb.inputs(op)[0]],
            graph.tensors[fb.outputs(op)[0]],
        )
        zero = _zero(source)
        kinds = fb.type_name(source), fb.type_name(result)
        if not zero or kinds[0] not in _CODES or kinds[1] != _WIDE:
            continue
        number = edit.new_constant(model, np.array(zero, np.int32))
        apart = edit.new_tensor(graph, _WIDE, result)
        add = edit.new_operator(
            model, "ADD", 1, [apart, number], fb.outputs(op), "AddOptions"
        )
        op.outputs = np.array([apart], np.int32)
        operators.append(add)
    graph.operators = operators
    return fb.dump(model)


def _zero(tensor: schema.TensorT) -> int:
    parameters = tensor.quantization
    zeros = None if parameters is None else parameters.zeroPoint
    return 0 if zeros is None or not len(zeros) else int(zeros[0])
