"""Compares a file, run by every kernel set, with the Keras model."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from tflite_export import progress
from tflite_export.conversion import noise
from tflite_export.conversion import rounding
from tflite_export.conversion.source import Source
from tflite_export.data.effort import KERAS_BYTES
from tflite_export.data.effort import counts as samples_for
from tflite_export.data.effort import effort
from tflite_export.differences import spread
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter
from tflite_export.verification import agreement

# Of the range of an output. More has to be explained.
_LIMIT = 1e-4
# Scores that are as near to each other, relative to their range, are even.
_EVEN = 1e-6


@dataclasses.dataclass(frozen=True)
class Check:
    """How one set of kernels agrees with Keras.

    Attributes:
        kernels: `"xnnpack"`, `"builtin"` or `"reference"`.
        ran: Whether the kernels could run the file.
        reason: Why not, else empty.
        samples: Number of samples compared.
        max_abs_error: Largest difference over all outputs.
        relative_error: The same relative to the range of its output.
        agreement: Share of samples with the same largest class, `None` where
            no output looks like classes.
        partitions: Pieces of the graph a delegate took, `None` if unknown.
        max_units: Largest difference of an output in units of its grid, for
            integer targets.
        operator_units: Largest difference that one operator makes, in units.
    """

    kernels: str
    ran: bool
    reason: str = ""
    samples: int = 0
    max_abs_error: float = 0.0
    relative_error: float = 0.0
    agreement: float | None = None
    partitions: int | None = None
    max_units: int | None = None
    operator_units: int | None = None


def check_outputs(
    data: bytes,
    float_data: bytes | mmap.mmap,
    source: Source,
    samples: Sequence[np.ndarray],
    max_relative_error: float | None = None,
    graph: Callable[[], rounding.Graph] | None = None,
) -> tuple[list[Check], list[str]]:
    """Runs a file on every kernel set and compares it with Keras.

    Args:
        data: The bytes of the file.
        float_data: The float file it was made from, to find the operator
            that goes wrong.
        source: The Keras model.
        samples: Inputs, one array per input.
        max_relative_error: Largest difference allowed, relative to the range
            of the output; `None` for a small one, or as much as rounding
            explains.
        graph: Function that returns the model's graph, to measure that with.

    Returns:
        One check per kernel set, and remarks on what the inputs can't show.

    Raises:
        ExportError: If numbers differ, or the default kernels can't run the
            file.
    """
    decisions = agreement.decisions(
        data, source.model, states=len(source.states)
    )
    draws = noise.find(float_data)
    data = bytes(draws.opened(data))
    float_data = draws.opened(float_data)
    samples = [*samples, *draws.numbers(len(samples[0]))]
    if draws.tensors:
        graph = None  # it draws other numbers every time
    progress.step("computing what Keras does")
    rows = effort(data, samples).at_once(KERAS_BYTES)
    counts = samples_for(data, samples)
    samples = [array[: max(counts.values())] for array in samples]
    chunks, expected = _expected(data, source, samples, rows)
    limit = _Limit(max_relative_error, graph, chunks, expected, decisions)
    checks = []
    for kernels in interpreter.KERNELS:
        progress.step(f"running the {kernels} kernels")
        inputs = [array[: counts[kernels]] for array in samples]
        try:
            check, _ = _check(data, kernels, inputs, expected, decisions, rows)
        except RuntimeError as error:
            check = not_run(kernels, error)
        if check.ran and not limit.holds(data, check, inputs):
            where = _first_difference(
                data, float_data, kernels, inputs, rows, limit.relative
            )
            raise ExportError(
                f"The file computes other numbers than Keras on the {kernels} "
                f"kernels. {where} "
                "Expected a difference, relative to the output's range, of at "
                f"most {limit} (argument max_relative_error). Received: "
                f"{check.relative_error:.2g}, that is {check.max_abs_error:.3g}"
            )
        checks.append(check)
    notes = _blind_spots(data, expected) + limit.notes(checks)
    return checks, [*notes, *draws.notes()]


class _Limit:
    """How far outputs may be from those of Keras, see `check_outputs`."""

    def __init__(
        self,
        relative: float | None,
        graph: Callable[[], rounding.Graph] | None,
        chunks: Sequence[Sequence[np.ndarray]],
        expected: Sequence[Sequence[np.ndarray]],
        decisions: agreement.Decisions,
    ):
        self._decisions = decisions
        self.relative = _LIMIT if relative is None else relative
        self._graph = graph if relative is None else None
        self._chunks = chunks
        self._expected = expected
        self._rounded: _Rounded | None = None

    def holds(
        self, data: bytes, check: Check, inputs: Sequence[np.ndarray]
    ) -> bool:
        """Whether what a check found is within the limit."""
        if check.relative_error <= self.relative:
            return True
        if self._graph is None:
            return False
        if self._rounded is None:
            self._rounded = _rounded(
                self._graph(), self._chunks, self._expected
            )
        reference, bounds = self._rounded.reference, self._rounded.bounds
        # The graph that bounds the rounding is what Keras computes itself.
        own = rounding.distances(self._expected, reference)
        if not all(a <= b for a, b in zip(own, bounds, strict=True)):
            return False
        _, excess = _check(
            data,
            check.kernels,
            inputs,
            reference,
            self._decisions,
            len(self._chunks[0][0]),
            bounds,
        )
        return excess <= 1.0

    def __str__(self) -> str:
        text = f"{self.relative:.2g}"
        if self._rounded is not None:
            text += (
                f", or {rounding.FACTOR} times the {self._rounded.share:.2g} "
                "by which rounding moves the model's own outputs"
            )
        return text

    def notes(self, checks: Sequence[Check]) -> list[str]:
        """Notes for the report where rounding was needed to explain."""
        if self._rounded is None:
            return []
        worst = max(check.relative_error for check in checks)
        return [
            f"outputs differ from Keras by up to {worst:.1g} of their range: "
            "so much is rounding in this model, whose own outputs differ by "
            f"{self._rounded.share:.1g} from float64 or where its weights "
            "change by one unit in the last place"
        ]


@dataclasses.dataclass(frozen=True)
class _Rounded:
    """What rounding does to a model.

    Attributes:
        reference: What its outputs should be, for each batch.
        bounds: Largest difference from these that it explains, by output.
        share: The largest that was seen, relative to the output's range.
    """

    reference: list[list[np.ndarray]]
    bounds: list[float]
    share: float


def _rounded(
    graph: rounding.Graph,
    chunks: Sequence[Sequence[np.ndarray]],
    expected: Sequence[Sequence[np.ndarray]],
) -> _Rounded:
    reference, bounds = rounding.bounds(graph, chunks)
    shares = [
        bound / spread(_joined(expected, k)) for k, bound in enumerate(bounds)
    ]
    return _Rounded(reference, bounds, max(shares) / rounding.FACTOR)


def not_run(kernels: str, error: RuntimeError) -> Check:
    """The check of kernels that could not run a file.

    Raises:
        ExportError: If they are the default ones.
    """
    reason = " ".join(str(error).split())
    if kernels == "xnnpack":
        raise ExportError(
            "LiteRT can't run the file. Expected operators and sizes that its "
            f"kernels take. Received: {reason}"
        ) from error
    return Check(kernels, ran=False, reason=reason)


def _blind_spots(
    data: bytes, expected: Sequence[Sequence[np.ndarray]]
) -> list[str]:
    """Outputs that are the same for all samples show little."""
    notes = []
    for position, detail in enumerate(
        interpreter.Session(data, "builtin").outputs
    ):
        rows = agreement.rows(expected, position)
        if len(rows) > 1 and (rows == rows[:1]).all():
            notes.append(
                f"output '{detail['name']}' is the same for all "
                f"{len(rows)} verification inputs: that it agrees with Keras "
                "says little; give other representative_data"
            )
    return notes


def _expected(
    data: bytes, source: Source, samples: Sequence[np.ndarray], rows: int
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Batches of samples, and what Keras computes for each."""
    session = interpreter.Session(data, "builtin")
    names = [detail["name"] for detail in session.outputs]
    chunks = list(interpreter.chunks(samples, rows, session))
    # It holds the weights, as Keras is about to.
    del session
    batches = source.predict(chunks)
    for batch in batches:
        for name, output in zip(names, batch, strict=True):
            check_finite(name, output)
    return chunks, batches


def check_finite(name: str, output: np.ndarray) -> None:
    """Raises an ExportError for NaN or infinite numbers that Keras gives."""
    if not np.isfinite(output).all():
        raise ExportError(
            "The Keras model itself gives NaN or infinite numbers on the "
            "verification inputs. Expected finite outputs, or "
            "representative_data on which they are. Received: output "
            f"'{name}' from {output.min():.3g} to {output.max():.3g}"
        )


def _joined(batches: Sequence[Sequence[np.ndarray]], k: int) -> np.ndarray:
    return np.concatenate(
        [np.atleast_1d(batch[k]).ravel() for batch in batches]
    )


def _check(
    data: bytes,
    kernels: str,
    inputs: Sequence[np.ndarray],
    expected: Sequence[Sequence[np.ndarray]],
    decisions: agreement.Decisions,
    rows: int,
    bounds: Sequence[float] = (),
) -> tuple[Check, float]:
    """Compares a file with what is expected of it.

    The check, and the largest share of its bound that a difference is.
    """
    rows = min(rows, len(inputs[0]))
    session = interpreter.Session(data, kernels, batch_size=rows)
    got, wanted = [], []
    for chunk, outputs in zip(
        interpreter.chunks(inputs, rows, session),
        expected,
        strict=False,
    ):
        got.append(session(chunk))
        # The reference kernels may see a part of a batch.
        wanted.append(
            [
                y[: len(x)] if np.ndim(y) else y
                for x, y in zip(got[-1], outputs, strict=True)
            ]
        )
    worst, relative, excess = 0.0, 0.0, 0.0
    shares = []
    for k, decision in enumerate(decisions):
        y, t = agreement.rows(got, k), agreement.rows(wanted, k)
        if y.shape != t.shape:
            raise ExportError(
                f"Output {k} has another shape in the file than in Keras. "
                f"Expected {t.shape}. Received: {y.shape}"
            )
        error = _max_error(y, t)
        range_ = spread(_joined(expected, k))
        worst = max(worst, error)
        relative = max(relative, error / range_)
        if bounds:
            allowed = max(bounds[k], _LIMIT * range_)
            excess = max(excess, error / allowed)
        if decision is not None and decision.fits(t.shape):
            shares.append(float(decision.alike(y, t, _EVEN * spread(t)).mean()))
    check = Check(
        kernels,
        ran=True,
        samples=len(inputs[0]),
        max_abs_error=worst,
        relative_error=relative,
        agreement=min(shares, default=None),
        partitions=session.delegated(),
    )
    return check, excess


def _first_difference(
    data: bytes,
    float_data: bytes | mmap.mmap,
    kernels: str,
    inputs: Sequence[np.ndarray],
    rows: int,
    limit: float,
) -> str:
    """Compares intermediate tensors with the float file's."""
    if kernels == "xnnpack":
        return "The delegate hides which operator differs first."
    whole = bytes(float_data)
    before = interpreter.Session(whole, "builtin", keep_all=True)
    session = interpreter.Session(data, kernels, keep_all=True)
    for own in (before, session):
        own(next(interpreter.chunks(inputs, rows, own)))
    model = fb.read(float_data)
    graph = model.subgraphs[0]
    for op in graph.operators:
        for index in fb.outputs(op):
            tensor = graph.tensors[index]
            if fb.type_name(tensor) != "FLOAT32":
                continue
            # Tensors keep their indices when codes are put in.
            try:
                wanted, got = before.tensor(index), session.tensor(index)
            except ValueError:
                continue  # a loop let go of its memory
            if _max_error(got, wanted) > limit * spread(wanted):
                return (
                    f"The first operator to differ is {fb.op_name(model, op)} "
                    f"with the output '{fb.name(tensor)}'."
                )
    return "No single operator differs by as much."


def _max_error(got: np.ndarray, wanted: np.ndarray) -> float:
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    # NaN is no small number.
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0.0))
