"""Quantized values that a whole call of `predict` or `evaluate` shares."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf.core.scoped import scoped

# Two threads that make a model's function at once would wrap it twice.
_MAKING = threading.RLock()


class _Call:
    """What one call of `predict` or `evaluate` keeps, and its model."""

    def __init__(self, model: Any):
        self.model = model
        self.values: list[tf.Tensor] | None = None


# Of this thread: the innermost call, and what stands for values in a step.
_CALL: contextvars.ContextVar[_Call | None] = contextvars.ContextVar(
    "msq_tf_call", default=None
)
_STEP: contextvars.ContextVar[_Call | None] = contextvars.ContextVar(
    "msq_tf_step", default=None
)


class HoldsValues:
    """`predict` and `evaluate` of a model that hold its quantized values.

    Weights do not move while a model predicts, so values need not be computed
    for every batch. They are computed before the first one, behind all
    callbacks that begin a call, as some of them exchange weights
    (`keras.callbacks.SwapEMAWeights`), and are arguments of the function that
    Keras runs for each batch. They belong to the call: other threads, and
    calls inside of this one, have their own.

    A mixin, before `keras.Model`.
    """

    # Keras's, for each batch.
    predict_function: Any
    test_function: Any
    _holds_values = False

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`.

        Its first batch computes the quantized values for all of them, unless
        XLA compiles the model or it was made under a strategy. A callback that
        changes weights between batches changes the next call.
        """
        with scoped(_CALL, _Call(self)):
            return super().predict(*args, **kwargs)  # type: ignore[misc]

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`; holds values as `predict` does."""
        with scoped(_CALL, _Call(self)):
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def make_predict_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_predict_function`."""
        with _MAKING:
            if self.predict_function is None or force:
                super().make_predict_function(True)  # type: ignore[misc]
                self.predict_function = self._holding(self.predict_function)
            return self.predict_function

    def make_test_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_test_function`."""
        with _MAKING:
            if self.test_function is None or force:
                super().make_test_function(True)  # type: ignore[misc]
                function = self.test_function
                # For steps, Keras takes their data or else what yields it:
                # nothing is traced then that ends with the data.
                held = self._holding(lambda steps: function(iter(steps)))

                def take_and_test(iterator: Any) -> Any:
                    if not self._in_call():
                        return function(iterator)
                    return held(self._next_steps(iterator))

                self.test_function = take_and_test
            return self.test_function

    def _next_steps(self, iterator: Any) -> list[Any]:
        """Data of the steps that run at once, fewer at the end."""
        steps = list(itertools.islice(iterator, self.steps_per_execution))  # type: ignore[attr-defined]
        if not steps:
            raise StopIteration
        return steps

    def _hold_values(self) -> None:
        # Under a strategy every replica would need its own.
        self._holds_values = not tf.distribute.has_strategy()

    def _values_to_hold(self) -> Sequence[tf.Tensor]:
        raise NotImplementedError

    def _held(self) -> Sequence[tf.Tensor]:
        """What `_values_to_hold` returns, or returned in this call."""
        step = _STEP.get()
        if step is None or step.model is not self or step.values is None:
            return self._values_to_hold()
        return step.values

    def _in_call(self) -> bool:
        """Whether this thread is in a call of this model that holds values."""
        call = _CALL.get()
        # XLA computes values while it reads the weights.
        holds = self._holds_values and not self.jit_compile  # type: ignore[attr-defined]
        return holds and call is not None and call.model is self

    def _holding(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Keras's function for a batch, as one that takes values, too."""

        def compute() -> list[tf.Tensor]:
            return list(self._values_to_hold())

        def run(data: Any, values: list[tf.Tensor]) -> Any:
            step = _Call(self)
            step.values = values
            with scoped(_STEP, step):
                return function(data)

        if not self.run_eagerly:  # type: ignore[attr-defined]
            # What Keras wants converted it says itself, further in.
            compute = tf.function(compute, autograph=False)
            run = tf.function(run, autograph=False, reduce_retracing=True)

        def run_in_call(data: Any) -> Any:
            call = _CALL.get()
            if call is None or not self._in_call():
                return function(data)
            if call.values is None:
                call.values = compute()
            return run(data, call.values)

        return run_in_call
