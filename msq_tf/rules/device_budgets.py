"""Budgets of milliseconds and RAM: who can tell them, and what can be met."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.rules import joint
from msq_tf.rules.allocation import Option
from msq_tf.rules.allocation import Options
from msq_tf.rules.device_costs import DeviceCosts
from msq_tf.rules.joint import Limits
from msq_tf.rules.records import EPSILON
from msq_tf.rules.records import SearchStats
from msq_tf.rules.target_facts import FACTS

_NPUS = tuple(f"ethos_u:{name}" for name in FACTS["ethos_u"].accelerators)
# Devices whose budgets can be predicted from a name alone.
LATENCY = (*_NPUS, "cpu_int8", "min_size")
RAM = (*_NPUS, "mcu")
_HELP = (
    "a faster device, a smaller model (fewer channels, or smaller inputs), or "
    "narrower widths (min_bits, allowed_bits)"
)


class Goal(NamedTuple):
    """The most that a model may take; infinite for no limit.

    Attributes:
        bits: Average stored bits of an element.
        latency: Milliseconds.
        ram: Bytes in use at any time.
    """

    bits: float
    latency: float = math.inf
    ram: float = math.inf

    def late(self, stats: SearchStats) -> float:
        """Milliseconds above the goal; rounding is none."""
        if math.isinf(self.latency):
            return 0.0
        over = stats.latency - self.latency
        return over if over > EPSILON * self.latency else 0.0

    def crowded(self, stats: SearchStats) -> set[str]:
        """Weights whose operators need more RAM than the goal."""
        return {
            layer.path
            for layer in stats.layers
            if layer.ram.get(layer.bits, 0.0) > self.ram
        }

    def limits(self, stats: SearchStats) -> Limits:
        """The most that all quantized weights together may take."""
        stored = (self.bits + EPSILON) * stats.size - 32 * stats.float_size
        return Limits(stored, self.latency - stats.rest_latency)

    def permitted(self, stats: SearchStats, options: Options) -> Options:
        """The options whose operators fit into the RAM."""
        ram = {layer.path: layer.ram for layer in stats.layers}
        return {
            path: [o for o in row if ram[path].get(o.bits, 0.0) <= self.ram]
            for path, row in options.items()
        }

    def plan(
        self, stats: SearchStats, options: Options, exponent: float
    ) -> dict[str, int] | None:
        """Widths within the goal, as indices of options; `None` for none."""
        permitted = self.permitted(stats, options)
        if not all(permitted.values()):
            return None
        chosen = joint.allocate_within(permitted, self.limits(stats), exponent)
        if chosen is None:
            return None
        return {
            path: _place(options[path], permitted[path][index].bits)
            for path, index in chosen.items()
        }


def _place(row: Sequence[Option], bits: int) -> int:
    return next(i for i, option in enumerate(row) if option.bits == bits)


def check_arguments(
    latency: Any, ram: Any, costs: Any, device: str | None
) -> None:
    """Raises a ValueError for budgets that nothing can predict."""
    check_number("target_latency", latency, 0, optional=True)
    check_integer("target_ram", ram, 1, optional=True)
    if costs is not None:
        _check_costs(costs, latency, ram, device)
        return
    for name, value, known in (
        ("target_latency", latency, LATENCY),
        ("target_ram", ram, RAM),
    ):
        if value is not None and device not in known:
            raise ValueError(
                f"`{name}` needs a device that it can be predicted for. "
                f"Expected one of {list(known)}{_hint(name, device)}, or "
                "`costs` of your own measurements, see DeviceCosts. Received: "
                f"{name}={value:g}, device={device!r}"
            )


def _hint(name: str, device: str | None) -> str:
    if device == "mcu" and name == "target_latency":
        return (
            ", or for `mcu` the speed of yours, "
            "costs=tflite_export.device_costs(qmodel, 'mcu', macs_per_ms=...)"
        )
    return ""


def _check_costs(
    costs: Any, latency: Any, ram: Any, device: str | None
) -> None:
    if not isinstance(costs, DeviceCosts):
        raise ValueError(
            "`costs` must be DeviceCosts, as of `tflite_export.device_costs`. "
            f"Received: costs={costs!r:.200}"
        )
    if device is not None and device != costs.device:
        raise ValueError(
            "`costs` are of another device. Expected one and the same. "
            f"Received: device={device!r}, costs of {costs.device!r}"
        )
    if latency is not None and not costs.knows_latency:
        raise ValueError(
            "`costs` have no milliseconds. Expected those of one of "
            f"{list(LATENCY)}, or for `mcu` with macs_per_ms. Received: "
            f"target_latency={latency:g}, costs of {costs.device!r}"
        )
    if ram is not None and not costs.knows_ram:
        raise ValueError(
            "`costs` have no figures of RAM. Expected those of one of "
            f"{list(RAM)}. Received: target_ram={ram}, costs of "
            f"{costs.device!r}"
        )


def check_reachable(
    stats: SearchStats, options: Options, goal: Goal, size: str
) -> None:
    """Raises a ValueError for budgets that no widths meet, before a training.

    Args:
        stats: The model.
        options: Widths that its weights may have.
        goal: The budgets.
        size: The budget of size in words; empty for none.
    """
    _check_ram(stats, goal)
    permitted = goal.permitted(stats, options)
    fastest = {
        path: min(option.latency for option in row)
        for path, row in permitted.items()
    }
    least = stats.rest_latency + sum(fastest.values())
    if least > goal.latency * (1 + EPSILON):
        raise ValueError(
            "No widths make the model that fast. Expected target_latency of "
            f"at least {_up(least)} ms, or {_HELP}. "
            f"{_share(stats, fastest)}Received: "
            f"target_latency={goal.latency:g}, {stats.latency:.4g} ms at the "
            "widths now"
        )
    limits = goal.limits(stats)
    last = [row[-1] for row in permitted.values()]
    if limits.hold(sum(o.stored for o in last), sum(o.latency for o in last)):
        return  # the usual case, found without a plan
    if joint.allocate_within(permitted, limits) is None:
        together = stats.rest_latency + joint.least_latency(
            permitted, limits.stored
        )
        reach = "a larger size, or more RAM"
        received = [size]
        if math.isfinite(goal.latency):
            received.insert(0, f"target_latency={goal.latency:g}")
            if math.isfinite(together):
                reach = (
                    f"target_latency of at least {_up(together)} ms at this "
                    "size"
                )
        if math.isfinite(goal.ram):
            received.append(f"target_ram={goal.ram:,.0f}")
        raise ValueError(
            f"No widths meet all budgets at once. Expected {reach}, or "
            f"{_HELP}. Received: {', '.join(filter(None, received))}"
        )


def _check_ram(stats: SearchStats, goal: Goal) -> None:
    needed = {
        layer.path: min(
            (
                ram
                for width, ram in layer.ram.items()
                if layer.min_bits <= width <= layer.start_bits
            ),
            default=0.0,
        )
        for layer in stats.layers
    }
    path, most = max(needed.items(), key=lambda item: item[1])
    where = f"the operators of '{path}'"
    if stats.rest_ram >= most:
        where, most = "operators without quantized weights", stats.rest_ram
    if most > goal.ram:
        raise ValueError(
            f"No widths fit into that RAM: {where} need more. Expected "
            f"target_ram of at least {math.ceil(most):,} bytes, or a smaller "
            "model (fewer channels, or smaller inputs). Received: "
            f"target_ram={goal.ram:,.0f}"
        )


def _share(stats: SearchStats, fastest: Mapping[str, float]) -> str:
    """What of the least latency no width changes, where that is most of it."""
    least = stats.rest_latency + sum(fastest.values())
    if not least:
        return ""
    path, longest = max(fastest.items(), key=lambda item: item[1])
    return (
        f"Of these, operators without quantized weights take "
        f"{stats.rest_latency:.4g} ms, and '{path}' {longest:.4g} ms at its "
        "fastest. "
    )


def _up(value: float) -> str:
    """Four digits, rounded to the side that is accepted."""
    digits = 3 - math.floor(math.log10(value)) if value > 0 else 0
    scale = 10.0**digits
    above = math.ceil(value * scale * (1 - 1e-12)) / scale
    return f"{above:.{max(digits, 0)}f}"
