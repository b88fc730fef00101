"""`CompiledModel` beside the interpreter: the same file, LiteRT's newer way.

It takes the same kernels on a CPU, so that its outputs are the same to the
bit, and it says whether an accelerator runs all of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.devices import beside
from tflite_export.errors import ExportError
from tflite_export.runtime import compiled
from tflite_export.runtime import ports
from tflite_export.targets import Target

_SAMPLES = 2


def verify(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    """Compares `CompiledModel` on this CPU with the interpreter.

    Args:
        data: The bytes of a file.
        samples: Inputs, one float array per input.
        target: Where the file shall run.

    Returns:
        `fully_accelerated`, `left` (operators that XNNPACK leaves to the
        builtin kernels), `samples` and `difference`: of an output in units
        of its grid, or for float activations relative to its range. Or
        `skipped`, with the reason. `fixed` if only a copy of the file with
        fixed sizes can run there, and why. JSON values.

    Raises:
        ExportError: If an output differs by more than kernel sets may.
    """
    reason = ports.passed_through(data)
    if reason:
        return {"skipped": reason}
    session, batches, wanted = beside.here(data, samples, _SAMPLES)
    left = session.not_delegated()
    ports_of_it = (
        session.input_names,
        session.output_names,
        session.output_places,
        [array.nbytes for array in wanted[0]],
    )
    del session
    fixed = ""
    file = data
    files.give_back(len(data))
    with compiled.quiet():
        try:
            try:
                got, whole = compiled.run(file, batches, *ports_of_it)
            except compiled.NoRoomError as error:
                fixed = (
                    f"in a copy of fixed sizes, as it makes {error}: apps need "
                    "the interpreter, or a file with an `input_signature` of "
                    "fixed sizes"
                )
                file = ports.closed(data, batches[0], wanted[0])
            if fixed:
                # An error holds the model, with all its packed weights, for as
                # long as it is looked at.
                files.give_back(len(data))
                got, whole = compiled.run(file, batches, *ports_of_it)
        except (RuntimeError, ValueError) as error:
            got, reason = [], " ".join(str(error).split())
    if not got:
        return {"skipped": f"CompiledModel doesn't take the file: {reason}"}
    if any(
        a.shape != b.shape
        for ours, theirs in zip(got, wanted, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ):
        raise ExportError(
            "CompiledModel gives outputs of other shapes. Expected "
            f"{[a.shape for a in wanted[0]]}. Received: "
            f"{[a.shape for a in got[0]]}"
        )
    figures: dict[str, Any] = {
        "samples": sum(len(batch[0]) for batch in batches),
        "fully_accelerated": whole,
    }
    if fixed:
        figures["fixed"] = fixed
    if left and not whole:
        figures["left"] = sorted(set(left))
    where = "CompiledModel"
    if target.integer:
        apart: Any = beside.units(data, got, wanted, target, where)
    else:
        apart = beside.relative(got, wanted, where)
    return {**figures, "difference": apart}
