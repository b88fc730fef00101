"""The models that a `ParetoCheckpoint` kept, as a list."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import keras
import rich.markup
import rich.table

from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.keras3.model import MSQModel
from msq_tf.reports.bit_changes import as_text

INDEX = "pareto.json"
# Files of ours.
OURS = re.compile(r"epoch-\d+-step-\d+\.keras")


@dataclasses.dataclass(frozen=True)
class ParetoEntry:
    """One kept model.

    Attributes:
        path: Its `.keras` file.
        epoch: Number of trained epochs of `fit`.
        step: Number of trained steps of the optimizer.
        metric: Value of the monitored metric.
        packed_bytes: Bytes of the codes of all quantized weights at their
            stored bits, as `PrecisionReport.packed_bytes`. Scales, biases and
            weights left in float come on top; they are the same throughout a
            search.
        compression: 32 divided by the average stored bits.
        bits: Stored bits of every quantized weight.
    """

    path: pathlib.Path
    epoch: int
    step: int
    metric: float
    packed_bytes: int
    compression: float
    bits: Mapping[str, int]

    def load(self, **options: Any) -> MSQModel:
        """Loads the model, with optimizer and the history of its bits.

        Args:
            **options: As `keras.models.load_model` takes them. `safe_mode` is
                on if it is not among them.

        Returns:
            The model, compiled as it was.
        """
        options = {"safe_mode": True, **options}
        return keras.models.load_model(self.path, **options)


class ParetoFront(list[ParetoEntry]):
    """Kept models by bytes, the smallest first: the more bytes, the better.

    Printing it gives a table.

    Attributes:
        monitor: Name of the metric.
    """

    monitor: str = "metric"

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> rich.table.Table:
        table = rich.table.Table(title=f"{len(self)} models on the front")
        for column in ("bytes", "compression", self.monitor, "epoch", "file"):
            table.add_column(
                rich.markup.escape(column),
                justify="left" if column == "file" else "right",
            )
        for entry in self:
            table.add_row(
                f"{entry.packed_bytes:,}",
                f"{entry.compression:.2f}x",
                f"{entry.metric:.4f}",
                str(entry.epoch),
                rich.markup.escape(entry.path.name),
            )
        return table

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the metric against the bytes into an image file.

        Args:
            path: Where to write; the suffix chooses the format.

        Raises:
            ValueError: If there is nothing to draw, or no such format.
        """
        check_path("path", path)
        if not self:
            raise ValueError(
                "There is nothing to draw. Expected a front with a model. "
                "Received: none was kept"
            )
        from msq_tf.reports import figure

        figure.save_points(
            path,
            [(entry.packed_bytes, entry.metric) for entry in self],
            [f"{entry.compression:.3g}x" for entry in self],
            ("bytes of the codes", self.monitor),
        )

    def best(self, max_bytes: int | None = None) -> ParetoEntry:
        """The model with the best metric.

        Args:
            max_bytes: Most `packed_bytes` it may have; `None` for any number.

        Returns:
            Its entry, whose `load()` gives the model.

        Raises:
            ValueError: If no kept model is that small, or it is no number.
        """
        check_number("max_bytes", max_bytes, 0, optional=True)
        fitting = [
            entry
            for entry in self
            if max_bytes is None or entry.packed_bytes <= max_bytes
        ]
        if not fitting:
            sizes = ", ".join(f"{entry.packed_bytes:,}" for entry in self)
            raise ValueError(
                "No kept model is that small. Expected the bytes of one: "
                f"{sizes or 'none was kept'}. Received: max_bytes={max_bytes}"
            )
        return fitting[-1]


def pareto_front(directory: str | os.PathLike[str]) -> ParetoFront:
    """Lists the models that a `ParetoCheckpoint` kept, also during training.

    Args:
        directory: Its `directory`.

    Returns:
        A list of `ParetoEntry`, the smallest first; `best(max_bytes=)` picks
        one and its `load()` gives the model.

    Raises:
        ValueError: If the directory has no readable index.

    Example:
    ```python
    for entry in msq_tf.pareto_front("kept"):
        print(entry.packed_bytes, entry.metric, entry.bits)
    qmodel = msq_tf.pareto_front("kept").best(max_bytes=20_000).load()
    ```
    """
    check_path("directory", directory)
    folder = pathlib.Path(directory)
    index = read_index(folder)
    if index is None:
        raise ValueError(
            f"There is no {INDEX}. Expected the directory of a "
            f"ParetoCheckpoint. Received: directory={directory}"
        )
    return front_of(folder, index)


def read_index(folder: pathlib.Path) -> dict[str, Any] | None:
    """The index of a folder, `None` where there is none."""
    try:
        index = json.loads((folder / INDEX).read_text())
        if not index.keys() >= {"monitor", "mode", "models"}:
            raise ValueError("fields are missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{INDEX} cannot be read. Expected the JSON that a "
            f"ParetoCheckpoint writes. Received: directory={folder} ({error})"
        ) from error
    return index


def front_of(folder: pathlib.Path, index: Mapping[str, Any]) -> ParetoFront:
    """The models that an index names and its folder holds."""
    models: Iterable[Mapping[str, Any]] = index["models"]
    try:
        entries = [_entry(folder, model) for model in models]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{INDEX} names something else than models that a "
            "ParetoCheckpoint kept beside it. Received: "
            f"directory={folder} ({error})"
        ) from error
    front = ParetoFront(entry for entry in entries if entry.path.exists())
    front.monitor = str(index["monitor"])
    return front


def _entry(folder: pathlib.Path, model: Mapping[str, Any]) -> ParetoEntry:
    # An index says what is loaded: nothing outside of its folder.
    name = str(model["path"])
    if not OURS.fullmatch(name):
        raise ValueError(f"path={name!r}")
    return ParetoEntry(**{**model, "path": folder / name})
