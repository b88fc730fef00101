"""The report on a file that generates text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import rich.table

from tflite_export.reports.report import FloatTensor
from tflite_export.reports.report import TensorReport
from tflite_export.text_tables import paragraph
from tflite_export.text_tables import render
from tflite_export.text_tables import table
from tflite_export.verification.float_outputs import Check


@dataclasses.dataclass(frozen=True)
class SignatureReport:
    """One signature of a file.

    Attributes:
        inputs: Shapes of its inputs by name.
        outputs: Shapes of its outputs by name.
        tensors: The quantized weight tensors that it reads.
        float_tensors: Weight tensors that stay float.
        checks: Agreement with Keras per kernel set.
        bytes: Size of a file of this signature alone.
        notes: Further remarks.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    tensors: tuple[TensorReport, ...]
    float_tensors: tuple[FloatTensor, ...]
    checks: tuple[Check, ...]
    bytes: int
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class GenerationReport:
    """The result of `export_generation`, and how it was verified.

    Attributes:
        path: The file.
        target: Name of the target.
        prompt_length: Tokens that a call of `prefill` takes.
        max_length: Tokens of a text, prompt included.
        signatures: Reports by name, `"prefill"` and `"decode"`.
        file_bytes: Size of the file.
        float_file_bytes: Size of the float files of the signatures, the
            larger one.
        notes: Further remarks.
    """

    path: str
    target: str
    prompt_length: int
    max_length: int
    signatures: Mapping[str, SignatureReport]
    file_bytes: int
    float_file_bytes: int
    notes: tuple[str, ...] = ()

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=indent)

    def __str__(self) -> str:
        notes = [paragraph(f"note: {note}") for note in self._all_notes()]
        tables = self._weights(), self._sizes(), self._checks()
        return render(*tables) + "".join(f"{note}\n" for note in notes)

    def _all_notes(self) -> list[str]:
        own = [
            f"{name}: {note}"
            for name, signature in self.signatures.items()
            for note in signature.notes
        ]
        return [*self.notes, *own]

    def _weights(self) -> rich.table.Table:
        rows = table(
            f"{self.path}: weights for {self.target}",
            ["layer", "signatures"],
            ["bits", "bytes"],
            last=["stored as"],
        )
        readers: dict[str, list[str]] = {}
        tensors: dict[str, TensorReport] = {}
        for name, signature in self.signatures.items():
            for tensor in signature.tensors:
                readers.setdefault(tensor.name, []).append(name)
                tensors[tensor.name] = tensor
        for path, tensor in tensors.items():
            rows.add_row(
                path,
                ", ".join(readers[path]),
                str(tensor.bits),
                f"{tensor.bytes:,}",
                f"{tensor.container} {tensor.granularity.replace('_', ' ')}",
            )
        return rows

    def _sizes(self) -> rich.table.Table:
        rows = table("bytes", ["what"], ["bytes", "of float"])
        alone = {
            f"{name} alone": signature.bytes
            for name, signature in self.signatures.items()
        }
        for label, size in (
            ("this file", self.file_bytes),
            *alone.items(),
            ("float file of one signature", self.float_file_bytes),
        ):
            share = size / self.float_file_bytes
            rows.add_row(label, f"{size:,}", f"{share:.1%}")
        return rows

    def _checks(self) -> rich.table.Table:
        rows = table(
            "against Keras",
            ["signature", "kernels"],
            ["samples", "max error", "of range"],
        )
        for name, signature in self.signatures.items():
            for c in signature.checks:
                if not c.ran:
                    rows.add_row(name, c.kernels, "cannot run", c.reason)
                    continue
                rows.add_row(
                    name,
                    c.kernels,
                    str(c.samples),
                    f"{c.max_abs_error:.1e}",
                    f"{c.relative_error:.1e}",
                )
        return rows
