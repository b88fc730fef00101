"""Networks whose kernels are computed from other variables."""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.keras3.overlay import Overlay


class ComputedKernels(keras.Model):
    """A network that runs with other tensors in place of its kernels.

    Attributes:
        base: The network.
        kernels: Its variables that are replaced, set by subclasses.
    """

    base: keras.Model
    kernels: list[Any]

    @abc.abstractmethod
    def values(self) -> list[tf.Tensor]:
        """float32 tensors: the kernels that the network computes with."""

    @property
    @abc.abstractmethod
    def bits(self) -> dict[str, int]:
        """Stored bits of every kernel, the sign included."""

    @property
    def sizes(self) -> list[int]:
        """Elements of every kernel."""
        return [int(np.prod(kernel.shape)) for kernel in self.kernels]

    @property
    def average_bits(self) -> float:
        """Stored bits per element of a kernel."""
        stored = zip(self.sizes, self.bits.values(), strict=True)
        return sum(n * bits for n, bits in stored) / sum(self.sizes)

    @property
    def compression(self) -> float:
        """32 over `average_bits`."""
        return 32.0 / self.average_bits

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pairs = zip(self.kernels, self.values(), strict=True)
        with Overlay(pairs) as scope:
            outputs = self.base(inputs, training=training)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs
