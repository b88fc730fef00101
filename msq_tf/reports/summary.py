"""Sentences on a whole model, below the table of its bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msq_tf.reports.bit_changes import WORDS
from msq_tf.reports.code_use import remarks

if TYPE_CHECKING:
    from msq_tf.reports.precision_report import PrecisionReport


def sentences(report: PrecisionReport) -> list[str]:
    """Sentences on the whole, one a line."""
    return [
        f"{report.compression:.2f}x smaller than float32 by stored bits "
        f"(sign counted; {report.paper_bits:.2f} bits in the papers' "
        "convention, sign not counted)",
        *_of_containers(report),
        *_of_the_device(report),
        *remarks([s.use for s in report.layers if s.use]),
        *_of_statistics(report),
        *_of_the_search(report),
        *_of_the_rest(report),
    ]


def _of_containers(report: PrecisionReport) -> list[str]:
    if not report.is_wider:
        return []
    stored = report.float_bytes / report.container_bytes
    return [
        "a packed file stores codes of 3 bits in 4, and of 5 to 7 "
        f"in 8: {report.container_bytes:,} bytes, {stored:.2f}x smaller "
        "than these weights as floats"
    ]


def _of_the_device(report: PrecisionReport) -> list[str]:
    found = report.on_device
    if found is None:
        return []
    figures = []
    if found.latency_ms is not None:
        figures.append(f"{found.latency_ms:.4g} ms")
    if found.ram_bytes is not None:
        figures.append(f"{found.ram_bytes:,.0f} bytes of RAM")
    # Costs of one's own may be those of nothing yet.
    if not figures:
        return []
    return [
        f"predicted on {found.device}: {' and '.join(figures)} ({found.source})"
    ]


def _of_statistics(report: PrecisionReport) -> list[str]:
    """What the columns of the table mean."""
    lines = []
    known = [bool(layer.sensitivity) for layer in report.layers]
    if any(known) or any(layer.lsb_nonzero for layer in report.layers):
        lines.append(WORDS)
    if any(known) and not all(known):
        lines.append(
            "no sensitivity (-): the loss showed no upward curvature "
            "there, only noise or a saddle"
        )
    return lines


def _of_the_search(report: PrecisionReport) -> list[str]:
    if not report.changes:
        return []
    count = len(report.changes)
    changes = "change" if count == 1 else "changes"
    return [f"{count} {changes} of bits: `decisions()` has the reason of each"]


def _of_the_rest(report: PrecisionReport) -> list[str]:
    """What has no bits of ours."""
    lines = []
    if report.products:
        layers = "layer" if report.products == 1 else "layers"
        lines.append(
            f"attention's products of activations ({report.products} "
            f"{layers}) have no weights and stay as they are"
        )
    if report.skipped:
        left = sum(entry.size for entry in report.skipped)
        lines.append(
            f"{left:,} of {left + report.size:,} weights are left in "
            "float, with the reason below"
        )
    return lines
