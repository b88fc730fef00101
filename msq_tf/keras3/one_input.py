"""Whether a model's `call` takes all of its inputs as one structure."""

from __future__ import annotations

import inspect
from typing import Any

_KERAS = ("training", "mask")


def check_one_input(model: Any, given: int = 1) -> None:
    """Raises a ValueError unless a model takes one structure of inputs.

    `fit` and `predict` give it one, and so does the function of a file.

    Args:
        model: A Keras model.
        given: How many arguments a caller has for it.
    """
    arguments = _arguments(model)
    needed = [p.name for p in arguments[1:] if p.default is p.empty]
    if needed or (given > 1 and len(arguments) > 1):
        names = ", ".join(p.name for p in arguments)
        raise ValueError(
            f"`{type(model).__name__}.call` takes its inputs as several "
            "arguments, and quantized models, as `fit`, `predict` and files, "
            "take one structure. Expected a `call` with one list or "
            "dictionary of all inputs; or, to compute, a call of "
            "`qmodel.base` in `qmodel.quantized_scope()`. Received: "
            f"call({names})"
        )


def _arguments(model: Any) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.name not in _KERAS
        and parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
