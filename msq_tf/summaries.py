"""What a search shows while it runs: a terminal line, TensorBoard scalars."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import rich.console
import rich.markup
import tensorflow as tf

from msq_tf.model import MSQModel
from msq_tf.search import Change

# More changes than this in one epoch are summed up.
_SHOWN = 6


class ProgressPrinter:
    """Prints a line after each epoch in which bits changed.

    Lines wait until the next epoch begins: printing into an open Keras
    progress bar would tear it.

    Args:
        enabled: Whether to print at all.
    """

    def __init__(self, enabled: bool):
        self._console = rich.console.Console(quiet=not enabled)
        self._changes: list[Change] = []
        self._line = ""

    def add(self, changes: Sequence[Change]) -> None:
        """Notes changes of the epoch that is running."""
        self._changes.extend(changes)

    def note(self, model: MSQModel, epoch: int) -> None:
        """Composes the epoch's line."""
        if not self._changes:
            return
        state = model.search.rule_state
        moves = [
            f"{rich.markup.escape(c.path)} {c.old}→{c.new}"
            for c in self._changes[:_SHOWN]
        ]
        rest = len(self._changes) - len(moves)
        self._line = (
            f"[bold]MSQ[/bold] epoch {epoch + 1}: "
            f"{model.average_bits:.2f} bits, {model.compression:.2f}x of "
            f"{32 / state.target_bits:.2f}x: {', '.join(moves)}"
            + (f" and {rest} more" if rest else "")
            + ("; target reached, bits frozen" if state.done else "")
        )
        self._changes = []

    def flush(self) -> None:
        """Prints what waits."""
        if self._line:
            self._console.print(self._line, highlight=False)
            self._line = ""


class SummaryWriter:
    """Writes TensorBoard scalars of a search, one step per epoch.

    Tags: `msq/average_bits`, `msq/compression`, and for each weight
    `msq/bits/<path>`, `msq/lsb_nonzero/<path>`, `msq/sensitivity/<path>`.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str):
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "TensorBoard summaries need the tensorboard package: "
                "pip install 'msq-tf[tensorboard]'. Received: "
                f"log_dir={log_dir!r}"
            )
        self._writer = tf.summary.create_file_writer(log_dir)

    def write(self, model: MSQModel, epoch: int) -> None:
        """Writes the state after `epoch`."""
        search = model.search
        layers = zip(
            model.paths,
            search.bits.numpy(),
            search.lsb_nonzero.numpy(),
            search.sensitivity.numpy(),
            strict=True,
        )
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("msq/average_bits", model.average_bits)
            tf.summary.scalar("msq/compression", model.compression)
            for path, bits, nonzero, sensitivity in layers:
                tf.summary.scalar(f"msq/bits/{path}", bits)
                tf.summary.scalar(f"msq/lsb_nonzero/{path}", nonzero)
                tf.summary.scalar(f"msq/sensitivity/{path}", sensitivity)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()
