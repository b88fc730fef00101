"""qkeras-v3: `quantized_bits` on every kernel, activations in float.

Rows: `"n bits"` has `quantized_bits(n, alpha="auto")`, a free scale a channel,
chosen by the largest weight; `"n bits, scales of 2"` has `alpha="auto_po2"`,
the package's default for layers, whose scales are powers of two chosen by
least squares. Batch normalization stays a layer of its own.

Stored bits of a kernel are n an element. Either form is symmetric: codes from
-(2**(n-1) - 1) to 2**(n-1) - 1, the sign included in n.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import qkeras

from benchmarks.comparison.peers import driver
from benchmarks.harness import peer_network

_SCALES_OF_2 = ", scales of 2"


class _Layers(peer_network.PlainLayers):
    """QKeras layers of one row."""

    def __init__(self, row: str):
        super().__init__(keras, qkeras.QConv2D, qkeras.QDense)
        match = re.fullmatch(rf"(\d+) bits({_SCALES_OF_2})?", row)
        if match is None:
            raise ValueError(
                "There is no such row. Expected 'n bits' or "
                f"'n bits{_SCALES_OF_2}'. Received: row={row}"
            )
        self._bits = int(match[1])
        self._alpha = "auto_po2" if match[2] else "auto"

    def options(self, bias: bool) -> dict[str, Any]:
        quantizer = qkeras.quantized_bits(self._bits, alpha=self._alpha)
        return {"kernel_quantizer": quantizer}


class QKeras(driver.Driver):
    """Uniform widths by `quantized_bits`."""

    packages = ("qkeras-v3", "keras", "numpy")
    keras = keras
    cost_rows = ("4 bits", f"4 bits{_SCALES_OF_2}")

    def quantized(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        return peer_network.built(build, _Layers(row), weights)

    def stored(self, model: Any) -> list[driver.Stored]:
        found = []
        for layer in _quantized_layers(model):
            bits = layer.kernel_quantizer_internal.bits
            count = int(np.prod(layer.kernel.shape))
            found.append(driver.Stored(layer.name, count, bits * count, bits))
        return found

    def values(self, model: Any) -> dict[str, np.ndarray]:
        return {
            layer.name: keras.ops.convert_to_numpy(
                layer.kernel_quantizer_internal(layer.kernel)
            )
            for layer in _quantized_layers(model)
        }


def _quantized_layers(model: Any) -> list[Any]:
    return [
        layer
        for layer in model.layers
        if getattr(layer, "kernel_quantizer_internal", None) is not None
    ]


if __name__ == "__main__":
    sys.exit(driver.main(QKeras(), sys.argv[1:]))
