"""Two files side by side: outputs, sizes, latency."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tflite_export.inspect.comparison_report import Comparison
from tflite_export.runtime import sandbox

# For how long latencies are measured, and how long all may take.
_SECONDS = 2.0
_MOST_SECONDS = 600.0


def compare_files(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    inputs: Any = None,
) -> Comparison:
    """Runs two files on the same inputs, one sample after the other.

    Inputs and outputs correspond by name if both files have the same names,
    else by position. Integers count as the values that their scales give them.

    The interpreter runs in a separate process, with limits on memory and time:
    if a file ends that process, the result is an error, not the end of the
    program.

    Args:
        first: A TFLite file.
        second: Another file, with inputs of the same shapes.
        inputs: One array, or a list or dict by name for several inputs, of real
            values. Random inputs if `None`.

    Returns:
        Differences of outputs, sizes and latencies.

    Raises:
        ValueError: If a file can't be read or run, or the files take different
            inputs.
    """
    names = None
    arrays: list[np.ndarray] = []
    if isinstance(inputs, dict):
        names = [str(name) for name in inputs]
        arrays = [np.asarray(x) for x in inputs.values()]
    elif inputs is not None:
        several = isinstance(inputs, (list, tuple))
        arrays = [np.asarray(x) for x in (inputs if several else [inputs])]
    request = {
        "first": str(first),
        "second": str(second),
        "names": names,
        "seconds": _SECONDS,
    }
    return Comparison.from_json(
        sandbox.run(
            "tflite_export.inspect.compare_worker",
            request,
            arrays,
            _MOST_SECONDS,
            f"The interpreter can't run '{first}' or '{second}'",
        )
    )
