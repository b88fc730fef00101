"""Checks of saved configurations, which may come from anyone."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable
from typing import Any

# What moves a cursor, hides or turns around what follows.
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
_DIRECTIONS = (
    *("LRE", "RLE", "LRO", "RLO", "PDF"),
    *("LRI", "RLI", "FSI", "PDI"),
)


def check_text(name: str, value: Any, empty: bool = True) -> None:
    """Raises a ValueError unless `value` is text that can be printed."""
    if not isinstance(value, str) or not (value or empty):
        wanted = "text" if empty else "text that is not empty"
        raise ValueError(
            f"`{name}` must be {wanted}. Received: {name}={value!r}"
        )
    if any(
        unicodedata.category(character) in _CONTROLS
        or unicodedata.bidirectional(character) in _DIRECTIONS
        for character in value
    ):
        raise ValueError(
            f"`{name}` holds control characters. Expected text in one line. "
            f"Received: {name}={ascii(value)}"
        )


def check_integer(name: str, value: Any, least: int) -> None:
    """Raises a ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: "
            f"{name}={value!r}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(
            f"`{name}` must be True or False. Received: {name}={value!r}"
        )


def check_unique(name: str, values: Iterable[Any]) -> None:
    """Raises a ValueError if two of `values` are alike."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(
                f"Each `{name}` can be there once. Received: two of {value!r}"
            )
        seen.add(value)


def records(name: str, config: Any) -> list[dict[str, Any]]:
    """A list of mappings out of a saved configuration.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(config, list | tuple) or not all(
        isinstance(entry, dict) for entry in config
    ):
        raise ValueError(
            f"`{name}` must be a list of mappings in a saved configuration. "
            f"Received: {config!r:.200}"
        )
    return list(config)


def made(cls: type, config: Any) -> Any:
    """Makes a dataclass that checks its values from a saved configuration.

    Raises:
        ValueError: If a field without a default is missing, or there is no
            such field.
    """
    fields = dataclasses.fields(cls)
    known = {field.name for field in fields}
    needed = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    found = set(config) if isinstance(config, dict) else set()
    if not needed <= found or not found <= known:
        raise ValueError(
            f"A saved {cls.__name__} does not fit. Expected the fields "
            f"{sorted(needed)} and at most {sorted(known)}. Received: "
            f"{config!r:.200}"
        )
    return cls(**config)
