"""A precision report as what a page shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msq_tf.page.records import Damage
from msq_tf.page.records import Layer
from msq_tf.page.records import Move
from msq_tf.page.records import Page
from msq_tf.page.records import Point
from msq_tf.page.records import Search
from msq_tf.page.records import Side
from msq_tf.reports import training_log
from msq_tf.reports.bit_changes import as_words
from msq_tf.reports.bit_changes import describe
from msq_tf.reports.code_use import CodeUse
from msq_tf.rules.storage import CONTAINERS

if TYPE_CHECKING:
    from msq_tf.reports.precision_report import LayerPrecision
    from msq_tf.reports.precision_report import PrecisionReport

_NO_FILE = "it takes a file; `tflite_export.look` shows it"
NO_SEARCH = "no width was changed, and no history of a fit was given"


def page(report: PrecisionReport, title: str = "What the search did") -> Page:
    """The page of one report."""
    return Page(title=title, sides=(side(report),))


def side(report: PrecisionReport, name: str = "the search") -> Side:
    """A report as one side of a page."""
    layers = tuple(layer(entry, report) for entry in report.layers)
    found = search(report)
    missing = dict.fromkeys(("tensors", "samples", "targets"), _NO_FILE)
    if found is None:
        missing["search"] = NO_SEARCH
    return Side(
        name=name,
        total=report.container_bytes,
        facts=facts(report),
        figures={
            "bytes": float(report.container_bytes),
            "average_bits": report.average_bits,
            "compression": report.compression,
            "dead_channels": float(sum(x.dead or 0 for x in layers)),
        },
        layers=layers,
        search=found,
        findings={"layers": findings(report)},
        missing=missing,
    )


def facts(report: PrecisionReport) -> tuple[tuple[str, str], ...]:
    """Facts on a search for the head of a page."""
    rows = [
        ("average width", f"{report.average_bits:.2f} bits"),
        ("compression against float32", f"{report.compression:.2f}x"),
        ("bytes of the codes", f"{report.container_bytes:,}"),
        ("epochs trained", f"{report.epochs:.4g}"),
        ("decisions", f"{len(report.changes):,}"),
    ]
    if report.points:
        last = report.points[-1].value
        name = training_log.spelled(report.metric or "loss")
        rows.append((f"{name}, last epoch", f"{last:.4g}"))
    return tuple(rows)


def findings(report: PrecisionReport) -> tuple[str, ...]:
    """Sentences on weights that are left in float."""
    if not report.skipped:
        return ()
    count = sum(entry.size for entry in report.skipped)
    listed = "; ".join(
        f"{entry.path}: {entry.reason}" for entry in report.skipped[:8]
    )
    more = len(report.skipped) - 8
    return (
        f"{count:,} weights are left in float: {listed}"
        + (f"; and {more:,} more" if more > 0 else ""),
    )


def layer(entry: LayerPrecision, report: PrecisionReport) -> Layer:
    """One quantized weight as a layer of a page."""
    stored = entry.container_bytes
    use = entry.use
    following = _below(entry.bits)
    costs = dict(entry.costs)
    return Layer(
        key=entry.path,
        name=entry.path,
        kind=entry.layer,
        size=entry.size,
        type=f"INT{min(w for w in CONTAINERS if w >= entry.bits)}",
        bits=entry.bits,
        stored_bytes=stored,
        ideal_bytes=entry.packed_bytes,
        share=stored / max(report.container_bytes, 1),
        codes=use.counts if use else (),
        entropy=use.entropy if use else None,
        dead=use.dead if use else None,
        channels=use.channels if use else None,
        rim=_at_ends(use) if use else None,
        next_bits=following,
        next_saves=None
        if following is None
        else stored - -(-entry.size * following // 8),
        next_cost=_next_cost(costs, entry.bits, following),
        sensitivity=entry.sensitivity or None,
        predicted=predicted(entry.path, report),
        why=why(entry.path, report),
        remarks=_remarks(use) if use else (),
    )


def _next_cost(
    costs: dict[int, float], bits: int, following: int | None
) -> float | None:
    if following is None or following not in costs:
        return None
    return costs[following] - costs.get(bits, 0.0)


def _remarks(use: CodeUse) -> tuple[str, ...]:
    found = []
    if use.dead:
        found.append(
            f"{use.dead:,} of {use.channels:,} channels are all zero: they "
            "take bytes and compute a constant"
        )
    if use.low:
        found.append(
            f"a code holds {use.entropy:.1f} of its {use.bits} bits: a "
            "narrower width may do"
        )
    return tuple(found)


def _at_ends(use: CodeUse) -> float:
    top = max(2 ** (use.bits - 1) - 1, 1)
    ends = sum(count for code, count in use.counts if abs(code) >= top)
    return ends / max(use.size, 1)


def _below(bits: int) -> int | None:
    container = min(w for w in CONTAINERS if w >= bits)
    return max(
        (w for w in CONTAINERS if w < min(bits, container)), default=None
    )


def why(path: str, report: PrecisionReport) -> tuple[str, ...]:
    """Why a weight has its width: its decisions, in words."""
    told = [describe(c) for c in report.changes if c.path == path]
    bits = next(x.bits for x in report.layers if x.path == path)
    if not report.changes:
        told.append(f"no search has run: it is at the {bits} bits it was given")
        return tuple(told)
    if not told:
        told.append(f"no decision changed it: it began at {bits} bits")
    last = report.changes[-1]
    following = last.next_in_line
    if following is not None and following.path == path:
        told.append(
            f"at the last decision, in step {last.step}, it was next in line: "
            f"{as_words(following)}"
        )
    return tuple(told)


def predicted(path: str, report: PrecisionReport) -> float | None:
    """Predicted increase of the loss by all changes of a weight."""
    costs = [c.cost for c in report.changes if c.path == path]
    known = [cost for cost in costs if math.isfinite(cost)]
    return sum(known) if known else None


def search(report: PrecisionReport) -> Search | None:
    """The search behind a report; `None` where there was none."""
    if not report.changes and not report.points:
        return None
    return Search(
        start={x.path: x.history[0][1] for x in report.layers},
        moves=tuple(
            Move(
                step=change.step,
                epoch=change.epoch,
                key=change.path,
                old=change.old,
                new=change.new,
                cost=change.cost if math.isfinite(change.cost) else None,
                text=describe(change),
            )
            for change in report.changes
        ),
        metric=training_log.spelled(report.metric) if report.metric else None,
        points=tuple(
            Point(p.epoch, p.packed_bytes, p.value) for p in report.points
        ),
        damage=_by_epoch(report),
        damage_of=(
            "of the decisions of an epoch, against what the "
            f"{training_log.spelled(report.metric)} lost in it, training "
            "included"
        )
        if report.metric
        else "",
    )


def _by_epoch(report: PrecisionReport) -> tuple[Damage, ...]:
    """What the decisions of each epoch cost, and what the metric lost."""
    falls = -1.0 if "loss" in (report.metric or "") else 1.0
    found = []
    for before, after in zip(report.points, report.points[1:], strict=False):
        costs = [
            change.cost
            for change in report.changes
            if before.epoch < change.epoch <= after.epoch
            and math.isfinite(change.cost)
        ]
        lost = falls * (before.value - after.value)
        if costs and math.isfinite(lost):
            name = f"epoch {after.epoch:g}: {len(costs)} decisions"
            found.append(Damage(name, sum(costs), lost))
    return tuple(found)
