"""ParetoCheckpoint: keeps the best models of a search by metric and bytes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import rich.markup

from msq_tf.arguments import check_integer
from msq_tf.arguments import check_path
from msq_tf.atomic_files import PARTIAL
from msq_tf.atomic_files import left_over
from msq_tf.atomic_files import replacing
from msq_tf.core.config import check_choice
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.pareto_front import INDEX
from msq_tf.keras3.pareto_front import OURS
from msq_tf.keras3.pareto_front import ParetoEntry
from msq_tf.keras3.pareto_front import ParetoFront
from msq_tf.keras3.pareto_front import front_of
from msq_tf.keras3.pareto_front import read_index
from msq_tf.reports import terminal
from msq_tf.reports.precision_report import precision_report
from msq_tf.rules.monitored import direction
from msq_tf.rules.monitored import value_of


class ParetoCheckpoint(keras.callbacks.Callback):
    """Keeps every model that no other beats in metric and in bytes.

    A search passes through many trade-offs. At the end of each epoch the
    callback saves the model, unless a kept one has both a metric as good and as
    few bytes, and removes the kept ones that the model beats. The Pareto front
    of all epochs remains: whole `.keras` files with an index, `pareto.json`,
    that `pareto_front` reads.

    Files appear by renames, and the index is written last: after a kill at any
    point the front loads. The next `fit` with the same directory continues the
    front. If the kill came before an epoch's checkpoint, the epoch is trained
    again and replaces its first result. Models of other runs in the directory
    compete, too, and go when this run passes the same epoch and step: give each
    run its own directory.

    Place it after `MSQCallback` and before `BackupAndRestore`. Otherwise a
    backup may contain an epoch that this callback never saw.

    Args:
        directory: Folder of the kept models. Nothing else should be in it.
        monitor: Name of the metric, which every epoch has to log.
        mode: `"max"` or `"min"`; `"auto"` decides by the name, see `direction`.
        max_to_keep: Largest number of models to keep, at least 2; `None` for
            the whole front. If there are more, the model goes that costs the
            front the least hypervolume; the smallest and the best always stay.
        verbose: 0 for silence, 1 for a line per kept model, `"auto"` to
            follow `fit`.

    Raises:
        ValueError: If an argument is wrong; in `fit`, before the first step, if
            the model is no `MSQModel` or the models in the directory were kept
            by another metric; at the end of an epoch that did not log
            `monitor`.

    Example:
    ```python
    qmodel.fit(
        train,
        validation_data=held_out,
        epochs=30,
        callbacks=[
            msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=12.0)),
            msq_tf.ParetoCheckpoint("kept"),
        ],
    )
    qmodel = msq_tf.pareto_front("kept").best(max_bytes=20_000).load()
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        monitor: str = "val_accuracy",
        mode: str = "auto",
        *,
        max_to_keep: int | None = None,
        verbose: int | str = "auto",
    ):
        super().__init__()
        check_choice("mode", mode, ("auto", "max", "min"))
        check_integer("max_to_keep", max_to_keep, 2, optional=True)
        check_choice("verbose", verbose, ("auto", 0, 1, 2))
        check_path("directory", directory)
        self.directory = pathlib.Path(directory)
        self.monitor = monitor
        self.mode = direction(str(monitor)) if mode == "auto" else mode
        self.max_to_keep = max_to_keep
        self.verbose = verbose
        self._kept = ParetoFront()
        self._tested: dict[str, int] | None = None
        self._console = terminal.Console(quiet=True)
        self._line = ""

    def on_train_begin(self, logs: Any = None) -> None:
        if not isinstance(self.model, MSQModel):
            raise ValueError(
                "ParetoCheckpoint needs a model from `msq_tf.quantize_model`. "
                f"Received: {type(self.model).__name__} '{self.model.name}'"
            )
        verbose = self.verbose
        if verbose == "auto":
            verbose = self.params.get("verbose", 1)
        self._console = terminal.Console(quiet=not verbose)
        index = read_index(self.directory)
        self._kept = ParetoFront()
        if index is not None:
            self._check_same(index)
            self._kept = front_of(self.directory, index)
        self._write(self._kept)
        self._sweep()
        # What a kill left, of models and of the index.
        for path in left_over(self.directory):
            name = PARTIAL.sub("", path.name, count=1)
            if name == INDEX or OURS.fullmatch(name):
                path.unlink(missing_ok=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._tested = None
        self._flush()

    def on_test_end(self, logs: Any = None) -> None:
        self._tested = self.model.bits

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        metric = value_of(self.monitor, logs or {}, "ParetoCheckpoint")
        step = int(self.model.optimizer.iterations.numpy())
        entry = ParetoEntry(
            path=self.directory / f"epoch-{epoch + 1:04d}-step-{step}.keras",
            epoch=epoch + 1,
            step=step,
            metric=metric,
            packed_bytes=precision_report(self.model).packed_bytes,
            compression=self.model.compression,
            bits=self.model.bits,
        )
        kept = ParetoFront(k for k in self._kept if k.path != entry.path)
        if len(kept) < len(self._kept):
            # Off the index before its file is written anew.
            self._write(kept)
        if self._is_of_these_bits() and math.isfinite(metric):
            kept = self._with(kept, entry)
        if entry in kept:
            with replacing(entry.path) as path:
                self.model.save(path)
            self._line = (
                f"[bold]Kept[/bold] epoch {entry.epoch}: "
                f"{rich.markup.escape(self.monitor)} "
                f"{entry.metric:.4f} at {entry.packed_bytes:,} bytes, "
                f"{entry.compression:.2f}x; {len(kept)} on the front"
            )
        self._write(kept)
        self._sweep()

    def on_train_end(self, logs: Any = None) -> None:
        self._flush()

    def _is_of_these_bits(self) -> bool:
        # Where the length of an epoch is unknown, MSQCallback decides at its
        # end, after validation: then the metric is that of other bits.
        if not self.monitor.startswith("val_") or self._tested is None:
            return True
        return self._tested == self.model.bits

    def _beats(self, a: ParetoEntry, b: ParetoEntry) -> bool:
        """Whether `a` is as good as `b` or better in both."""
        better = (
            a.metric >= b.metric if self.mode == "max" else a.metric <= b.metric
        )
        return better and a.packed_bytes <= b.packed_bytes

    def _with(self, front: ParetoFront, entry: ParetoEntry) -> ParetoFront:
        """The front of a front and one more model."""
        if any(self._beats(kept, entry) for kept in front):
            return front
        front = ParetoFront(k for k in front if not self._beats(entry, k))
        front.append(entry)
        front.sort(key=lambda kept: kept.packed_bytes)
        if self.max_to_keep is not None and len(front) > self.max_to_keep:
            shares = [
                abs(b.metric - a.metric) * (c.packed_bytes - b.packed_bytes)
                for a, b, c in zip(front, front[1:], front[2:], strict=False)
            ]
            del front[1 + shares.index(min(shares))]
        return front

    def _write(self, front: ParetoFront) -> None:
        models = [
            dataclasses.asdict(entry) | {"path": entry.path.name}
            for entry in front
        ]
        index = {"monitor": self.monitor, "mode": self.mode, "models": models}
        with replacing(self.directory / INDEX) as path:
            path.write_text(json.dumps(index, indent=2) + "\n")
        self._kept = front

    def _sweep(self) -> None:
        """Removes the models that the index does not name."""
        kept = {entry.path for entry in self._kept}
        for path in self.directory.iterdir():
            if OURS.fullmatch(path.name) and path not in kept:
                path.unlink()

    def _check_same(self, index: Mapping[str, Any]) -> None:
        if (index["monitor"], index["mode"]) != (self.monitor, self.mode):
            raise ValueError(
                "The directory's models were kept by another metric. Expected "
                f"monitor={index['monitor']!r}, mode={index['mode']!r}, or "
                f"another directory. Received: monitor={self.monitor!r}, "
                f"mode={self.mode!r}, directory={self.directory}"
            )

    def _flush(self) -> None:
        # Not at the epoch's end: that would tear Keras's progress bar.
        if self._line:
            self._console.print(self._line, highlight=False)
            self._line = ""
