"""Scores that end a process in the SOFTMAX of 8-bit reference kernels.

The kernel adds exponentials of the distances to the largest score. From a sum
of 512 on it shifts by more than 31 bits, which its own check answers by ending
the process (LiteRT's `reference/softmax.h`, `RoundingDivideByPOT` with
`num_bits_over_unit + 23`). TFLite Micro has the same kernel. So 512 and more
scores must not be flat: such as the logits of a network before its training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from ai_edge_litert import interpreter as litert

from tflite_export.flatbuffer import model as fb

# Sums of 512 end it; the kernel's own sum is not exact.
LIMIT = 511.0


class _Softmax(NamedTuple):
    """A SOFTMAX that can meet such scores.

    Attributes:
        position: Of the operator.
        scores: The tensor that it reads.
        factor: What a unit of the scores counts in the exponent.
    """

    position: int
    scores: int
    factor: float


class FlatScores:
    """Looks at the scores of a file on the builtin kernels, which take them.

    Args:
        data: The bytes of the file.
    """

    def __init__(self, data: bytes):
        self._data = data
        self._softmaxes = _wide(data)
        self._interpreter: Any = None

    def find(self, arrays: Sequence[np.ndarray]) -> str:
        """Why reference kernels would end the process; empty if they do not.

        Args:
            arrays: One batch, in the order of the file's inputs.
        """
        if not self._softmaxes:
            return ""
        if self._interpreter is None:
            model = fb.load(self._data)
            shown = [softmax.scores for softmax in self._softmaxes]
            model.subgraphs[0].outputs = np.array(sorted(set(shown)), np.int32)
            model.signatureDefs = None
            self._interpreter = litert.Interpreter(
                model_content=fb.dump(model),
                experimental_op_resolver_type=(
                    litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
        for detail, array in zip(
            self._interpreter.get_input_details(), arrays, strict=True
        ):
            if tuple(detail["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(
                    detail["index"], array.shape
                )
        self._interpreter.allocate_tensors()
        for detail, array in zip(
            self._interpreter.get_input_details(), arrays, strict=True
        ):
            self._interpreter.set_tensor(
                detail["index"], array.astype(detail["dtype"], copy=False)
            )
        self._interpreter.invoke()
        for softmax in self._softmaxes:
            scores = self._interpreter.get_tensor(softmax.scores)
            # Integers of 8 bits: the distances are exact.
            away = scores.astype(np.int32) - scores.max(-1, keepdims=True)
            largest = np.exp(away * softmax.factor).sum(-1).max()
            if largest >= LIMIT:
                return (
                    f"SOFTMAX (operator {softmax.position}) over "
                    f"{scores.shape[-1]} scores: where these are as flat as "
                    "here, the reference kernels and TFLite Micro end the "
                    f"process (their exponentials add up to {largest:.0f}, "
                    "and must not reach 512)"
                )
        return ""


def _wide(data: bytes) -> list[_Softmax]:
    """Every int8 SOFTMAX of the main graph over 512 scores or more."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    found = []
    for position, op in enumerate(graph.operators or ()):
        if fb.op_name(model, op) != "SOFTMAX":
            continue
        (scores,) = fb.inputs(op)
        tensor = graph.tensors[scores]
        if fb.type_name(tensor) not in ("INT8", "UINT8"):
            continue
        # An open axis may be that long.
        columns = fb.axes(tensor)[-1:]
        if columns and 0 <= columns[0] < LIMIT:
            continue
        beta = getattr(op.builtinOptions, "beta", 1.0)
        scale = float(tensor.quantization.scale[0])
        found.append(_Softmax(position, scores, beta * scale))
    return found
