"""Compares an integer file with the Keras model it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflite_export import progress
from tflite_export import runtime
from tflite_export.devices import ports
from tflite_export.effort import MOST_AT_ONCE
from tflite_export.errors import ExportError
from tflite_export.integer import simulate
from tflite_export.integer.check import AGREEMENT
from tflite_export.source import Source


def against_keras(
    data: bytes,
    source: Source,
    samples: Sequence[np.ndarray],
    max_units: int,
    untrained: Sequence[str],
) -> list[str]:
    """Runs the file, on XNNPACK or as its float twin, and the Keras model.

    Args:
        data: The bytes of the integer file.
        source: The Keras model. Where its ranges are trained, it computes
            with them, and the file has to agree; float activations can differ
            from integer ones by any amount.
        samples: Inputs, one array per input, in float.
        max_units: Largest difference of an output that is accepted, with
            trained ranges.
        untrained: Operators of the file that round where Keras does not.

    Returns:
        Sentences for the report.

    Raises:
        ExportError: If a model with trained ranges computes something else.
    """
    progress.step("comparing with Keras")
    session = runtime.Session(data, "xnnpack")
    if session.left_over():
        # What XNNPACK leaves over rounds in its own way, see `fixed_point`;
        # the file's arithmetic is that of its twin.
        session = runtime.Session(simulate.chained(data).data, "builtin")
    inputs = ports.inputs(data)
    outputs = ports.outputs(data)
    worst, same, count = 0.0, 0, 0
    chunks = list(runtime.chunks(samples, MOST_AT_ONCE, session))
    for chunk, wanted in zip(chunks, source.predict(chunks), strict=True):
        got = session(
            [p.quantize(x) for p, x in zip(inputs, chunk, strict=True)]
        )
        for port, y, t in zip(outputs, got, wanted, strict=True):
            if not np.isfinite(t).all():
                raise ExportError(
                    "The Keras model itself gives NaN or infinite numbers in "
                    f"its output '{port.name}' on the verification inputs"
                )
            if port.scale is None:
                continue
            y, t = port.real(y), t.astype(np.float64)
            low, high = y.min(), y.max()
            worst = max(
                worst, float(np.abs(y - _on_grid(t, port)).max()) / port.scale
            )
            if y.ndim == 2 and y.shape[1] > 1 and high > low:
                best = np.take_along_axis(t, y.argmax(1)[:, None], 1)[:, 0]
                # Values that fall on one integer are one value.
                same += int((best >= t.max(1) - port.scale / 2).sum())
                count += len(y)
    share = same / count if count else None
    agree = "" if share is None else f", the same class on {share:.1%}"
    if not source.trained_ranges:
        return [
            "against the float activations of Keras the output differs by up "
            f"to {worst:.0f} units{agree} of the inputs"
        ]
    if untrained:
        kinds = ", ".join(sorted(set(untrained)))
        return [
            f"{len(untrained)} tensors ({kinds}) are rounded in the file and "
            "not in Keras, because no site of training covers them; against "
            f"Keras the output differs by up to {worst:.0f} units{agree} of "
            "the inputs"
        ]
    allowed = max(1, int((1 - AGREEMENT) * count))
    if round(worst) > max_units or (
        share is not None and count - same > allowed
    ):
        raise ExportError(
            "The file computes something else than the Keras model with its "
            f"trained ranges: outputs differ by {worst:.0f} units{agree} of "
            f"{count} inputs. Expected at most {max_units} units and "
            f"{AGREEMENT:.0%}"
        )
    return [
        "against Keras with its trained ranges the output differs by up to "
        f"{worst:.0f} units{agree} of the inputs"
    ]


def _on_grid(values: np.ndarray, port: ports.Port) -> np.ndarray:
    """Values rounded to the units of an output."""
    if port.scale is None:
        return values
    return np.round(values / port.scale) * port.scale
