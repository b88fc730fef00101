"""The width of one weight, or why it has none."""

from __future__ import annotations

import dataclasses

from msq_tf.reports.code_use import CodeUse
from msq_tf.rules.storage import CONTAINERS


@dataclasses.dataclass(frozen=True)
class LayerPrecision:
    """One quantized weight.

    Attributes:
        path: Its key in `MSQModel.bits`.
        layer: Class name of its layer.
        attribute: Name of the weight on its layer.
        size: Number of elements.
        bits: Stored bits, the sign included.
        history: `(epoch, bits)` from the start, with fractions of epochs.
        sensitivity: `Omega` at the last decision, see `LayerStats`.
        sensitivity_error: Its standard error; infinite where one probe
            cannot tell.
        trace: Hessian trace at the last estimate.
        trace_error: Its standard error.
        lsb_nonzero: Share of elements whose low bits (down to the next
            width) were not all zero at the last decision.
        use: How much of the width the codes use; `None` where the weight is
            not finite.
        costs: `(bits, cost)`: the predicted increase of the loss at widths
            that were weighed at the last decision; empty where none were.
    """

    path: str
    layer: str
    attribute: str
    size: int
    bits: int
    history: tuple[tuple[float, int], ...]
    sensitivity: float
    sensitivity_error: float
    trace: float
    trace_error: float
    lsb_nonzero: float
    use: CodeUse | None = None
    costs: tuple[tuple[int, float], ...] = ()

    @property
    def packed_bytes(self) -> int:
        """Bytes of the codes at `bits` each, without scales."""
        return -(-self.size * self.bits // 8)

    @property
    def container_bytes(self) -> int:
        """Bytes of the codes in the containers of a packed file."""
        width = min(w for w in CONTAINERS if w >= self.bits)
        return -(-self.size * width // 8)


@dataclasses.dataclass(frozen=True)
class SkippedLayer:
    """One weight left in float, with the reason."""

    path: str
    layer: str
    size: int
    reason: str
