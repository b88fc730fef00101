"""Checks of arguments, with messages that say what was expected.

Without these checks, a number given as text, or a list in place of one value,
would fail somewhere inside with a message of Python.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import Any


def check_integer(
    name: str,
    value: Any,
    least: int | None = None,
    most: int | None = None,
    optional: bool = False,
) -> None:
    """Raises a ValueError unless `value` is an integer in a range."""
    right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    _check("an integer", right, name, value, least, most, optional)


def check_number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    optional: bool = False,
) -> None:
    """Raises a ValueError unless `value` is a finite number in a range."""
    right = is_number(value)
    _check("a finite number", right, name, value, least, most, optional)


def check_flag(name: str, value: Any, optional: bool = False) -> None:
    """Raises a ValueError unless `value` is True or False."""
    if value in (True, False) or (optional and value is None):
        return
    raise ValueError(
        f"`{name}` must be True or False{', or None' * optional}. Received: "
        f"{name}={value!r}"
    )


def check_mapping(name: str, value: Any, of: str) -> None:
    """Raises a ValueError unless `value` maps, `of` saying what to what."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{name}` must be a dictionary of {of}. Received: {name}={value!r}"
        )


def check_path(name: str, value: Any, optional: bool = False) -> None:
    """Raises a ValueError unless `value` is a path."""
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        return
    if optional and value is None:
        return
    raise ValueError(
        f"`{name}` must be a path, as text or as a pathlib.Path"
        f"{', or None' * optional}. Received: {name}={value!r}"
    )


def is_number(value: Any) -> bool:
    """Whether something is a finite number; True and False are none."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _check(
    kind: str,
    right: bool,
    name: str,
    value: Any,
    least: float | None,
    most: float | None,
    optional: bool,
) -> None:
    if optional and value is None:
        return
    if (
        right
        and (least is None or value >= least)
        and (most is None or value <= most)
    ):
        return
    raise ValueError(
        f"`{name}` must be {kind}{_range(least, most)}"
        f"{', or None' * optional}. Received: {name}={value!r}"
    )


def _range(least: float | None, most: float | None) -> str:
    if most is None:
        return "" if least is None else f" of at least {least:g}"
    if least is None:
        return f" of at most {most:g}"
    return f" from {least:g} to {most:g}"
