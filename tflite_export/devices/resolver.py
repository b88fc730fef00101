"""The operators of a file as the methods by which TFLite Micro adds them."""

from __future__ import annotations

from tflite_export.flatbuffer import model as fb

# Where the method's name is not made of the operator's words.
_SPELLED = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}


def method(op: str) -> str:
    """The method of `MicroMutableOpResolver` that adds an operator.

    `"AddConv2D"` for `"CONV_2D"`.
    """
    words = op.split("_")
    plain = "".join(w if w[0].isdigit() else w.capitalize() for w in words)
    return f"Add{_SPELLED.get(op, plain)}"


def methods(data: bytes) -> list[str]:
    """Names of all methods that a file needs, in order."""
    model = fb.read(data)
    return sorted(
        method(name)
        for name in {
            fb.op_name(model, op)
            for graph in model.subgraphs
            for op in graph.operators
        }
    )
