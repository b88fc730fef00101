"""`fit` and its kin that a float model brings, around Keras's own.

A model may prepare its data, or more, before Keras's loop begins: KerasHub's
tasks have a preprocessor, which tokenizes text and scales pictures. Such a
`fit` ends in `super().fit(...)`, and that trains the float model.

Here the class of the base gets one more parent, between itself and
`keras.Model`, whose loops are those of the quantized model. An object of that
class shares its attributes with the base. So the base's own `fit` runs as it
is written, and what it hands on trains the quantized model.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

# What Keras's users call, and what may prepare arguments.
LOOPS = (
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)


def replaces(model: Any, name: str) -> bool:
    """Whether a method of a model is not Keras's."""
    if name in vars(model):
        return True
    owner = next((k for k in type(model).__mro__ if name in vars(k)), None)
    return owner is not None and owner.__module__.split(".")[0] != "keras"


class _HandsOn(keras.Model):
    """Keras's loops, done by the quantized model."""

    # Not among the attributes, which are the base's.
    __slots__ = ("_loops",)


def _handed_on(name: str) -> Any:
    def loop(self: _HandsOn, *args: Any, **kwargs: Any) -> Any:
        return self._loops(name)(*args, **kwargs)

    loop.__name__ = name
    return loop


for _name in (*LOOPS, "__call__"):
    setattr(_HandsOn, _name, _handed_on(_name))


@functools.cache
def _joined(name: str, *classes: type) -> Any:
    # KerasHub looks for the task of a backbone among all subclasses.
    return type(name, classes, {"backbone_cls": None})


def sharing(model: Any, *classes: type, **slots: Any) -> Any:
    """Makes an object that has the attributes of a model, and other methods.

    Args:
        model: What it shares all attributes with, in both directions.
        *classes: Its bases, that of the model among them.
        **slots: Values of what one of them keeps beside the attributes.
    """
    made = object.__new__(_joined(type(model).__name__, *classes))
    # Keras would track what is set.
    for name, value in {"__dict__": vars(model), **slots}.items():
        object.__setattr__(made, name, value)
    return made


def _signed(method: Any) -> Any:
    """Gives a method the signature that Keras's has, for who looks at it."""
    plain = getattr(keras.Model, method.__name__)
    method.__signature__ = inspect.signature(plain)
    return method


class HasOwnLoops:
    """Loops that go through those of the base, where it has its own.

    A mixin, before all that has a loop. What it is mixed into has `base`.
    """

    base: Any

    @_signed
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`, or as that of the base."""
        return self._loop("fit")(*args, **kwargs)

    @_signed
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, or as that of the base."""
        return self._loop("evaluate")(*args, **kwargs)

    @_signed
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`, or as that of the base."""
        return self._loop("predict")(*args, **kwargs)

    @_signed
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`, or as that of the base."""
        return self._loop("train_on_batch")(*args, **kwargs)

    @_signed
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.test_on_batch`, or as that of the base."""
        return self._loop("test_on_batch")(*args, **kwargs)

    @_signed
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict_on_batch`, or as that of the base."""
        return self._loop("predict_on_batch")(*args, **kwargs)

    def prepared_data(self, data: Any) -> Any:
        """Data as the base's own `evaluate` hands it to Keras's.

        Args:
            data: As `fit` takes it: `(x, y)`, `(x, y, sample_weight)` or
                batches.

        Returns:
            The same, prepared; `data` itself where the base prepares none.
        """
        if not replaces(self.base, "evaluate"):
            return data
        given = data if isinstance(data, tuple) else (data,)
        found = []

        def keep(x: Any = None, y: Any = None, *rest: Any, **named: Any) -> Any:
            del rest
            found.append((x, y, named.get("sample_weight")))
            return 0.0

        parts = dict(zip(("x", "y", "sample_weight"), given, strict=False))
        self._base_with(lambda _: keep).evaluate(**parts, verbose=0)
        return found[0] if found else data

    def _loop(self, name: str) -> Any:
        if not replaces(self.base, name):
            return self._keras_loop(name)
        return getattr(self._base_with(self._keras_loop), name)

    def _keras_loop(self, name: str) -> Any:
        return getattr(super(), name)

    def _base_with(self, loops: Callable[[str], Any]) -> Any:
        """The base, with other loops in the place of Keras's."""
        return sharing(self.base, type(self.base), _HandsOn, _loops=loops)
