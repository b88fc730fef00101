"""Checks of a rule's decision before it is applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.rule import Rule


def check_decision(
    rule: Rule, decision: Decision, layers: Sequence[LayerStats]
) -> None:
    """Raises a ValueError where a decision does not fit the layers."""
    known = {layer.path: layer for layer in layers}
    left = dict(known)
    widths = {layer.path: layer.bits for layer in layers}
    for change in decision.changes:
        if change.path not in known:
            _refuse(rule, f"paths among {list(known)}", change)
        layer = left.pop(change.path, None)
        if layer is None:
            _refuse(rule, "at most one change of a weight", change)
        if change.old != layer.bits:
            _refuse(rule, f"old={layer.bits}, the bits it has", change)
        lowest = max(MIN_BITS, layer.min_bits)
        if not _is_in(change.new, lowest, MAX_BITS) or change.new == layer.bits:
            _refuse(
                rule,
                f"another width, an integer from {lowest}, its `min_bits`, to "
                f"{MAX_BITS}",
                change,
            )
        widths[change.path] = change.new
    for path, low in decision.lsb.items():
        most = widths.get(path, MIN_BITS) - MIN_BITS
        if path not in known or not _is_in(low, 0, most):
            _refuse(
                rule,
                f"`lsb` of paths among {list(known)}, and no bits to pull that "
                f"leave a weight fewer than {MIN_BITS}",
                f"{path!r}: {low!r}",
            )


def _is_in(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and low <= value <= high


def _refuse(rule: Rule, expected: str, received: Change | str) -> NoReturn:
    raise ValueError(
        f"{type(rule).__name__} decided what can't be done. Expected "
        f"{expected}. Received: {received}"
    )
