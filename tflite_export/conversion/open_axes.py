"""Inputs whose height, width or length a model leaves open.

A file with float activations keeps such axes open, and the runtime accepts any
size. The export verifies it at two sizes. A file with integer activations has
one size, that of the data; so has a file of a model that TFLite can't keep
open.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import re
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tflite_export.conversion import float_file
from tflite_export.conversion import noise
from tflite_export.conversion.source import Source
from tflite_export.conversion.trained import spooled
from tflite_export.errors import ExportError
from tflite_export.files import give_back
from tflite_export.files import let_go
from tflite_export.runtime import interpreter
from tflite_export.targets import Target

# Samples at a size other than that of the data.
_SAMPLES = 2
# Share of an output's range that tells a file with a size built in from one
# that rounds; what may be off by how much is for `verify` to say.
_OTHER_NUMBERS = 1e-2
# Characters of what is quoted of an error.
_WORDS = 200
# How Keras sets words of an error in bold.
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


@dataclasses.dataclass(frozen=True)
class Sized:
    """A model whose open sizes are decided on.

    Attributes:
        source: The model with the inputs that the file takes.
        other: Samples of another size than the data's to verify with, if the
            file takes any.
        notes: Sentences for the report.
    """

    source: Source
    other: list[np.ndarray] | None = None
    notes: tuple[str, ...] = ()


def names(source: Source) -> list[str]:
    """The inputs with an open axis behind that of the batch."""
    return [spec.name for spec in source.specs if None in spec.shape[1:]]


def settle(
    source: Source,
    target: Target,
    samples: Sequence[np.ndarray],
    origin: str,
    rest: Sequence[Sequence[np.ndarray]] = (),
    folder: str | os.PathLike[str] | None = None,
) -> Sized:
    """Decides which sizes the file takes.

    Args:
        source: The model.
        target: Where the file shall run.
        samples: Inputs of one size, one array per input.
        origin: Whether they are `"given"` or `"random"`.
        rest: Batches of other sizes that the data held.
        folder: As in `to_float_file`.

    Raises:
        ValueError: If nothing says of what size inputs are; an `ExportError`
            where TFLite alone needs to know.
    """
    if not names(source):
        return Sized(source)
    few = [array[:_SAMPLES] for array in samples]
    if origin != "given" and not _takes(source, few):
        raise ValueError(
            _unknown(source, "takes none of a size that was tried")
        )
    if target.integer or target.options.get("batch_size") is not None:
        reason = f"a file for '{target.name}' has one size"
        if origin != "given":
            raise ValueError(_unknown(source, reason))
        return _fixed(source, samples, rest, reason)
    other = _other(source, samples, rest)
    batches = [few] if other is None else [few, other]
    refused = _why_not(source, batches, folder)
    if refused and origin != "given":
        raise ExportError(_unknown(source, refused))
    if refused:
        return _fixed(source, samples, rest, refused)
    seen = [_sizes(source, batch) for batch in (samples, other) if batch]
    note = (
        f"sizes are open as in the model; verified at {' and at '.join(seen)}"
    )
    if other is None:
        note += " only: the model takes neither twice nor half the length"
    return Sized(source, other, (note,))


def _fixed(
    source: Source,
    samples: Sequence[np.ndarray],
    rest: Sequence[Sequence[np.ndarray]],
    reason: str,
) -> Sized:
    """The source for the one size of samples."""
    specs = [
        tf.TensorSpec((spec.shape[0], *array.shape[1:]), spec.dtype, spec.name)
        for spec, array in zip(source.specs, samples, strict=True)
    ]
    structure = keras.tree.pack_sequence_as(source.structure, specs)
    note = (
        f"sizes that the model leaves open are fixed at those of the inputs "
        f"used here, {_sizes(source, samples)}: {reason}"
    )
    if rest:
        note += f"; batches of other sizes were left out: {len(rest)}"
    return Sized(
        dataclasses.replace(source, structure=structure), None, (note,)
    )


def _other(
    source: Source,
    samples: Sequence[np.ndarray],
    rest: Sequence[Sequence[np.ndarray]],
) -> list[np.ndarray] | None:
    """Samples of another size; `None` where the model takes none."""
    for candidate in (*rest, *_resized(source, samples)):
        few = [array[:_SAMPLES] for array in candidate]
        if _takes(source, few):
            return few
    return None


def _resized(
    source: Source, samples: Sequence[np.ndarray]
) -> Iterator[list[np.ndarray]]:
    """Samples with open axes of twice and of half the length.

    Sizes that depend on each other, such as those of two inputs that are
    added, keep their ratio.
    """
    axes = [
        [k for k, size in enumerate(spec.shape) if k and size is None]
        for spec in source.specs
    ]
    pairs = list(zip(samples, axes, strict=True))
    yield [
        np.tile(x[:_SAMPLES], [1 + (k in own) for k in range(x.ndim)])
        for x, own in pairs
    ]
    if all(x.shape[k] % 2 == 0 for x, own in pairs for k in own):
        yield [
            x[
                tuple(
                    slice(size // 2 if k in own else size)
                    for k, size in enumerate(x.shape)
                )
            ]
            for x, own in pairs
        ]


def _takes(source: Source, samples: Sequence[np.ndarray]) -> bool:
    """Whether Keras computes something of samples."""
    try:
        source.predict([_whole(source, samples)])
    # What a layer says of a size that it can't take is of no single kind.
    except Exception:
        return False
    return True


def _why_not(
    source: Source,
    batches: Sequence[Sequence[np.ndarray]],
    folder: str | os.PathLike[str] | None = None,
) -> str | None:
    """Why sizes can't stay open, in words; `None` if they can.

    Asked of a float file, as neither converter nor kernels say before what
    they make of an axis without a length.
    """
    # As the export does, so that the converter holds no copies of tables.
    trained = source.model.quantized_weights() if source.model else []
    trained = spooled(trained, folder)
    try:
        data = float_file.to_float_file(source, trained, folder).data
        del trained
        if noise.find(data).tensors:
            return "it draws random numbers, which are compared at one size"
        pieces, found = _run(data, batches)
        # Its copy of the weights, and that of Keras, are not there at once.
        del data
        wanted = source.predict(pieces)
        for outputs in found:
            for pair in zip(outputs, wanted, strict=True):
                if any(map(_differ, *pair)):
                    return "with open ones the file computes other numbers"
    # Tracing a layer, the converter and the kernels say it in many ways.
    except Exception as error:
        words = " ".join(_COLOUR.sub("", str(error)).split())
        return f"open ones are refused: {words[:_WORDS]}"
    return None


def _run(
    data: bytes | mmap.mmap, batches: Sequence[Sequence[np.ndarray]]
) -> tuple[list[list[np.ndarray]], list[list[list[np.ndarray]]]]:
    """Batches as a file takes them, and what each set of kernels makes of them.

    By kernels, batch and output.
    """
    give_back(len(data))
    whole = bytes(data)
    let_go(data)
    found = []
    for kernels in interpreter.KERNELS:
        session = interpreter.Session(whole, kernels)
        pieces = [
            piece
            for batch in batches
            for piece in interpreter.chunks(batch, _SAMPLES, session)
        ]
        found.append([session(piece) for piece in pieces])
        del session
    return pieces, found


def _differ(got: np.ndarray, wanted: np.ndarray) -> bool:
    if got.shape != wanted.shape:
        return True
    if not wanted.size:
        return False
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
    top = np.abs(wanted.astype(np.float64)).max()
    return not error <= _OTHER_NUMBERS * max(top, 1e-6)


def _whole(source: Source, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Samples that fill a batch, where the model takes one size of these."""
    rows = next((s.shape[0] for s in source.specs if s.shape[0]), None)
    if rows is None:
        return list(samples)
    return [np.resize(x, (rows, *x.shape[1:])) for x in samples]


def _sizes(source: Source, samples: Sequence[np.ndarray]) -> str:
    return ", ".join(
        f"'{spec.name}' of {' x '.join(map(str, array.shape[1:]))}"
        for spec, array in zip(source.specs, samples, strict=True)
        if None in spec.shape[1:]
    )


def _unknown(source: Source, reason: str) -> str:
    shapes = [tuple(spec.shape) for spec in source.specs]
    return (
        f"The model leaves sizes of {names(source)} open, and {reason}. "
        "Expected `representative_data` of the size to export for, or "
        "`input_signature` with that size. Received: neither, and the shapes "
        f"{shapes}"
    )
