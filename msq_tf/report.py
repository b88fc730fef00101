"""precision_report: what every weight got, as a table, data and a picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.markup
import rich.table

from msq_tf.model import MSQModel

_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class LayerPrecision:
    """One quantized weight.

    Attributes:
        path: Its key in `MSQModel.bits`.
        layer: Class name of its layer.
        attribute: Name of the weight on its layer.
        size: Number of elements.
        bits: Stored bits, the sign included.
        history: `(epoch, bits)` from the start, with fractions of epochs.
        sensitivity: `Omega` at the last decision, see `LayerStats`.
        trace: Hessian trace at the last estimate.
        trace_error: Its standard error.
        lsb_nonzero: Share of elements whose low bits (down to the next
            width) were not all zero at the last decision.
    """

    path: str
    layer: str
    attribute: str
    size: int
    bits: int
    history: tuple[tuple[float, int], ...]
    sensitivity: float
    trace: float
    trace_error: float
    lsb_nonzero: float

    @property
    def packed_bytes(self) -> int:
        """Bytes of the codes at `bits` each, without scales."""
        return -(-self.size * self.bits // 8)


@dataclasses.dataclass(frozen=True)
class SkippedLayer:
    """One weight left in float, with the reason."""

    path: str
    layer: str
    size: int
    reason: str


@dataclasses.dataclass(frozen=True)
class PrecisionReport:
    """What `precision_report` returns. `str()` of it is a table.

    Attributes:
        layers: Quantized weights in traversal order.
        skipped: Weights of two or more dimensions left in float.
        average_bits: Stored bits per quantizable element, the sign included;
            skipped quantizable weights count 32.
        paper_bits: The same without the sign, the convention of BSQ, CSQ
            and MSQ; for comparison only, no file gets this small.
        compression: 32 / `average_bits`.
        epochs: Epochs trained with `MSQCallback`.
    """

    layers: tuple[LayerPrecision, ...]
    skipped: tuple[SkippedLayer, ...]
    average_bits: float
    paper_bits: float
    compression: float
    epochs: float

    @property
    def packed_bytes(self) -> int:
        """Bytes of all codes, without scales and metadata."""
        return sum(layer.packed_bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the same weights in float32."""
        return 4 * sum(layer.size for layer in self.layers)

    def to_json(self, indent: int | None = 2) -> str:
        """All fields, with the byte totals, as JSON."""
        data = dataclasses.asdict(self)
        data["packed_bytes"] = self.packed_bytes
        data["float_bytes"] = self.float_bytes
        for layer, record in zip(self.layers, data["layers"], strict=True):
            record["packed_bytes"] = layer.packed_bytes
        return json.dumps(data, indent=indent)

    def __rich__(self) -> Any:
        return rich.console.Group(*self._tables())

    def __str__(self) -> str:
        console = rich.console.Console(width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def _tables(self) -> list[Any]:
        table = rich.table.Table(
            title="Precision by layer", box=rich.box.SIMPLE_HEAD
        )
        table.add_column("weight", overflow="fold")
        table.add_column("layer")
        for name in ("size", "bits", "sensitivity", "LSB≠0", "bytes"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in self.layers:
            bits = " → ".join(str(width) for _, width in layer.history)
            table.add_row(
                rich.markup.escape(layer.path),
                layer.layer,
                f"{layer.size:,}",
                bits,
                f"{layer.sensitivity:.1e}" if layer.sensitivity else "-",
                f"{layer.lsb_nonzero:.2f}" if layer.lsb_nonzero else "-",
                f"{layer.packed_bytes:,}",
            )
        table.add_section()
        table.add_row(
            "total",
            "",
            f"{sum(layer.size for layer in self.layers):,}",
            f"{self.average_bits:.2f}",
            "",
            "",
            f"{self.packed_bytes:,}",
        )
        summary = (
            f"{self.compression:.2f}x smaller than float32 by stored bits "
            f"(sign counted; {self.paper_bits:.2f} bits in the papers' "
            "convention, sign not counted)"
        )
        parts = [table, summary]
        if self.skipped:
            skipped = rich.table.Table(
                title="Left in float", box=rich.box.SIMPLE_HEAD
            )
            skipped.add_column("weight", overflow="fold")
            skipped.add_column("layer")
            skipped.add_column("size", justify="right")
            skipped.add_column("reason", overflow="fold")
            for entry in self.skipped:
                skipped.add_row(
                    rich.markup.escape(entry.path),
                    entry.layer,
                    f"{entry.size:,}",
                    rich.markup.escape(entry.reason),
                )
            parts.append(skipped)
        return parts

    def plot(self, path: str | Path) -> None:
        """Draws the bits of every layer over training into an image file.

        Args:
            path: Where to write; the suffix chooses the format.
        """
        from msq_tf.plots import plot_bits

        plot_bits(self, path)


def precision_report(qmodel: MSQModel) -> PrecisionReport:
    """What every weight of a model got, and why others got nothing.

    Args:
        qmodel: An `MSQModel`, during, after or without a search.

    Returns:
        A `PrecisionReport`: `print` it, call `to_json()` or `plot(path)`.

    Raises:
        ValueError: If `qmodel` is no `MSQModel`.
    """
    if not isinstance(qmodel, MSQModel):
        raise ValueError(
            "`precision_report` takes an MSQModel. Received: "
            f"{type(qmodel).__name__}"
        )
    search = qmodel.search
    bits = qmodel.bits
    plan = [entry for entry, _, _ in qmodel.outlines]
    columns = zip(
        plan,
        qmodel.sizes,
        search.course(qmodel.paths),
        search.sensitivity.numpy(),
        search.trace.numpy(),
        search.trace_error.numpy(),
        search.lsb_nonzero.numpy(),
        strict=True,
    )
    layers = tuple(
        LayerPrecision(
            path=entry.path,
            layer=entry.layer,
            attribute=entry.attribute,
            size=size,
            bits=bits[entry.path],
            history=tuple(history),
            sensitivity=float(sensitivity),
            trace=float(trace),
            trace_error=float(error),
            lsb_nonzero=float(nonzero),
        )
        for entry, size, history, sensitivity, trace, error, nonzero in columns
    )
    total = qmodel.float_size + sum(qmodel.sizes)
    return PrecisionReport(
        layers=layers,
        skipped=tuple(
            SkippedLayer(w.path, w.layer, w.size, w.reason)
            for w in qmodel.skipped_weights()
        ),
        average_bits=qmodel.average_bits,
        paper_bits=qmodel.average_bits - sum(qmodel.sizes) / total,
        compression=qmodel.compression,
        epochs=float(search.epoch.numpy()),
    )
