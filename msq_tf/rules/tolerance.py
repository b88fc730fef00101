"""ToleranceRule: from what a metric may lose to the smallest file."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import ClassVar
from typing import NamedTuple

from msq_tf.arguments import check_number
from msq_tf.rules import allocation
from msq_tf.rules.allocation import Option
from msq_tf.rules.monitored import direction
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.sized import EXPONENT
from msq_tf.rules.sized import SizedRule

POINTS = "points"
METRIC = "metric"
PERCENT = "percent"
UNITS = (POINTS, METRIC, PERCENT)

# Sizes that a search chooses from, evenly spaced by their ratio: from 8 bits to
# 2, neighbours differ by 4.5%.
_RUNGS = 32
# Steps of the ladder from which on there is a gap between two sizes, and at the
# least to the size in it.
_GAP = 1.5
_NEAR = 0.25


class Rung(NamedTuple):
    """One size that a search may come to, and what it is predicted to cost.

    Attributes:
        budget: Average stored bits to plan for; exact as a float32.
        average: Average stored bits of the plan, at most `budget`.
        cost: Predicted loss of its widths, as the planner adds it up.
    """

    budget: float
    average: float
    cost: float


@dataclasses.dataclass(frozen=True)
class ToleranceRule(SizedRule):
    """Finds the smallest file that keeps a metric (ours).

    You say how much of a metric the model may lose against the float model, on
    held-out data. The search measures the float model first, then learns on
    the way how the predicted cost of a plan (see `BudgetRule`) becomes a loss
    of the metric after fine-tuning. After each round it goes to the size with
    the largest expected gain, by its chance to keep the promise at the end;
    weights that training broke go back to stored ones. The model that it ends
    with was measured, after fine-tuning, and lost at most `max_drop`: the
    smallest such one. If no model kept the promise, a warning says so.

    **One point of accuracy is `max_drop=1.0`**: 0.91 may become 0.90. See
    `unit` for other metrics.

    A search takes all epochs of `fit`, at least 3. Give it as many as a
    `BudgetRule` and its fine-tuning get, or up to twice as many: the size of
    every trial comes from the same run.

    Attributes:
        max_drop: What the metric may lose, in `unit`; at least 0.
        monitor: The metric: a `val_*` name of the logs of `fit`, or a function
            of the model that returns a number. The function gets the quantized
            model, and once the float model, and measures on data of its own.
        mode: `"max"` or `"min"`: whether more or less of the metric is better.
            `"auto"` decides by its name.
        unit: `"points"`: hundredths, for a metric from 0 to 1 such as
            accuracy. `"metric"`: as the metric counts. `"percent"`: of the
            float model's value. `None` stands for points where more is better
            and the float model has 0 to 1; else it has to be given.
        reference: The metric of the float model. `None` measures it before
            training, on the same data.
        most: Number of widths, 1 or 2, that a layer of at most the mean
            sensitivity may drop in one decision; any other layer drops one.
        begin: Not used; nor are `end` and the targets of other rules.
        allowed_bits: As for `BudgetRule`.
        device: As for `BudgetRule`; sizes are then those of the whole file. For
            an Ethos-U they are those of the codes, which Vela stores in about
            so many bits in flash.

    Raises:
        ValueError: If a value is out of its range, or a target is given.

    Example:
    ```python
    qmodel.fit(
        train,
        validation_data=held_out,
        epochs=20,
        callbacks=[msq_tf.MSQCallback(msq_tf.ToleranceRule(max_drop=1.0))],
    )
    ```
    """

    max_drop: float = 1.0
    monitor: str | Callable[[Any], float] = "val_accuracy"
    mode: str = "auto"
    unit: str | None = None
    reference: float | None = None

    lsb_strength: ClassVar[float] = 0.0
    costs_once: ClassVar[bool] = True
    tells_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # Not that of the base, which wants a target.
        given = {
            name: getattr(self, name)
            for name in ("target_compression", "target_bits", "target_bytes")
            if getattr(self, name) is not None
        }
        if given:
            raise ValueError(
                "A tolerance has no target; the size follows from it. Expected "
                f"`ToleranceRule(max_drop=1.0)`, by name. Received: {given}"
            )
        check_number("max_drop", self.max_drop, 0)
        check_number("reference", self.reference, optional=True)
        # As a journal has them, whatever kind of number they are.
        object.__setattr__(self, "max_drop", float(self.max_drop))
        if self.reference is not None:
            object.__setattr__(self, "reference", float(self.reference))
        self._check_widths()
        if not callable(self.monitor) and (
            not isinstance(self.monitor, str)
            or not self.monitor.startswith("val_")
        ):
            raise ValueError(
                "`monitor` must be measured on held-out data. Expected a "
                "`val_*` name of the logs of `fit`, such as 'val_accuracy', or "
                f"a function of the model. Received: monitor={self.monitor!r}"
            )
        for name, value, known in (
            ("mode", self.mode, ("auto", "max", "min")),
            ("unit", self.unit, (None, *UNITS)),
        ):
            if value not in known:
                raise ValueError(
                    f"`{name}` is unknown. Expected one of {known}. Received: "
                    f"{name}={value!r}"
                )
        if self.mode == "auto":
            object.__setattr__(self, "mode", direction(self.name))

    @property
    def name(self) -> str:
        """The name of the metric."""
        if isinstance(self.monitor, str):
            return self.monitor
        own = getattr(self.monitor, "__name__", type(self.monitor).__name__)
        return str(own)

    def unit_for(self, reference: float) -> str:
        """The unit of `max_drop`, for the metric of the float model.

        Raises:
            ValueError: If it was not given and does not follow.
        """
        share = self.mode == "max" and 0.0 <= reference <= 1.0
        if self.unit is not None:
            if self.unit == PERCENT and not reference:
                raise ValueError(
                    "There is no percentage of 0. Expected unit='metric'. "
                    f"Received: unit='percent', {self.name}={reference:g} of "
                    "the float model"
                )
            return self.unit
        if share:
            return POINTS
        raise ValueError(
            "The unit of `max_drop` does not follow from the metric, which is "
            "no share from 0 to 1 of which more is better. Expected "
            "unit='metric' (as the metric counts), unit='percent' (of the "
            "float model's value) or unit='points' (hundredths). Received: "
            f"{self.name}={reference:g} of the float model, "
            f"max_drop={self.max_drop:g}, unit=None"
        )

    def drop(self, value: float, reference: float) -> float:
        """Computes what a metric has lost, in the unit of `max_drop`.

        Negative where it is better than the float model's; infinite where it
        is no number.
        """
        lost = reference - value if self.mode == "max" else value - reference
        if not math.isfinite(lost):
            return math.inf
        unit = self.unit_for(reference)
        if unit == PERCENT:
            return 100.0 * lost / abs(reference)
        return 100.0 * lost if unit == POINTS else lost

    def diverged(self, reference: float) -> float:
        """Computes the drop that says that training broke a model.

        Half of the float model's metric where more is better; infinite where
        that is a loss that the promise allows, or less is better.
        """
        if self.mode != "max" or reference <= 0.0:
            return math.inf
        half = self.drop(reference / 2.0, reference)
        return half if half > self.max_drop else math.inf

    def keeps(self, drop: float) -> bool:
        """Whether what was lost is within the promise."""
        # Differences of float32 metrics: 0.91 - 0.90 is not quite 0.01.
        return drop <= self.max_drop + 1e-5 * max(1.0, self.max_drop)

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        return self.narrower(layer, layer.bits)

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        """Whether the model is on its way to a smaller size."""
        return average_bits > state.target_bits + EPSILON and not state.done

    def start(self, stats: SearchStats) -> RuleState:
        """The state at the start of a search: the widest size."""
        average = self.start_average(stats)
        return RuleState(
            started=1.0, start_bits=average, target_bits=_as_float32(average)
        )

    def options(self, stats: SearchStats) -> dict[str, list[Option]]:
        """Every width that each layer may have, the widest first."""
        return {
            layer.path: self.row(
                layer,
                (layer.start_bits, *self.narrower(layer, layer.start_bits)),
            )
            for layer in stats.layers
        }

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        """Goes towards the size that the state aims for.

        A layer drops one width, or `most` if its sensitivity is at most the
        mean; what gets wider does so at once.
        """
        return self._towards(stats, state, self._most(stats))

    def decide_at_once(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        """Goes to the size that the state aims for in one decision."""
        return self._towards(stats, state, {})

    def _towards(
        self, stats: SearchStats, state: RuleState, most: Mapping[str, int]
    ) -> tuple[Decision, RuleState]:
        options = self.options(stats)
        plan = self._plan(stats, options, state.target_bits)
        changes = []
        for layer in stats.layers:
            row = options[layer.path]
            to = plan[layer.path]
            widths = [option.bits for option in row]
            if layer.bits in widths and layer.path in most:
                now = widths.index(layer.bits)
                to = min(to, now + most[layer.path])
            if row[to].bits != layer.bits:
                cost = row[to].cost - layer.cost.get(layer.bits, 0.0)
                changes.append(
                    Change(
                        layer.path,
                        layer.bits,
                        row[to].bits,
                        f"predicted loss {cost:+.2e}, on the way to "
                        f"{state.target_bits:.2f} bits on average",
                        cost,
                    )
                )
        after = self.after(stats, state, changes)
        return Decision(tuple(changes)), after._replace(done=0.0)

    def ladder(self, stats: SearchStats) -> tuple[Rung, ...]:
        """The sizes that a search chooses from, the largest first.

        At even ratios of bits, and where large weights leave a gap, the next
        smaller size, too. A smaller one is predicted to cost at least as much.
        """
        options = self.options(stats)
        top = self.start_average(stats)
        floor = stats.average(sum(row[-1].stored for row in options.values()))
        step = (top / floor) ** (1 / (_RUNGS - 1))
        rungs: list[Rung] = []

        def add(rung: Rung) -> None:
            while len(rungs) > 1 and rungs[-1].cost > rung.cost:
                rungs.pop()
            rungs.append(rung)

        for number in range(_RUNGS):
            budget = _as_float32(top / step**number)
            if number == _RUNGS - 1:  # rounding must not miss the last
                budget = _as_float32(floor + 1e-5)
            rung = self._rung(stats, options, budget)
            if rungs and rung.average >= rungs[-1].average - EPSILON:
                continue
            last = rungs[-1].average if rungs else 0.0
            near = _as_float32(last / step**_NEAR)
            if rung.average * step**_GAP < last and near > budget:
                between = self._rung(stats, options, near)
                if between.average > rung.average + EPSILON:
                    add(between)
            add(rung)
        return tuple(rungs)

    def _rung(
        self,
        stats: SearchStats,
        options: dict[str, list[Option]],
        budget: float,
    ) -> Rung:
        plan = self._plan(stats, options, budget)
        stored = sum(options[path][i].stored for path, i in plan.items())
        return Rung(
            budget,
            stats.average(stored),
            allocation.total_cost(options, plan, EXPONENT),
        )

    def bytes_at(self, stats: SearchStats, average: float) -> float:
        """Bytes at average stored bits; of the whole file with a device."""
        return average * stats.size / 8 + self.overhead(stats)

    def _plan(
        self,
        stats: SearchStats,
        options: dict[str, list[Option]],
        budget: float,
    ) -> dict[str, int]:
        excess = self.start_average(stats) - budget - EPSILON
        plan = allocation.allocate(
            options, max(excess, 0.0) * stats.size, EXPONENT
        )
        if plan is None:  # `ladder` begins at what all widths free
            raise ValueError(
                "The size has become unreachable. Expected the widths that "
                f"the search began with. Received: {budget:g} average bits"
            )
        return plan


def _as_float32(value: float) -> float:
    """The nearest number that survives in the model's variables."""
    return float(struct.unpack("f", struct.pack("f", value))[0])
