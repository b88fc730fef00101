"""Files of a model at any widths, and which operators read which weight."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np

from tflite_export.flatbuffer import model as fb


class BuiltFile(Protocol):
    """A file with records of its trained weights."""

    @property
    def data(self) -> bytes:
        """The bytes."""

    @property
    def written(self) -> Sequence[Any]:
        """A `Written` for each weight."""


class Files(Protocol):
    """Files of one model at any widths."""

    @property
    def inputs(self) -> Sequence[np.ndarray]:
        """Samples, one array per input."""

    def at(self, widths: Mapping[str, int]) -> BuiltFile:
        """The file with weights at some widths, by path."""


def readers(built: BuiltFile) -> dict[int, str]:
    """The weight that each operator reads first, by the operator's position.

    A DEQUANTIZE, RESHAPE or TRANSPOSE of the weight counts, and what reads the
    result. Operators without a quantized weight are not in it.
    """
    model = fb.read(built.data)
    graph = model.subgraphs[0]
    held = {
        record.tensor: record.match.weight.path
        for record in built.written
        if not record.match.constant.graph
    }
    found = {}
    for position, op in enumerate(graph.operators or ()):
        read = [held[i] for i in fb.inputs(op) if i in held]
        if not read:
            continue
        found[position] = read[0]
        constant = all(
            i in held or fb.is_constant(model, graph, i) for i in fb.inputs(op)
        )
        if constant:  # what it makes of the weight
            held |= dict.fromkeys(fb.outputs(op), read[0])
    return found
