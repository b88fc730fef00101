"""The precision rule, and the data it sees, remembers and answers.

A rule decides which weight loses bits, and when. It knows no Keras: names,
counts and floats go in; new bits, with a reason for each, come out.
`MSQCallback` gathers the statistics and applies the decision. The state is a
tuple of floats that is saved with the model, so a resumed search decides what
the uninterrupted one would have.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import NoReturn

from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats

# What a target may be, in each unit; a float weight has 32 bits.
_TARGETS: dict[str, tuple[float, float | None]] = {
    "target_compression": (1, 32 / MIN_BITS),
    "target_bits": (MIN_BITS, 32),
    "target_bytes": (1, None),
}


@dataclasses.dataclass(frozen=True)
class Rule(abc.ABC):
    """Base of the rules: a target and a phase of the training.

    Exactly one target has to be given. All count stored bits, the sign
    included, over the quantizable weights (kernels and embeddings; weights
    that were skipped count 32 bits; biases and normalization do not count).

    Attributes:
        target_compression: 32 divided by the average stored bits.
        target_bits: Average stored bits.
        target_bytes: Bytes of the packed weights, without metadata.
        begin: Share of the training before the first decision.
        end: Share of the training by which the search should be over.
        most: Number of widths, 1 or 2, that a layer of at most the mean
            sensitivity may drop in one decision; any other layer drops one.
        uses_cost: Whether `decide` reads `LayerStats.cost`.
        costs_once: Whether costs are measured once, and known of wider widths.
        lsb_strength: The strength of the LSB penalty for a callback that is
            given none.
        limited_by: The arguments that say how few bits a layer may have.
    """

    target_compression: float | None = None
    target_bits: float | None = None
    target_bytes: int | None = None
    begin: float = 0.0
    end: float = 0.2
    most: int = 2

    uses_cost: ClassVar[bool] = True
    costs_once: ClassVar[bool] = False
    lsb_strength: ClassVar[float] = 0.05
    limited_by: ClassVar[str] = "min_bits"

    def __post_init__(self) -> None:
        targets = self.targets()
        if len(targets) != 1:
            raise ValueError(
                "Expected exactly one of `target_compression`, `target_bits` "
                f"and `target_bytes`. Received: {targets or 'none'}"
            )
        self._check_phase()

    def targets(self) -> dict[str, float]:
        """The targets of size that were given, by name."""
        return {
            name: getattr(self, name)
            for name in _TARGETS
            if getattr(self, name) is not None
        }

    def _check_phase(self) -> None:
        for name, value in self.targets().items():
            check_number(name, value, *_TARGETS[name])
        check_number("begin", self.begin)
        check_number("end", self.end)
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise ValueError(
                "The search phase must satisfy 0 <= begin < end <= 1 (shares "
                f"of the training). Received: begin={self.begin}, "
                f"end={self.end}"
            )
        check_integer("most", self.most, 1, 2)

    def span(self) -> tuple[float, float]:
        """Shares of the training: of a phase, and at the end of the last."""
        return self.end - self.begin, self.end

    def average_target(self, stats: SearchStats) -> float:
        """The target as average stored bits of an element."""
        if self.target_bits is not None:
            return float(self.target_bits)
        if self.target_bytes is not None:
            codes = self.target_bytes - self.overhead(stats)
            return 8.0 * codes / stats.size
        if self.target_compression is None:  # excluded in __post_init__
            raise ValueError("The rule has no target.")
        return 32.0 / self.target_compression

    def overhead(self, stats: SearchStats) -> float:
        """Bytes besides codes that count towards `target_bytes`."""
        del stats
        return 0.0

    def stored(self, layer: LayerStats, bits: int) -> int:
        """Bits that an element of a layer takes at a width."""
        del layer
        return bits

    def average(self, stats: SearchStats) -> float:
        """Average stored bits of an element now."""
        stored = (self.stored(s, s.bits) * s.size for s in stats.layers)
        return stats.average(sum(stored))

    def set_model(self, model: Any) -> NoReturn:
        """Refuses a rule that is given to `fit` in the place of a callback."""
        del model
        raise ValueError(
            f"A {type(self).__name__} is no callback. Expected "
            f"`callbacks=[msq_tf.MSQCallback(rule)]`. Received: {self!r}"
        )

    def set_params(self, params: Any) -> NoReturn:
        """Refuses as `set_model`; which of them comes first is up to Keras."""
        self.set_model(params)

    @property
    def uses_growth(self) -> bool:
        """Whether `decide` reads `LayerStats.gain`."""
        return False

    @property
    def uses_costs_of_device(self) -> bool:
        """Whether it reads what layers take on a device, see `DeviceCosts`."""
        return False

    def uses_file_overhead(self, layers: Sequence[LayerStats]) -> bool:
        """Whether bytes besides codes count, and so much that a file tells."""
        del layers
        return False

    def uses_containers(self, layers: Sequence[LayerStats]) -> bool:
        """Whether it needs `LayerStats.containers` of a model's weights."""
        del layers
        return False

    @abc.abstractmethod
    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        """Returns the widths below its present one that a layer may get.

        The widest comes first. The search calls it before it measures anything
        of the layer.
        """

    def wider(self, layer: LayerStats) -> int | None:
        """The width that may be given back to a layer, if any."""
        del layer
        return None

    @abc.abstractmethod
    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        """Returns whether to decide now.

        It should be cheap: the search calls it at every interval, and takes
        statistics only after a yes.
        """

    @abc.abstractmethod
    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        """Takes one decision; returns it and the state after it, see `after`.

        Pure: equal arguments give equal answers.
        """

    def due_now(self, stats: SearchStats, state: RuleState) -> bool:
        """`due`, asked with statistics that need no data."""
        return self.due(stats.progress, self.average(stats), state)

    def remedy(self, layers: Sequence[LayerStats]) -> str:
        """Says what would let layers have fewer bits; may be empty."""
        del layers
        return ""

    def lowest(self, layer: LayerStats) -> int:
        """The smallest width a layer can ever reach."""
        return min(self.widths(layer), default=layer.bits)

    def start(self, stats: SearchStats) -> RuleState:
        """The state at the start of a search.

        Raises:
            ValueError: If the target cannot be reached.
        """
        target = self.average_target(stats)
        floor = 32 * stats.float_size + sum(
            layer.size * self.stored(layer, self.lowest(layer))
            for layer in stats.layers
        )
        lowest = floor / stats.size
        if lowest > target + EPSILON:
            least_bytes = math.ceil(floor / 8 + self.overhead(stats))
            raise ValueError(
                "The target cannot be reached with the widths that layers "
                f"may come to ({self.limited_by}), and with what stays in "
                "float, at 32 bits a weight. "
                f"{self.remedy(stats.layers)}Expected "
                f"{self._nearest(lowest, least_bytes)}"
            )
        average = self.average(stats)
        return RuleState(
            started=1.0,
            start_bits=average,
            target_bits=target,
            done=float(average <= target + EPSILON),
        )

    def _nearest(self, lowest: float, least_bytes: int) -> str:
        """What can be reached, in the unit of the target, and the target."""
        if self.target_bytes is not None:
            return (
                f"target_bytes of at least {least_bytes:,}. Received: "
                f"target_bytes={self.target_bytes:,}"
            )
        # Rounded to the side that is accepted; 1e-6 is what floats are off by.
        if self.target_bits is not None:
            least = math.ceil(lowest * 1e4 - 1e-6) / 1e4
            return (
                f"target_bits of at least {least:.4f}. Received: "
                f"target_bits={self.target_bits:g}"
            )
        most = math.floor(32e3 / lowest + 1e-6) / 1e3
        return (
            f"target_compression of at most {most:.3f}. Received: "
            f"target_compression={self.target_compression:g}"
        )

    def words(self, stats: SearchStats) -> str:
        """Tells of budgets besides size, for a line of the log."""
        del stats
        return ""

    def forecast(self, stats: SearchStats) -> str:
        """A sentence for the beginning of a search; empty for nothing."""
        del stats
        return ""

    def missed(self, stats: SearchStats, state: RuleState) -> str:
        """Tells what a search that ended early has, and its target."""
        bits = stats.average(sum(s.size * s.bits for s in stats.layers))
        return (
            f"{bits:.3f} average bits, above its target of "
            f"{state.target_bits:.3f}"
        )

    def after(
        self, stats: SearchStats, state: RuleState, changes: Sequence[Change]
    ) -> RuleState:
        """Returns the state after a decision, for `decide` to return.

        It counts the decision, notes the step of `stats`, and says whether
        `changes` reach the target.
        """
        average = self.average(changed(stats, changes))
        return state._replace(
            decisions=state.decisions + 1.0,
            last_step=float(stats.step),
            done=float(average <= state.target_bits + EPSILON),
        )


def changed(stats: SearchStats, changes: Sequence[Change]) -> SearchStats:
    """The statistics with the widths that changes lead to."""
    new = {change.path: change.new for change in changes}
    return dataclasses.replace(
        stats,
        layers=[
            dataclasses.replace(s, bits=new.get(s.path, s.bits))
            for s in stats.layers
        ],
    )
