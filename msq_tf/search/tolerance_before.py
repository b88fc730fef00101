"""Measurements before a search for a tolerance trains anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from msq_tf.bit_widths import MIN_BITS
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.rules.records import SearchStats
from msq_tf.rules.tolerance import Rung
from msq_tf.rules.tolerance import ToleranceRule
from msq_tf.search.controller import search_stats
from msq_tf.search.held_out import HeldOutMetric
from msq_tf.sensitivity.statistics import layer_outlines

# Places in the ladder, as shares.
_PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)


def stats_with_costs(network: QuantizedNetwork) -> SearchStats:
    """Statistics with the costs that the model holds."""
    costs = network.search.cost.numpy()
    layers = [
        dataclasses.replace(
            layer,
            cost={
                bits: float(row[bits])
                for bits in range(MIN_BITS, layer.start_bits + 1)
            },
        )
        for layer, row in zip(layer_outlines(network), costs, strict=True)
    ]
    return search_stats(network, layers)


def measure_untrained(
    rule: ToleranceRule,
    network: QuantizedNetwork,
    metric: HeldOutMetric,
    ladder: Sequence[Rung],
    of_chief: Callable[[float], float],
) -> tuple[tuple[int, float], ...]:
    """The metric of a few sizes with the weights as they are.

    Args:
        rule: Plans the sizes.
        network: The model; its widths are as before, afterwards.
        metric: Measures it.
        ladder: The sizes.
        of_chief: Gives the chief's value on every worker.

    Returns:
        `(rung, metric)`, the largest size first; nothing where the metric
        cannot be measured at any time.
    """
    if not metric.can_measure:
        return ()
    search, found = network.search, []
    before = np.array(search.bits.numpy())
    places = [round(share * (len(ladder) - 1)) for share in _PLACES]
    for rung in dict.fromkeys(places):
        aims = search.rule_state._replace(target_bits=ladder[rung].budget)
        decision, _ = rule.decide_at_once(stats_with_costs(network), aims)
        widths = network.bits | {c.path: c.new for c in decision.changes}
        search.bits.assign([widths[path] for path in network.paths])
        network.hold_scales()
        try:
            found.append((rung, of_chief(metric.now())))
        finally:
            search.bits.assign(before)
    network.hold_scales()
    return tuple(found)
