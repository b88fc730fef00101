"""Samples for a file, in the order of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.data import samples as samples_lib
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import ports


def names(model: schema.ModelT) -> list[str]:
    """Names of the inputs of a parsed file, those of its signature if any."""
    graph = model.subgraphs[0]
    own = [fb.name(graph.tensors[i]) for i in fb.inputs(graph)]
    signatures = [s for s in model.signatureDefs or () if not s.subgraphIndex]
    for signature in signatures[:1]:
        told = {e.tensorIndex: fb.text(e.name) for e in signature.inputs or ()}
        own = [
            told.get(i, name)
            for i, name in zip(fb.inputs(graph), own, strict=True)
        ]
    return own


def take(
    data: Any, model: schema.ModelT, found: list[ports.Port], limit: int
) -> list[np.ndarray]:
    """Samples of representative data, one array for each input.

    Args:
        data: As `export` takes it.
        model: The parsed file.
        found: Its inputs.
        limit: Largest number of samples.

    Raises:
        ValueError: If they don't fit the file.
    """
    given = names(model)
    if not given:
        raise ValueError(
            "representative_data doesn't fit the file. Expected data for a "
            "file with inputs, or none. Received: a file without inputs"
        )
    data = samples_lib.opened(data)
    if isinstance(data, dict):
        if set(data) != set(given):
            raise ValueError(
                "representative_data doesn't fit the file. Expected arrays "
                f"for the inputs {given}. Received: {sorted(map(str, data))}"
            )
        data = [data[name] for name in given]
        if len(data) == 1:
            data = data[0]
    specs = [
        tf.TensorSpec(
            [None, *(None if n < 0 else n for n in port.axes[1:])],
            tf.float32 if port.scale is not None else port.dtype,
            name=name,
        )
        for port, name in zip(found, given, strict=True)
    ]
    structure = specs if len(specs) > 1 else specs[0]
    return samples_lib.collect(data, structure, limit)[0]
