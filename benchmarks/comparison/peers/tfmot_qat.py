"""TFMOT's quantization-aware training, on tf_keras.

Rows: `"8 bits"` is `quantize_model`, the published default; `"4 bits"` the
scheme `default_n_bit`, which TFMOT calls experimental, with 4-bit weights.
Activations have 8 bits in both: neither scheme leaves them in float. Their
ranges start at -6 to 6 and follow the data with a decay of 0.999, as TFMOT
sets them. Weights of convolutions have a scale a channel, those of dense
layers one a tensor.

Stored bits are those of the quantizer of each kernel, a sign included (the
narrow range of n bits has 2**n - 1 codes), and 32 for a kernel that a scheme
left in float.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

# Before anything imports TensorFlow: TFMOT is for this Keras.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

# Not public: the only way to weights of less than 8 bits.
from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (  # noqa: E501
    default_n_bit_quantize_scheme as n_bit,
)

from benchmarks.comparison.peers import driver
from benchmarks.harness import peer_network

ROWS = {"8 bits": 8, "4 bits": 4}
_FLOAT_BITS = 32


class TFMOT(driver.Driver):
    """TFMOT's own schemes."""

    packages = ("tensorflow-model-optimization", "tf-keras", "numpy")
    keras = tf_keras
    cost_rows = tuple(ROWS)

    def quantized(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        model = self.float_model(build, weights)
        if row == "8 bits":
            return tfmot.quantization.keras.quantize_model(model)
        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        return tfmot.quantization.keras.quantize_apply(
            annotated,
            scheme=n_bit.DefaultNBitQuantizeScheme(
                num_bits_weight=ROWS[row], num_bits_activation=8
            ),
        )

    def stored(self, model: Any) -> list[driver.Stored]:
        found = []
        for wrapper, kernel, quantizer in _kernels(model):
            bits = quantizer.num_bits if quantizer else _FLOAT_BITS
            count = int(np.prod(kernel.shape))
            found.append(
                driver.Stored(wrapper.layer.name, count, bits * count, bits)
            )
        return found

    def values(self, model: Any) -> dict[str, np.ndarray]:
        values = {}
        for wrapper, kernel, quantizer in _kernels(model):
            # The wrapper keeps the quantizer's ranges to itself.
            ranges = next(
                (v for w, _, v in wrapper._weight_vars if w is kernel), None
            )
            values[wrapper.layer.name] = (
                quantizer(kernel, False, weights=ranges).numpy()
                if quantizer
                else kernel.numpy()
            )
        return values


def _kernels(model: Any) -> list[tuple[Any, Any, Any]]:
    """`(wrapper, kernel, quantizer or None)` of convolutions, dense layers."""
    found = []
    for wrapper in model.layers:
        if not hasattr(getattr(wrapper, "layer", None), "kernel"):
            continue
        quantized = {
            weight.name: (weight, quantizer)
            for weight, quantizer, _ in wrapper._weight_vars
        }
        kernel, quantizer = next(
            (entry for entry in quantized.values()),
            (wrapper.layer.kernel, None),
        )
        found.append((wrapper, kernel, quantizer))
    return found


if __name__ == "__main__":
    sys.exit(driver.main(TFMOT(), sys.argv[1:]))
