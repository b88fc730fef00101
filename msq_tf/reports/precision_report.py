"""precision_report: the bits of every weight as a table, data and a picture."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import rich.console
import rich.markup
import rich.table

from msq_tf.arguments import check_path
from msq_tf.core.bit_history import BitChange
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.reports import summary
from msq_tf.reports import training_log
from msq_tf.reports.bit_changes import LAYOUT
from msq_tf.reports.bit_changes import Decisions
from msq_tf.reports.bit_changes import as_text
from msq_tf.reports.bit_changes import with_error
from msq_tf.reports.code_use import CodeUse
from msq_tf.reports.code_use import code_use
from msq_tf.reports.html_tables import as_html
from msq_tf.reports.layer_precision import LayerPrecision
from msq_tf.reports.layer_precision import SkippedLayer
from msq_tf.reports.names import Name
from msq_tf.reports.training_log import EpochPoint

# What a search notes of every weight: its variables and fields here.
_STATISTICS = (
    *("sensitivity", "sensitivity_error"),
    *("trace", "trace_error", "lsb_nonzero"),
)
# No model keeps a decision's words; counts of codes are for pictures.
_UNTOLD = ("counts",)
# Parts of the figure, in their order.
PANELS = ("bits", "sensitivity", "accuracy")


class OnDevice(NamedTuple):
    """The time and RAM that are predicted on a device, see `DeviceCosts`.

    Attributes:
        device: Name of the device.
        source: Where the figures come from.
        latency_ms: Milliseconds; `None` if not known.
        ram_bytes: Bytes of RAM; `None` if not known.
    """

    device: str
    source: str
    latency_ms: float | None
    ram_bytes: float | None


@dataclasses.dataclass(frozen=True)
class PrecisionReport:
    """The result of `precision_report`; `str()` of it is a table.

    Attributes:
        layers: Quantized weights in traversal order.
        skipped: Weights of two or more dimensions left in float.
        average_bits: Stored bits per quantizable element, the sign included;
            skipped quantizable weights count 32.
        paper_bits: The same without the sign, the convention of BSQ, CSQ
            and MSQ; for comparison only, no file gets this small.
        compression: 32 / `average_bits`.
        epochs: Epochs trained with `MSQCallback`.
        changes: Every change of a width, with the figures behind it.
        metric: Name of the metric of `points`; `None` without a history.
        points: The metric and the bytes after each epoch of the history.
        products: Number of layers that multiply activations by activations,
            such as attention; these products have no weight that could have
            bits.
        on_device: What a search for a latency or for RAM predicts at these
            bits; `None` without such a search.
    """

    layers: tuple[LayerPrecision, ...]
    skipped: tuple[SkippedLayer, ...]
    average_bits: float
    paper_bits: float
    compression: float
    epochs: float
    changes: tuple[BitChange, ...] = ()
    metric: str | None = None
    points: tuple[EpochPoint, ...] = ()
    products: int = 0
    on_device: OnDevice | None = None

    @property
    def packed_bytes(self) -> int:
        """Bytes of all codes, without scales and metadata."""
        return sum(layer.packed_bytes for layer in self.layers)

    @property
    def container_bytes(self) -> int:
        """Bytes of all codes in the containers of a packed file."""
        return sum(layer.container_bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the same weights in float32."""
        return 4 * self.size

    def to_json(self, indent: int | None = 2) -> str:
        """All fields, with the byte totals, as JSON.

        Unknown and infinite values are `null`; `indent` is that of
        `json.dumps`.
        """
        data = _plain(self)
        data["packed_bytes"] = self.packed_bytes
        data["container_bytes"] = self.container_bytes
        data["float_bytes"] = self.float_bytes
        for layer, record in zip(self.layers, data["layers"], strict=True):
            record["packed_bytes"] = layer.packed_bytes
            record["container_bytes"] = layer.container_bytes
        return json.dumps(data, indent=indent, allow_nan=False)

    def decisions(self) -> Decisions:
        """Every change of a width and its reasons, as a table to print."""
        return Decisions(self.changes)

    def __rich__(self) -> Any:
        return rich.console.Group(*self._tables())

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        """The same as tables of a notebook."""
        return as_html(self._tables(), markup=True)

    def _tables(self) -> list[Any]:
        parts = [self._weights(), "\n".join(summary.sentences(self))]
        return [*parts, self._in_float()] if self.skipped else parts

    @property
    def is_wider(self) -> bool:
        """Whether a packed file, which has no codes of 3 bits, is larger."""
        return self.container_bytes > self.packed_bytes

    def _weights(self) -> rich.table.Table:
        table = rich.table.Table(title="Precision by layer", **LAYOUT)
        table.add_column("weight")
        table.add_column("layer")
        sizes = ("bytes", "stored") if self.is_wider else ("bytes",)
        for name in ("size", "bits", "sensitivity", "LSB≠0", *sizes):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in self.layers:
            table.add_row(
                Name(layer.path),
                Name(layer.layer),
                f"{layer.size:,}",
                " → ".join(str(width) for _, width in layer.history),
                with_error(layer.sensitivity, layer.sensitivity_error)
                if layer.sensitivity
                else "-",
                f"{layer.lsb_nonzero:.2f}" if layer.lsb_nonzero else "-",
                f"{layer.packed_bytes:,}",
                *[f"{layer.container_bytes:,}"] * self.is_wider,
            )
        table.add_section()
        table.add_row(
            "total",
            "",
            f"{self.size:,}",
            f"{self.average_bits:.2f}",
            "",
            "",
            f"{self.packed_bytes:,}",
            *[f"{self.container_bytes:,}"] * self.is_wider,
        )
        return table

    @property
    def size(self) -> int:
        """Elements of all quantized weights."""
        return sum(layer.size for layer in self.layers)

    def _in_float(self) -> rich.table.Table:
        table = rich.table.Table(title="Left in float", **LAYOUT)
        table.add_column("weight")
        table.add_column("layer")
        table.add_column("size", justify="right")
        table.add_column("reason", overflow="fold")
        for entry in self.skipped:
            table.add_row(
                Name(entry.path),
                Name(entry.layer),
                f"{entry.size:,}",
                rich.markup.escape(entry.reason),
            )
        return table

    def plot(self, path: str | Path, panels: Sequence[str] = PANELS) -> None:
        """Draws what the search did into an image file.

        `"bits"` shows the stored bits of every layer over training.
        `"sensitivity"` shows the sensitivity of every layer against its bits,
        with standard errors. `"accuracy"` shows the metric of the history
        against the bytes of the codes. A panel without data is omitted, such as
        the last one without a history.

        Args:
            path: Where to write; the suffix chooses the format.
            panels: Which panels to draw, some of these three.

        Raises:
            ValueError: If a panel is unknown, or there is nothing to draw.

        Example:
        ```python
        history = qmodel.fit(x, y, callbacks=[search], validation_data=held)
        report = msq_tf.precision_report(qmodel, history)
        report.plot("search.png")
        report.plot("bits.png", panels=["bits"])
        ```
        """
        from msq_tf.reports import figure

        figure.save(self, path, panels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an HTML page of the search, with charts to click.

        The file works offline. It has the layers as bars, the codes of each
        layer, the search replayed decision by decision, and with a history the
        metric against bytes. `tflite_export.look` adds the exported file to it.

        Args:
            path: Where to write, such as `"search.html"`.

        Raises:
            ImportError: If the extra `look` is not installed.
            NotWrittenError: If the file can't be written, an `OSError`.

        Example:
        ```python
        msq_tf.precision_report(qmodel, history).save("search.html")
        ```
        """
        from msq_tf.page import document
        from msq_tf.reports import search_page

        check_path("path", path)
        document.save(search_page.page(self), path)


def precision_report(
    qmodel: QuantizedNetwork, history: Any = None, metric: str | None = None
) -> PrecisionReport:
    """Reports the bits of every weight, and why some weights have none.

    Args:
        qmodel: An `MSQModel`, or a `msq_tf.tfmot.ModelView` of a tf_keras
            model, during, after or without a search.
        history: The object that `fit` with `MSQCallback` returned, its
            `history`, or a list with the logs of each epoch; for accuracy
            against bytes.
        metric: Name of the log that stands for accuracy. Defaults to
            `val_accuracy`, else to the first validation metric, else to the
            accuracy or loss of training.

    Returns:
        A `PrecisionReport`: `print` it or its `decisions()`, call `to_json()`
        or `plot(path)`.

    Raises:
        ValueError: If `qmodel` is neither, or `history` is not of a `fit` with
            `MSQCallback` or has no such metric.
    """
    if not isinstance(qmodel, QuantizedNetwork):
        raise ValueError(
            "`precision_report` takes an MSQModel, or the ModelView of a "
            "tf_keras model. Received: "
            f"{type(qmodel).__name__}"
        )
    search = qmodel.search
    bits = qmodel.bits
    size = sum(qmodel.sizes)
    logs = [] if history is None else training_log.rows(history)
    name = training_log.metric_name(logs, metric) if logs else None
    noted = {
        name: getattr(search, name).numpy().tolist() for name in _STATISTICS
    }
    courses, uses = search.course(qmodel.paths), _uses(qmodel)
    costs = search.cost.numpy().tolist()
    layers = tuple(
        LayerPrecision(
            path=weight.path,
            layer=weight.plan.layer,
            attribute=weight.plan.attribute,
            size=weight.size,
            bits=bits[weight.path],
            history=tuple(courses[i]),
            use=uses[i],
            costs=tuple((b, c) for b, c in enumerate(costs[i]) if b and c),
            **{name: values[i] for name, values in noted.items()},
        )
        for i, weight in enumerate(qmodel.planned_weights)
    )
    return PrecisionReport(
        layers=layers,
        skipped=tuple(
            SkippedLayer(w.path, w.plan.layer, w.size, w.plan.skip_reason)
            for w in qmodel.float_weights
        ),
        average_bits=qmodel.average_bits,
        paper_bits=qmodel.average_bits - size / (size + qmodel.float_size),
        compression=qmodel.compression,
        epochs=float(search.epoch.numpy()),
        changes=tuple(qmodel.history_of_bits()),
        metric=name,
        points=()
        if name is None
        else training_log.points(logs, name, size, qmodel.float_size),
        products=qmodel.products(),
        on_device=_on_device(qmodel),
    )


def _on_device(qmodel: QuantizedNetwork) -> OnDevice | None:
    costs = qmodel.search.device_costs
    if costs is None:
        return None
    return OnDevice(
        costs.device,
        costs.source,
        costs.latency_at(qmodel.bits) if costs.knows_latency else None,
        costs.ram_at(qmodel.bits) if costs.knows_ram else None,
    )


def _uses(qmodel: QuantizedNetwork) -> list[CodeUse | None]:
    try:
        return [code_use(weight) for weight in qmodel.quantized_weights()]
    except ValueError:  # a weight that is not finite has no codes
        return [None] * len(qmodel.paths)


def _plain(value: Any) -> Any:
    """A report as what JSON has: records are objects, NaN is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(part) for name, part in vars(value).items()}
    if hasattr(value, "_asdict"):
        return {
            name: _plain(part)
            for name, part in value._asdict().items()
            if name not in _UNTOLD
        }
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
