"""Layers that compute in another float type than their variables have."""

from __future__ import annotations

import contextlib
import contextvars

from msq_tf.core.scoped import scoped

_OPEN: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_uncast", default=False
)


def uncast() -> contextlib.AbstractContextManager[None]:
    """While open, new overlays keep their values as they are.

    Layers that compute in float32 then get codes times steps to the last bit,
    whatever type their variables have.
    """
    return scoped(_OPEN, True)


def is_open() -> bool:
    """Whether overlays keep their values."""
    return _OPEN.get()
