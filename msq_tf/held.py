"""Quantized values that a whole call of `predict` or `evaluate` shares."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class HeldValues:
    """Keeps what the first batch of a call computed for those that follow.

    Weights do not move while a model predicts, so values need not be computed
    for every batch. They are computed by the first one, behind all callbacks
    that begin a call, as some of them exchange weights
    (`keras.callbacks.SwapEMAWeights`). Outside of `while_open` nothing is kept.

    The variables are no part of a model's state: none is saved, and all are
    empty between calls. They share memory with the values.

    Args:
        shapes: Shapes of the values.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]):
        self._shapes = list(shapes)
        self._open = tf.Variable(False, trainable=False)
        self._filled = tf.Variable(False, trainable=False)
        self._kept = [
            tf.Variable(
                tf.zeros([0]), trainable=False, shape=tf.TensorShape(None)
            )
            for _ in self._shapes
        ]

    @contextlib.contextmanager
    def while_open(self) -> Iterator[None]:
        """A scope in which values are computed once; it does not nest."""
        self._open.assign(True)
        try:
            yield
        finally:
            self._open.assign(False)
            self._filled.assign(False)
            for variable in self._kept:
                variable.assign(tf.zeros([0]))

    def values(
        self, compute: Callable[[], Sequence[tf.Tensor]]
    ) -> list[tf.Tensor]:
        """What is kept, or else what `compute` returns.

        Args:
            compute: Returns float32 tensors of the given shapes.

        Returns:
            float32 tensors, no gradient where they were kept.
        """

        def kept() -> list[tf.Tensor]:
            return [
                tf.ensure_shape(variable.read_value(), shape)
                for variable, shape in zip(
                    self._kept, self._shapes, strict=True
                )
            ]

        def computed() -> list[tf.Tensor]:
            values = list(compute())

            def keep() -> tf.Tensor:
                for variable, value in zip(self._kept, values, strict=True):
                    variable.assign(value)
                return self._filled.assign(True, read_value=False)

            tf.cond(self._open, keep, tf.no_op)
            return values

        return tf.cond(self._filled, kept, computed)


class HoldsValues:
    """`predict` and `evaluate` of a model that hold its quantized values.

    A mixin, before `keras.Model`.
    """

    _held_values: HeldValues | None = None
    _stepping = False

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`.

        Its first batch computes the quantized values for all of them, unless
        XLA compiles the model or it was made under a strategy. A callback that
        changes weights between batches changes the next call.
        """
        with self._open():
            return super().predict(*args, **kwargs)  # type: ignore[misc]

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`; holds values as `predict` does."""
        with self._open():
            return super().evaluate(*args, **kwargs)  # type: ignore[misc]

    def predict_step(self, data: Any) -> Any:
        with self._inference_step():
            return super().predict_step(data)  # type: ignore[misc]

    def test_step(self, data: Any) -> Any:
        with self._inference_step():
            return super().test_step(data)  # type: ignore[misc]

    def _hold_values_of(self, shapes: Sequence[Sequence[int]]) -> None:
        # Under a strategy every replica would need its own.
        if not tf.distribute.has_strategy():
            self._held_values = HeldValues(shapes)

    def _held(
        self, compute: Callable[[], Sequence[tf.Tensor]]
    ) -> Sequence[tf.Tensor]:
        if self._held_values is None or not self._stepping:
            return compute()
        return self._held_values.values(compute)

    def _open(self) -> contextlib.AbstractContextManager[None]:
        if self._held_values is None:
            return contextlib.nullcontext()
        return self._held_values.while_open()

    @contextlib.contextmanager
    def _inference_step(self) -> Iterator[None]:
        # XLA computes values while it reads the weights, and knows no
        # variable whose shape changes.
        self._stepping = not self.jit_compile  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self._stepping = False
