"""`export`: from a quantized model to a verified file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msq_tf.arguments import check_flag
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_path
from msq_tf.atomic_files import check_folder
from tflite_export import devices
from tflite_export import progress
from tflite_export import steps
from tflite_export import target_file
from tflite_export import targets
from tflite_export.conversion import float_file as convert
from tflite_export.conversion.source import QuantizedModel
from tflite_export.conversion.source import from_model
from tflite_export.devices.widen import widened_bytes
from tflite_export.evaluation import scores
from tflite_export.files import give_back
from tflite_export.files import let_go
from tflite_export.flatbuffer import model as fb
from tflite_export.output_files import fill
from tflite_export.output_files import staged
from tflite_export.preparation import input_check
from tflite_export.preparation import opening
from tflite_export.reports import slowness
from tflite_export.reports.report import ExportReport
from tflite_export.reports.tensors import float_reports
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
    verify_on: Sequence[str] = (),
    verbose: bool = True,
) -> ExportReport:
    """Writes a model as a TFLite file that holds exactly the trained codes.

    The file appears at `path` only after it was read back and run. The codes in
    its bytes equal the trained codes, and XNNPACK, builtin and reference
    kernels compute what Keras computes. For integer targets, they compute what
    the float simulation of the same integers computes, operator by operator and
    from end to end.

    Args:
        model: A model of `msq_tf.quantize_model`, or for tf_keras a
            `msq_tf.tfmot.ModelView`.
        path: Where to write. An existing file is replaced; `mcu`,
            `ethos_u` and `qualcomm_npu` write further files beside it.
        target: Name of a target, see `tflite_export.targets.names()`.
        representative_data: Inputs to verify with: an array, a list or dict of
            arrays for several inputs, a `tf.data.Dataset` or an iterable of
            batches, a function that returns an iterable (as for
            `TFLiteConverter`), or the path of a folder of images, which are
            only resized. Random inputs if `None`. Integer targets measure on
            them the ranges of activations that were not trained.
        max_relative_error: Largest accepted difference from Keras, relative to
            the range of the output, for float activations. `None` for 1e-4, or
            more if rounding in float32 provably moves the outputs of the model
            itself by more.
        samples: Largest number of samples to measure ranges and verify with.
        input_signature: Nested structure of `tf.TensorSpec`; only needed for
            subclassed models without `representative_data`.
        batch_size: Fixed batch size of the file. `None` for what the target
            needs: 1 for devices, any for the others.
        integer_io: Whether inputs and outputs of integer targets are integers
            themselves instead of floats that the file converts. `None` for
            what the target prefers.
        max_units: Largest accepted difference of an integer output, in units of
            the output: from the float simulation, from Keras with trained
            ranges, and between TFLite Micro and LiteRT. `None` for 2 with 8-bit
            and 16 with 16-bit activations, or more if the network provably only
            amplifies single units inside. One operator may always differ by
            one.
        min_agreement: Share of decisions on `representative_data` that an
            integer file must have in common with Keras. `None` for 0.97 if the
            model ends in a softmax or sigmoid or was compiled with a cross
            entropy. A value says that the outputs are classes. Scores that are
            nearer than their possible errors count as even.
        save_failure_to: Where to write the inputs of an integer operator that
            computes wrong numbers: `.npz` and, beside it, the `.tflite`.
        device_options: Options of the target's tools. `mcu`: `name` of the C
            array. `ethos_u`: `accelerators` to compile for, a list, and
            `allow_cpu`, whether Vela may leave operators to the CPU.
            `qualcomm_npu`: `socs` to compile for, a list, and `allow_cpu`.
        verify_on: Where to run the file besides this machine's kernels, some
            of `"arm"`, emulated ARM cores (`make setup-arm`); `"web"`,
            LiteRT.js in Node (`make setup-web`); `"gpu"`, LiteRT's GPU
            accelerator, on a GPU or on Chromium's SwiftShader.
        verbose: Whether an export of more than five seconds shows its progress
            on standard error.

    Returns:
        The report: sizes, tensors and checks; `str()` prints it.

    Raises:
        ExportError: If the file can't be exact on the target, with the layer,
            the operator and the figure that are the reason. No file remains.
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
    limits = target_file.Limits(
        max_relative_error, max_units, min_agreement, save_failure_to
    )
    check_integer("samples", samples, 1)
    check_integer("batch_size", batch_size, 1, optional=True)
    check_flag("integer_io", integer_io, optional=True)
    check_flag("verbose", verbose)
    devices.check_options(target, device_options)
    devices.check_installed(target, device_options)
    devices.check_verifiers(verify_on)
    chosen = devices.narrowed(chosen, device_options)
    check_path("path", path)
    check_folder(path)
    begun = opening.opened(
        model,
        chosen,
        representative_data,
        input_signature,
        batch_size,
        samples,
        folder=Path(path).parent,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(fb.parsed_once())
        stack.enter_context(
            progress.shown(f"export {Path(path).name}", verbose)
        )
        progress.step("converting")
        temporary = stack.enter_context(staged(path))
        job = steps.convert(model, begun, Path(path).parent)
        plan = job.plan(chosen, limits, integer_io)
        progress.step(f"making the file for {target}")
        built = plan.build(chosen)
        give_back(len(job.converted.data))
        fill(temporary, built.data, path)
        # One copy of it is enough.
        built = dataclasses.replace(built, data=temporary.read_bytes())
        progress.step("reading the codes back")
        readback.check_codes(built.data, built.written)
        readback.check_versions(built.data)
        # Needed again for the file's rivals and where something is wrong.
        let_go(job.converted.data)
        for weight in job.quantized:
            let_go(weight.codes)
        loading = tensorflow_runtime.load_everywhere(built.data, job.inputs)
        verified = plan.verify(built, job.inputs)
        if begun.sized.other is not None:
            plan.verify(built, begun.sized.other)
        progress.step("running the tools of the device")
        device = devices.finish(
            target,
            built.data,
            Path(path).stem,
            job.inputs,
            device_options,
            max_units,
            verify_on,
        )
        for name, content in device.files.items():
            # These are renamed before the file itself.
            other = Path(path).with_name(name)
            fill(stack.enter_context(staged(other)), content, other)
        plain = widened_bytes(built.data)
    kept = job.kept(built.data)
    report = ExportReport(
        path=str(path),
        target=target,
        **job.sizes(built, plain),
        float_tensors=() if chosen.integer else float_reports(job.matching),
        checks=verified.checks,
        activations=built.activations,
        operators=verified.operators,
        device=device.figures,
        notes=(
            *begun.notes,
            *job.notes(kept),
            *built.notes,
            *slowness.note(chosen, built.written),
            *loading,
            *verified.notes,
            *device.notes,
        ),
        states=kept,
    )
    return report.measuring(
        scores.compiled_with(model),
        input_check.trained_on(model, begun.sized.source),
    )


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
        ExportError: As in `float_tflite`.
        ValueError: As in `float_tflite`, or if the disk is full or can't be
            written.
    """
    check_path("path", path)
    check_folder(path)
    with staged(path) as temporary:
        data = float_tflite(model, input_signature, batch_size)
        fill(temporary, data, path)
    return len(data)
