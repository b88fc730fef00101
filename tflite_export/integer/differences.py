"""Each operator of an integer file against its float arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from tflite_export import flatbuffer as fb
from tflite_export import runtime
from tflite_export.integer import simulate

# Samples that run at once.
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where one operator of one file differs, with all it takes to see it.

    Attributes:
        step: The operator.
        units: Largest difference in units of the output's grid.
        total: Sum of all differences in units.
        off: Number of values that differ at all.
        size: Number of values.
        got: What the kernel wrote.
        expected: What the float arithmetic gives.
        inputs: What both read.
    """

    step: simulate.Step
    units: int
    total: int
    off: int
    size: int
    got: np.ndarray
    expected: np.ndarray
    inputs: tuple[np.ndarray, ...]


def differences(
    data: bytes, inputs: Sequence[np.ndarray], kernels: str
) -> Iterator[Difference]:
    """Compares every operator, in order, on the kernels' own tensors.

    Args:
        data: The bytes of an integer file.
        inputs: Its inputs, few enough for one batch.
        kernels: The kernel set.

    Yields:
        One difference per operator, also where it is zero.
    """
    session = runtime.Session(simulate.probe(data), kernels)
    chunk = next(runtime.chunks(inputs, BATCH, session))
    session(chunk)
    recorded = {
        detail["index"]: array
        for detail, array in zip(session.inputs, chunk, strict=True)
    }
    for index in simulate.activations(fb.load(data)):
        if index not in recorded:
            recorded[index] = session.tensor(index)
    yield from of_recorded(data, recorded)


def of_recorded(
    data: bytes, recorded: Mapping[int, np.ndarray]
) -> Iterator[Difference]:
    """Compares every operator, in order, on tensors that a runtime recorded.

    Args:
        data: The bytes of an integer file.
        recorded: Its inputs and activations, by their index.

    Yields:
        One difference per operator, also where it is zero.
    """
    twin = simulate.isolated(data, recorded)
    other = runtime.Session(twin.data, "builtin")
    results = other([recorded[index] for index in twin.inputs])
    wanted = dict(zip(twin.outputs, results, strict=True))
    for step in twin.steps:
        got, expected = recorded[step.writes[0]], wanted[step.writes[0]]
        apart = np.abs(got.astype(np.int64) - expected.astype(np.int64))
        yield Difference(
            step=step,
            units=int(apart.max(initial=0)),
            total=int(apart.sum()),
            off=int((apart > 0).sum()),
            size=apart.size,
            got=got,
            expected=expected,
            inputs=tuple(recorded[i] for i in step.reads),
        )
