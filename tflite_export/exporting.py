"""`export`: from a quantized model to a verified file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msq_tf.arguments import check_flag
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.atomic_files import check_folder
from msq_tf.keras3.unread import REASON
from tflite_export import devices
from tflite_export import progress
from tflite_export import target_file
from tflite_export import targets
from tflite_export.conversion import float_file as convert
from tflite_export.conversion import states
from tflite_export.conversion.source import QuantizedModel
from tflite_export.conversion.source import from_model
from tflite_export.devices.widen import widened_bytes
from tflite_export.evaluation import scores
from tflite_export.files import fill
from tflite_export.files import let_go
from tflite_export.files import staged
from tflite_export.flatbuffer import model as fb
from tflite_export.matching.explained import explained
from tflite_export.preparation import opening
from tflite_export.preparation import preconditions
from tflite_export.reports.report import ExportReport
from tflite_export.reports.tensors import average_bits
from tflite_export.reports.tensors import float_reports
from tflite_export.reports.tensors import tensor_report
from tflite_export.runtime import ports
from tflite_export.runtime import table_ids
from tflite_export.runtime import tensorflow_runtime
from tflite_export.verification import readback


def export(
    model: QuantizedModel,
    path: str | os.PathLike[str],
    target: str = "min_size",
    representative_data: Any = None,
    max_relative_error: float | None = None,
    samples: int = 64,
    input_signature: Any = None,
    batch_size: int | None = None,
    integer_io: bool | None = None,
    max_units: int | None = None,
    min_agreement: float | None = None,
    save_failure_to: str | os.PathLike[str] | None = None,
    device_options: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> ExportReport:
    """Writes a model as a TFLite file that holds exactly the trained codes.

    The file appears at `path` only after it was read back and run: the codes
    in its bytes equal the trained codes, and XNNPACK, builtin and reference
    kernels compute what Keras computes; for integer targets what the float
    simulation of the same integers computes, operator by operator and from
    end to end.

    Args:
        model: A model of `msq_tf.quantize_model`, or for tf_keras a
            `msq_tf.tfmot.ModelView`.
        path: Where to write. An existing file is replaced; `mcu` and
            `ethos_u` write further files beside it.
        target: Name of a target, see `tflite_export.targets.names()`.
        representative_data: Inputs to verify with: an array, a list or dict
            of arrays for several inputs, a `tf.data.Dataset` or an iterable
            of batches, a function that returns one, as `TFLiteConverter` takes
            it, or the path of a folder of images, which are resized and
            nothing else. Random inputs if `None`. Integer targets measure
            ranges of activations on them where training left none.
        max_relative_error: Largest difference from Keras that is accepted,
            relative to the range of the output, for float activations. `None`
            for 1e-4, or more where rounding in float32 is shown to move the
            outputs of the model itself by more.
        samples: Largest number of samples to measure ranges and verify with.
        input_signature: Nested structure of `tf.TensorSpec`; only needed for
            subclassed models without `representative_data`.
        batch_size: Fixed batch size of the file. `None` for what the target
            needs: 1 for devices, any for the others.
        integer_io: Whether inputs and outputs of integer targets are integers
            themselves instead of floats that the file converts. `None` for
            what the target prefers.
        max_units: Largest difference of an integer output from the float
            simulation, from Keras with trained ranges, and between TFLite
            Micro and LiteRT that is accepted, in units of the output; `None`
            for 2 with 8-bit and 16 with 16-bit activations, or more where
            single units inside are shown to be all that the network
            amplifies. One operator may always differ by one.
        min_agreement: Share of decisions on `representative_data` that an
            integer file has to share with Keras; `None` for 0.97 where the
            model ends in a softmax or sigmoid or was compiled with a cross
            entropy. To give it says that the outputs are classes. Scores
            that are nearer than what both may be off by are even.
        save_failure_to: Where to write the inputs of an integer operator that
            computes wrong numbers: `.npz` and, beside it, the `.tflite`.
        device_options: Options of the target's tools. `mcu`: `name` of the C
            array. `ethos_u`: `accelerators` to compile for, a list, and
            `allow_cpu`, whether operators may be left to the CPU.
        verbose: Whether an export of more than five seconds says on standard
            error what it is at.

    Returns:
        The report: sizes, tensors and checks; `str()` prints it.

    Raises:
        ExportError: If the file can't be exact on the target, with the layer,
            the operator and the figure that stand against it. No file is
            left behind.
        ValueError: If an argument is wrong, or the disk is full or can't be
            written.

    Examples:
        >>> report = export(qmodel, "m.tflite", representative_data=images)
        >>> print(report)
    """
    chosen = targets.load(target)
    if not isinstance(model, QuantizedModel):
        raise ValueError(
            "Expected a model of msq_tf.quantize_model, or the ModelView of a "
            "tf_keras model; write other models with float_file. Received: "
            f"model={model!r}"
        )
    check_number("max_relative_error", max_relative_error, 0, optional=True)
    check_integer("samples", samples, 1)
    check_integer("batch_size", batch_size, 1, optional=True)
    check_flag("integer_io", integer_io, optional=True)
    # A negative limit is one that no file keeps.
    check_integer("max_units", max_units, optional=True)
    check_number("min_agreement", min_agreement, 0, 1, optional=True)
    check_path("save_failure_to", save_failure_to, optional=True)
    check_flag("verbose", verbose)
    devices.check_options(target, device_options)
    devices.check_installed(target, device_options)
    check_path("path", path)
    for name in (path, save_failure_to):
        if name is not None:
            check_folder(name)
    begun = opening.opened(
        model,
        chosen,
        representative_data,
        input_signature,
        batch_size,
        samples,
    )
    source, inputs = begun.sized.source, begun.inputs
    names = [spec.name for spec in source.specs]
    quantized, skipped = model.quantized_weights(), model.skipped_weights()
    preconditions.check_weights(quantized)
    preconditions.check_numbers(model, source.base)
    with contextlib.ExitStack() as stack:
        stack.enter_context(fb.parsed_once())
        stack.enter_context(
            progress.shown(f"export {Path(path).name}", verbose)
        )
        progress.step("converting")
        temporary = stack.enter_context(staged(path))
        converted, matching = explained(
            convert.Conversion(
                source,
                quantized,
                Path(path).parent,
                [s.value for s in skipped],
            ),
            quantized,
            skipped,
        )
        # Also those behind what the model itself shows.
        tables = table_ids.of_file(fb.read(converted.data))
        table_ids.check(tables, names, inputs, "representative_data")
        inputs = states.reached(converted.source, inputs)
        unread = [s.path for s in skipped if s.reason == REASON]
        unread += converted.unread
        quantized = [w for w in quantized if w.path not in unread]
        plan: target_file.Plan
        if chosen.integer:
            if integer_io is None:
                integer_io = bool(chosen.options.get("integer_io", False))
            plan = target_file.Integer(
                converted,
                matching,
                chosen,
                inputs if begun.origin == "given" else None,
                integer_io,
                max_units,
                min_agreement,
                save_failure_to,
            )
        else:
            plan = target_file.WeightOnly(
                converted, matching, max_relative_error
            )
        progress.step(f"making the file for {target}")
        built = plan.build(chosen)
        fill(temporary, built.data, path)
        data = temporary.read_bytes()
        # One copy of it is enough.
        built = dataclasses.replace(built, data=data)
        progress.step("reading the codes back")
        readback.check_codes(data, built.written)
        readback.check_versions(data)
        # Needed again for the file's rivals and where something is wrong.
        let_go(converted.data)
        loading = tensorflow_runtime.load_everywhere(data, inputs)
        verified = plan.verify(built, inputs)
        if begun.sized.other is not None:
            plan.verify(built, begun.sized.other)
        progress.step("running the tools of the device")
        device = devices.finish(
            target, data, Path(path).stem, inputs, device_options, max_units
        )
        for name, content in device.files.items():
            # These are renamed before the file itself.
            other = Path(path).with_name(name)
            fill(stack.enter_context(staged(other)), content, other)
        plain = widened_bytes(data)
    kept = states.report(
        converted.source.states, ports.inputs(data), ports.outputs(data)
    )
    average, paper = average_bits(quantized, skipped)
    return ExportReport(
        path=str(path),
        target=target,
        tensors=tuple(tensor_report(record) for record in built.written),
        float_tensors=() if chosen.integer else float_reports(matching),
        other_constants=matching.others,
        average_bits=average,
        paper_bits=paper,
        file_bytes=len(data),
        deflated_bytes=len(zlib.compress(data, 9)),
        ideal_bytes=sum(-(-w.codes.size * w.bits // 8) for w in quantized),
        entropy_bytes=round(sum(w.entropy_bits for w in quantized) / 8),
        float_file_bytes=len(converted.data),
        int8_file_bytes=plain,
        checks=verified.checks,
        inputs=begun.origin,
        activations=built.activations,
        operators=verified.operators,
        device=device.figures,
        notes=(
            *begun.notes,
            *converted.notes,
            *states.note(kept),
            *_unread_note(unread),
            *built.notes,
            *loading,
            *verified.notes,
            *device.notes,
        ),
        unread=tuple(unread),
        states=kept,
    ).measuring(scores.compiled_with(model))


def _unread_note(unread: Sequence[str]) -> list[str]:
    if not unread:
        return []
    return [
        "not in the file, since inference never reads them: "
        f"{', '.join(unread)}"
    ]


def float_tflite(
    model: Any, input_signature: Any = None, batch_size: int | None = None
) -> bytes:
    """Converts a Keras model to a float TFLite file, in memory.

    Args:
        model: A plain Keras model, or a model of `msq_tf.quantize_model`,
            whose quantized values are then stored as floats.
        input_signature: As in `export`.
        batch_size: As in `export`.

    Returns:
        The bytes of the file.

    Raises:
        ExportError: If TFLite lacks an operator of the model.
        ValueError: If the model is no Keras model, or its inputs are not
            known.
    """
    check_integer("batch_size", batch_size, 1, optional=True)
    source = from_model(model, input_signature, batch_size=batch_size)
    return bytes(convert.to_float_file(source).data)


def float_file(
    model: Any,
    path: str | os.PathLike[str],
    input_signature: Any = None,
    batch_size: int | None = None,
) -> int:
    """Writes `float_tflite(model)` to a file, in one step.

    Args:
        model: As in `float_tflite`.
        path: Where to write. An existing file is replaced.
        input_signature: As in `export`.
        batch_size: As in `export`.

    Returns:
        The size of the file in bytes.

    Raises:
        ExportError: As `float_tflite` raises.
        ValueError: Likewise, or if the disk is full or can't be written.
    """
    check_path("path", path)
    check_folder(path)
    with staged(path) as temporary:
        data = float_tflite(model, input_signature, batch_size)
        fill(temporary, data, path)
    return len(data)
