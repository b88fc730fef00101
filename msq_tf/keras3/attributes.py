"""By what attributes of a layer its variables can be reached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from msq_tf.keras3.overlay import own_variables


def variables_in(name: str, value: Any) -> list[tuple[str, Any]]:
    """The Keras variables that an attribute's value is or holds.

    Named by the attribute, in a list, tuple or dictionary followed by the
    place, as in `"kernels/0"`.
    """
    if isinstance(value, keras.Variable):
        return [(name, value)]
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    return [
        pair
        for place, part in parts
        for pair in variables_in(f"{name}/{place}", part)
    ]


def variable_attributes(layer: Any) -> dict[int, str]:
    """By what attribute each of a layer's own variables can be reached.

    By the variable's `id`: a public attribute, as in `variables_in`, if there
    is one; `"variables/3"` for the fourth of `own_variables` where none leads
    to it. A variable's own name does not say it, and Keras numbers those
    without a name anew in every process.
    """
    places = [
        pair
        for name, value in vars(layer).items()
        # Keras's own lists of everything.
        if name not in ("_trainable_variables", "_non_trainable_variables")
        and not name.startswith(("_self_", "_tracked"))
        for pair in variables_in(name, value)
    ]
    names: dict[int, str] = {}
    # The sort keeps the order among public ones, and among private ones.
    for name, variable in sorted(places, key=lambda p: p[0].startswith("_")):
        names.setdefault(id(variable), name)
    for i, variable in enumerate(own_variables(layer)):
        names.setdefault(id(variable), f"variables/{i}")
    return names
