"""Progress of training that a person can read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import rich.console
import rich.progress

# How logs are shown; others by their names.
_FORMATS = {
    "accuracy": "training accuracy {:.1%}",
    "val_accuracy": "validation accuracy {:.1%}",
    "msq_bits": "{:.2f} bits",
    "msq_compression": "{:.2f}x",
    "msq_lsb_nonzero": "LSBs {:.1%}",
    "msq_penalty": "pull {:.3g}",
}
# What is not plain in the lines of a search, said before the first.
WORDS = (
    "In each line: stored bits of a weight, the sign counted, and how many "
    "times smaller than float32 that is; LSBs, the share of weights whose bits "
    "that go next are not all zero yet; pull, the penalty that moves them there"
)


class EpochProgress(keras.callbacks.Callback):
    """Shows a bar while an epoch runs, and a line for each that is over.

    Args:
        console: Where to print. The bar shows only on a terminal.
        title: What the phase is called.
        epochs: Number of epochs of the phase.
        steps: Steps in an epoch.
        done: Epochs that an earlier run has behind it.
    """

    def __init__(
        self,
        console: rich.console.Console,
        title: str,
        epochs: int,
        steps: int,
        done: int = 0,
    ) -> None:
        super().__init__()
        self._console = console
        self._title = title
        self._epochs = epochs
        self._steps = steps
        self._start = 0.0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            title, total=epochs * steps, completed=done * steps
        )

    def __enter__(self) -> EpochProgress:
        """Starts the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the bar, whether or not training came to its end."""
        self._bar.stop()

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Starts the clock of the epoch."""
        del epoch, logs
        self._start = time.monotonic()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Moves the bar."""
        del batch, logs
        self._bar.advance(self._task)

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Prints the line of the epoch."""
        seconds = time.monotonic() - self._start
        width = len(str(self._epochs))
        head = f"{self._title} {epoch + 1:{width}}/{self._epochs}"
        shown = [
            _shown(name, float(value))
            for name, value in (logs or {}).items()
            if name != "val_loss"
        ]
        text = _wrapped(head, [*shown, f"{seconds:.1f} s"], self._console.width)
        self._console.print(text, highlight=False)


def _wrapped(head: str, items: Sequence[str], width: int) -> str:
    """Items behind a head, in lines of which none is broken in an item."""
    lines = [head]
    for item in items:
        if len(lines[-1]) + 2 + len(item) > width:
            lines.append(" " * len(head))
        lines[-1] += f"  {item}"
    return "\n".join(lines)


def _shown(name: str, value: float) -> str:
    return _FORMATS.get(name, name + " {:.3f}").format(value)
