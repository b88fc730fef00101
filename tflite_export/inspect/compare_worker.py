"""Two files side by side, run in this process.

A worker: `compare.compare_files` starts it as a process of its own, because
the interpreter is native code that a file may bring down.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.differences import agreement
from tflite_export.differences import spread
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect.comparison_report import Comparison
from tflite_export.inspect.comparison_report import FileFigures
from tflite_export.inspect.comparison_report import OutputFigures
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.runtime import sandbox

_SAMPLES = 16
_WARM_UP = 5
_LEAST_ROUNDS, _MOST_ROUNDS = 20, 500
# Random inputs of float files: a standard normal distribution.
_SEED = 0
# Their length where both files leave an axis open.
_OPEN_AXIS = 32


@dataclasses.dataclass(frozen=True)
class _Loaded:
    path: str
    data: bytes
    session: interpreter.Session
    inputs: list[ports.Port]
    outputs: list[ports.Port]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> _Loaded:
        data = files.read_bytes(path, fb.check_identifier)
        try:
            # First what goes through the gate, then the interpreter.
            with fb.parsed_once():
                check_model.check_written(fb.read(data))
                inputs, outputs = ports.inputs(data), ports.outputs(data)
            if not inputs or not outputs:
                raise ValueError(
                    "The main graph has no input or no output. Expected both. "
                    f"Received: {len(inputs)} inputs, {len(outputs)} outputs"
                )
            session = interpreter.Session(data, "xnnpack")
        except (RuntimeError, ValueError) as error:
            reason = _reason(error)
            if "Received: " not in reason:
                reason = (
                    "The file can't be run. Expected one that LiteRT takes. "
                    f"Received: {reason}"
                )
            raise ValueError(f"{path}: {reason}") from error
        return cls(str(path), data, session, inputs, outputs)


def main(folder: str) -> None:
    """Answers the request in a folder, see `sandbox`."""
    request = sandbox.read_request(folder)
    with sandbox.answering(folder, request):
        result = compare(
            request["first"],
            request["second"],
            _given(request, folder),
            request["seconds"],
        )
        sandbox.answer(folder, result.to_json())


def _given(request: dict[str, Any], folder: str) -> Any:
    names = request["names"]
    arrays = sandbox.read_arrays(folder)
    if names is None:
        return arrays or None
    return dict(zip(names, arrays, strict=True))


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    inputs: Any,
    seconds: float,
) -> Comparison:
    """As `compare_files`, in this process; times latencies for some seconds.

    Raises:
        ValueError: If a file can't be read, or they don't take the same
            inputs.
        RuntimeError: If the interpreter can't run a file.
    """
    a, b = _Loaded.read(first), _Loaded.read(second)
    to_b = _correspondence(a.inputs, b.inputs, *_names(a, b, "input_names"))
    from_b = _correspondence(
        a.outputs, b.outputs, *_names(a, b, "output_names")
    )
    for k, port in enumerate(a.inputs):
        other = b.inputs[to_b[k]]
        if _meeting(port, other) is None:
            raise ValueError(
                "The files don't take the same inputs. Received: "
                f"{_port(port)} and {_port(other)}"
            )
    samples = _samples(a, b, to_b, inputs)
    fed_a = [p.quantize(x) for p, x in zip(a.inputs, samples, strict=True)]
    fed_b = [np.zeros(0)] * len(fed_a)
    for k, x in enumerate(samples):
        fed_b[to_b[k]] = b.inputs[to_b[k]].quantize(x)
    got_a = interpreter.in_batches(fed_a, 1, a.session)
    got_b = interpreter.in_batches(fed_b, 1, b.session)
    times_a, times_b = _time(a, fed_a, b, fed_b, seconds)
    return Comparison(
        files=(_figures(a, times_a), _figures(b, times_b)),
        outputs=tuple(
            _difference(port, b.outputs[from_b[k]], got_a[k], got_b[from_b[k]])
            for k, port in enumerate(a.outputs)
        ),
        samples=len(samples[0]),
        inputs="random" if inputs is None else "given",
        rounds=len(times_a),
    )


def _reason(error: Exception) -> str:
    """What the interpreter says, in words where it says nothing."""
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is no text in UTF-8"
    return str(error).strip() or (
        f"the interpreter refuses it without a reason ({type(error).__name__})"
    )


def _names(a: _Loaded, b: _Loaded, kind: str) -> list[dict[str, int]]:
    return [getattr(file.session, kind) for file in (a, b)]


def _correspondence(
    ports_a: Sequence[ports.Port],
    ports_b: Sequence[ports.Port],
    first: dict[str, int],
    second: dict[str, int],
) -> list[int]:
    """Position in the second file for each in the first."""
    places = list(range(len(ports_a)))
    if len(ports_a) != len(ports_b):
        raise ValueError(
            "The files have different numbers of inputs or outputs. Expected "
            "two files of one model, or of models that take and give as much. "
            f"Received: {len(ports_a)} and {len(ports_b)}: "
            f"{list(first)[:8]} and {list(second)[:8]}"
        )
    if set(first) == set(second):
        found = {place: second[name] for name, place in first.items()}
        # Not where names are missing, or a port is listed several times.
        if sorted(found) == places == sorted(found.values()):
            return [found[place] for place in places]
    return places


def _samples(
    a: _Loaded, b: _Loaded, to_b: Sequence[int], inputs: Any
) -> list[np.ndarray]:
    if inputs is None:
        rng = np.random.default_rng(_SEED)
        return [
            random_samples(rng, port, b.inputs[to_b[k]])
            for k, port in enumerate(a.inputs)
        ]
    if isinstance(inputs, dict):
        names = a.session.input_names
        if set(inputs) != set(names):
            raise ValueError(
                f"Expected inputs {list(names)}. Received: {sorted(inputs)}"
            )
        arrays = [np.zeros(0)] * len(names)
        for name, place in names.items():
            arrays[place] = np.asarray(inputs[name])
    else:
        arrays = list(inputs)
    if len(arrays) != len(a.inputs):
        raise ValueError(
            f"Expected {len(a.inputs)} inputs. Received: {len(arrays)} arrays"
        )
    for port, array in zip(a.inputs, arrays, strict=True):
        if not array.size or not _fits(array.shape, port):
            raise ValueError(
                f"Samples don't fit the input {_port(port)}. Expected arrays "
                "of such rows, samples along the first axis. Received: "
                f"shape={array.shape}"
            )
    return arrays


def _fits(shape: Sequence[int], port: ports.Port) -> bool:
    """Whether samples of a shape go into an input, whatever their number."""
    return len(shape) == len(port.axes) and all(
        wanted in (-1, length)
        for length, wanted in zip(shape[1:], port.axes[1:], strict=True)
    )


def _meeting(one: ports.Port, other: ports.Port) -> tuple[int, ...] | None:
    """Shape of a sample that both files take; `None` for none."""
    pairs = list(zip(one.axes[1:], other.axes[1:], strict=False))
    if len(one.axes) != len(other.axes) or any(
        a != b and -1 not in (a, b) for a, b in pairs
    ):
        return None
    lengths = (max(pair) for pair in pairs)
    return tuple(_OPEN_AXIS if n < 0 else n for n in lengths)


def random_samples(
    rng: np.random.Generator, port: ports.Port, other: ports.Port
) -> np.ndarray:
    """Samples that two inputs take, of their types and within their ranges."""
    shape = (_SAMPLES, *(_meeting(port, other) or ()))
    for one in (port, other):
        if one.dtype.kind in "iu" and one.scale is not None:
            # Most of the range; its ends are rare in real inputs, and two
            # files rarely saturate alike.
            info = np.iinfo(one.dtype)
            span = int(info.max) - int(info.min)
            codes = rng.normal(info.min + span / 2, span / 6, shape)
            codes = np.clip(np.round(codes), info.min, info.max)
            return one.real(codes).astype(np.float32)
    if port.dtype.kind == "f":
        return rng.normal(size=shape).astype(np.float32)
    # 0 and 1 are valid indices of anything.
    return rng.integers(0, 2, shape).astype(port.dtype)


def _time(
    a: _Loaded,
    fed_a: Sequence[np.ndarray],
    b: _Loaded,
    fed_b: Sequence[np.ndarray],
    seconds: float,
) -> tuple[list[float], list[float]]:
    """Runs both in turn, so that what slows one down slows the other."""
    parts = [
        next(interpreter.chunks([x[:1] for x in fed], 1, file.session))
        for file, fed in ((a, fed_a), (b, fed_b))
    ]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    for number in range(_WARM_UP + _MOST_ROUNDS):
        for file, part, slot in zip((a, b), parts, times, strict=True):
            start = time.perf_counter()
            file.session(part)
            if number >= _WARM_UP:
                slot.append(1e3 * (time.perf_counter() - start))
        if time.perf_counter() > end and len(times[0]) >= _LEAST_ROUNDS:
            break
    return times


def _difference(
    port: ports.Port, other: ports.Port, got: np.ndarray, wanted: np.ndarray
) -> OutputFigures:
    a, b = port.real(got), other.real(wanted)
    if a.shape != b.shape:
        raise ValueError(
            f"The outputs {_port(port)} and {_port(other)} have different "
            f"shapes. Received: {a.shape} and {b.shape}"
        )
    with np.errstate(invalid="ignore"):
        # Two that are infinite alike do not differ; NaN differs from all.
        difference = np.where(a == b, 0.0, np.abs(a - b))
    difference = np.where(np.isnan(difference), np.inf, difference)
    # An output may have no element.
    worst = float(difference.max(initial=0.0))
    scales = [p.scale for p in (port, other) if p.scale is not None]
    return OutputFigures(
        name=port.name,
        max_abs_error=worst,
        relative_error=worst / spread(a),
        units=worst / max(scales) if scales else None,
        agreement=(
            agreement(b, a)
            if a.ndim == 2 and a.shape[-1] > 1 and len(a)
            else None
        ),
    )


def _figures(file: _Loaded, times: Sequence[float]) -> FileFigures:
    return FileFigures(
        path=file.path,
        bytes=len(file.data),
        deflated_bytes=len(zlib.compress(file.data)),
        inputs=tuple(_port(port) for port in file.inputs),
        latency_ms=statistics.median(times),
        fastest_ms=min(times),
    )


def _port(port: ports.Port) -> str:
    lengths = (*port.shape[:1], *port.axes[1:])
    axes = "x".join("?" if n < 0 else str(n) for n in lengths)
    return f"{port.dtype} {axes or 'scalar'}"


if __name__ == "__main__":
    main(*sys.argv[1:])
