"""Outputs of LiteRT, for a device's own tools to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export.runtime import interpreter
from tflite_export.runtime import ports


def run(
    data: bytes, samples: Sequence[np.ndarray], kernels: str
) -> list[np.ndarray]:
    """Runs a file on samples that fill its batches; one array per output.

    Raises:
        RuntimeError: If the kernels lack an operator.
    """
    session = interpreter.Session(data, kernels)
    fed = ports.quantized(data, samples)
    return interpreter.in_batches(fed, 1, session)
