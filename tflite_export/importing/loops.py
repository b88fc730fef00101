"""Loops of a file, round by round.

A recurrent layer that the converter keeps as a loop is a `WHILE` with two
graphs: one says whether to go on, the other is a round. If the number of rounds
does not depend on the inputs, the model has them one after the other, as of a
recurrent layer that is unrolled. Their weights are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tflite_export.importing.operator import Operator

# Rounds beyond which a model would be too large to train.
_MOST = 256


def loop(op: Operator) -> list[Any]:
    """WHILE with a number of rounds that no input changes.

    Raises:
        ValueError: If the inputs decide when it ends, or it is too long.
    """
    values = list(op.inputs)
    for step in range(_MOST + 1):
        name = f"{op.name}_round_{step}_"
        (goes_on,) = op.run(
            op.options.condSubgraphIndex, values, f"{name}condition_"
        )
        if not isinstance(goes_on, np.ndarray):
            raise op.unknown(
                "its inputs decide when the loop ends. Start from the Keras "
                "model, or from a file whose loop has a fixed number of rounds"
            )
        if not goes_on.all():
            return values
        if step < _MOST:
            values = op.run(op.options.bodySubgraphIndex, values, name)
    raise op.unknown(
        f"the loop has more than {_MOST} rounds. Start from the Keras model, "
        "or from a file of shorter inputs"
    )


OPERATORS: dict[str, Callable[[Operator], Any]] = {"WHILE": loop}
