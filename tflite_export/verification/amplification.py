"""Why a right file can be far from its simulation: single units, amplified.

Kernels and simulation round the same sums, and now and then a tie falls the
other way. A deep network can turn one unit inside into many at its output: in
a MobileNetV2 with random weights 2 of 1.2 million values are off by one, and
the output by ten. How far depends on the weights, so no constant can be the
limit.

The proof asked for instead is stronger than a limit at the output. On every
sample, the file's outputs equal, bit for bit, those of the copy that shows all
of its tensors. So it is known what each operator read and wrote. The result of
each operator is within its own limit of the float arithmetic of what it read,
and over all operators it is much nearer than rounding itself. Then these units
are the only possible cause of the difference. Operators that the simulation
computes to the bit, see `fixed_point`, cause no units and explain none.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Sequence

import numpy as np

from tflite_export.data.effort import effort
from tflite_export.runtime import interpreter
from tflite_export.targets import Target
from tflite_export.verification import float_twin
from tflite_export.verification.per_operator import Difference
from tflite_export.verification.per_operator import differences

# Units, over the values of all operators. Rounding itself is off by a quarter
# of a unit on average.
MOST_ON_AVERAGE = 0.1


def explain(
    data: bytes,
    inputs: Sequence[np.ndarray],
    kernels: str,
    target: Target,
    exact: Container[int] = (),
) -> str | None:
    """How single units inside explain a difference at the output.

    `None` if there is another explanation. The inputs are all on which the
    difference was seen; `exact` are positions of the operators that the
    simulation computes as the kernels do.
    """
    session = interpreter.Session(data, kernels)
    probe = interpreter.Session(float_twin.probe(data), kernels)
    at_once = effort(data, inputs).at_once()
    for chunk in interpreter.chunks(inputs, at_once, session):
        outputs = session(chunk)
        shown = probe(chunk)[: len(outputs)]
        if not all(map(np.array_equal, outputs, shown)):
            return None
    tally = Tally()
    for found in differences(data, inputs, kernels):
        if found.unexplained > target.operator_units(found.step.name):
            return None
        if found.step.position not in exact:
            tally.add(found)
    return tally.explanation()


class Tally:
    """Results of operators, each of which is within its own limit, summed up.

    Attributes:
        coarse: Operators of a kernel whose arithmetic is coarser than the
            limit, and known: their largest difference.
    """

    def __init__(self) -> None:
        self.coarse: dict[str, int] = {}
        self._off = self._total = self._size = 0

    def add(self, found: Difference) -> None:
        """Adds what one operator gave in one run."""
        if not found.coarse:
            self.add_values(found.off, found.total, found.size)
            return
        # To the bit what its kernel computes: no question of how much is off.
        step = found.step
        name = f"{step.name} (operator {step.position})"
        self.coarse[name] = max(self.coarse.get(name, 0), found.units)

    def add_values(self, off: int, total: int, size: int) -> None:
        """Adds `off` of `size` values that differ, by `total` units."""
        self._off += off
        self._total += total
        self._size += size

    def explanation(self) -> str | None:
        """Why outputs may be apart; `None` if none differs or all too much."""
        found = self._off or self.coarse
        if not found or self._total > MOST_ON_AVERAGE * self._size:
            return None
        known = [
            f"{name} rounds coarsely there, by up to {units} units"
            for name, units in self.coarse.items()
        ]
        inside = (
            f"{self._off} of {self._size:,} values inside are off by a unit or "
            "so, and the network amplifies that"
        )
        return "; ".join(
            (
                *known,
                *([inside] if self._off else ()),
                "each operator was compared on what it read in these very runs",
            )
        )
