"""Lets a scope see what the optimizers of a model apply.

A model's own training step computes gradients and gives them to one or several
optimizers. `install` replaces `apply` on the optimizer *instances*; the
replacement asks the scope that is active in this thread, and does nothing
without one. Nothing of it is saved.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras

from msq_tf.core.scoped import scoped
from msq_tf.keras3.overlay import built_variables

# Function of an optimizer, gradients, variables and what applies them.
Apply = Callable[[Any, Sequence[Any], Sequence[Any], Callable[..., None]], None]

_ACTIVE: contextvars.ContextVar[Apply | None] = contextvars.ContextVar(
    "msq_tf_apply_scope", default=None
)
_MARK = "_msq_tf_hooked"


def applied_by(apply: Apply | None) -> contextlib.AbstractContextManager[None]:
    """While open, what hooked optimizers are to apply goes to a function.

    It is called in place of `optimizer.apply`, which is its last argument;
    `None` shields from an enclosing scope.
    """
    return scoped(_ACTIVE, apply)


def optimizers_of(layers: Sequence[Any]) -> dict[str, Any]:
    """The optimizers that models and layers hold as attributes, each once.

    Those in lists, tuples and dictionaries, too. Keys are their places, as in
    `"0/d_optimizer"`.
    """
    found: dict[int, tuple[str, Any]] = {}
    for number, layer in enumerate(layers):
        for name, value in list(vars(layer).items()):
            for place, optimizer in _optimizers(name, value):
                found.setdefault(
                    id(optimizer), (f"{number}/{place}", optimizer)
                )
    return dict(found.values())


def _optimizers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.optimizers.Optimizer):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _optimizers(f"{name}/{key}", part)
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from _optimizers(f"{name}/{key}", part)


def install(optimizers: Sequence[Any]) -> None:
    """Hooks optimizers; those that are hooked already stay so."""
    for optimizer in optimizers:
        if not hasattr(optimizer, _MARK):
            _hook(optimizer)


def _hook(optimizer: Any) -> None:
    plain = optimizer.apply

    @functools.wraps(plain)
    def apply(grads: Any, trainable_variables: Any = None) -> None:
        active = _ACTIVE.get()
        if active is None:
            plain(grads, trainable_variables)
            return
        if trainable_variables is None:
            trainable_variables = built_variables(optimizer)
        # An optimizer inside of this one gets what was seen here.
        with applied_by(None):
            active(optimizer, list(grads), list(trainable_variables), plain)

    optimizer.apply = apply
    setattr(optimizer, _MARK, True)
