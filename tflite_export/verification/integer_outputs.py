"""Compares an integer file with its float references, on each kernel set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import progress
from tflite_export.data.effort import counts as samples_for
from tflite_export.data.effort import effort
from tflite_export.differences import spread
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import batches
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import agreement
from tflite_export.verification import amplification
from tflite_export.verification import fixed_point
from tflite_export.verification import float_twin
from tflite_export.verification.float_outputs import Check
from tflite_export.verification.float_outputs import not_run
from tflite_export.verification.per_operator import Difference
from tflite_export.verification.per_operator import differences
from tflite_export.verification.per_operator import on_arm

# Largest differences from end to end, in units of the output's grid. A unit
# of 16 bits is 1/256 of one of 8 bits.
END_UNITS = {"int8": 2, "int16": 16}
AGREEMENT = 0.99
# What the simulation in fixed point keeps of each value, at the most: one
# operator's in 64 bits, some times over.
_SIMULATED_BYTES = 4


@dataclasses.dataclass(frozen=True)
class OperatorCheck:
    """How one kind of operator agrees with float arithmetic in between.

    Attributes:
        kernels: `"xnnpack"`, `"builtin"` or `"reference"`.
        op: The operator.
        count: How many there are.
        units: Largest difference in units of the output's grid.
        off: Share of output values that differ at all.
    """

    kernels: str
    op: str
    count: int
    units: int
    off: float


def check(
    data: bytes,
    samples: Sequence[np.ndarray],
    target: Target,
    max_units: int | None = None,
    save_failure_to: str | os.PathLike[str] | None = None,
    decisions: agreement.Decisions | None = None,
) -> tuple[list[Check], list[OperatorCheck], list[str]]:
    """Runs a file on every kernel set and compares it with simulations.

    Each operator is given what the kernels before it computed, so that its
    own difference shows; the whole file is compared with the whole simulation.
    Where the network makes much of single units, see `amplification`.

    Args:
        data: The bytes of the integer file.
        samples: Inputs, one array per input, in float.
        target: Where it shall run.
        max_units: Largest difference of an output that is accepted;
            `END_UNITS` if `None`, or more where `amplification` explains it.
        save_failure_to: Where to write the inputs of an operator that
            differs too much (`.npz`); the file goes beside it.
        decisions: How each output decides; `None` for what the file shows.

    Returns:
        One check per kernel set, one row per kernel set and operator, and
        sentences for the report.

    Raises:
        ExportError: If a difference is too large, with the first operator
            that diverges.
    """
    failure = None if save_failure_to is None else Path(save_failure_to)
    most = END_UNITS[target.mode] if max_units is None else max_units
    if decisions is None:
        decisions = agreement.decisions(data, None)
    inputs = ports.quantized(data, samples)
    counts = samples_for(data, inputs)
    singles: dict[Any, bytes] = {}
    checks: list[Check] = []
    rows: list[OperatorCheck] = []
    notes: list[str] = []
    for kernels in interpreter.KERNELS:
        progress.step(f"running the {kernels} kernels")
        part = [array[: counts[kernels]] for array in inputs]
        few = [array[: counts["operators"]] for array in part]
        try:
            found = differences(data, few, kernels)
            got = _run(data, part, kernels)
        except RuntimeError as error:
            checks.append(not_run(kernels, error))
            continue
        _refuse_operators(found, kernels, target, data, failure)
        notes += [_coarse(d, kernels) for d in found if d.coarse]
        rows += _summarize(found, kernels)
        exact = _in_fixed_point(data, kernels, target)
        if exact:
            wanted = _own_arithmetic(data, part, kernels, exact, singles)
        else:
            wanted = _run(float_twin.chained(data).data, part, "builtin")
        checks.append(_end_check(data, kernels, got, wanted, found, decisions))
        if max_units is None and (checks[-1].max_units or 0) > most:
            note = amplification.explain(data, part, kernels, target, exact)
            if note is not None:
                notes.append(_amplified(checks[-1], most, note))
                continue
        _refuse_end(checks[-1], most, found, data, part, failure)
    return checks, rows, notes


def _amplified(check: Check, most: int, why: str) -> str:
    return (
        f"on the {check.kernels} kernels the output is up to "
        f"{check.max_units} units from the simulation instead of {most}: {why}"
    )


def _coarse(difference: Difference, kernels: str) -> str:
    step = difference.step
    return (
        f"{step.name} (operator {step.position}) is {difference.units} units "
        f"from float arithmetic on the {kernels} kernels, which for ARM round "
        "its sums before they shift them; XNNPACK does not"
    )


def _run(
    data: bytes, inputs: Sequence[np.ndarray], kernels: str
) -> list[np.ndarray]:
    session = interpreter.Session(data, kernels)
    rows = effort(data, inputs).at_once()
    return interpreter.in_batches(inputs, rows, session)


def _in_fixed_point(data: bytes, kernels: str, target: Target) -> set[int]:
    """Positions of the operators that rescale in fixed point.

    XNNPACK rescales in float, and what it leaves over in fixed point. Of
    16-bit kernels there is no simulation, nor of the builtin ones of ARM, which
    round otherwise than those of x86: by a unit, operator by operator.
    """
    if target.mode != "int8" or (on_arm() and kernels != "reference"):
        return set()
    if kernels == "xnnpack":
        return set(interpreter.Session(data, kernels).left_over() or ())
    return set(range(len(fb.read(data).subgraphs[0].operators)))


def _own_arithmetic(
    data: bytes,
    inputs: Sequence[np.ndarray],
    kernels: str,
    exact: set[int],
    singles: dict[Any, bytes],
) -> list[np.ndarray]:
    """The simulation in the arithmetic of the kernels."""
    session = interpreter.Session(data, kernels)
    count = len(fb.read(data).subgraphs[0].operators)
    at_once = effort(data, inputs).at_once(_SIMULATED_BYTES)
    if kernels == "xnnpack":
        kernels = "builtin"
    simulation = fixed_point.FixedPoint(
        data, kernels, frozenset(range(count)) - exact, singles
    )
    parts, fed = [], 0
    for chunk in interpreter.chunks(inputs, at_once, session):
        parts.append(simulation(chunk))
        fed += len(np.atleast_1d(chunk[0]))
    return batches.joined(parts, len(inputs[0]), fed)


def _end_check(
    data: bytes,
    kernels: str,
    got: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    found: Sequence[Difference],
    decisions: agreement.Decisions,
) -> Check:
    units, worst, relative = 0, 0.0, 0.0
    shares = []
    for y, t, port, decision in zip(
        got, wanted, ports.outputs(data), decisions, strict=True
    ):
        t = t[: len(y)]
        if y.shape != t.shape:
            raise ExportError(
                "An output has another shape in the file than in the "
                f"simulation. Expected {t.shape}. Received: {y.shape}"
            )
        y, t = port.real(y), port.real(t)
        error = float(np.abs(y - t).max(initial=0.0))
        # A DEQUANTIZE rounds to float32, and exact outputs have no scale.
        unit = port.scale or 1.0
        units = max(units, round(error / unit))
        worst = max(worst, error)
        relative = max(relative, error / spread(t))
        if decision is not None and port.scale and decision.fits(t.shape):
            shares.append(float(decision.alike(y, t, unit).mean()))
    return Check(
        kernels,
        ran=True,
        samples=len(got[0]),
        max_abs_error=worst,
        relative_error=relative,
        agreement=min(shares, default=None),
        partitions=interpreter.Session(data, kernels).delegated(),
        max_units=units,
        operator_units=max((d.units for d in found), default=0),
    )


def _summarize(
    found: Sequence[Difference], kernels: str
) -> list[OperatorCheck]:
    rows = []
    for op in sorted({d.step.name for d in found}):
        own = [d for d in found if d.step.name == op]
        size = sum(d.size for d in own)
        rows.append(
            OperatorCheck(
                kernels,
                op,
                len(own),
                max(d.units for d in own),
                sum(d.off for d in own) / max(size, 1),
            )
        )
    return rows


def _refuse_operators(
    found: Sequence[Difference],
    kernels: str,
    target: Target,
    data: bytes,
    failure: Path | None,
) -> None:
    for difference in found:
        step = difference.step
        most = target.operator_units(step.name)
        if difference.unexplained > most:
            raise ExportError(
                f"{step.name} (operator {step.position}) differs by "
                f"{difference.units} units from its float arithmetic on the "
                f"{kernels} kernels, in {difference.off} of {difference.size} "
                f"values. Expected at most {most}, what this operator may be "
                f"off by on target '{target.name}', whatever max_units says. "
                f"Received: {difference.units}."
                + _save(failure, data, kernels, difference)
            )


def _refuse_end(
    check: Check,
    max_units: int,
    found: Sequence[Difference],
    data: bytes,
    inputs: Sequence[np.ndarray],
    failure: Path | None,
) -> None:
    first = next((d for d in found if d.units), None)
    where = (
        " No single operator differs."
        if first is None
        else f" The first operator to differ is {first.step.name} (operator "
        f"{first.step.position}), by {first.units} units."
    )
    units = check.max_units or 0
    if units > max_units:
        raise ExportError(
            f"The file's output is {units} units from the simulation on the "
            f"{check.kernels} kernels. Expected at most max_units={max_units}. "
            f"Received: {units}."
            + where
            + _save(failure, data, check.kernels, first, inputs)
        )
    allowed = agreement.misses(check.samples, AGREEMENT)
    if (
        check.agreement is not None
        and round((1 - check.agreement) * check.samples) > allowed
    ):
        raise ExportError(
            f"The {check.kernels} kernels choose another class than the "
            f"simulation. Expected the same on {AGREEMENT:.0%} of "
            f"{check.samples} samples (argument samples). Received: "
            f"{check.agreement:.1%}.{where}"
            + _save(failure, data, check.kernels, first, inputs)
        )


def _save(
    failure: Path | None,
    data: bytes,
    kernels: str,
    difference: Difference | None,
    inputs: Sequence[np.ndarray] = (),
) -> str:
    if failure is None:
        return ""
    arrays = {f"file_input_{k}": array for k, array in enumerate(inputs)}
    if difference is not None:
        arrays["got"], arrays["expected"] = difference.got, difference.expected
        for k, array in enumerate(difference.inputs):
            arrays[f"operator_input_{k}"] = array
    np.savez_compressed(
        failure.with_suffix(".npz"),
        kernels=np.array(kernels),
        operator=np.array(
            -1 if difference is None else difference.step.position
        ),
        **arrays,  # type: ignore[arg-type]
    )
    failure.with_suffix(".tflite").write_bytes(data)
    return f" Its inputs are in '{failure.with_suffix('.npz')}'."
