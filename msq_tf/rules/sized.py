"""Rules that count what an export target stores."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules import storage
from msq_tf.rules.allocation import Option
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import SearchStats
from msq_tf.rules.records import mean_sensitivity
from msq_tf.rules.rule import Rule

# Between a squared distance of the outputs, which a divergence is, and a
# distance. Fine-tuning wins back much of one layer's large damage and little
# of many layers' small ones, so damages are not added as they are.
EXPONENT = 0.75


@dataclasses.dataclass(frozen=True)
class SizedRule(Rule):
    """Base of the rules that know what widths pay, and what they take.

    Attributes:
        allowed_bits: Widths that a layer may have; see `BudgetRule`.
        device: Name of an export target; see `BudgetRule`.
    """

    allowed_bits: Sequence[int] | None = None
    device: str | None = None

    limited_by: ClassVar[str] = "min_bits, allowed_bits, device"
    # Whether a rule without a target in bytes tells them.
    tells_bytes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_widths()

    def uses_containers(self, layers: Sequence[LayerStats]) -> bool:
        if self.device is None:
            return False
        return any(map(storage.device(self.device).known_by_file, layers))

    def remedy(self, layers: Sequence[LayerStats]) -> str:
        if self.device is None:
            return ""
        device = storage.device(self.device)
        bound = [
            layer.path for layer in layers if device.wants_one_scale(layer)
        ]
        if not bound:
            return ""
        return (
            f"{len(bound)} of {len(layers)} weights, {bound[0]!r} the first, "
            f"are dense ones with scales per channel, which {self.device!r} "
            "stores in 8 bits; with one scale, "
            "`MSQConfig(dense_granularity=PerTensor())`, they may have fewer. "
        )

    def _check_widths(self) -> None:
        if self.device is not None:
            storage.device(self.device)
        if self.allowed_bits is not None:
            allowed = _widths(self.allowed_bits)
            object.__setattr__(self, "allowed_bits", allowed)

    def overhead(self, stats: SearchStats) -> float:
        if self.device is None:
            return 0.0
        if stats.file_overhead is not None:
            return stats.file_overhead
        return storage.device(self.device).overhead(stats.layers)

    def uses_file_overhead(self, layers: Sequence[LayerStats]) -> bool:
        if self.device is None:
            return False
        if self.target_bytes is None and not self.tells_bytes:
            return False
        size = sum(layer.size for layer in layers)
        return storage.device(self.device).counts_bytes_of(size)

    def stored(self, layer: LayerStats, bits: int) -> int:
        if self.device is None:
            return bits
        return storage.device(self.device).stored(layer, bits)

    def allowed(self, layer: LayerStats) -> tuple[int, ...]:
        """The widths that pay for a layer, widest first."""
        given = self.allowed_bits
        if self.device is not None:
            pay = storage.device(self.device).containers(layer)
            return tuple(w for w in pay if given is None or w in given)
        if given is not None:
            return tuple(given)
        return tuple(
            sorted({*storage.CONTAINERS, layer.min_bits}, reverse=True)
        )

    def narrower(self, layer: LayerStats, bits: int) -> tuple[int, ...]:
        """The widths below one that a layer may have, widest first."""
        return tuple(
            width
            for width in self.allowed(layer)
            if layer.min_bits <= width < bits
        )

    def row(self, layer: LayerStats, widths: Iterable[int]) -> list[Option]:
        """Options of a layer: what it stores and costs at some widths."""
        return [
            Option(
                width,
                float(layer.size * self.stored(layer, width)),
                layer.cost.get(width, 0.0),
                layer.latency.get(width, 0.0),
            )
            for width in widths
        ]

    def start_average(self, stats: SearchStats) -> float:
        """Average stored bits at the widths that layers began with."""
        stored = sum(
            layer.size * self.stored(layer, layer.start_bits)
            for layer in stats.layers
        )
        return stats.average(stored)

    def _most(self, stats: SearchStats) -> dict[str, int]:
        """How many widths each layer may drop in one decision."""
        mean = mean_sensitivity(stats.layers)
        return {
            layer.path: self.most if layer.sensitivity <= mean else 1
            for layer in stats.layers
        }


def _widths(given: Any) -> tuple[int, ...]:
    """`allowed_bits`, widest first, checked."""
    widths = (
        [*given]
        if isinstance(given, Iterable) and not isinstance(given, str)
        else []
    )
    if not widths or not all(
        isinstance(width, numbers.Integral)
        and MIN_BITS <= int(width) <= MAX_BITS
        for width in widths
    ):
        raise ValueError(
            f"`allowed_bits` must be widths from {MIN_BITS} to {MAX_BITS}, "
            f"such as (8, 4, 2). Received: allowed_bits={given!r}"
        )
    return tuple(sorted({int(width) for width in widths}, reverse=True))
