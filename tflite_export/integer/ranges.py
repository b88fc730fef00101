"""Whether samples fit the ranges of a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export.flatbuffer import model as fb

# Beyond this the samples are on another scale than those of training.
_MOST_CLIPPED = 0.25


def check_samples(
    data: bytes, samples: Sequence[np.ndarray], trained: bool
) -> None:
    """Compares samples, in float, with the ranges of a file's first inputs.

    `trained` ranges come from training, not from the samples.

    Raises:
        ValueError: If the samples lie outside of trained ranges, or are all
            the same number, so that nothing can be measured on them.
    """
    model = fb.read(data)
    graph = model.subgraphs[0]
    behind = {
        fb.inputs(op)[0]: fb.outputs(op)[0]
        for op in graph.operators
        if fb.op_name(model, op) == "QUANTIZE"
        # Behind integers it is a second grid.
        and fb.type_name(graph.tensors[fb.inputs(op)[0]]) == "FLOAT32"
    }
    for index, array in zip(fb.inputs(graph), samples, strict=False):
        if array.dtype.kind != "f":
            continue
        name = fb.name(graph.tensors[index])
        low, high = float(array.min()), float(array.max())
        if not trained and low == high and array.size > 1:
            raise ValueError(
                "Expected representative_data with different values. "
                f"Received: {low:g} throughout for the input '{name}'"
            )
        tensor = graph.tensors[behind.get(index, index)]
        limits = {"INT8": 128, "INT16": 32768}.get(fb.type_name(tensor))
        if not trained or limits is None:
            continue
        scale = float(tensor.quantization.scale[0])
        zero = int(tensor.quantization.zeroPoint[0])
        least = (-limits - zero - 0.5) * scale
        most = (limits - 1 - zero + 0.5) * scale
        clipped = np.mean((array < least) | (array > most))
        if clipped > _MOST_CLIPPED:
            raise ValueError(
                f"representative_data for the input '{name}' is outside of "
                f"the range of training in {clipped:.0%} of its values. "
                f"Expected values from {least:.3g} to {most:.3g}. Received: "
                f"{low:.3g} to {high:.3g}"
            )
