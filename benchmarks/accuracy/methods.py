"""What a row's training has besides: methods of the literature.

All but distillation are trials, which the library does not have. One that pays
over the seeds belongs there; the page says what the others gave.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

import msq_tf

# Of the paper on oscillations, but for the momentum: runs here are short.
_MOMENTUM = 0.02
_FROZEN_ABOVE = (0.1, 0.03)
# Share of the way to its grid point that a weight goes in the last step.
_DAMPING = 0.02
# Share of the codes that change in a step, at the beginning.
_TRANSITIONS = 0.01
_GAIN = 0.05
_PER_BIT = 0.5


class _AfterSteps(keras.callbacks.Callback):
    """Calls `after` with the share of the training that is done."""

    def __init__(self, steps: int):
        super().__init__()
        self._steps = steps

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew."""
        self.begin(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Changes the weights."""
        iterations = self.model.optimizer.iterations
        done = tf.cast(iterations, tf.float32) / self._steps
        self.after(tf.minimum(done, 1.0))

    def begin(self, qmodel: msq_tf.MSQModel) -> None:
        """Makes what is kept from step to step."""

    def after(self, done: tf.Tensor) -> None:
        """Changes the weights after a step.

        Args:
            done: float32 scalar, 0 to 1.
        """
        raise NotImplementedError


def _cosine(done: tf.Tensor, first: float, last: float) -> tf.Tensor:
    return last + (first - last) * (1 + tf.cos(math.pi * done)) / 2


def _variables(weights: list[tf.Tensor]) -> list[tf.Variable]:
    return [tf.Variable(tf.zeros_like(w), trainable=False) for w in weights]


class Freezing(_AfterSteps):
    """Freezes weights that go to and fro between two grid points.

    Nagel et al., 2022, "Overcoming Oscillations in Quantization-Aware
    Training", algorithm 1: a weight whose average frequency is above a
    threshold, which falls by a cosine, stays at its average grid point.
    """

    def begin(self, qmodel: msq_tf.MSQModel) -> None:
        """Starts with the grid points of now, and no weight frozen."""
        now = qmodel.quantized_values()
        self._last = [tf.Variable(value, trainable=False) for value in now]
        self._mean = [tf.Variable(value, trainable=False) for value in now]
        self._direction = _variables(now)
        self._frequency = _variables(now)
        self._frozen = _variables(now)

    def after(self, done: tf.Tensor) -> None:
        """Counts, freezes, and puts frozen weights back."""
        threshold = _cosine(done, *_FROZEN_ABOVE)
        values = self.model.quantized_values()
        for i, (kernel, value) in enumerate(
            zip(self.model.kernels, values, strict=True)
        ):
            way = tf.sign(value - self._last[i])
            turned = tf.cast(way * self._direction[i] < 0, tf.float32)
            self._direction[i].assign(
                tf.where(way == 0, self._direction[i], way)
            )
            self._last[i].assign(value)
            free = self._frozen[i] == 0
            self._frequency[i].assign_add(
                _MOMENTUM * (turned - self._frequency[i])
            )
            self._mean[i].assign(
                tf.where(
                    free,
                    self._mean[i] + _MOMENTUM * (value - self._mean[i]),
                    self._mean[i],
                )
            )
            frozen = tf.logical_or(~free, self._frequency[i] > threshold)
            self._frozen[i].assign(tf.cast(frozen, tf.float32))
            kernel.assign(tf.where(frozen, self._mean[i], kernel.value))


class Dampening(_AfterSteps):
    """Pulls weights to their grid points, harder towards the end.

    The same paper's regularizer, taken apart from the gradient as AdamW does
    with decay; so it is the same pull for every optimizer.
    """

    def after(self, done: tf.Tensor) -> None:
        """Moves each weight a share of the way to its grid point."""
        share = _DAMPING - _cosine(done, _DAMPING, 0.0)
        values = self.model.quantized_values()
        for kernel, value in zip(self.model.kernels, values, strict=True):
            kernel.assign_add(share * (value - kernel.value))


class TransitionRate(_AfterSteps):
    """Steers a factor of the rate so that few codes change in a step.

    Lee et al., 2024, "Transition Rate Scheduling for Quantization-Aware
    Training": the share of codes that change follows a schedule that falls by
    a cosine. The factor belongs to an optimizer of `with_factors`.
    """

    def begin(self, qmodel: msq_tf.MSQModel) -> None:
        """Starts with the grid points of now and factors of one."""
        now = qmodel.quantized_values()
        self._last = [tf.Variable(value, trainable=False) for value in now]
        self._rates = [tf.Variable(_TRANSITIONS) for _ in now]
        factors = qmodel.optimizer.factors
        self._factors = [factors[kernel.path] for kernel in qmodel.kernels]

    def after(self, done: tf.Tensor) -> None:
        """Raises factors where too few codes change, lowers the others."""
        aim = _cosine(done, _TRANSITIONS, 0.0) + 1e-6
        values = self.model.quantized_values()
        for i, value in enumerate(values):
            changed = tf.cast(value != self._last[i], tf.float32)
            self._last[i].assign(value)
            rate = self._rates[i]
            rate.assign_add(_MOMENTUM * 5 * (tf.reduce_mean(changed) - rate))
            error = tf.clip_by_value((aim - rate) / aim, -1.0, 1.0)
            factor = self._factors[i] * tf.exp(_GAIN * error)
            self._factors[i].assign(tf.clip_by_value(factor, 1e-3, 1e3))


def width_factors(qmodel: msq_tf.MSQModel) -> dict[str, float]:
    """Factors of gradients, by paths of variables: less for fewer bits."""
    return {
        kernel.path: float((2 ** (bits - 1) - 1) / 127) ** _PER_BIT
        for kernel, bits in zip(
            qmodel.kernels, qmodel.bits.values(), strict=True
        )
    }


class WidthScaling(keras.callbacks.Callback):
    """Scales gradients of weights by their widths, as they are in an epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Takes the factors of the widths of now."""
        for path, factor in width_factors(self.model).items():
            self.model.optimizer.factors[path].assign(factor)


def with_factors(
    optimizer: keras.optimizers.Optimizer, qmodel: msq_tf.MSQModel
) -> keras.optimizers.Optimizer:
    """Gives an optimizer's rate a factor for each quantized weight.

    Args:
        optimizer: Is changed.
        qmodel: Whose weights have factors, by the paths of their variables, in
            the attribute `factors`.
    """
    kind: Any = type(optimizer)
    factors = {k.path: tf.Variable(1.0) for k in qmodel.kernels}
    # Keras gives `update_step` the variables of TensorFlow.
    by_value = {k.value.ref(): factors[k.path] for k in qmodel.kernels}

    class WithFactors(kind):
        """The optimizer with `factors`."""

        def update_step(
            self, gradient: Any, variable: Any, learning_rate: Any
        ) -> None:
            factor = by_value.get(variable.ref(), 1.0)
            super().update_step(gradient, variable, learning_rate * factor)

    changed: Any = optimizer
    changed.__class__ = WithFactors
    changed.factors = factors
    return optimizer


@dataclasses.dataclass(frozen=True)
class Method:
    """What a row's training has besides.

    Attributes:
        callbacks: For `fit`.
        factors: Whether they need an optimizer of `with_factors`.
    """

    callbacks: Sequence[keras.callbacks.Callback] = ()
    factors: bool = False


def _distillation(qmodel: msq_tf.MSQModel, steps: int) -> Method:
    msq_tf.distill(qmodel, qmodel.base)
    return Method()


# By name in a `Row`: from the model, before it is compiled, and the steps.
METHODS: dict[str, Callable[[Any, int], Method]] = {
    "": lambda qmodel, steps: Method(),
    "distillation": _distillation,
    "freezing": lambda qmodel, steps: Method([Freezing(steps)]),
    "dampening": lambda qmodel, steps: Method([Dampening(steps)]),
    "transition rate": lambda qmodel, steps: Method(
        [TransitionRate(steps)], factors=True
    ),
    "scaled gradients": lambda qmodel, steps: Method(
        [WidthScaling()], factors=True
    ),
}
