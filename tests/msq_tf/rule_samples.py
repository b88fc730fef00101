"""Made-up statistics for rules."""

import dataclasses

import msq_tf
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import SearchStats


def layer(path, size=1000, bits=8, cost=1.0, **kwargs):
    shares = {k: 0.5 for k in range(1, 7)} | kwargs.pop("shares", {})
    costs = {width: cost * 4.0**-width for width in range(2, bits)}
    return LayerStats(
        path, size, bits, lsb_nonzero=shares, cost=costs, **kwargs
    )


def any_width(**kwargs):
    """A budget for widths from 2 to 8."""
    return msq_tf.BudgetRule(allowed_bits=range(2, 9), **kwargs)


def stats(*layers, progress=1.0, step=10, float_size=0):
    return SearchStats(layers, progress, step, float_size)


def apply(current, decision):
    new = {change.path: change.new for change in decision.changes}
    return [
        dataclasses.replace(entry, bits=new.get(entry.path, entry.bits))
        for entry in current
    ]
