"""Answers of a Keras model, in the order of a file's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.conversion import source
from tflite_export.looking import inputs


def arranged_inputs(
    base: Any, file: schema.ModelT, samples: Sequence[np.ndarray]
) -> Any:
    """Inputs of a file as its Keras model takes them.

    By name where model and file have the same ones: the converter may give a
    file another order. Else as they come.

    Args:
        base: The Keras model.
        file: The parsed file.
        samples: An array for each input of the file.
    """
    if len(samples) == 1:
        return samples[0]
    given = inputs.names(file)
    own = [getattr(x, "name", "") for x in _listed(base.inputs)]
    if set(own) == set(given) and len(own) == len(given):
        named = dict(zip(given, samples, strict=True))
        return [named[name] for name in own]
    return list(samples)


def arranged_outputs(
    base: Any, file: schema.ModelT, outputs: Any
) -> list[np.ndarray]:
    """Outputs of a Keras model in the order of a file's.

    Args:
        base: The Keras model.
        file: The parsed file.
        outputs: What the model gave.
    """
    given = inputs.output_names(file)
    own = source.output_names(base, outputs)
    if isinstance(outputs, Mapping):
        outputs = [outputs[key] for key in sorted(outputs)]
    elif not isinstance(outputs, (list, tuple)):
        outputs = [outputs]
    flat = [np.asarray(y, np.float32) for y in outputs]
    # The converter's own names say the place.
    for names in (own, [f"output_{k}" for k in range(len(flat))]):
        if sorted(names) == sorted(given):
            named = dict(zip(names, flat, strict=True))
            return [named[name] for name in given]
    return flat


def _listed(tensors: Any) -> list[Any]:
    if isinstance(tensors, Mapping):
        return list(tensors.values())
    return list(tensors or ())
