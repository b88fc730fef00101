"""Layers that compute in another float type than their variables have."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

_OPEN: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_uncast", default=False
)


@contextlib.contextmanager
def uncast() -> Iterator[None]:
    """While open, new overlays keep their values as they are.

    Layers that compute in float32 then get codes times steps to the last bit,
    whatever type their variables have.
    """
    token = _OPEN.set(True)
    try:
        yield
    finally:
        _OPEN.reset(token)


def is_open() -> bool:
    """Whether overlays keep their values."""
    return _OPEN.get()
