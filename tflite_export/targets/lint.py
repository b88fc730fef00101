"""lint: finds where a file breaks the rules of a target."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export import files
from tflite_export import targets
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import operators
from tflite_export.targets import gpu_rules
from tflite_export.targets.nodes import Node
from tflite_export.targets.restrictions import RESTRICTIONS
from tflite_export.text_tables import add_rows
from tflite_export.text_tables import render
from tflite_export.text_tables import short
from tflite_export.text_tables import table

_FLOATS = {"FLOAT16", "FLOAT32", "FLOAT64"}
_ACTIVATIONS = ("INT8", "INT16")
# What conversions may have on their other side.
_PORTS = _FLOATS | {"UINT8"}
_PACKED = tuple(targets.CONTAINERS)
# They stand between float ports and integers.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# Findings that are listed, and characters of names in them.
_MOST_FINDINGS = 1000
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that goes against a target.

    Attributes:
        where: The operator with its number, the tensor, or the graph.
        rule: Short name of the rule.
        message: What is wrong.
        severe: Whether the target can't run it; else a warning.
    """

    where: str
    rule: str
    message: str
    severe: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def lint(path: str | os.PathLike[str], target: str) -> list[Finding]:
    """Lists the parts of a file that a target can't run.

    Args:
        path: Any TFLite file.
        target: Name of a target, one of `targets.names()`.

    Returns:
        Findings, first those of the whole graph, then by operator: the first
        thousand, and one that says how many more there are. With a `severe`
        finding the target can't run the file.

    Raises:
        ValueError: If there is no such target, or the file is no TFLite file.

    Examples:
        >>> for finding in tflite_export.lint("m.tflite", "mcu"):
        ...     print(finding)
    """
    targets.load(target)
    return check(files.read_bytes(path, fb.check_identifier), target)


def check(data: bytes, target: str) -> list[Finding]:
    """As `lint`, for the bytes of any TFLite file."""
    return check_model(fb.load(data), target)


def check_model(model: schema.ModelT, target: str) -> list[Finding]:
    """As `lint`, for a file that `flatbuffer.model.load` has read."""
    findings = _Linter(model, targets.load(target)).findings()
    listed = list(itertools.islice(findings, _MOST_FINDINGS))
    more = severe_ones = 0
    for finding in findings:
        more += 1
        severe_ones += finding.severe
    if more:
        text = f"and {more:,} more of the kind, {severe_ones:,} of them severe"
        listed.append(Finding("file", "more", text, severe_ones > 0))
    return listed


def severe(findings: Iterable[Finding]) -> list[str]:
    """Messages of the findings that rule a file out."""
    return [str(finding) for finding in findings if finding.severe]


class _Linter:
    def __init__(self, model: schema.ModelT, target: targets.Target):
        self.model = model
        self.target = target
        self.rules: dict[str, Any] = target.options.get("rules", {})
        self.constants: dict[tuple[Any, ...], Any] = {}
        self.regions: bool | None = None
        main = model.subgraphs[0]
        self.inputs = frozenset(fb.inputs(main))
        self.outputs = frozenset(fb.outputs(main))

    def findings(self) -> Iterator[Finding]:
        count = len(self.model.subgraphs)
        names = [
            short(fb.code_name(code), _LONGEST_NAME)
            for code in self.model.operatorCodes
        ]
        if count > self.rules.get("subgraphs", count):
            yield Finding("file", "subgraphs", f"has {count} subgraphs")
        yield from self._open_axes()
        yield from self._passed_through()
        entries = {0} | {
            signature.subgraphIndex
            for signature in self.model.signatureDefs or ()
        }
        for number, graph in enumerate(self.model.subgraphs):
            # Bodies of loops are fed by the file itself.
            if number in entries:
                yield from self._ports(graph)
            yield from self._shapes(graph)
            prefix = f"{number}." if number else ""
            for position, op in enumerate(graph.operators or ()):
                name = names[op.opcodeIndex]
                where = f"{name} (operator {prefix}{position})"
                node = Node(self.model, graph, op, self.constants)
                yield from self._operator(where, name, node)
                if "gpu" in self.rules:
                    for text in gpu_rules.notes(node, name, self.rules["gpu"]):
                        yield Finding(where, "gpu", text, False)

    def _ports(self, graph: schema.SubGraphT) -> Iterator[Finding]:
        allowed = self.rules.get("ports")
        for kind, indices in (
            ("input", fb.inputs(graph)),
            ("output", fb.outputs(graph)),
        ):
            for index in indices:
                tensor = graph.tensors[index]
                found = fb.type_name(tensor)
                where = f"{kind} '{_name(tensor)}'"
                if allowed is not None and found not in allowed:
                    yield Finding(
                        where,
                        "port type",
                        f"is {found}, expected {_one_of(allowed)}",
                    )
                elif found in _FLOATS and "float_ports" in self.rules:
                    note = self.rules["float_ports"]
                    yield Finding(
                        where, "port type", f"is {found}: {note}", False
                    )

    def _open_axes(self) -> Iterator[Finding]:
        """One finding for all tensors: an open batch is open everywhere."""
        if not self.rules.get("static_shapes"):
            return
        found = [
            tensor
            for graph in self.model.subgraphs
            for tensor in graph.tensors or ()
            if tensor.shapeSignature is not None
            and any(int(n) < 0 for n in tensor.shapeSignature)
        ]
        if found:
            count = len(found)
            yield Finding(
                "file",
                "static shapes",
                f"has an open axis in {count:,} tensor{'s' * (count > 1)}, "
                f"first in '{_name(found[0])}'; export with batch_size=1",
            )

    def _passed_through(self) -> Iterator[Finding]:
        note = self.rules.get("computed_outputs")
        for index in sorted(self.inputs & self.outputs) if note else ():
            tensor = self.model.subgraphs[0].tensors[index]
            yield Finding(
                f"input '{_name(tensor)}'",
                "computed outputs",
                f"is an output, too: {note}",
            )

    def _shapes(self, graph: schema.SubGraphT) -> Iterator[Finding]:
        inner = self.rules.get("inner_dimensions")
        for index, tensor in enumerate(graph.tensors or ()):
            where = f"tensor {index} '{_name(tensor)}'"
            shape = fb.shape(tensor)
            if (
                inner is not None
                and fb.raw_data(self.model, tensor) is None
                and any(n > 1 for n in shape[:-inner])
            ):
                yield Finding(
                    where,
                    "inner dimensions",
                    f"has the shape {shape}: only the {inner} innermost axes "
                    "may be longer than 1",
                )

    def _operator(self, where: str, name: str, node: Node) -> Iterator[Finding]:
        known = self.rules.get("operators")
        if known is None and self.target.integer:
            known = {row: [] for row in self.target.operators}
        converts = name in _CONVERSIONS and (
            self._at_a_port(node) or self._has_regions()
        )
        if self._has_regions() and not _reads_activations(node):
            return
        if known is not None and name not in known and not converts:
            yield Finding(where, "operator", "is not in the list of operators")
            return
        for family, names in self.rules.get("only", {}).items():
            if name in names:
                yield Finding(where, "operator", f"runs on {family} only")
        for rule in (known or {}).get(name, ()):
            text = RESTRICTIONS[rule](node)
            if text is not None:
                note = text.startswith("note: ")
                yield Finding(
                    where, rule, text.removeprefix("note: "), not note
                )
        yield from self._types(where, name, node, converts)
        yield from self._weight(where, name, node)

    def _has_regions(self) -> bool:
        """Whether parts of a file of integers may compute in float."""
        if self.regions is None:
            self.regions = bool(self.target.float_regions) and any(
                fb.type_name(tensor) in _ACTIVATIONS
                and fb.raw_data(self.model, tensor) is None
                for graph in self.model.subgraphs
                for tensor in graph.tensors or ()
            )
        return self.regions

    def _at_a_port(self, node: Node) -> bool:
        if node.graph is not self.model.subgraphs[0]:
            return False
        return not (
            self.inputs.isdisjoint(node.inputs)
            and self.outputs.isdisjoint(node.outputs)
        )

    def _types(
        self, where: str, name: str, node: Node, converts: bool
    ) -> Iterator[Finding]:
        if not self.target.integer:
            return
        activations = self.rules.get("activations", _default_types(self.target))
        constants = self.rules.get("constants")
        found = set()
        for index in (*node.inputs, *node.outputs):
            if index < 0:
                continue
            tensor = node.graph.tensors[index]
            kind = fb.type_name(tensor)
            if fb.raw_data(self.model, tensor) is None:
                if kind not in activations and not (
                    converts
                    and kind in _PORTS | set(self.rules.get("ports", ()))
                ):
                    found.add((f"computes in {kind}", tuple(activations)))
            elif constants is not None and kind not in constants:
                found.add((f"reads a constant of {kind}", tuple(constants)))
        for text, allowed in sorted(found):
            yield Finding(where, "type", f"{text}, expected {_one_of(allowed)}")
        if operators.weight_input(name) is None or not self.rules.get(
            "constant_parameters"
        ):
            return
        first = operators.activation_input(name)
        for index in range(len(node.inputs)):
            parameter = node.input(index)
            if index == first or parameter is None:
                continue
            if fb.raw_data(self.model, parameter) is None:
                yield Finding(
                    where,
                    "constant parameters",
                    f"computes its input {index} at run time",
                )

    def _weight(self, where: str, name: str, node: Node) -> Iterator[Finding]:
        """Compares a constant weight with the target's cells."""
        if name == "DEQUANTIZE":
            yield from self._dequantize(where, node)
            return
        position = operators.weight_input(name)
        if position is None:
            return
        weight = node.input(position)
        activation = node.input(operators.activation_input(name))
        if weight is None or activation is None:
            return
        kind = fb.type_name(weight)
        if kind not in _PACKED or fb.raw_data(self.model, weight) is None:
            return
        mode = {
            "INT8": "int8",
            "INT16": "int16",
            **dict.fromkeys(_FLOATS, "dynamic_range"),
        }.get(fb.type_name(activation), "")
        granularity = _granularity(weight)
        what = f"{granularity.replace('_', ' ')} {kind} weights"
        against = targets.verdict(name, kind, mode, granularity)
        if against is not None:
            yield Finding(where, "known fault", f"{what} ({mode}): {against}")
        elif mode == self.target.mode:
            inputs = (fb.shape(weight) or (0,))[-1]
            if not self.target.allows(name, kind, granularity, inputs):
                yield Finding(
                    where, "weights", f"{what} are not in the target's table"
                )

    def _dequantize(self, where: str, node: Node) -> Iterator[Finding]:
        weight = node.input(0)
        if weight is None:
            return
        is_constant = fb.raw_data(self.model, weight) is not None
        kind = fb.type_name(weight)
        if self.rules.get("per_tensor_dequantize") and (
            _granularity(weight) == "per_channel" or kind in ("INT2", "INT4")
        ):
            yield Finding(
                where,
                "known fault",
                f"{kind} with {_granularity(weight).replace('_', ' ')} "
                "scales: the kernel uses one scale for all channels",
            )
        if (
            is_constant
            and self.target.mode == "weight_only"
            and kind in _PACKED
            and kind not in self.target.containers
        ):
            yield Finding(
                where,
                "weights",
                f"unpacks {kind}, expected {_one_of(self.target.containers)}",
            )


def _reads_activations(node: Node) -> bool:
    """Whether an operator reads or writes integers of activations."""
    return any(
        fb.type_name(node.graph.tensors[i]) in _ACTIVATIONS
        for i in (*node.inputs, *node.outputs)
        if i >= 0
    )


def _name(tensor: schema.TensorT) -> str:
    return short(fb.name(tensor), _LONGEST_NAME)


def _default_types(target: targets.Target) -> tuple[str, ...]:
    own = {"int8": "INT8", "int16": "INT16"}[target.mode]
    return (own, "INT32", "INT64", "BOOL")


def _granularity(tensor: schema.TensorT) -> str:
    q = tensor.quantization
    many = q is not None and q.scale is not None and len(q.scale) > 1
    return "per_channel" if many else "per_tensor"


def _one_of(names: Collection[str]) -> str:
    return " or ".join(names)


def summary(target: str, findings: Collection[Finding]) -> str:
    """Findings as a table; one line where there are none."""
    if not findings:
        return f"nothing in the file goes against the target {target}\n"
    rows = table(f"against the target {target}", ["", "where", "what"])
    kinds = {True: "refused", False: "note"}
    texts = ((kinds[f.severe], f.where, f.message) for f in findings)
    add_rows(rows, texts, len(findings), _MOST_FINDINGS + 1)
    return render(rows)
