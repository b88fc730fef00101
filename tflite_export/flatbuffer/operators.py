"""Facts on the operators of the format, for all targets.

These are the inputs that hold weights, and the versions under which runtimes
register kernels (TensorFlow's `op_version.cc`). Versions of integer operators
by type stand in `targets/tables/_integer.json`, as they depend on the target.
`verification.readback` has a separate copy, so that one checks the other.
"""

from __future__ import annotations

# Inputs that hold weights.
WEIGHT_INPUTS = {
    "BATCH_MATMUL": (0, 1),
    "CONV_2D": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "EMBEDDING_LOOKUP": (1,),
    "FULLY_CONNECTED": (1,),
    "GATHER": (0,),
    "TRANSPOSE_CONV": (1,),
}
# Inputs that hold the activation, where it isn't the first.
_ACTIVATION_INPUTS = {"TRANSPOSE_CONV": 2}
# Operators whose numbers no run repeats.
RANDOM = ("MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM")
# Version from which a FULLY_CONNECTED can keep the axes of its input.
KEEPS_AXES = 5
# Versions by the type of the integers; that of scales by channel behind it.
_QUANTIZE = {"INT8": 1, "INT16": 2}
_DEQUANTIZE = {
    "INT2": 7,
    "INT4": 6,
    "INT8": 2,
    "INT8 per_channel": 5,
    "INT16": 3,
}


def weight_input(op: str) -> int | None:
    """The input of an operator that is for a weight and nothing else."""
    return 1 if WEIGHT_INPUTS.get(op) == (1,) else None


def activation_input(op: str) -> int:
    """The input of an operator with a weight that holds the activation."""
    return _ACTIVATION_INPUTS.get(op, 0)


def conversion_version(
    op: str, kind: str, granularity: str = "per_tensor"
) -> int:
    """Version of a QUANTIZE or DEQUANTIZE.

    Args:
        op: Which of the two.
        kind: Type of the integers, such as `"INT8"`. One that is not in the
            tables has the version of that.
        granularity: `"per_tensor"` or `"per_channel"`.
    """
    versions = {"QUANTIZE": _QUANTIZE, "DEQUANTIZE": _DEQUANTIZE}[op]
    own = versions.get(kind, versions["INT8"])
    return versions.get(f"{kind} {granularity}", own)
