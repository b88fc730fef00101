"""The steps of `export` and `check` up to the float file.

An export takes six steps. `preparation.opening` says how the model is called
and on what. `convert`, here, makes a float file of it and finds the trained
weights there. `Job.plan` chooses how the target's file is made; the plan builds
it and, when its codes were read back, verifies it. `devices.finish` runs the
tools of the device.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.keras3.unread import REASON
from tflite_export import target_file
from tflite_export.conversion import float_file
from tflite_export.conversion import states
from tflite_export.conversion.source import QuantizedModel
from tflite_export.conversion.trained import spooled
from tflite_export.files import give_back
from tflite_export.files import let_go
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.explained import explained
from tflite_export.matching.match import Matching
from tflite_export.preparation import preconditions
from tflite_export.preparation.opening import Opening
from tflite_export.reports.tensors import average_bits
from tflite_export.reports.tensors import tensor_report
from tflite_export.runtime import ports
from tflite_export.runtime import table_ids
from tflite_export.targets import Target


@dataclasses.dataclass(frozen=True)
class Job:
    """A model on its way to a file.

    Attributes:
        begun: How it is called, and on what.
        converted: Its float file.
        matching: Which constants of that hold which weights.
        inputs: Samples, with the states that they lead to.
        quantized: The quantized weights that inference reads.
        skipped: The weights that stay in float.
        unread: Paths of weights that inference does not read.
    """

    begun: Opening
    converted: float_file.FloatFile
    matching: Matching
    inputs: Sequence[np.ndarray]
    quantized: Sequence[QuantizedWeight]
    skipped: Sequence[SkippedWeight]
    unread: Sequence[str]

    def plan(
        self,
        target: Target,
        limits: target_file.Limits,
        integer_io: bool | None = None,
        calibrates: bool = False,
    ) -> target_file.Plan:
        """Chooses how the target's file is made and verified.

        Args:
            target: Where it shall run.
            limits: What is accepted.
            integer_io: Whether inputs and outputs are integers, too; `None`
                for what the target has.
            calibrates: Whether ranges may be measured on random inputs.
        """
        if not target.integer:
            return target_file.WeightOnly(
                self.converted, self.matching, limits.max_relative_error
            )
        if integer_io is None:
            integer_io = bool(target.options.get("integer_io", False))
        measures = calibrates or self.begun.origin == "given"
        return target_file.Integer(
            self.converted,
            self.matching,
            target,
            self.inputs if measures else None,
            integer_io,
            limits,
        )

    def kept(self, data: bytes) -> tuple[states.StateReport, ...]:
        """The states that the finished file keeps from call to call."""
        return states.report(
            self.converted.source.states,
            ports.inputs(data),
            ports.outputs(data),
        )

    def notes(self, kept: Sequence[states.StateReport]) -> list[str]:
        """Sentences on the model for the report."""
        notes = [*self.converted.notes, *states.note(kept)]
        if self.unread:
            notes.append(
                "not in the file, since inference never reads them: "
                f"{', '.join(self.unread)}"
            )
        return notes

    def sizes(self, built: target_file.Built, plain: int) -> dict[str, Any]:
        """Weights and sizes of a file, as fields of `ExportReport`.

        `plain` is the bytes of the same file with 8-bit containers.
        """
        average, paper = average_bits(self.quantized, self.skipped)
        bits = [w.codes.size * w.bits for w in self.quantized]
        return {
            "tensors": tuple(tensor_report(record) for record in built.written),
            "other_constants": self.matching.others,
            "average_bits": average,
            "paper_bits": paper,
            "file_bytes": len(built.data),
            "deflated_bytes": len(zlib.compress(built.data)),
            "ideal_bytes": sum(-(-size // 8) for size in bits),
            "entropy_bytes": round(
                sum(w.entropy_bits for w in self.quantized) / 8
            ),
            "float_file_bytes": len(self.converted.data),
            "int8_file_bytes": plain,
            "inputs": self.begun.origin,
            "unread": tuple(self.unread),
        }


def convert(
    model: QuantizedModel, begun: Opening, folder: str | os.PathLike[str]
) -> Job:
    """Makes a float file of a model and finds the trained weights in it.

    Large graphs are written to the folder on the way.

    Raises:
        ExportError: If the model can't be converted, or a weight is not
            found.
        ValueError: If its numbers, or ids among the inputs, are out of range.
    """
    source = begun.sized.source
    quantized = spooled(model.quantized_weights(), folder)
    skipped = model.skipped_weights()
    preconditions.check_weights(quantized)
    preconditions.check_numbers(model, source.base)
    converted, matching = explained(
        float_file.Conversion(
            source, quantized, folder, [s.value for s in skipped]
        ),
        quantized,
        skipped,
    )
    # Also those behind what the model itself shows.
    table_ids.check(
        table_ids.of_file(fb.read(converted.data)),
        [spec.name for spec in source.specs],
        begun.inputs,
        "representative_data",
    )
    # Looked at; it comes back where it is needed.
    let_go(converted.data)
    for weight in quantized:
        let_go(weight.codes)
    give_back(len(converted.data))
    unread = [s.path for s in skipped if s.reason == REASON]
    unread += converted.unread
    return Job(
        begun,
        converted,
        matching,
        states.reached(converted.source, begun.inputs),
        [w for w in quantized if w.path not in unread],
        skipped,
        unread,
    )
