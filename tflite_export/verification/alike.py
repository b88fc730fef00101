"""Refuses a file with one output for all inputs, unless Keras has that, too.

Such a file agrees with a float simulation of its integers to the last bit, and
with a Keras model that computes on the same useless ranges. So it is compared
with what the model computes in float.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_export.conversion.source import Source
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import grids
from tflite_export.runtime import ports
from tflite_export.verification import agreement

_LOST_IN_TRAINING = (
    "Training loses it: with its trained ranges Keras's output varies by "
    "{:.3g}, too"
)
_LOST_IN_FILE = (
    "The file loses it, not training: with its trained ranges Keras's output "
    "varies by {:.3g}"
)
# Operators whose outputs have one grid, whatever the data.
_FIXED = ("LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH")


def check(
    data: bytes,
    source: Source,
    chunks: Sequence[Sequence[np.ndarray]],
    alike: Sequence[bool],
    even: float,
) -> None:
    """Raises an ExportError for outputs that should differ and do not.

    `alike` says of each output whether the file gives the same for all inputs;
    `even` is the units by which it may be off.
    """
    if not any(alike):
        return
    trained: list[list[np.ndarray]] | None = None
    wanted = dataclasses.replace(
        source,
        base=source.base if source.model is None else source.model.base,
        trained_ranges=False,
    ).predict(chunks)
    parsed = fb.read(data)
    operators = agreement.last_operators(
        parsed, fb.outputs(parsed.subgraphs[0])
    )
    for k, port in enumerate(ports.outputs(data)):
        if not alike[k] or port.scale is None:
            continue
        rows = agreement.rows(wanted, k)
        moved = _moved(rows)
        top = float(np.abs(rows).max(initial=0.0))
        if top < grids.least_range("int8"):
            continue  # Too small for any grid, so zero is right.
        # What a grid that is made for these numbers shows.
        unit = top / 127.0
        if operators[k] in _FIXED:
            unit = port.scale
        if moved > even * unit:
            who = "The file's ranges, of representative_data, lose it"
            if source.trained_ranges:
                trained = trained or source.predict(chunks)
                left = _moved(agreement.rows(trained, k))
                who = _LOST_IN_FILE.format(left)
                if left <= even * port.scale:
                    who = _LOST_IN_TRAINING.format(left)
            raise ExportError(
                f"The file computes the same '{port.name}' for all "
                f"{len(rows)} samples of representative_data, and the Keras "
                "model with float activations does not. A "
                "range of activations is so wide, or so narrow, that nothing "
                "is left of what the model sees, as after an outlier in the "
                f"data. {who}. Expected representative_data without outliers; "
                "with trained ranges, more training on such data, or "
                "`msq_tf.calibrate(qmodel, x)`. Received: an output that "
                f"varies by {moved:.3g} in Keras, and a unit of "
                f"{port.scale:.3g} in the file"
            )


def _moved(rows: np.ndarray) -> float:
    """How far the numbers of an output are apart over samples."""
    return float(np.ptp(rows, axis=0).max(initial=0.0))
