"""Weights as trainable bit planes: what BSQ and CSQ have in common.

A weight W of n magnitude bits is two tensors P and N of W's shape and one more
axis of bits, the most significant first, and a scale s:

    W = s * sum_i e_i (P_i - N_i),   e_i = 2**(n - 1 - i) / (2**n - 1)

The sign is not counted in n.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core.config import MSQConfig
from msq_tf.keras3.overlay import Overlay
from msq_tf.keras3.planning import make_plan
from msq_tf.keras3.planning import match_plan

MAX_PLANES = 8


def bit_weights(planes: int) -> np.ndarray:
    """`e_i` of n planes, padded with zeros to `MAX_PLANES`; float32."""
    weights = np.zeros(MAX_PLANES, np.float32)
    if planes:
        powers = 2.0 ** np.arange(planes - 1, -1, -1)
        weights[:planes] = powers / (2.0**planes - 1.0)
    return weights


def to_planes(codes: np.ndarray, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits of signed codes: those of positive ones, those of the others.

    Args:
        codes: ints, `|codes| < 2**planes`.
        planes: Number of magnitude bits n.

    Returns:
        Two float32 arrays of shape `codes.shape + (MAX_PLANES,)`; planes from
        n on are zero.
    """
    magnitude = np.abs(codes)
    shifts = np.arange(planes - 1, -1, -1)
    bits = np.zeros((*codes.shape, MAX_PLANES), np.float32)
    bits[..., :planes] = (magnitude[..., None] >> shifts) & 1
    positive = (codes > 0)[..., None]
    return bits * positive, bits * ~positive


def first_codes(
    w: np.ndarray, planes: int = MAX_PLANES
) -> tuple[np.ndarray, float]:
    """Codes and scale of a float weight: `round(|W| (2**n - 1) / max|W|)`."""
    scale = float(np.abs(w).max()) or 1.0
    levels = 2.0**planes - 1.0
    codes = np.sign(w) * np.round(np.abs(w) * levels / scale)
    return codes.astype(np.int64), scale


class PlaneModel(keras.Model):
    """A model whose kernels are computed from trainable bit planes.

    Args:
        base: A built float Keras model. Its kernels are not trained any more;
            everything else of it is.
        name: Name of the model.

    Attributes:
        base: As given.
        kernels: Its variables that are replaced.
        positive: Trainable float32 variables P.
        negative: Trainable float32 variables N.
        scales: Trainable float32 scalars s.
    """

    def __init__(self, base: keras.Model, name: str):
        super().__init__(name=name)
        self.base = base
        plan = make_plan(base, MSQConfig(), None)
        self.kernels = [
            weight.variable
            for weight in match_plan(base, plan)
            if weight.quantized
        ]
        self.positive: list[Any] = []
        self.negative: list[Any] = []
        self.scales: list[Any] = []
        for i, kernel in enumerate(self.kernels):
            w = kernel.numpy()
            kernel.trainable = False
            positive, negative, scale = self._start(w)
            self.positive.append(self._plane(f"positive_{i}", positive))
            self.negative.append(self._plane(f"negative_{i}", negative))
            self.scales.append(self._plane(f"scale_{i}", np.float32(scale)))
        self.built = True

    @property
    def sizes(self) -> list[int]:
        """Elements of every kernel."""
        return [int(np.prod(kernel.shape)) for kernel in self.kernels]

    def _plane(self, name: str, value: Any) -> Any:
        variable = self.add_weight(
            name=name, shape=np.shape(value), trainable=True
        )
        variable.assign(value)
        return variable

    @abc.abstractmethod
    def _start(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Start values of P, N and s for a float weight."""

    @abc.abstractmethod
    def values(self) -> list[tf.Tensor]:
        """float32 tensors: the kernels that the network computes with."""

    @abc.abstractmethod
    def penalty(self) -> tf.Tensor:
        """float32 scalar that is added to the loss in training."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pairs = zip(self.kernels, self.values(), strict=True)
        with Overlay(pairs) as scope:
            outputs = self.base(inputs, training=training)
        for loss in scope.losses:
            self.add_loss(loss)
        if training:
            self.add_loss(self.penalty())
        return outputs
