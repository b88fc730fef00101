"""Progress of a search while it runs: a terminal line, TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.text
import tensorflow as tf

from msq_tf import extras
from msq_tf.core.bit_history import BitChange
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.reports import terminal
from msq_tf.reports.bit_changes import Decisions
from msq_tf.reports.code_use import CodeUse
from msq_tf.reports.names import shortened
from msq_tf.reports.precision_report import PANELS
from msq_tf.reports.precision_report import precision_report
from msq_tf.rules.records import Candidate

# What a line says once, if it has room.
_FROZEN = ", bits frozen"
# Codes of a weight that a histogram is made of; of more it has the shares.
_IN_HISTOGRAM = 4096
# More changes than this in one epoch are summed up.
_SHOWN = 6
# Lengths that names are cut to, one after the other, until a line fits.
_NAMES = (10_000, 20, 14, 11)


class ProgressPrinter:
    """Prints a line after each epoch in which bits changed.

    Lines wait until the next epoch begins: printing into an open Keras
    progress bar would tear it. That the bits are frozen is said once.
    """

    def __init__(self, enabled: bool):
        self._console = terminal.Console(quiet=not enabled)
        self._changes: list[BitChange] = []
        self._frozen = False
        self._line = ""

    def add(self, changes: Sequence[BitChange]) -> None:
        """Notes changes of the epoch that is running."""
        self._changes.extend(changes)

    def note(
        self, model: QuantizedNetwork, epoch: int, words: str = ""
    ) -> None:
        """Composes the epoch's line; `words` are of budgets on a device."""
        state = model.search.rule_state
        freezes = bool(state.done) and not self._frozen
        if not self._changes and not freezes:
            return
        self._frozen = bool(state.done)
        head = (
            f"MSQ epoch {epoch + 1}: {model.average_bits:.2f} bits, "
            f"{model.compression:.2f}x"
        )
        aside = f", {words}" if words else ""
        following: Candidate | None = None
        if state.done:
            head += f"{aside}; target reached{_FROZEN}"
        else:
            if not words or state.target_bits < state.start_bits:
                head += f" of {32 / state.target_bits:.4g}x"
            head += aside
            following = self._changes[-1].next_in_line
        moves = _moves(
            self._changes,
            dict(zip(model.paths, model.sizes, strict=True)),
        )
        self._line = _fitted(head, moves, following, self._console.width)
        self._changes = []

    def say(self, line: str) -> None:
        """Prints a line at once, below a progress bar that is open."""
        self._console.print()
        self._console.print(rich.text.Text(line))

    def flush(self) -> None:
        """Prints what waits."""
        if not self._line:
            return
        text = rich.text.Text(self._line)
        text.stylize("bold", 0, len("MSQ"))
        self._console.print(text, no_wrap=True, overflow="ellipsis")
        self._line = ""


def _moves(
    changes: Sequence[BitChange], sizes: Mapping[str, int]
) -> list[tuple[str, int, int]]:
    """Path, old and new bits of every weight that changed, largest first.

    Several changes of a weight are one; how large is a matter of bytes.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for change in changes:
        first.setdefault(change.path, change.old)
        last[change.path] = change.new
    moves = [
        (path, old, last[path])
        for path, old in first.items()
        if old != last[path]
    ]
    return sorted(moves, key=lambda m: -abs(m[1] - m[2]) * sizes[m[0]])


def _fitted(
    head: str,
    moves: Sequence[tuple[str, int, int]],
    following: Candidate | None,
    width: int,
) -> str:
    """A line of at most `width` characters, with as many moves as fit.

    Names are cut before the change that is next in line is left out, and what
    follows from the target's being reached.
    """
    paths = [path for path, _, _ in moves[:_SHOWN]]
    short_head = head.removesuffix(_FROZEN)
    starts = ((head, following), (head, None), (short_head, None))
    for start, candidate in starts:
        for length in _NAMES:
            named = [*paths, candidate.path] if candidate else paths
            short = dict(
                zip(named, shortened(named, [length] * len(named)), strict=True)
            )
            tail = ""
            if candidate is not None:
                name = short[candidate.path]
                tail = f"; next {name}→{candidate.bits}"
            for count in range(min(len(moves), _SHOWN), -1, -1):
                line = start + _told(moves, count, short) + tail
                if len(line) <= width and (count or not moves):
                    return line
    return head


def _told(
    moves: Sequence[tuple[str, int, int]], count: int, short: Mapping[str, str]
) -> str:
    told = ", ".join(
        f"{short[path]} {old}→{new}" for path, old, new in moves[:count]
    )
    if told and count < len(moves):
        told += f" and {len(moves) - count} more"
    return f"; {told}" if told else ""


class SummaryWriter:
    """Writes a search for TensorBoard, one step per epoch.

    Scalars: `msq/average_bits`, `msq/compression`, `msq/packed_bytes`, and
    for each weight `msq/bits/<path>`, `msq/lsb_nonzero/<path>`,
    `msq/sensitivity/<path>` and `msq/sensitivity_error/<path>`. Histograms:
    `msq/codes/<path>`, how often each code occurs, in counts of a thousand or
    so, whatever the size of the weight. Text:
    `msq/decisions`, a table of the epoch's changes. Image: `msq/search`, the
    figure of `precision_report`, after epochs with changes and at the end.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, log_dir: str):
        if extras.missing("tensorboard"):
            raise ImportError(
                "TensorBoard summaries need the tensorboard package: "
                f"{extras.install('tensorboard')}. Received: "
                f"log_dir={log_dir!r}"
            )
        self._writer = tf.summary.create_file_writer(log_dir)
        self._changes: list[BitChange] = []
        self._logs: list[dict[str, Any]] = []
        # Model and epoch that no image shows yet.
        self._undrawn: tuple[QuantizedNetwork, int] | None = None

    def add(self, changes: Sequence[BitChange]) -> None:
        """Notes changes of the epoch that is running."""
        self._changes.extend(changes)

    def write(
        self,
        model: QuantizedNetwork,
        epoch: int,
        logs: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the state after an epoch, counted from 0, and its logs."""
        if logs:
            self._logs.append({"epoch": epoch + 1, **logs})
        report = precision_report(model)
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("msq/average_bits", report.average_bits)
            tf.summary.scalar("msq/compression", report.compression)
            tf.summary.scalar("msq/packed_bytes", report.packed_bytes)
            for layer in report.layers:
                for name in (
                    "bits",
                    "lsb_nonzero",
                    "sensitivity",
                    "sensitivity_error",
                ):
                    value = getattr(layer, name)
                    if math.isfinite(value):
                        tf.summary.scalar(f"msq/{name}/{layer.path}", value)
                if layer.use is not None and layer.use.counts:
                    _write_codes(layer.path, layer.use)
            if self._changes:
                table = Decisions(tuple(self._changes)).markdown()
                tf.summary.text("msq/decisions", table)
        self._undrawn = model, epoch
        if self._changes:
            self._draw()
        self._changes = []
        self._writer.flush()

    def close(self) -> None:
        """Draws the end of the search and closes the event file."""
        self._draw()
        self._writer.close()

    def _draw(self) -> None:
        if self._undrawn is None:
            return
        from msq_tf.reports import figure

        model, epoch = self._undrawn
        report = precision_report(model, self._logs)
        image = figure.pixels(report, PANELS)
        with self._writer.as_default(step=epoch):
            tf.summary.image("msq/search", image[None])
        self._undrawn = None


def _write_codes(path: str, use: CodeUse) -> None:
    """Writes the histogram of the codes of a weight, a bar for each code."""
    codes, counts = np.array(use.counts).T
    share = counts * min(1.0, _IN_HISTOGRAM / use.size)
    # A code that occurs shall be seen.
    few = np.maximum(np.round(share), 1).astype(np.int64)
    span = int(codes.max() - codes.min()) + 1
    tf.summary.histogram(
        f"msq/codes/{path}", np.repeat(codes, few), buckets=span
    )
