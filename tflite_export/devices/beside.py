"""Outputs of another runtime, beside those of the kernels here.

Integer files may differ by units: by as many as between kernel sets, or by
more where every operator is within its own limit and single units inside
explain the rest. Files of floats may differ by a share of their range.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from tflite_export.differences import spread
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import amplification
from tflite_export.verification.integer_outputs import END_UNITS
from tflite_export.verification.per_operator import Recorded

Batches = Sequence[Sequence[np.ndarray]]
# Of the range of an output, for float activations.
LIMIT = 1e-4


def here(
    data: bytes, samples: Sequence[np.ndarray], most: int
) -> tuple[interpreter.Session, list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Runs the first samples on XNNPACK, in batches of the file.

    Args:
        data: The bytes of a file.
        samples: Inputs, one float array per input.
        most: How many samples, where a batch has no more.

    Returns:
        The session, the batches as the file takes them, and their outputs.

    Raises:
        ValueError: If there are fewer samples than a batch takes.
    """
    few = ports.whole_batches(data, samples, most)
    session = interpreter.Session(data, "xnnpack")
    fed = ports.quantized(data, few)
    # What a session gives may be its own memory.
    batches = [
        [np.array(array) for array in batch]
        for batch in interpreter.chunks(fed, 1, session)
    ]
    wanted = [[np.array(array) for array in session(b)] for b in batches]
    return session, batches, wanted


def units(
    data: bytes,
    got: Batches,
    wanted: Batches,
    target: Target,
    where: str,
    explained: Callable[[], str | None] | str | None = None,
) -> float | str:
    """Largest difference of an integer file's outputs, in their units.

    Args:
        data: The bytes of the file.
        got: Outputs of the other runtime by batch; what is shown besides
            comes after them.
        wanted: Outputs of a set of kernels here.
        target: Where the file shall run.
        where: The other runtime, for an error.
        explained: Why a difference beyond the limit is accepted, or what finds
            it out; `None` if it isn't.

    Returns:
        The difference, with the reason where it is large.

    Raises:
        ExportError: If it is too large.
    """
    outputs = ports.outputs(data)
    worst = max(
        ports.units(outputs, a[: len(outputs)], b)
        for a, b in zip(got, wanted, strict=True)
    )
    if worst <= END_UNITS[target.mode]:
        return worst
    why = explained() if callable(explained) else explained
    if why is None:
        raise ExportError(
            f"{where} computes something else. Expected outputs within "
            f"{END_UNITS[target.mode]} units of those on this machine. "
            f"Received: {worst:g}"
        )
    return f"{worst:g}: {why}"


def operators(
    data: bytes,
    shown: bytes,
    batches: Batches,
    got: Batches,
    most: Callable[[str], int],
    where: str,
    arm: bool = False,
) -> amplification.Tally:
    """Differences of the operators, one by one, on what each read there.

    Args:
        data: The bytes of the file.
        shown: Those of the same file with all activations as outputs.
        batches: Inputs.
        got: Outputs of `shown` on the other runtime.
        most: How many units an operator of a name may differ by.
        where: The other runtime, for an error.
        arm: Whether it has the builtin kernels of ARM.

    Raises:
        ExportError: If an operator is beyond its own limit.
    """
    graph = fb.read(shown).subgraphs[0]
    compared = Recorded(data, arm)
    tally = amplification.Tally()
    for batch, outputs in zip(batches, got, strict=True):
        recorded = dict(zip(fb.outputs(graph), outputs, strict=True))
        # What was given, not what a faulty device says that it got.
        recorded |= dict(zip(fb.inputs(graph), batch, strict=True))
        for found in compared(recorded):
            limit = most(found.step.name)
            if found.unexplained > limit:
                raise ExportError(
                    f"{found.step.name} (operator {found.step.position}) "
                    f"computes something else on {where}. Expected at most "
                    f"{limit} units from float arithmetic. Received: "
                    f"{found.units}"
                )
            tally.add(found)
    return tally


def relative(
    got: Batches, wanted: Batches, where: str, limit: float = LIMIT
) -> float:
    """Largest difference of outputs as a share of their range.

    The range is that over all batches: those of one sample may have one
    number each. What is no number in one run alone is infinitely far off.

    Raises:
        ExportError: If it is more than `limit`.
    """
    worst = 0.0
    for ours, theirs in zip(
        zip(*got, strict=True), zip(*wanted, strict=True), strict=True
    ):
        # As floats: booleans have no difference.
        pairs = [
            (a.astype(np.float64), b.astype(np.float64))
            for a, b in zip(ours, theirs, strict=True)
        ]
        width = spread(np.concatenate([exact.ravel() for _, exact in pairs]))
        for a, exact in pairs:
            worst = max(worst, _farthest(a, exact) / width)
    if not worst <= limit:
        raise ExportError(
            f"{where} computes something else. Expected outputs within "
            f"{limit:g} of their range of those on this machine. Received: "
            f"{worst:.3g}"
        )
    return worst


def _farthest(a: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference; of infinities and NaNs only where they differ."""
    apart = np.full(exact.shape, np.inf)
    np.subtract(a, exact, out=apart, where=np.isfinite(a) & np.isfinite(exact))
    same = (a == exact) | (np.isnan(a) & np.isnan(exact))
    return float(np.abs(np.where(same, 0.0, apart)).max(initial=0.0))
