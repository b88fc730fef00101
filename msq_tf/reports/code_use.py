"""How much of their widths the codes of weights use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from msq_tf.bit_widths import MIN_BITS
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import count_codes
from msq_tf.core.quantized_weight import entropy

# Below this share of the width codes say little.
_LOW = 0.5
# Of fewer codes the entropy says little.
_FEWEST = 64


class CodeUse(NamedTuple):
    """The use that the codes of one weight make of their width.

    Attributes:
        path: Key of the weight.
        size: Number of codes.
        bits: Stored bits of a code.
        entropy: Shannon entropy of a code, in bits.
        dead: Output channels whose codes are all zero.
        channels: Output channels; 0 where that is not known.
        counts: `(code, count)` of every code that occurs, by code.
    """

    path: str
    size: int
    bits: int
    entropy: float
    dead: int
    channels: int = 0
    counts: tuple[tuple[int, int], ...] = ()

    @property
    def low(self) -> bool:
        """Whether a narrower width could say as much."""
        return (
            self.bits > MIN_BITS
            and self.size >= _FEWEST
            and self.entropy < _LOW * self.bits
        )


def code_use(weight: QuantizedWeight) -> CodeUse:
    """Counts the codes of a weight."""
    codes = weight.codes
    kept = {axis % codes.ndim for axis in weight.channel_axes}
    others = tuple(axis for axis in range(codes.ndim) if axis not in kept)
    alive = codes.any(axis=others)
    return CodeUse(
        weight.path,
        codes.size,
        weight.bits,
        entropy(codes),
        int(np.size(alive) - np.count_nonzero(alive)),
        int(np.size(alive)),
        _counted(codes),
    )


def _counted(codes: np.ndarray) -> tuple[tuple[int, int], ...]:
    counts = count_codes(codes)
    pairs = [
        (int(np.uint8(b).view(np.int8)), int(counts[b])) for b in range(256)
    ]
    return tuple(sorted(pair for pair in pairs if pair[1]))


def remarks(uses: Sequence[CodeUse]) -> list[str]:
    """Sentences on dead channels and on codes of low entropy."""
    found = []
    dead = [use for use in uses if use.dead]
    if dead:
        listed = ", ".join(
            f"{use.path} ({use.dead}"
            + (f" of {use.channels})" if use.channels else ")")
            for use in dead
        )
        found.append(
            f"channels whose codes are all zero: {listed}. They take bytes and "
            "time and compute a constant: fewer channels would do"
        )
    low = [use for use in uses if use.low]
    if low:
        listed = ", ".join(
            f"{use.path} ({use.entropy:.1f} of {use.bits} bits)" for use in low
        )
        found.append(
            f"codes that hold less than half of their width: {listed}. A "
            f"narrower width may do, down to {MIN_BITS} bits"
        )
    return found
