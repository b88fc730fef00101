"""TensorFlow's own interpreter, for those who still use it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.runtime.interpreter import KERNELS

# First TensorFlow whose own interpreter has all operators that are written,
# and what one says that lacks some.
_ALL_OPERATORS = (2, 21)
_TOO_OLD = "Didn't find op for builtin opcode"
_DELEGATE = "elegate"


@contextlib.contextmanager
def without_deprecation() -> Iterator[None]:
    """Silences the notice that `tf.lite.Interpreter` is leaving TensorFlow."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*tf.lite.Interpreter")
        yield


def load_everywhere(
    data: bytes, samples: Sequence[np.ndarray] = ()
) -> list[str]:
    """Loads and allocates a file in TensorFlow's own interpreter, too.

    That of TensorFlow before 2.21 knows no operators of 2-bit weights; there,
    such files are LiteRT's alone. Its XNNPACK is older than LiteRT's, and
    prepares no INT4 layer with a single channel and a bias. Open axes get the
    sizes of the samples. Returns remarks for the report.

    Raises:
        ExportError: If it can't.
    """
    try:
        _allocate(data, samples, KERNELS["xnnpack"])
        return []
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
    if _DELEGATE not in reason:
        return _not_loaded(reason)
    try:
        _allocate(data, samples, KERNELS["builtin"])
    except (RuntimeError, ValueError) as error:
        return _not_loaded(" ".join(str(error).split()))
    return [
        "TensorFlow's own interpreter loads the file without its default "
        f"delegates only, LiteRT in any way: {reason}"
    ]


def _allocate(data: bytes, samples: Sequence[np.ndarray], kernels: Any) -> None:
    import tensorflow as tf

    resolver = getattr(tf.lite.experimental.OpResolverType, kernels.name)
    with without_deprecation():
        interpreter = tf.lite.Interpreter(
            model_content=data, experimental_op_resolver_type=resolver
        )
        for detail, array in zip(
            interpreter.get_input_details(), samples, strict=False
        ):
            if -1 in detail["shape_signature"][1:]:
                shape = (*detail["shape"][:1], *array.shape[1:])
                interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()


def _not_loaded(reason: str) -> list[str]:
    """Raises, unless TensorFlow is too old to have all operators."""
    import tensorflow as tf

    version = tuple(map(int, tf.__version__.split(".")[:2]))
    if version < _ALL_OPERATORS and _TOO_OLD in reason:
        return []
    raise ExportError(
        "TensorFlow's own interpreter can't load the file. Expected "
        f"operators that it has. Received: {reason}"
    )
