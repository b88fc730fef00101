"""LatencyTable: milliseconds of measured operators, and of those between."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import importlib.resources
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.latency import operators
from tflite_export.latency import timing
from tflite_export.latency.operators import Operator
from tflite_export.output_files import fill
from tflite_export.output_files import staged

# Measured operators that one between them is predicted from.
_NEAREST = 3
# Sums over so many channels leave no part of a vector empty.
_FULL_DEPTH = 32
# How often a whole file is loaded, to be measured each time.
_SESSIONS = 8


class Row(NamedTuple):
    """A measured operator.

    Attributes:
        milliseconds: Of a call of a file of this operator alone.
        family: What it may be compared with, see `Operator`.
        macs: Multiplications with additions.
        moved: Bytes read and written.
        depth: Channels of a sum, see `Operator`; 0 if not known.
    """

    milliseconds: float
    family: str
    macs: int
    moved: float
    depth: int = 0


class Whole(NamedTuple):
    """A measured file.

    Attributes:
        milliseconds: Of a call.
        sum: Those of a call by itself and of its operators alone.
    """

    milliseconds: float
    sum: float


class Predicted(NamedTuple):
    """The time of an operator in a network.

    Attributes:
        milliseconds: Without what a call takes by itself.
        measured: Whether the table has this very operator.
    """

    milliseconds: float
    measured: bool


@dataclasses.dataclass
class LatencyTable:
    """Milliseconds of operators, measured on one thread of a processor.

    Attributes:
        processor: Name of the processor.
        date: Day of the measurements, as `2026-11-30`.
        runtime: Name and version of what ran them.
        call: Milliseconds that a call takes by itself: those of the fastest
            operator.
        rows: The operators by their keys.
        files: Whole files by a digest of the keys of their operators: what a
            network takes is not just the sum.
    """

    processor: str
    date: str
    runtime: str
    call: float = math.inf
    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    files: dict[str, Whole] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_this_machine(cls) -> LatencyTable:
        """An empty table for measurements here and today."""
        version = importlib.metadata.version("ai-edge-litert")
        return cls(
            processor_name(),
            datetime.date.today().isoformat(),
            f"LiteRT {version}",
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> LatencyTable:
        """Reads a table; without a path that which comes with the package.

        Raises:
            ValueError: If the file is no such table.
        """
        if path is None:
            file: Any = importlib.resources.files("tflite_export.latency")
            file = file / "x86_64.json"
        else:
            file = Path(path)
        text = file.read_text(encoding="utf-8")
        try:
            fields = json.loads(text)
            rows = {
                key: Row(
                    float(ms),
                    str(family),
                    int(macs),
                    float(moved),
                    *map(int, depth),  # which older tables lack
                )
                for family, found in fields.pop("families").items()
                for key, (ms, macs, moved, *depth) in found.items()
            }
            files = {
                digest: Whole(float(ms), float(total))
                for digest, (ms, total) in fields.pop("files", {}).items()
            }
            return cls(**fields, files=files, rows=rows)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                "This is no table of latencies. Expected a file of `make "
                "latency-table`, or of `device_costs(latency_table=..., "
                f"measure=True)`. Received: {path} ({error})"
            ) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table, whole or not at all."""
        families: dict[str, dict[str, list[float]]] = {}
        for key, row in sorted(self.rows.items()):
            found = families.setdefault(row.family, {})
            found[key] = [
                float(f"{row.milliseconds:.4g}"),
                row.macs,
                row.moved,
                row.depth,
            ]
        fields = {
            "processor": self.processor,
            "date": self.date,
            "runtime": self.runtime,
            "call": float(f"{self.call:.4g}"),
            "files": {
                digest: [float(f"{ms:.4g}") for ms in whole]
                for digest, whole in sorted(self.files.items())
            },
            "families": families,
        }
        # An operator a line.
        text = json.dumps(fields).replace("], ", "],\n") + "\n"
        with staged(path) as partial:
            fill(partial, text.encode(), path)

    def measure(
        self, data: bytes, seconds: float = 0.05, whole: bool = True
    ) -> int:
        """Measures those operators of a file that the table lacks.

        Args:
            data: The bytes of the file.
            seconds: How long to measure each.
            whole: Whether to measure the whole file, too. Once more than that
                is worth its time: the fastest counts, and some seconds later
                a machine may have less else to do.

        Returns:
            How many operators these were.

        Raises:
            ExportError: If the file has a loop, or LiteRT lacks an operator.
        """
        count = 0
        found = operators.split(data)
        for operator in found:
            if operator.key in self.rows:
                continue
            try:
                ms = timing.milliseconds(
                    operators.alone(data, operator), seconds
                )
            except (RuntimeError, ValueError) as error:
                raise ExportError(
                    "An operator does not run by itself. Expected one that "
                    f"LiteRT runs. Received: {operator.key} ({error})"
                ) from None
            self.rows[operator.key] = Row(
                ms,
                operator.family,
                operator.macs,
                operator.moved,
                operator.depth,
            )
            self.call = min(self.call, ms)
            count += 1
        if whole:
            self._measure_whole(data, found, seconds)
        return count

    def _measure_whole(
        self, data: bytes, found: Sequence[Operator], seconds: float
    ) -> None:
        ms = timing.milliseconds(data, _SESSIONS * seconds, _SESSIONS)
        known = self.files.get(_digest(found))
        parts = [self.predict(operator).milliseconds for operator in found]
        self.files[_digest(found)] = Whole(
            ms if known is None else min(ms, known.milliseconds),
            self.call + sum(parts),
        )

    def whole(self, found: Sequence[Operator], total: float) -> float:
        """Milliseconds of a call of a file.

        Args:
            found: All its operators, in their order.
            total: Milliseconds of a call by itself and of them alone.

        Returns:
            What was measured; else the sum, times what measured files take in
            the median for theirs: 1 without such files.
        """
        known = self.files.get(_digest(found))
        if known is not None:
            return known.milliseconds
        shares = [each.milliseconds / each.sum for each in self.files.values()]
        return total * (statistics.median(shares) if shares else 1.0)

    def predict(self, operator: Operator) -> Predicted:
        """The time of an operator in a network.

        One that was not measured takes as long for its work as the nearest of
        its family: multiplications, or bytes where it has none.

        Raises:
            ExportError: If nothing like it was measured.
        """
        row = self.rows.get(operator.key)
        if row is not None:
            return Predicted(max(row.milliseconds - self.call, 0.0), True)
        alike = [r for r in self.rows.values() if r.family == operator.family]
        if not alike:
            alike = self._of_a_kind(operator)
        near = sorted(alike, key=lambda r: _distance(operator, r))[:_NEAREST]
        weights = [1.0 / (0.01 + _distance(operator, r)) for r in near]
        rates = [
            max(r.milliseconds - self.call, 1e-5) / _work(r.macs, r.moved)
            for r in near
        ]
        rate = math.exp(float(np.average(np.log(rates), weights=weights)))
        return Predicted(rate * _work(operator.macs, operator.moved), False)

    def _of_a_kind(self, operator: Operator) -> list[Row]:
        """Measured operators of the same name and types, whatever options."""
        wanted = _kind(operator.family)
        found = [r for r in self.rows.values() if _kind(r.family) == wanted]
        if not found:
            raise ExportError(
                "The table of latencies has no operator like one of the file. "
                "Expected a table with it: device_costs(latency_table="
                "'mine.json', measure=True) measures it here. Received: "
                f"{operator.key}, table of {self.processor}, {self.date}"
            )
        return found


# Operators whose third operand is a bias.
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def processor_name() -> str:
    """The name of this machine's processor, as its system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return f"{value.strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def _digest(found: Sequence[Operator]) -> str:
    """A name for files of these operators, whatever their weights are."""
    text = "\n".join(operator.key for operator in found)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kind(family: str) -> list[list[str]]:
    """Names and types of the parts of a family.

    Without options, and without what hardly takes time: a scale for each
    channel (a star), and a bias, which a fresh layer does not have yet.
    """
    found = []
    for part in family.replace("*", "").split(" + "):
        name = part.partition("[")[0]
        types = part.partition("]")[2].partition(" k")[0].split()
        found.append([name, *(types[:2] if name in _PRODUCTS else types)])
    return found


def _work(macs: int, moved: float) -> float:
    return float(macs or moved)


def _distance(operator: Operator, row: Row) -> float:
    """How unlike the sizes of two operators are, in powers of e."""
    pairs = [(operator.macs, row.macs), (operator.moved, row.moved)]
    if operator.depth and row.depth:
        depths = [min(d, _FULL_DEPTH) for d in (operator.depth, row.depth)]
        pairs.append((depths[0], depths[1]))
    return sum(abs(math.log((1.0 + a) / (1.0 + b))) for a, b in pairs)


def share_measured(predicted: Sequence[Predicted]) -> float:
    """The share of the time that is of measured operators."""
    total = sum(p.milliseconds for p in predicted)
    known = sum(p.milliseconds for p in predicted if p.measured)
    return known / total if total else 1.0
