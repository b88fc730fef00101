"""Functions that a model was compiled to, kept out of a scope and in it.

`predict`, `evaluate`, `fit` and KerasHub's `generate` trace a function at
their first call and keep it with the model. One that was traced outside of a
scope computes with float weights inside of it, and one that was traced inside
would go on with the scope's constants after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from msq_tf.keras3.overlay import all_layers

_FUNCTIONS = (
    "generate_function",
    "predict_function",
    "test_function",
    "train_function",
)


@contextlib.contextmanager
def traced_apart(model: Any) -> Iterator[None]:
    """A scope in which a model, and models inside it, trace anew.

    What they trace there is dropped when it ends, and what they had before is
    theirs again.
    """
    models = [m for m in all_layers(model) if isinstance(m, keras.Model)]
    kept = [
        (part, name, vars(part)[name])
        for part in models
        for name in _FUNCTIONS
        if name in vars(part)
    ]
    _give([(part, name, None) for part, name, _ in kept])
    try:
        yield
    finally:
        _give(kept)


def _give(functions: list[tuple[Any, str, Any]]) -> None:
    for part, name, function in functions:
        # Not by way of Keras, which looks at all that is set.
        object.__setattr__(part, name, function)
