"""How large a model is as floats."""

from __future__ import annotations

import math
from typing import Any

from tflite_export.errors import ExportError

# Offsets in a file are signed, of 32 bits, and so are the lengths in the graph
# that the converter reads. What is not weights takes some of that.
LARGEST = (1 << 31) - (1 << 24)


def float_bytes(base: Any) -> int:
    """Bytes of a model's weights as floats."""
    return 4 * sum(math.prod(variable.shape) for variable in base.weights)


def check_size(base: Any) -> None:
    """Raises an ExportError for a model that is too large for any file.

    That is before it takes memory.
    """
    size = float_bytes(base)
    if size > LARGEST:
        raise ExportError(
            f"The model's weights are too large as floats. A TFLite file "
            "and the graph that the converter reads hold less than 2 GiB, and "
            "every export begins with a float file. Expected at most "
            f"{LARGEST:,} bytes: export parts of the model as models of their "
            f"own. Received: {size:,} bytes"
        )
