"""One search at a time on a model."""

from __future__ import annotations

import weakref
from typing import Any

# The search that began last on each model, of whichever Keras.
_SEARCHES: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = (
    weakref.WeakKeyDictionary()
)


def begin(model: Any, search: Any) -> None:
    """Notes which callback's search begins on a model.

    It takes the place of another one: a run that was broken off never said
    that it ended.
    """
    _SEARCHES[model] = weakref.ref(search)


def check(model: Any, search: Any) -> None:
    """Raises a ValueError if another search began on the model since."""
    last = _SEARCHES.get(model)
    other = None if last is None else last()
    if other is not None and other is not search:
        raise ValueError(
            "Two searches run on one model, and each would undo the bits of "
            "the other. Expected one MSQCallback in `callbacks`; for a second "
            "target begin a second `fit`. Received: MSQCallback("
            f"{search.rule!r}) and MSQCallback({other.rule!r}) on "
            f"'{model.name}'"
        )
