"""The report on an export, as data and as a table."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import rich.table

from msq_tf.reports.code_use import CodeUse
from msq_tf.reports.code_use import remarks
from msq_tf.reports.html_tables import as_html
from tflite_export.conversion.states import StateReport
from tflite_export.data.data_scale import DataScale
from tflite_export.evaluation import scores
from tflite_export.reports import device_tables
from tflite_export.text_tables import paragraph
from tflite_export.text_tables import render
from tflite_export.text_tables import table
from tflite_export.verification.float_outputs import Check
from tflite_export.verification.integer_outputs import OperatorCheck

FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """One weight tensor of the file.

    Attributes:
        name: Path of the layer, the key of `MSQModel.bits`.
        ops: Operators that read it.
        shape: Shape in the file.
        bits: Bits trained, the sign included.
        container: Weight type in the file.
        container_bits: Width of the weight type.
        granularity: `"per_tensor"` or `"per_channel"`.
        bytes: Bytes of the packed codes.
        distinct_codes: Number of different codes in use.
        exact_scale: Whether the scales are the trained steps; else they hold
            a folded batch normalization.
        flipped: Channels whose codes changed sign, because their folded
            factor is negative.
        dead: Channels whose codes are all zero.
        muted: Channels whose folded factor is zero; their codes stand beside a
            scale next to zero.
        rescaled: Channels whose scale was changed beside integer activations,
            so that they and their bias have room in the accumulator; their
            codes are the trained ones.
        silenced: Channels whose codes are zeros in the file, because no scale
            gives them room.
        change: By how many units of the integer output these two kinds of
            channels move at most, over all inputs.
        unfolded: Whether factors along the inputs were taken out of the
            weight and multiply the operator's input instead.
        also: Further layers that share the tensor.
        channels: Output channels; 0 where that is not known.
        entropy: Shannon entropy of a code, in bits; `None` if not measured.
    """

    name: str
    ops: tuple[str, ...]
    shape: tuple[int, ...]
    bits: int
    container: str
    container_bits: int
    granularity: str
    bytes: int
    distinct_codes: int
    exact_scale: bool
    flipped: int = 0
    dead: int = 0
    muted: int = 0
    rescaled: int = 0
    silenced: int = 0
    change: float = 0.0
    unfolded: bool = False
    also: tuple[str, ...] = ()
    channels: int = 0
    entropy: float | None = None


@dataclasses.dataclass(frozen=True)
class FloatTensor:
    """One weight tensor that stays float.

    Attributes:
        name: Path of the weight.
        ops: Operators that read it.
        shape: Shape in the file.
        bytes: Bytes of the values.
        reason: Why it stays float.
    """

    name: str
    ops: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int
    reason: str


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The result of an export, and how it was verified.

    Sizes count the sign bit unless a name says otherwise.

    Attributes:
        path: The file.
        target: Name of the target.
        tensors: The quantized weight tensors, in the order of the file.
        float_tensors: Weight tensors that stay float.
        other_constants: Further float constants: biases, folded
            normalization, operands of elementwise operators.
        average_bits: Stored bits per quantizable element; an element in float
            counts 32.
        paper_bits: The same without the sign bits (the paper's convention).
        file_bytes: Size of the file.
        deflated_bytes: Size of the file after zlib at its default level.
        ideal_bytes: The codes at n bits each, nothing else; every layer once.
        entropy_bytes: The codes at their entropy.
        float_file_bytes: Size of the float file of the same model.
        int8_file_bytes: Size of the file with 8-bit containers throughout.
        checks: Agreement with Keras per kernel set.
        inputs: Whether verification ran on `"given"` or `"random"` inputs.
        activations: How activations are stored.
        operators: Agreement of each integer operator with its float
            arithmetic.
        device: What the target's own tools found.
        notes: Further remarks.
        unread: Paths of weights that are not in the file, since inference
            never reads them.
        states: Inputs and outputs that hold the model's states from call to
            call.
    """

    path: str
    target: str
    tensors: tuple[TensorReport, ...]
    float_tensors: tuple[FloatTensor, ...]
    other_constants: int
    average_bits: float
    paper_bits: float
    file_bytes: int
    deflated_bytes: int
    ideal_bytes: int
    entropy_bytes: int
    float_file_bytes: int
    int8_file_bytes: int
    checks: tuple[Check, ...]
    inputs: str
    activations: str = "float32"
    operators: tuple[OperatorCheck, ...] = ()
    device: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    states: tuple[StateReport, ...] = ()

    # No fields: what the model was compiled with and trained on is nothing of
    # the file.
    _compiled = None
    _trained = None

    def measuring(
        self,
        compiled: Mapping[str, Any] | None,
        trained: Mapping[str, DataScale] | None = None,
    ) -> ExportReport:
        """This report, with what `evaluate` needs of the model.

        Loss and metrics, and what the inputs were in training.
        """
        object.__setattr__(self, "_compiled", compiled)
        object.__setattr__(self, "_trained", trained)
        return self

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int = 64,
    ) -> dict[str, float]:
        """Evaluates the file on a data set, as `keras.Model.evaluate`.

        It warns if the inputs are on another scale than those of the training.

        Args:
            x: Inputs as for the Keras model, or batches of `(x, y)`.
            y: Targets; not needed if `x` holds them.
            sample_weight: Weights of the samples.
            batch_size: Samples per batch.

        Returns:
            Numbers by name: the loss and metrics of `compile`, and the accuracy
            of a classifier.

        Raises:
            ValueError: If the file is gone, or the data does not fit it.

        Examples:
            >>> report = export(qmodel, "m.tflite", target="cpu_int8")
            >>> report.evaluate(x_test, y_test)["accuracy"]
        """
        return scores.evaluate_file(
            self.path,
            x,
            y,
            sample_weight,
            batch_size,
            compiled=self._compiled,
            states=self.states,
            trained=self._trained,
        )

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=indent)

    def __str__(self) -> str:
        notes = [paragraph(f"note: {note}") for note in self._all_notes()]
        return render(*self._tables()) + "".join(f"{x}\n" for x in notes)

    def _repr_html_(self) -> str:
        """The same as tables of a notebook."""
        notes = [f"note: {note}" for note in self._all_notes()]
        return as_html([*self._tables(), *notes], markup=False)

    def _tables(self) -> list[rich.table.Table]:
        tables = [self._weights(), self._sizes(), self._checks()]
        if self.operators:
            tables.append(self._operators())
        return tables + device_tables.tables(self.device)

    def _all_notes(self) -> list[str]:
        notes = [s for t in self.tensors for s in _of_channels(t)]
        return [*notes, *self._remarks(), *self.notes]

    def _remarks(self) -> list[str]:
        """What the codes of the file leave unused."""
        return remarks(
            [
                CodeUse(
                    t.name,
                    math.prod(t.shape),
                    t.bits,
                    t.entropy,
                    t.dead,
                    t.channels,
                )
                for t in self.tensors
                if t.entropy is not None
            ]
        )

    def _weights(self) -> rich.table.Table:
        rows = table(
            f"{self.path}: weights for {self.target}",
            ["layer", "operator"],
            ["bits", "codes", "bytes"],
            last=["stored as"],
        )
        for t in self.tensors:
            rows.add_row(
                " = ".join((t.name, *t.also)),
                ", ".join(t.ops),
                str(t.bits),
                str(t.distinct_codes),
                f"{t.bytes:,}",
                f"{t.container} {t.granularity.replace('_', ' ')}",
            )
        for f in self.float_tensors:
            rows.add_row(
                f.name,
                ", ".join(f.ops),
                str(FLOAT_BITS),
                "-",
                f"{f.bytes:,}",
                f"FLOAT32: {f.reason}",
            )
        return rows

    def _sizes(self) -> rich.table.Table:
        rows = table("bytes", ["what"], ["bytes", "of float"])
        for label, size in (
            ("this file", self.file_bytes),
            ("this file, deflated", self.deflated_bytes),
            ("codes at n bits (ideal)", self.ideal_bytes),
            ("codes at their entropy", self.entropy_bytes),
            ("int8 weight file", self.int8_file_bytes),
            ("float file", self.float_file_bytes),
        ):
            share = size / self.float_file_bytes
            rows.add_row(label, f"{size:,}", f"{share:.1%}")
        rows.add_section()
        rows.add_row("bits per weight", f"{self.average_bits:.2f}", "")
        rows.add_row(
            "bits per weight, sign not counted", f"{self.paper_bits:.2f}", ""
        )
        return rows

    def _checks(self) -> rich.table.Table:
        integer = bool(self.operators)
        against = (
            "float arithmetic of the same integers" if integer else "Keras"
        )
        rows = table(
            f"against {against}, {self.inputs} inputs",
            ["kernels"],
            ["samples", "max error", "of range"]
            # Broken where they stand, all fit into 80 columns.
            + ["units", "operators'\nunits"] * integer
            + ["same\nclass", "partitions"],
        )
        for c in self.checks:
            if not c.ran:
                rows.add_row(c.kernels, "cannot run", c.reason)
                continue
            cells = [
                c.kernels,
                str(c.samples),
                f"{c.max_abs_error:.1e}",
                f"{c.relative_error:.1e}",
            ]
            if integer:
                cells += [str(c.max_units), str(c.operator_units)]
            rows.add_row(
                *cells,
                "-" if c.agreement is None else f"{c.agreement:.1%}",
                "-" if c.partitions is None else str(c.partitions),
            )
        return rows

    def _operators(self) -> rich.table.Table:
        rows = table(
            "integer operators, each on what the kernels before it computed",
            ["operator"],
            ["count"],
        )
        kernels = list(dict.fromkeys(o.kernels for o in self.operators))
        for name in kernels:
            rows.add_column(f"{name}: units,\nvalues off", justify="right")
        found = {(o.kernels, o.op): o for o in self.operators}
        for op in sorted({o.op for o in self.operators}):
            cells = [found.get((name, op)) for name in kernels]
            count = max(c.count for c in cells if c is not None)
            rows.add_row(
                op,
                str(count),
                *(
                    "-" if c is None else f"{c.units}, {c.off:.2%}"
                    for c in cells
                ),
            )
        return rows


def _of_channels(tensor: TensorReport) -> list[str]:
    """What the file holds of channels that are not as they were trained."""
    count = tensor.channels
    found = []
    if tensor.muted:
        found.append(
            f"layer '{tensor.name}': the batch normalization multiplies "
            f"{tensor.muted} of {count} channels by zero; their codes are in "
            "the file all the same"
        )
    most = _units(tensor.change)
    if tensor.rescaled:
        found.append(
            f"layer '{tensor.name}': {tensor.rescaled} of {count} channels "
            "have other scales than trained, as sums and biases have to fit "
            f"the kernels' accumulators; their codes are the trained ones{most}"
        )
    if tensor.silenced:
        found.append(
            f"layer '{tensor.name}': the codes of {tensor.silenced} of {count} "
            "channels are zeros in the file, because no scale leaves the "
            f"accumulator room for their biases{most}"
        )
    return found


def _units(change: float) -> str:
    if change == 0.0:
        return ", and no output changes"
    return f", and no output moves by more than {change:.2g} of its units"
