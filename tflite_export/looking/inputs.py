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
    return _names(model, fb.inputs(model.subgraphs[0]), "inputs")


def output_names(model: schema.ModelT) -> list[str]:
    """The same of its outputs."""
    return _names(model, fb.outputs(model.subgraphs[0]), "outputs")


def _names(model: schema.ModelT, ends: list[int], kind: str) -> list[str]:
    tensors = model.subgraphs[0].tensors
    signatures = [s for s in model.signatureDefs or () if not s.subgraphIndex]
    told: dict[int, str] = {}
    for signature in signatures[:1]:
        for entry in getattr(signature, kind) or ():
            told[entry.tensorIndex] = fb.text(entry.name)
    return [told.get(i, fb.name(tensors[i])) for i in ends]


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
