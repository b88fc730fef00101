"""Compares an integer file with the Keras model it was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from tflite_export import progress
from tflite_export.conversion.source import Source
from tflite_export.data.effort import KERAS_BYTES
from tflite_export.data.effort import effort
from tflite_export.errors import ExportError
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import agreement
from tflite_export.verification import alike
from tflite_export.verification import float_twin
from tflite_export.verification import site_check
from tflite_export.verification.float_outputs import check_finite
from tflite_export.verification.integer_outputs import END_UNITS


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for the difference of a file from Keras.

    Attributes:
        max_units: Largest difference of an output with trained ranges, as the
            user gave it; `None` for `END_UNITS`, or more where single units
            explain it.
        min_agreement: Share of decisions that have to be the same.
        given: Whether the inputs are the user's. On random ones a model
            decides at random.
    """

    max_units: int | None = None
    min_agreement: float = agreement.LEAST
    given: bool = True


@dataclasses.dataclass
class _Output:
    """How one output differs."""

    name: str
    on_grid: bool = True
    units: float = 0.0
    same: int = 0
    count: int = 0
    rows: int = 0
    ends: tuple[np.ndarray, np.ndarray] | None = None

    def see(self, values: np.ndarray) -> None:
        """Takes note of what the file computes for a batch."""
        values = np.atleast_1d(values)
        low, high = values.min(0), values.max(0)
        if self.ends is not None:
            low = np.minimum(low, self.ends[0])
            high = np.maximum(high, self.ends[1])
        self.ends = low, high
        self.rows += len(values)

    @property
    def alike(self) -> bool:
        """Whether the file computes the same for all of several samples."""
        if self.ends is None or self.rows < 2:
            return False
        return bool((self.ends[0] == self.ends[1]).all())

    def __str__(self) -> str:
        words = f"{self.units:.0f} unit" + "s" * (f"{self.units:.0f}" != "1")
        if self.count:
            words += (
                f", with the same class in {self.same / self.count:.1%} of "
                f"{self.count:,} cases"
            )
        return words


def against_keras(
    data: bytes,
    source: Source,
    samples: Sequence[np.ndarray],
    target: Target,
    limits: Limits,
    decisions: agreement.Decisions,
    untrained: Sequence[str],
    sites: Mapping[int, int],
    rounded: Collection[int] = (),
) -> list[str]:
    """Runs the file, on XNNPACK or as its float twin, and the Keras model.

    Args:
        data: The bytes of the integer file.
        source: The Keras model. Where its ranges are trained, it computes
            with them, and the file has to agree; float activations can differ
            from integer ones by any amount.
        samples: Inputs, one array per input, in float.
        target: Where the file shall run.
        limits: What is accepted.
        decisions: How each output decides.
        untrained: Operators of the file that round where Keras does not.
        sites: Tensor of the file by the position of the site in training.
        rounded: Weights of the file that are float in training.

    Returns:
        Sentences for the report.

    Raises:
        ExportError: If a model with trained ranges computes something else,
            or the file decides otherwise too often.
    """
    progress.step("comparing with Keras")
    session = interpreter.Session(data, "xnnpack")
    kernels: str | None = "xnnpack"
    if session.left_over():
        # What XNNPACK leaves over rounds in its own way, see `fixed_point`;
        # the file's arithmetic is that of its twin.
        session = interpreter.Session(float_twin.chained(data).data, "builtin")
        kernels = None
    one = effort(data, samples)
    rows = one.at_once(KERAS_BYTES)
    if not any(decisions):
        # Shares of decisions need many samples, the grid of an output few.
        count = one.quick(len(samples[0]))
        samples = [array[:count] for array in samples]
    chunks = list(interpreter.chunks(samples, rows, session))
    # Each of two scores may be off by as much.
    even = 2 * END_UNITS[target.mode]
    outputs = _differences(data, session, source, chunks, decisions, even)
    if limits.given:
        alike.check(data, source, chunks, [o.alike for o in outputs], even)
    found = [output for output in outputs if output.on_grid]
    worst = max((output.units for output in found), default=0.0)
    words = "; ".join(
        str(o) if len(found) == 1 else f"'{o.name}' by {o}" for o in found
    )
    words = f"by up to {words}" if len(found) == 1 else words
    _refuse_decisions(found, source, limits, words)
    if not source.trained_ranges:
        return [
            f"against the float activations of Keras the output differs {words}"
        ]
    most = limits.max_units
    if most is None:
        most = END_UNITS[target.mode]
    notes = [
        f"against Keras with its trained ranges the output differs {words}"
    ]
    if untrained:
        kinds = ", ".join(sorted(set(untrained)))
        notes = [
            f"{len(untrained)} tensors ({kinds}) are rounded in the file and "
            "not in Keras, because no site of training covers them; against "
            f"Keras the output differs {words}"
        ]
    if round(worst) <= most:
        return notes
    explained, why = False, "max_units was given, and holds"
    if limits.max_units is None:
        explained, why = site_check.explanation(
            site_check.compare(
                data, source, kernels, chunks, sites, target, rounded
            ),
            partly=bool(untrained or rounded),
        )
    elif untrained:
        return notes
    if explained:
        word = "where the two can be compared, they agree"
        word *= bool(untrained or rounded)
        return [
            *notes,
            f"that is more than {most} units, but {word or 'right'}: {why}",
        ]
    raise ExportError(
        "The file computes something else than the Keras model with its "
        f"trained ranges: outputs differ {words}. Expected at most "
        f"max_units={most}. Received: {why}"
    )


def _differences(
    data: bytes,
    session: interpreter.Session,
    source: Source,
    chunks: Sequence[Sequence[np.ndarray]],
    decisions: agreement.Decisions,
    even: int,
) -> list[_Output]:
    inputs, outputs = ports.inputs(data), ports.outputs(data)
    found = [_Output(p.name, on_grid=p.scale is not None) for p in outputs]
    for chunk, wanted in zip(chunks, source.predict(chunks), strict=True):
        got = session(
            [p.quantize(x) for p, x in zip(inputs, chunk, strict=True)]
        )
        for output, port, y, t, decision in zip(
            found, outputs, got, wanted, decisions, strict=True
        ):
            check_finite(port.name, t)
            if port.scale is None:
                continue
            output.see(y)
            y, t = port.real(y), t.astype(np.float64)
            apart = np.abs(y - np.round(t / port.scale) * port.scale)
            output.units = max(output.units, float(apart.max()) / port.scale)
            if decision is not None and decision.fits(y.shape):
                alike = decision.alike(y, t, even * port.scale)
                output.same += int(alike.sum())
                output.count += alike.size
    return found


def _refuse_decisions(
    found: Sequence[_Output], source: Source, limits: Limits, words: str
) -> None:
    if not limits.given:
        return
    for output in found:
        allowed = agreement.misses(output.count, limits.min_agreement)
        if output.count - output.same > allowed:
            advice = "Accept"
            if not source.trained_ranges:
                advice = (
                    "Train the model with MSQConfig(activation_bits=...), give "
                    "representative_data that covers what the model sees, or "
                    "accept"
                )
            raise ExportError(
                "The file decides otherwise than the Keras model: outputs "
                f"differ {words}. Expected at least "
                f"min_agreement={limits.min_agreement:g} of the decisions to "
                f"be the same. {advice} a lower min_agreement. Received: "
                f"{output.same} of {output.count} are"
            )
