"""`export_generation`: from a quantized language model to a verified file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msq_tf.arguments import check_flag
from msq_tf.arguments import check_integer
from msq_tf.arguments import check_path
from msq_tf.atomic_files import check_folder
from tflite_export import progress
from tflite_export import steps
from tflite_export import target_file
from tflite_export import targets
from tflite_export.conversion.source import QuantizedModel
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.generation import encoder_decoder
from tflite_export.generation import joining
from tflite_export.generation.caches import Caches
from tflite_export.generation.prompts import token_ids
from tflite_export.generation.prompts import translations
from tflite_export.generation.report import GenerationReport
from tflite_export.generation.report import SignatureReport
from tflite_export.generation.signatures import DECODE
from tflite_export.generation.signatures import PREFILL
from tflite_export.generation.signatures import Signature
from tflite_export.generation.signatures import View
from tflite_export.generation.signatures import samples as samples_of
from tflite_export.output_files import fill
from tflite_export.output_files import staged
from tflite_export.preparation import opening
from tflite_export.reports.tensors import float_reports
from tflite_export.reports.tensors import tensor_report
from tflite_export.runtime import ports
from tflite_export.runtime import tensorflow_runtime
from tflite_export.runtime.interpreter import Session
from tflite_export.runtime.interpreter import SignatureSession
from tflite_export.targets import Target
from tflite_export.verification import readback


def export_generation(
    model: QuantizedModel,
    path: str | os.PathLike[str],
    target: str = "min_size",
    prompt_length: int | None = None,
    max_length: int = 128,
    representative_data: Any = None,
    max_relative_error: float | None = None,
    samples: int = 8,
    verbose: bool = True,
) -> GenerationReport:
    """Writes a language model as a TFLite file that generates text.

    The file has two signatures, which share the bytes of the weights. Keys and
    values of each layer are inputs and outputs of both, `k_cache_0`,
    `v_cache_0`, `k_cache_1` and so on, float32 of shape (1, max_length, heads,
    features), zeros at first. What a call gives is passed to the next one.

    - `prefill` takes `token_ids`, int32 of shape (1, prompt_length), and
      `position`, int32 of shape (1,), the place of the first of them. It gives
      caches. The last part of a prompt is filled up with any tokens; where
      that would pass `max_length`, the rest goes through `decode`.
    - `decode` takes `token_ids` of shape (1, 1) and `position`. It gives
      caches and `logits`, float32 of shape (1, vocabulary), of the token
      behind it. It begins at the last token of the prompt.

    The file of a `Seq2SeqLM`, which reads a text and writes another one, has
    `encode` in place of `prefill`. It takes `encoder_token_ids` and
    `encoder_padding_mask`, int32 of shape (1, prompt_length), ones for tokens,
    and gives `k_cross_0`, `v_cross_0` and so on, keys and values of the text.
    `decode` takes these, the mask and the caches.

    Each signature is verified as `export` verifies a file, and the file
    appears at `path` only if both compute, bit for bit, what they computed
    alone.

    Args:
        model: A model of `msq_tf.quantize_model` whose base is a `CausalLM` or
            a `Seq2SeqLM` of KerasHub.
        path: Where to write. An existing file is replaced.
        target: `"min_size"` or `"cpu_float"`: a target with float activations.
        prompt_length: Tokens that a call of `prefill` or `encode` takes. `None`
            for half of `max_length`.
        max_length: Tokens of a text that is written, prompt included.
        representative_data: Texts to verify with: what `generate` takes,
            strings or, without a preprocessor, a dictionary; or, for a
            `CausalLM`, token ids of shape (text, token). Random tokens if
            `None`.
        max_relative_error: As in `export`.
        samples: Largest number of texts to verify with.
        verbose: As in `export`.

    Returns:
        The report: sizes, tensors and checks; `str()` prints it.

    Raises:
        ExportError: As in `export`, or if the model keeps something else than
            keys and values from token to token. No file remains.
        ValueError: If an argument is wrong, the model is neither of KerasHub's
            two, or the disk is full or can't be written.

    Examples:
        >>> report = export_generation(qmodel, "lm.tflite", max_length=64)
        >>> print(report)
    """
    chosen = _target(target)
    _check_model(model)
    limits = target_file.Limits(max_relative_error)
    check_integer("max_length", max_length, 2)
    check_integer("prompt_length", prompt_length, 1, optional=True)
    check_integer("samples", samples, 1)
    check_flag("verbose", verbose)
    check_path("path", path)
    check_folder(path)
    chunk = max_length // 2 if prompt_length is None else prompt_length
    views, given = _functions(
        model, chunk, max_length, representative_data, samples
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(fb.parsed_once())
        stack.enter_context(
            progress.shown(f"export {Path(path).name}", verbose)
        )
        temporary = stack.enter_context(staged(path))
        made = {
            name: _made(name, view, chosen, limits, given[name], path)
            for name, view in views.items()
        }
        progress.step("joining the signatures")
        data = joining.join({key: one.data for key, one in made.items()})
        written = _written(made)
        readback.check_codes(data, written)
        readback.check_versions(data)
        notes = tensorflow_runtime.load_everywhere(data, [])
        for name, one in made.items():
            progress.step(f"running {name} on all kernels")
            _check_same(data, name, one)
        fill(temporary, data, path)
    return GenerationReport(
        path=str(path),
        target=target,
        prompt_length=chunk,
        max_length=max_length,
        signatures={name: one.report for name, one in made.items()},
        file_bytes=len(data),
        float_file_bytes=max(one.float_bytes for one in made.values()),
        notes=(*notes, *_repeated(data, written), *_unread(made)),
    )


def _functions(
    model: Any, chunk: int, length: int, data: Any, count: int
) -> tuple[dict[str, View], dict[str, dict[str, np.ndarray]]]:
    """The functions of the file by name, and inputs of each to verify with."""
    base = model.base
    if encoder_decoder.reads_and_writes(base):
        translator = encoder_decoder.Translator(base, chunk, length)
        texts = translations(base, data, count, chunk, length)
        return (
            encoder_decoder.views(model, translator),
            encoder_decoder.samples(model, translator, texts),
        )
    if chunk > length:
        raise ValueError(
            "A prompt is a part of the text. Expected a prompt_length of at "
            f"most max_length={length}. Received: prompt_length={chunk}"
        )
    caches = Caches(base, length)
    views = {
        name: View(model, Signature(base, caches, tokens, name == DECODE))
        for name, tokens in ((PREFILL, chunk), (DECODE, 1))
    }
    ids = token_ids(base, data, count, length)
    return views, samples_of(views[DECODE], caches, ids, length, chunk)


@dataclasses.dataclass(frozen=True)
class _Made:
    """A signature as a file of its own, verified.

    Attributes:
        data: The bytes.
        graphs: Its graphs.
        written: Its quantized weights.
        inputs: What it was verified with, in the order of its inputs.
        float_bytes: Size of its float file.
        unread: Paths of weights that it never reads.
        report: The findings.
    """

    data: bytes
    graphs: int
    written: tuple[Any, ...]
    inputs: Sequence[np.ndarray]
    float_bytes: int
    unread: frozenset[str]
    report: SignatureReport


def _target(name: str) -> Target:
    chosen = targets.load(name)
    if chosen.integer:
        raise ValueError(
            "A key/value cache has no trained ranges, so the signatures of "
            "generation have float activations. Expected "
            "target='min_size' or 'cpu_float'. Received: "
            f"target={name!r}"
        )
    return chosen


def _check_model(model: Any) -> None:
    if not isinstance(model, QuantizedModel):
        raise ValueError(
            "Expected a model of msq_tf.quantize_model. Received: "
            f"model={model!r}"
        )
    causal = all(
        callable(getattr(model.base, name, None))
        for name in ("call_with_cache", "_build_cache")
    )
    if not causal and not encoder_decoder.reads_and_writes(model.base):
        raise ValueError(
            "The model has no `call_with_cache`. Expected a `CausalLM` or "
            "`Seq2SeqLM` of KerasHub as the base of the quantized model; "
            "`export` writes other models as one function. Received: "
            f"{type(model.base).__name__}"
        )


def _made(
    name: str,
    view: View,
    target: Target,
    limits: target_file.Limits,
    samples: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
) -> _Made:
    """Makes and verifies the file of one signature."""
    progress.step(f"converting {name}")
    begun = opening.opened(
        view,
        target,
        samples,
        view.base.specs,
        1,
        len(next(iter(samples.values()))),
    )
    job = steps.convert(view, begun, Path(path).parent)
    plan = job.plan(target, limits)
    built = plan.build(target)
    readback.check_codes(built.data, built.written)
    verified = plan.verify(built, job.inputs)
    if job.converted.source.states:
        raise ExportError(
            "A layer of the model keeps a state beside the cache. Expected a "
            "model that keeps keys and values alone. Received: "
            f"{', '.join(s.name for s in job.converted.source.states)}"
        )
    return _Made(
        built.data,
        len(fb.read(built.data).subgraphs),
        built.written,
        job.inputs,
        len(job.converted.data),
        frozenset(job.unread),
        SignatureReport(
            inputs=_shapes(ports.inputs(built.data)),
            outputs=_shapes(ports.outputs(built.data)),
            tensors=tuple(tensor_report(record) for record in built.written),
            float_tensors=float_reports(job.matching),
            checks=verified.checks,
            bytes=len(built.data),
            notes=(
                *begun.notes,
                *job.converted.notes,
                *built.notes,
                *verified.notes,
            ),
        ),
    )


def _shapes(found: Sequence[ports.Port]) -> dict[str, tuple[int, ...]]:
    return {port.name: port.shape for port in found}


def _written(made: Mapping[str, _Made]) -> list[Any]:
    """The weights of all signatures, by their graphs in the joined file."""
    written: list[Any] = []
    graphs = 0
    for one in made.values():
        written += joining.moved(one.written, graphs)
        graphs += one.graphs
    return written


def _check_same(data: bytes, name: str, one: _Made) -> None:
    """Compares a signature of the joined file with itself alone.

    Raises:
        ExportError: If they differ in a bit.
    """
    for check in one.report.checks:
        if not check.ran:
            continue
        alone = Session(one.data, check.kernels)
        session = SignatureSession(data, check.kernels, name)
        order = [alone.input_names[key] for key in session.input_names]
        for row in range(check.samples):
            batch = [array[row : row + 1] for array in one.inputs]
            wanted = alone(batch)
            got = session([batch[k] for k in order])
            for key, place in session.output_names.items():
                if not np.array_equal(
                    got[place], wanted[alone.output_names[key]]
                ):
                    raise ExportError(
                        f"The signature '{name}' computes other numbers than "
                        f"alone, on the {check.kernels} kernels. Expected the "
                        f"same bits. Received: other ones in '{key}'"
                    )


def _repeated(data: bytes, written: Sequence[Any]) -> list[str]:
    """Notes on weights that signatures read in different arrangements."""
    twice = [
        path
        for path, held in joining.buffers(data, written).items()
        if len(held) > 1
    ]
    if not twice:
        return []
    return [
        "stored more than once, as the signatures read them in different "
        f"arrangements: {', '.join(twice)}"
    ]


def _unread(made: Mapping[str, _Made]) -> list[str]:
    """Notes on weights that no signature reads."""
    paths = frozenset.intersection(*(one.unread for one in made.values()))
    if not paths:
        return []
    return [
        "not in the file, since generation never reads them: "
        f"{', '.join(sorted(paths))}"
    ]
