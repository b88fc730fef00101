"""Targets: the operators and types that each runtime runs, as data.

A target is a JSON file in `targets/`. Each of its cells states for some
operators and one weight type which granularities run, on which kernels, and
the evidence. `tables/_known_bad.json` lists the combinations that a runtime
computes wrongly or refuses; a target that holds one of them does not load.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.targets import operator_rows

CONTAINERS = {"INT2": 2, "INT4": 4, "INT8": 8}
GRANULARITIES = ("per_tensor", "per_channel")
_MODES = ("weight_only", *operator_rows.ACTIVATIONS)
_FIELDS = ("name", "summary", "mode", "containers", "cells")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One row of a target's table.

    Attributes:
        ops: Operators that may read the weight.
        weights: Weight type, such as `"INT4"`.
        granularities: `"per_tensor"`, `"per_channel"` or both.
        kernels: The kernels that run it, by interpreter.
        evidence: How this is known.
        input_multiple: A number of which the number of inputs per output, the
            last axis of the weight, must be a multiple.
        accumulator_bits: Bits of the sums that the kernels compute correctly,
            with bias and sign.
    """

    ops: tuple[str, ...]
    weights: str
    granularities: tuple[str, ...]
    kernels: dict[str, str]
    evidence: str
    input_multiple: int = 1
    accumulator_bits: int = 32


@dataclasses.dataclass(frozen=True)
class Slowness:
    """Latency of slow files on a target, as measured.

    Attributes:
        containers: Weight types that make a layer slow; empty where every
            file is.
        of_int8: Least and largest latency of whole networks, in those of the
            same network with 8-bit integers, on one thread of an x86 core.
        why: The reason, a clause.
        instead: What is faster, a clause.
        ops: Operators that are slow with them; empty where all are.
        on: Where that was measured, a clause.
    """

    containers: tuple[str, ...]
    of_int8: tuple[int, int]
    why: str
    instead: str
    ops: tuple[str, ...] = ()
    on: str = "one thread, x86, `make bench`"


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime or device for which files are written.

    Attributes:
        name: Name, such as `"min_size"`.
        summary: One sentence.
        mode: How operators compute. With `"weight_only"` a DEQUANTIZE stands in
            front of a float operator; `"int8"` and `"int16"` are the types of
            activations of integer operators.
        containers: Weight types by rising width.
        cells: The combinations that run.
        operators: How integer targets use operators.
        pointwise_as_fully_connected: Whether 1x1 convolutions without strides
            become FULLY_CONNECTED if that takes a smaller weight type.
        float_regions: Name of the weight-only target with the table for weights
            in float regions of an integer file, see `integer.regions`; empty if
            nothing runs in float.
        tables: Whether functions without a kernel become tables of their 256
            results, see `integer.lookup`.
        dense_as_convolution: Whether dense layers become 1x1 convolutions if
            FULLY_CONNECTED can't hold them.
        gpu: Whether files keep to what LiteRT's GPU accelerator computes right,
            see `integer.for_gpu`.
        unread_outputs: Whether an operator may have outputs that nothing reads,
            see `integer.unread_pieces`.
        options: Further settings of the target, for `devices.finish`.
        slow: What is slow on it, `None` where nothing is known to be.
    """

    name: str
    summary: str
    mode: str
    containers: tuple[str, ...]
    cells: tuple[Cell, ...]
    operators: dict[str, operator_rows.OperatorRow]
    pointwise_as_fully_connected: bool = False
    float_regions: str = ""
    tables: bool = False
    dense_as_convolution: bool = False
    gpu: bool = False
    unread_outputs: bool = True
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    slow: Slowness | None = None

    @property
    def integer(self) -> bool:
        """Whether activations are integers."""
        return self.mode in operator_rows.ACTIVATIONS

    @property
    def optional(self) -> bool:
        """Whether its tools are an environment that not everyone makes."""
        return bool(self.options.get("optional", False))

    def has(self, op: str) -> bool:
        """Whether an operator runs with this target's activations."""
        row = self.operators.get(op)
        return row is not None and row.version(self.mode) is not None

    def operator_units(self, op: str) -> int:
        """How many units one integer operator may differ by."""
        row = self.operators.get(op)
        return 1 if row is None else row.units.get(self.mode, 1)

    def container(self, bits: int) -> str:
        """Smallest weight type of this target that holds `bits` bits."""
        return self.containers_for(bits)[0]

    def containers_for(self, bits: int) -> list[str]:
        """Weight types of this target that hold `bits` bits, smallest first."""
        found = [c for c in self.containers if bits <= CONTAINERS[c]]
        if not found:
            raise ExportError(
                f"Target '{self.name}' has no container for {bits} bits. "
                f"Expected at most {CONTAINERS[self.containers[-1]]} bits. "
                f"Received: {bits}"
            )
        return found

    def allows(
        self, op: str, weights: str, granularity: str, inputs: int = 0
    ) -> bool:
        """Whether an operator may read a weight of this type.

        Args:
            op: The operator.
            weights: The weight type.
            granularity: `"per_tensor"` or `"per_channel"`.
            inputs: Length of the weight's last axis.
        """
        return any(
            op in cell.ops
            and weights == cell.weights
            and granularity in cell.granularities
            and inputs % cell.input_multiple == 0
            for cell in self.cells
        )

    def accumulator_bits(self, op: str, weights: str) -> int:
        """Bits of sums that all kernels of an operator compute correctly."""
        return min(
            (
                cell.accumulator_bits
                for cell in self.cells
                if op in cell.ops and weights == cell.weights
            ),
            default=32,
        )


def names() -> list[str]:
    """Names of the targets that exist."""
    return sorted(
        entry.name.removesuffix(".json")
        for entry in _directory().iterdir()
        if entry.name.endswith(".json") and not entry.name.startswith("_")
    )


def load(name: str) -> Target:
    """Loads a target by name.

    Raises:
        ValueError: If there is no such target, or its table is not valid.
    """
    if not isinstance(name, str) or name not in names():
        several = isinstance(name, (list, tuple, set))
        raise ValueError(
            f"No such target. Expected one of {', '.join(names())}"
            f"{'; one call of `export` for each' * several}. Received: "
            f"target={name!r}"
        )
    return _load(name)


@functools.cache
def _load(name: str) -> Target:
    text = (_directory() / f"{name}.json").read_text(encoding="utf-8")
    return parse(json.loads(text))


def parse(table: dict[str, Any]) -> Target:
    """Makes a target of a JSON table and checks it.

    Raises:
        ValueError: If the table is not valid or holds a combination that is
            known to be computed wrongly.
    """
    missing = [field for field in _FIELDS if field not in table]
    if missing:
        raise ValueError(f"Target table lacks {', '.join(missing)}")
    target = Target(
        name=table["name"],
        summary=table["summary"],
        mode=table["mode"],
        containers=tuple(table["containers"]),
        cells=tuple(
            Cell(
                ops=tuple(cell["ops"]),
                weights=cell["weights"],
                granularities=tuple(cell["granularities"]),
                kernels=dict(cell["kernels"]),
                evidence=cell["evidence"],
                input_multiple=cell.get("input_multiple", 1),
                accumulator_bits=cell.get("accumulator_bits", 32),
            )
            for cell in table["cells"]
        ),
        operators=operator_rows.parse_rows(
            table.get("operators", {}), f"Target '{table['name']}'"
        ),
        pointwise_as_fully_connected=table.get(
            "pointwise_as_fully_connected", False
        ),
        float_regions=table.get("float_regions", ""),
        tables=table.get("tables", False),
        dense_as_convolution=table.get("dense_as_convolution", False),
        gpu=table.get("gpu", False),
        unread_outputs=table.get("unread_outputs", True),
        options=dict(table.get("options", {})),
        slow=_slowness(table.get("slow")),
    )
    _check(target)
    return target


def _slowness(row: dict[str, Any] | None) -> Slowness | None:
    if row is None:
        return None
    least, most = row["of_int8"]
    given = {
        "ops": tuple(row.get("ops", ())),
        "on": row.get("on", Slowness.on),
    }
    return Slowness(
        tuple(row["containers"]),
        (least, most),
        row["why"],
        row["instead"],
        **given,
    )


@functools.cache
def known_bad() -> tuple[dict[str, str], ...]:
    """Combinations on which a runtime is known to fail.

    Returns:
        Rows with `op`, `weights`, `mode`, `granularity`, `verdict` and
        `evidence`; `"any"` stands for every granularity.
    """
    text = (_directory() / "_known_bad.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["cells"])


def verdict(op: str, weights: str, mode: str, granularity: str) -> str | None:
    """The evidence against a combination, or `None`."""
    for row in known_bad():
        if (
            row["op"] == op
            and row["weights"] == weights
            and row["mode"] == mode
            and row["granularity"] in ("any", granularity)
        ):
            return f"{row['verdict']}: {row['evidence']}"
    return None


def _check(target: Target) -> None:
    where = f"Target '{target.name}'"
    if target.mode not in _MODES:
        raise ValueError(f"{where}: mode {target.mode!r} is not in {_MODES}")
    widths = [CONTAINERS.get(name, 0) for name in target.containers]
    if not widths or 0 in widths or widths != sorted(set(widths)):
        raise ValueError(
            f"{where}: containers must be of {', '.join(CONTAINERS)}, by "
            f"rising width. Received: {target.containers}"
        )
    for cell in target.cells:
        unknown = set(cell.granularities) - set(GRANULARITIES)
        if cell.weights not in target.containers or unknown:
            raise ValueError(f"{where}: cell out of range: {cell}")
        if not cell.evidence or not cell.kernels:
            raise ValueError(f"{where}: cell without evidence: {cell}")
        for op in cell.ops:
            for granularity in cell.granularities:
                known = verdict(op, cell.weights, target.mode, granularity)
                if known:
                    raise ValueError(
                        f"{where}: {op} with {granularity} {cell.weights} "
                        f"weights ({target.mode}) is refused. {known}"
                    )


def _directory() -> Any:
    return importlib.resources.files("tflite_export.targets") / "tables"
