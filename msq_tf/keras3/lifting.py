"""Whether the grids of a file's activations stand aside.

A model of an integer file rounds its activations to the grids of that file. A
quantized model around it decides anew what is rounded, and to what range. So
while it runs, those grids give what they read.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

from msq_tf.core.scoped import scoped

_LIFTED: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_grids_lifted", default=False
)


def lifted(lifts: bool = True) -> contextlib.AbstractContextManager[None]:
    """While open, layers of a file's grids give what they read, or not."""
    return scoped(_LIFTED, lifts)


def is_lifted() -> bool:
    """Whether layers of a file's grids give what they read."""
    return _LIFTED.get()


class LiftsGrids:
    """A scope that lifts grids while it is open. A mixin, before the scope."""

    _grids: contextlib.AbstractContextManager[None]

    def __enter__(self) -> Any:
        self._grids = lifted()
        self._grids.__enter__()
        # Of the other bases.
        return super().__enter__()  # type: ignore[misc]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[misc]
        self._grids.__exit__(None, None, None)
