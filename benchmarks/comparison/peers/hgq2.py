"""HGQ2: bit widths that are trained, by a gradient on the bits.

What is here was written against the package's interface. Every kernel has a
`kbi` quantizer: with b magnitude bits, of which i stand before the binary
point, values are multiples of 2**(i-b) below 2**i. b and i are trainable, and
the loss has a term beta x EBOPs, where EBOPs is the sum over multiplications of
bits times bits. One element, or one layer, has its own b and i.

Stored bits of an element are b + 1, the sign included, and 0 where b = 0 (the
element is zero), by `kq.bits_` and `kq.fbits_`, summed over elements. A circuit
has its widths wired in; where they are by element, a file would have to tell
them, too, which takes at least their entropy in every layer (`widths`), or give
a layer the width of its widest element (`widest`).

Rows of the accuracy runs, by name `"a width a WHAT, beta=BETA"`:

- WHAT is `weight` or `layer`, the `heterogeneous_axis` of the kernels.
- Activations are as wide as makes no difference: 20 bits (7 before the point,
  12 behind), not trained. They cannot be float, for EBOPs needs their width.
- `parallelization_factor=1`: EBOPs then counts every weight once, not once for
  every position of the image, and so stands for size rather than for the area
  of an unrolled circuit (but for borders, 19 x magnitude bits of the weights).
- Widths start at b = 7, which is 8 with the sign, and i at the largest weight
  of an output channel, or of the layer: with the default of i = 2 most of a
  trained network's weights would round to few codes.
- Weights are trained by the SGD that every peer has. Its rate moves bits by
  nothing in a few hundred steps: bits have Adam, as in HGQ2's examples, with a
  rate that falls along the same cosine. Two optimizers in one, by Keras.
- The width and the integer bits are rounded where they are read, so what the
  model computes with at the end is what is counted.

For the cost, `as published` is the package's default: trained widths for every
weight and every activation, and SGD for all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import hgq.config
import hgq.layers
import keras
import numpy as np

from benchmarks.comparison.peers import driver
from benchmarks.harness import peer_network

PUBLISHED = "as published"
_START_BITS = 7
_INTEGER_BITS, _FRACTION_BITS = 7, 12
_BIT_RATE = 0.05
_WHATS = ("weight", "layer")


class _Published(peer_network.PlainLayers):
    """Layers as the package makes them by default."""

    def __init__(self) -> None:
        super().__init__(keras, hgq.layers.QConv2D, hgq.layers.QDense)


class _WeightsOnly(_Published):
    """Layers whose kernels alone are quantized to any effect."""

    def __init__(self, row: str):
        super().__init__()
        self.what, self._beta = _parsed(row)

    def options(self, bias: bool) -> dict[str, Any]:
        config = hgq.config.QuantizerConfig
        whole: dict[str, Any] = {"heterogeneous_axis": ()}
        return {
            "kq_conf": config(
                "kbi",
                "weight",
                b0=_START_BITS,
                i0=0,
                **(whole if self.what == "layer" else {}),
            ),
            "iq_conf": config(
                "kif",
                "datalane",
                i0=_INTEGER_BITS,
                f0=_FRACTION_BITS,
                trainable=False,
                **whole,
            ),
            "bq_conf": config("dummy", "bias") if bias else None,
            "parallelization_factor": 1,
            "beta0": self._beta,
        }


class HGQ2(driver.Driver):
    """Trained widths, by weight or by layer."""

    packages = ("hgq2", "quantizers", "keras", "numpy")
    keras = keras
    cost_rows = (PUBLISHED, *(f"a width a {w}, beta=1e-05" for w in _WHATS))

    def quantized(
        self,
        row: str,
        build: peer_network.Network,
        weights: Mapping[str, np.ndarray] | None,
    ) -> Any:
        layers = _Published() if row == PUBLISHED else _WeightsOnly(row)
        model = peer_network.built(build, layers, weights)
        if row != PUBLISHED:
            for layer in _quantized_layers(model):
                _fit_integer_bits(layer)
        return model

    def optimizer(self, row: str, rate: Any) -> Any:
        plain = super().optimizer(row, rate)
        if not isinstance(rate, keras.optimizers.schedules.CosineDecay):
            return plain
        bits = keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(_BIT_RATE, rate.decay_steps)
        )
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(plain, {r".*_kq/.*": bits})
        )

    def stored(self, model: Any) -> list[driver.Stored]:
        found = []
        for layer in _quantized_layers(model):
            widths = stored_widths(layer)
            found.append(
                driver.Stored(
                    layer.name,
                    widths.size,
                    int(widths.sum()),
                    int(widths.max()),
                    driver.entropy(widths),
                )
            )
        return found

    def values(self, model: Any) -> dict[str, np.ndarray]:
        return {
            layer.name: keras.ops.convert_to_numpy(layer.qkernel)
            for layer in _quantized_layers(model)
        }


def stored_widths(layer: Any) -> np.ndarray:
    """int64 stored bits of every element of a layer's kernel."""
    shape = layer.kernel.shape
    magnitude, whole = (
        np.broadcast_to(keras.ops.convert_to_numpy(bits), shape)
        for bits in (layer.kq.bits_(shape), layer.kq.fbits_(shape))
    )
    return np.where(magnitude > 0, whole, 0).astype(np.int64)


def _parsed(row: str) -> tuple[str, float]:
    match = re.fullmatch(r"a width a (\w+), beta=(\S+)", row)
    if match is None or match[1] not in _WHATS:
        raise ValueError(
            "There is no such row. Expected 'a width a WHAT, beta=BETA' with "
            f"WHAT one of {', '.join(_WHATS)}. Received: row={row}"
        )
    return match[1], float(match[2])


def _quantized_layers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "kq")]


def _fit_integer_bits(layer: Any) -> None:
    """Starts i where the largest weight of a channel, or the layer, fits."""
    (integer,) = (v for v in layer.kq.trainable_variables if v.name == "i")
    magnitudes = np.abs(keras.ops.convert_to_numpy(layer.kernel))
    if integer.shape == magnitudes.shape:
        axes = tuple(range(magnitudes.ndim - 1))
        magnitudes = magnitudes.max(axes, keepdims=True)
    largest = np.maximum(magnitudes, 2.0**-20)
    if integer.shape != layer.kernel.shape:
        largest = largest.max(keepdims=True)
    integer.assign(np.broadcast_to(np.ceil(np.log2(largest)), integer.shape))


if __name__ == "__main__":
    sys.exit(driver.main(HGQ2(), sys.argv[1:]))
