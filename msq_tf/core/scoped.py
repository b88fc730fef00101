"""Values of context variables for a limited time."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

Value = TypeVar("Value")


@contextlib.contextmanager
def scoped(
    variable: contextvars.ContextVar[Value], value: Value
) -> Iterator[None]:
    """Has a context variable hold a value while it is open."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
