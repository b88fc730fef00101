"""The two ways from a float file to the file of a target."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.atomic_files import check_folder
from tflite_export.conversion import float_file
from tflite_export.conversion import noise
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.prune_constants import slim
from tflite_export.integer import build as integer
from tflite_export.integer import ranges
from tflite_export.matching.match import Matching
from tflite_export.matching.records import Written
from tflite_export.matching.records import rewrite
from tflite_export.targets import Target
from tflite_export.verification import agreement
from tflite_export.verification import float_outputs as verify
from tflite_export.verification import integer_outputs
from tflite_export.verification import keras_agreement
from tflite_export.verification.float_outputs import Check


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits within which a file is accepted.

    Attributes:
        max_relative_error: Largest difference from Keras, relative to the
            range of an output; `None` for what rounding explains.
        max_units: Largest difference of an integer output that is accepted,
            `None` for the usual one.
        min_agreement: Share of decisions that have to be those of Keras,
            `None` for the usual one.
        save_failure_to: Where to write what shows a difference.

    Raises:
        ValueError: If one is out of its range.
    """

    max_relative_error: float | None = None
    max_units: int | None = None
    min_agreement: float | None = None
    save_failure_to: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_number(
            "max_relative_error", self.max_relative_error, 0, optional=True
        )
        # A negative limit is one that no file keeps.
        check_integer("max_units", self.max_units, optional=True)
        check_number("min_agreement", self.min_agreement, 0, 1, optional=True)
        check_path("save_failure_to", self.save_failure_to, optional=True)
        if self.save_failure_to is not None:
            check_folder(self.save_failure_to)


@dataclasses.dataclass(frozen=True)
class Built:
    """A file before it is verified.

    Attributes:
        data: The bytes.
        written: Its trained weights.
        activations: How its activations are stored, in words.
        untrained: Integer operators that round to grids which training
            doesn't know.
        notes: Sentences for the report.
        sites: Tensor of an integer file by the position of the site in
            training.
        rounded: Weights of an integer file that are float in training.
    """

    data: bytes
    written: tuple[Written, ...]
    activations: str
    untrained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sites: Mapping[int, int] = dataclasses.field(default_factory=dict)
    rounded: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Verified:
    """The findings of the verification.

    Attributes:
        checks: One per kernel set.
        operators: One row per kernel set and operator, of integer files.
        notes: Sentences for the report.
    """

    checks: tuple[Check, ...]
    operators: tuple[integer_outputs.OperatorCheck, ...] = ()
    notes: tuple[str, ...] = ()


class Plan(Protocol):
    """Makes and verifies the file of a target."""

    def build(self, target: Target) -> Built:
        """Makes the file."""

    def verify(self, built: Built, samples: Sequence[np.ndarray]) -> Verified:
        """Runs the file on every kernel set."""


@dataclasses.dataclass(frozen=True)
class WeightOnly:
    """Integer weights, float operators.

    A difference from Keras that is larger than `max_relative_error` is refused;
    `None` for what rounding explains.
    """

    converted: float_file.FloatFile
    matching: Matching
    max_relative_error: float | None

    def build(self, target: Target) -> Built:
        model = fb.load(self.converted.data)
        written = rewrite(model, self.matching.matches, target)
        named = {
            (r.match.constant.graph, r.match.constant.tensor) for r in written
        }
        slim(model, named, f"msq_tf {target.name}")
        return Built(fb.dump(model), tuple(written), "float32")

    def verify(self, built: Built, samples: Sequence[np.ndarray]) -> Verified:
        checks, notes = verify.check_outputs(
            built.data,
            self.converted.data,
            self.converted.source,
            samples,
            self.max_relative_error,
            self.converted.graph,
        )
        return Verified(tuple(checks), notes=tuple(notes))


@dataclasses.dataclass(frozen=True)
class Integer:
    """Integers from end to end.

    Attributes:
        converted: The float file, trained ranges in it.
        matching: Which constants hold which weights.
        target: Where it shall run.
        calibration: Inputs to measure ranges with, `None` for none.
        integer_io: Whether inputs and outputs are integers, too.
        accepted: What is accepted.
    """

    converted: float_file.FloatFile
    matching: Matching
    target: Target
    calibration: Sequence[np.ndarray] | None
    integer_io: bool
    accepted: Limits

    def build(self, target: Target) -> Built:
        made = integer.build(
            self.converted,
            self.matching,
            target,
            self.calibration,
            self.integer_io,
        )
        measured = made.activations - made.trained
        return Built(
            made.data,
            made.written,
            f"{target.mode}: {made.trained} tensors on trained ranges, "
            f"{measured} on calibrated, fixed or shared ones",
            made.untrained,
            made.notes,
            made.sites,
            made.rounded,
        )

    def verify(self, built: Built, samples: Sequence[np.ndarray]) -> Verified:
        source = self.converted.source
        if self.calibration is not None:
            # States are what they are.
            own = samples[: len(samples) - len(source.states)]
            ranges.check_samples(built.data, own, source.trained_ranges)
        decisions = agreement.decisions(
            built.data,
            source.model,
            ask=self.accepted.min_agreement is not None,
            states=len(source.states),
        )
        # Two runs of a file that draws numbers can't be compared.
        draws = noise.find(self.converted.data).within(built.data)
        data = bytes(draws.opened(built.data))
        samples = [*samples, *draws.numbers(len(samples[0]))]
        checks, rows, amplified = integer_outputs.check(
            data,
            samples,
            self.target,
            self.accepted.max_units,
            self.accepted.save_failure_to,
            decisions,
        )
        limits = keras_agreement.Limits(
            self.accepted.max_units, given=self.calibration is not None
        )
        if self.accepted.min_agreement is not None:
            limits = dataclasses.replace(
                limits, min_agreement=self.accepted.min_agreement
            )
        notes = keras_agreement.against_keras(
            data,
            source,
            samples,
            self.target,
            limits,
            decisions,
            built.untrained,
            built.sites,
            built.rounded,
        )
        return Verified(
            tuple(checks), tuple(rows), (*amplified, *notes, *draws.notes())
        )
