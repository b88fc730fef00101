"""Inputs that a user gives, as a file takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

if TYPE_CHECKING:
    from tflite_export.runtime.interpreter import Session


def in_order(inputs: Any, session: Session) -> list[np.ndarray]:
    """Inputs, as `run` takes them, as arrays in the order of a file.

    Raises:
        ValueError: If there are others than the file has.
    """
    names = list(session.input_names)
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(
                f"`inputs` don't fit the file. Expected inputs {names}. "
                f"Received: {sorted(map(str, inputs))}"
            )
        arrays = [np.asarray(inputs[name]) for name in names]
    elif isinstance(inputs, (list, tuple)):
        arrays = [np.asarray(x) for x in inputs]
    else:
        arrays = [np.asarray(inputs)]
    if (
        len(arrays) != len(names)
        or any(array.ndim == 0 for array in arrays)
        or len({len(array) for array in arrays}) != 1
        or not len(arrays[0])
    ):
        raise ValueError(
            "`inputs` don't fit the file. Expected arrays of equally many "
            f"samples, one for each of the inputs {names}. Received: shapes "
            f"{[array.shape for array in arrays]}"
        )
    for name, detail, array in zip(names, session.inputs, arrays, strict=True):
        _check_input(name, detail, array)
    return arrays


def _check_input(name: str, detail: dict[str, Any], array: np.ndarray) -> None:
    """Refuses samples that aren't of the shape or the kind of an input."""
    signature = [int(size) for size in detail["shape_signature"]]
    wanted = tuple(size if size > 0 else None for size in signature[1:])
    if signature and (
        array.ndim != len(signature)
        or any(
            size is not None and size != got
            for size, got in zip(wanted, array.shape[1:], strict=True)
        )
    ):
        raise ValueError(
            f"Samples don't fit the input '{name}'. Expected shape "
            f"{(None, *wanted)}, samples along the first axis. Received: "
            f"shape={array.shape}"
        )
    numeric = np.issubdtype(detail["dtype"], np.number)
    if numeric and array.dtype.kind in "SUO":
        raise ValueError(
            f"Samples don't fit the input '{name}'. Expected numbers of type "
            f"{np.dtype(detail['dtype']).name}. Received: dtype={array.dtype}"
        )
