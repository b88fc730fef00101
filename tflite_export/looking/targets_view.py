"""Targets of a file, by their tables and by its kernels."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from msq_tf.page.records import Target
from tflite_export import targets
from tflite_export.flatbuffer import model as fb
from tflite_export.targets import lint
from tflite_export.text_tables import short

# Findings that are listed for a target, and operators.
_FINDINGS, _KINDS = 8, 12
_LONGEST = 300


def view(
    model: schema.ModelT, found: Mapping[str, Any] | None, reason: str = ""
) -> tuple[Target, ...]:
    """The part of a parsed file that each target runs.

    Args:
        model: The file.
        found: What was measured on this machine; `None` where it can't run.
        reason: Why not.
    """
    rows = [_here(found, reason)]
    for name in targets.names():
        findings = lint.check_model(model, name)
        severe = lint.severe(findings)
        kinds = collections.Counter(
            finding.where.split()[0] for finding in findings if finding.severe
        )
        rows.append(
            Target(
                name=name,
                summary=targets.load(name).summary,
                runs=not severe,
                kernels="by its rules",
                left=_counted(kinds.items()),
                accelerated=()
                if severe
                else _counted(_operators(model).items()),
                findings=tuple(
                    short(str(finding), _LONGEST)
                    for finding in findings[:_FINDINGS]
                )
                + _more(len(findings) - _FINDINGS),
            )
        )
    return tuple(rows)


def _more(count: int) -> tuple[str, ...]:
    return (f"and {count:,} more",) if count > 0 else ()


def _operators(model: schema.ModelT) -> dict[str, int]:
    return collections.Counter(
        fb.op_name(model, op)
        for graph in model.subgraphs
        for op in graph.operators
    )


def _here(found: Mapping[str, Any] | None, reason: str) -> Target:
    """LiteRT on this machine."""
    summary = "LiteRT on this machine, one thread, one sample"
    if found is None:
        return Target(
            "this machine", summary, runs=False, findings=(reason[:_LONGEST],)
        )
    kernels = found["kernels"]
    names = ("xnnpack", "builtin", "reference")
    runs = [name for name in names if kernels[name] is None]
    return Target(
        name="this machine",
        summary=summary,
        runs="xnnpack" in runs,
        kernels=", ".join(runs),
        accelerated=_counted(kernels.get("taken", ())),
        left=_counted(kernels.get("left", ())),
        findings=tuple(
            f"{name}: {kernels[name]}" for name in names if kernels[name]
        ),
        latency_ms=found["latency_ms"],
    )


def _counted(pairs: Any) -> tuple[tuple[str, int], ...]:
    listed = [(short(str(name), 60), int(count)) for name, count in pairs]
    rest = len(listed) - _KINDS
    return tuple(listed[:_KINDS]) + (
        ((f"{rest} more kinds", 1),) if rest > 0 else ()
    )
