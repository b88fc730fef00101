"""The result of comparing two files, as data and as a table."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from tflite_export.text_tables import render
from tflite_export.text_tables import table


@dataclasses.dataclass(frozen=True)
class FileFigures:
    """Figures of one file.

    Attributes:
        path: The file.
        bytes: Its size.
        deflated_bytes: Its size after zlib at its default level.
        inputs: Type and shape of its inputs.
        latency_ms: Median time of one run of one sample, one thread, XNNPACK.
        fastest_ms: Shortest time.
    """

    path: str
    bytes: int
    deflated_bytes: int
    inputs: tuple[str, ...]
    latency_ms: float
    fastest_ms: float


@dataclasses.dataclass(frozen=True)
class OutputFigures:
    """How one output differs between the files.

    Attributes:
        name: Its name in the first file.
        max_abs_error: Largest difference of what the values stand for.
        relative_error: The same relative to the range of the first file's.
        units: The same in units of the coarser integer output, `None` where
            both are float throughout.
        agreement: Share of samples with the same largest entry, `None` where
            the output doesn't look like classes.
    """

    name: str
    max_abs_error: float
    relative_error: float
    units: float | None
    agreement: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two files side by side; `str()` is a table.

    Attributes:
        files: Figures of both.
        outputs: Differences by output.
        samples: Number of samples.
        inputs: Whether they were `"given"` or `"random"`.
        rounds: Number of timed runs of each file.
    """

    files: tuple[FileFigures, FileFigures]
    outputs: tuple[OutputFigures, ...]
    samples: int
    inputs: str
    rounds: int

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON; `null` for a difference that is not finite."""
        tree = dataclasses.asdict(self)
        for output in tree["outputs"]:
            for name, value in output.items():
                if isinstance(value, float) and not math.isfinite(value):
                    output[name] = None
        return json.dumps(tree, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        first, second = (
            FileFigures(**{**file, "inputs": tuple(file["inputs"])})
            for file in fields.pop("files")
        )
        outputs = tuple(
            OutputFigures(**{**output, **_infinite(output)})
            for output in fields.pop("outputs")
        )
        return cls(files=(first, second), outputs=outputs, **fields)

    def __str__(self) -> str:
        first, second = self.files
        sizes = table(
            f"sizes, and one thread of XNNPACK in {self.rounds} interleaved "
            "runs",
            ["file"],
            ["bytes", "deflated", "median ms", "fastest ms"],
            last=["inputs"],
        )
        for f in self.files:
            sizes.add_row(
                f.path,
                f"{f.bytes:,}",
                f"{f.deflated_bytes:,}",
                f"{f.latency_ms:.3f}",
                f"{f.fastest_ms:.3f}",
                ", ".join(f.inputs),
            )
        sizes.add_row(
            "second / first",
            f"{second.bytes / first.bytes:.3f}",
            f"{second.deflated_bytes / first.deflated_bytes:.3f}",
            f"{second.latency_ms / first.latency_ms:.3f}",
            f"{second.fastest_ms / first.fastest_ms:.3f}",
            "",
        )
        rows = table(
            f"outputs on {self.samples} {self.inputs} inputs",
            ["output"],
            ["max difference", "of range", "units", "same class"],
        )
        for o in self.outputs:
            rows.add_row(
                o.name,
                f"{o.max_abs_error:.3g}",
                f"{o.relative_error:.2g}",
                "-" if o.units is None else f"{o.units:.3g}",
                "-" if o.agreement is None else f"{o.agreement:.1%}",
            )
        return render(sizes, rows)


def _infinite(output: dict[str, Any]) -> dict[str, float]:
    """Differences that JSON has no number for."""
    names = ("max_abs_error", "relative_error")
    return {name: math.inf for name in names if output[name] is None}
