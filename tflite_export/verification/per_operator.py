"""Each operator of an integer file against its float arithmetic."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from tflite_export.data.effort import effort
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.verification import arm_arithmetic
from tflite_export.verification import float_twin

# Bytes that are kept of each value an operator computes: what the kernel wrote,
# twice, the floats that the simulation reads and writes, and its result.
_BYTES_PER_VALUE = 12


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of one operator of one file, with all it takes to see it.

    Attributes:
        step: The operator.
        units: Largest difference in units of the output's grid.
        total: Sum of all differences in units.
        off: Number of values that differ at all.
        size: Number of values.
        got: What the kernel wrote where the difference is largest; empty
            where there is none.
        expected: What the float arithmetic gives there.
        inputs: What both read there.
        unexplained: Largest difference that is not the known, coarser
            arithmetic of the kernel, to the bit; `units` for most kernels.
    """

    step: float_twin.Step
    units: int
    total: int
    off: int
    size: int
    got: np.ndarray
    expected: np.ndarray
    inputs: tuple[np.ndarray, ...]
    unexplained: int

    @property
    def coarse(self) -> bool:
        """Whether the kernel's known arithmetic is off by several units."""
        return self.units > max(1, self.unexplained)

    def joined(self, other: Difference) -> Difference:
        """The difference over the samples of both."""
        worse = max(self, other, key=lambda found: found.units)
        return dataclasses.replace(
            worse,
            total=self.total + other.total,
            off=self.off + other.off,
            size=self.size + other.size,
            unexplained=max(self.unexplained, other.unexplained),
        )


def differences(
    data: bytes, inputs: Sequence[np.ndarray], kernels: str
) -> list[Difference]:
    """Compares every operator of an integer file with its float arithmetic.

    Each is given what the kernels before it computed. One difference per
    operator, in order, also where it is zero.

    Raises:
        RuntimeError: If the kernels can't run the file.
    """
    comparison = _Comparison(data, kernels, kernels == "builtin" and on_arm())
    at_once = effort(data, inputs).at_once(_BYTES_PER_VALUE)
    found: list[Difference] = []
    for chunk in interpreter.chunks(inputs, at_once, comparison.probe):
        new = list(comparison(chunk))
        found = (
            [a.joined(b) for a, b in zip(found, new, strict=True)]
            if found
            else new
        )
    return found


def on_arm() -> bool:
    """Whether the kernels of this machine are those of ARM."""
    return platform.machine().lower() in ("aarch64", "arm64")


class _Comparison:
    """A file that shows all of its tensors, and its float twins."""

    def __init__(self, data: bytes, kernels: str, arm: bool):
        self.probe = interpreter.Session(float_twin.probe(data), kernels)
        self._activations = float_twin.activations(fb.read(data))
        self._recorded = Recorded(data, arm)

    def __call__(self, chunk: Sequence[np.ndarray]) -> Iterator[Difference]:
        self.probe(chunk)
        recorded = {
            detail["index"]: array
            for detail, array in zip(self.probe.inputs, chunk, strict=True)
        }
        for index in self._activations:
            if index not in recorded:
                recorded[index] = self.probe.tensor(index)
        yield from self._recorded(recorded)


class Recorded:
    """Compares every operator of an integer file on recorded tensors.

    Args:
        data: The bytes of the file.
        arm: Whether the builtin kernels of ARM recorded them, one of which
            rounds coarsely, see `arm_arithmetic`.
    """

    def __init__(self, data: bytes, arm: bool = False):
        self._data = data
        self._coarse = fb.read(data) if arm else None
        self._twins: dict[
            object, tuple[float_twin.Twin, interpreter.Session]
        ] = {}

    def __call__(
        self, recorded: Mapping[int, np.ndarray]
    ) -> Iterator[Difference]:
        """Compares all operators, in order; also those that do not differ.

        `recorded` are inputs and activations of the file, by their index. An
        operator of whose result none is given is compared together with those
        that read it.
        """
        shapes = tuple(array.shape for array in recorded.values())
        if shapes not in self._twins:
            twin = float_twin.isolated(self._data, recorded)
            session = interpreter.Session(twin.data, "builtin")
            self._twins[shapes] = twin, session
        twin, session = self._twins[shapes]
        results = session([recorded[index] for index in twin.inputs])
        wanted = dict(zip(twin.outputs, results, strict=True))
        for step in twin.steps:
            if step.writes[0] not in wanted:
                continue  # it was not recorded
            found = _difference(step, recorded, wanted[step.writes[0]])
            if found.units and self._coarse is not None:
                own = arm_arithmetic.computed(
                    self._coarse, step.position, recorded
                )
                if own is not None and np.array_equal(
                    own, recorded[step.writes[0]]
                ):
                    found = dataclasses.replace(found, unexplained=0)
            yield found


def _difference(
    step: float_twin.Step,
    recorded: Mapping[int, np.ndarray],
    expected: np.ndarray,
) -> Difference:
    got = recorded[step.writes[0]]
    off = np.flatnonzero(got != expected)
    apart = np.abs(
        got.ravel()[off].astype(np.int64)
        - expected.ravel()[off].astype(np.int64)
    )
    reads = tuple(recorded[i] for i in step.reads if i in recorded)
    kept = (got, expected, reads)
    if not off.size:
        # Nothing to show is worth its memory.
        kept = (got.ravel()[:0], expected.ravel()[:0], ())
    units = int(apart.max(initial=0))
    return Difference(
        step=step,
        units=units,
        total=int(apart.sum()),
        off=int(off.size),
        size=got.size,
        got=kept[0],
        expected=kept[1],
        inputs=kept[2],
        unexplained=units,
    )
