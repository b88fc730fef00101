"""Lets a scope see what every layer of a model computes.

Keras has no hook on a layer's output that reaches nested, subclassed and
shared layers alike. `install` replaces `call` on the layer *instances*; the
replacement asks the scope that is active in this thread, and does nothing
without one. While such a call runs, the layer's activation function asks the
scope, too. Nothing of it is saved, and a model behaves as before outside of a
scope.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras

_ACTIVE: contextvars.ContextVar[CallScope | None] = contextvars.ContextVar(
    "msq_tf_call_scope", default=None
)
_MARK = "_msq_tf_hooked"


class Visitor:
    """A scope's handling of calls; this one lets them pass."""

    def enter(self, layer: Any, inputs: Any) -> Any:
        """Takes a call's first argument and returns what to call with."""
        return inputs

    def during(self, layer: Any) -> contextlib.AbstractContextManager[Any]:
        """Returns a context for the call itself."""
        return contextlib.nullcontext()

    def computes(
        self, layer: Any, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Takes a layer's own `call`, and returns what to call instead."""
        return call

    def opens(self, layer: Any) -> bool:
        """Whether an attention layer shall compute its scores in layers."""
        return False

    def context(self, layer: Any, outputs: Any) -> Any:
        """Takes the context of an attention layer that was opened."""
        return outputs

    def activate(
        self, layer: Any, inputs: Any, function: Callable[[Any], Any]
    ) -> Any:
        """Takes what a layer's activation reads, and computes it."""
        return function(inputs)

    def leave(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        """Takes a call's outputs and returns those to go on with."""
        return outputs


class CallScope:
    """While open, calls of hooked layers pass through a visitor.

    Scopes of different threads (replicas) do not see each other.

    Args:
        visitor: A `Visitor`; `None` shields from an enclosing scope.
        around: Makes a layer's call, in a scope of its own choice, and
            returns its outputs. It gets those calls that stand in no other.
    """

    def __init__(
        self,
        visitor: Visitor | None,
        around: Callable[[Any, Callable[[], Any]], Any] | None = None,
    ):
        self.visitor = visitor
        self.around = around
        self._token: contextvars.Token[CallScope | None] | None = None

    def __enter__(self) -> CallScope:
        self._token = _ACTIVE.set(self)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._token is not None:
            _ACTIVE.reset(self._token)


def active() -> Visitor | None:
    """The visitor that calls in this thread pass through."""
    scope = _ACTIVE.get()
    return None if scope is None else scope.visitor


def install(layers: Iterable[Any]) -> None:
    """Hooks layers and operations; those that are hooked already stay so."""
    for layer in layers:
        if not hasattr(layer, _MARK):
            _hook(layer)


def _hook(layer: Any) -> None:
    call = layer.call

    @functools.wraps(call)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        scope = _ACTIVE.get()
        if scope is not None and scope.around is not None:
            again = functools.partial(hooked, *args, **kwargs)
            return scope.around(layer, again)
        if scope is None or scope.visitor is None:
            return call(*args, **kwargs)
        if args:
            args = (scope.visitor.enter(layer, args[0]), *args[1:])
        with scope.visitor.during(layer), _activation_asks(layer):
            computes = scope.visitor.computes(layer, call)
            outputs = computes(*args, **kwargs)
        return scope.visitor.leave(layer, (args, kwargs), outputs)

    layer.call = hooked
    setattr(layer, _MARK, True)


# How many calls of a layer run, in replicas that take turns, and its
# activation function; by the layer's `id`.
_RUNNING: dict[int, tuple[int, Callable[..., Any]]] = {}
_LOCK = threading.Lock()


@contextlib.contextmanager
def _activation_asks(layer: Any) -> Iterator[None]:
    """Has a layer's activation function ask the scope.

    The function is exchanged for the time of the call only: a layer that is
    saved has to hold its own.
    """
    # Not that of a cell, which a recurrent layer shows as its own.
    function = vars(layer).get("activation")
    # An activation that is a layer is hooked itself.
    if not callable(function) or isinstance(function, keras.layers.Layer):
        yield
        return
    with _LOCK:
        count, original = _RUNNING.get(id(layer), (0, function))
        _RUNNING[id(layer)] = count + 1, original
        if not count:
            layer.activation = _asking(layer, original)
    try:
        yield
    finally:
        with _LOCK:
            count, original = _RUNNING.pop(id(layer))
            if count > 1:
                _RUNNING[id(layer)] = count - 1, original
            else:
                layer.activation = original


def _asking(layer: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def asking(x: Any, *args: Any, **kwargs: Any) -> Any:
        scope = _ACTIVE.get()
        if scope is None or scope.visitor is None:
            return function(x, *args, **kwargs)
        plain = functools.partial(function, *args, **kwargs)
        return scope.visitor.activate(layer, x, plain)

    return asking
