"""Two files side by side: outputs, sizes, latency."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import runtime
from tflite_export.devices import ports
from tflite_export.tables import render
from tflite_export.tables import table

_SAMPLES = 16
_WARM_UP = 5
_SECONDS = 2.0
_LEAST_ROUNDS, _MOST_ROUNDS = 20, 500
# Random inputs of float files: a standard normal distribution.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class FileFigures:
    """Figures of one file.

    Attributes:
        path: The file.
        bytes: Its size.
        deflated_bytes: Its size after zlib, level 9.
        inputs: Type and shape of its inputs.
        latency_ms: Median time of one run of one sample, one thread, XNNPACK.
        fastest_ms: Shortest time.
    """

    path: str
    bytes: int
    deflated_bytes: int
    inputs: tuple[str, ...]
    latency_ms: float
    fastest_ms: float


@dataclasses.dataclass(frozen=True)
class OutputFigures:
    """How one output differs between the files.

    Attributes:
        name: Its name in the first file.
        max_abs_error: Largest difference of what the values stand for.
        relative_error: The same relative to the range of the first file's.
        units: The same in units of the coarser integer output, `None` where
            both are float throughout.
        agreement: Share of samples with the same largest entry, `None` where
            the output doesn't look like classes.
    """

    name: str
    max_abs_error: float
    relative_error: float
    units: float | None
    agreement: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two files side by side; `str()` is a table.

    Attributes:
        files: Figures of both.
        outputs: Differences by output.
        samples: Number of samples.
        inputs: Whether they were `"given"` or `"random"`.
        rounds: Number of timed runs of each file.
    """

    files: tuple[FileFigures, FileFigures]
    outputs: tuple[OutputFigures, ...]
    samples: int
    inputs: str
    rounds: int

    def to_json(self, indent: int | None = 2) -> str:
        """All fields as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=indent)

    def __str__(self) -> str:
        first, second = self.files
        sizes = table(
            f"sizes, and one thread of XNNPACK in {self.rounds} interleaved "
            "runs",
            ["file"],
            ["bytes", "deflated", "median ms", "fastest ms"],
            last=["inputs"],
        )
        for f in self.files:
            sizes.add_row(
                f.path,
                f"{f.bytes:,}",
                f"{f.deflated_bytes:,}",
                f"{f.latency_ms:.3f}",
                f"{f.fastest_ms:.3f}",
                ", ".join(f.inputs),
            )
        sizes.add_row(
            "second / first",
            f"{second.bytes / first.bytes:.3f}",
            f"{second.deflated_bytes / first.deflated_bytes:.3f}",
            f"{second.latency_ms / first.latency_ms:.3f}",
            f"{second.fastest_ms / first.fastest_ms:.3f}",
            "",
        )
        rows = table(
            f"outputs on {self.samples} {self.inputs} inputs",
            ["output"],
            ["max difference", "of range", "units", "same class"],
        )
        for o in self.outputs:
            rows.add_row(
                o.name,
                f"{o.max_abs_error:.3g}",
                f"{o.relative_error:.2g}",
                "-" if o.units is None else f"{o.units:.3g}",
                "-" if o.agreement is None else f"{o.agreement:.1%}",
            )
        return render(sizes, rows)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    path: str
    data: bytes
    session: runtime.Session
    inputs: list[ports.Port]
    outputs: list[ports.Port]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> _Loaded:
        try:
            data = Path(path).read_bytes()
            return cls(
                str(path),
                data,
                runtime.Session(data, "xnnpack"),
                ports.inputs(data),
                ports.outputs(data),
            )
        except OSError as error:
            raise ValueError(
                f"The file can't be read ({error.strerror}). Received: "
                f"path='{path}'"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def compare_files(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    inputs: Any = None,
) -> Comparison:
    """Runs two files on the same inputs, one sample after the other.

    Inputs and outputs correspond by name where both files name them alike,
    else by position. Integers stand for the values that their scales say.

    Args:
        first: A TFLite file.
        second: Another with inputs of the same shapes.
        inputs: One array, or a list or dict by name for several inputs, of
            real values. Random ones if `None`.

    Returns:
        Differences of outputs, sizes and latencies.

    Raises:
        ValueError: If a file can't be read or run, or they don't take the
            same inputs.
    """
    a, b = _Loaded.read(first), _Loaded.read(second)
    to_b = _correspondence(a.session.input_names, b.session.input_names)
    from_b = _correspondence(a.session.output_names, b.session.output_names)
    for k, port in enumerate(a.inputs):
        other = b.inputs[to_b[k]]
        if port.shape[1:] != other.shape[1:]:
            raise ValueError(
                "The files don't take the same inputs. Received: "
                f"{_port(port)} and {_port(other)}"
            )
    samples = _samples(a, b, to_b, inputs)
    fed_a = [p.quantize(x) for p, x in zip(a.inputs, samples, strict=True)]
    fed_b = [np.zeros(0)] * len(fed_a)
    for k, x in enumerate(samples):
        fed_b[to_b[k]] = b.inputs[to_b[k]].quantize(x)
    got_a, got_b = _run(a, fed_a), _run(b, fed_b)
    times_a, times_b = _time(a, fed_a, b, fed_b)
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


def _correspondence(first: dict[str, int], second: dict[str, int]) -> list[int]:
    """Position in the second file for each in the first."""
    if len(first) != len(second):
        raise ValueError(
            "The files have different numbers of inputs or outputs. Received: "
            f"{list(first)} and {list(second)}"
        )
    if set(first) == set(second):
        pairs = sorted((place, second[name]) for name, place in first.items())
        return [place for _, place in pairs]
    return list(range(len(first)))


def _samples(
    a: _Loaded, b: _Loaded, to_b: Sequence[int], inputs: Any
) -> list[np.ndarray]:
    if inputs is None:
        rng = np.random.default_rng(_SEED)
        return [
            _random(rng, port, b.inputs[to_b[k]])
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
        several = isinstance(inputs, (list, tuple))
        arrays = [np.asarray(x) for x in (inputs if several else [inputs])]
    if len(arrays) != len(a.inputs):
        raise ValueError(
            f"Expected {len(a.inputs)} inputs. Received: {len(arrays)} arrays"
        )
    for port, array in zip(a.inputs, arrays, strict=True):
        if array.shape[1:] != port.shape[1:] or not len(array):
            raise ValueError(
                f"Samples don't fit the input {_port(port)}. Received: "
                f"shape={array.shape}"
            )
    return arrays


def _random(
    rng: np.random.Generator, port: ports.Port, other: ports.Port
) -> np.ndarray:
    shape = (_SAMPLES, *port.shape[1:])
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


def _run(file: _Loaded, fed: Sequence[np.ndarray]) -> list[np.ndarray]:
    rows = len(fed[0])
    batches = [
        file.session(part) for part in runtime.chunks(fed, 1, file.session)
    ]
    return [
        np.concatenate([np.atleast_1d(x) for x in parts])[:rows]
        for parts in zip(*batches, strict=True)
    ]


def _time(
    a: _Loaded,
    fed_a: Sequence[np.ndarray],
    b: _Loaded,
    fed_b: Sequence[np.ndarray],
) -> tuple[list[float], list[float]]:
    """Runs both in turn, so that what slows one down slows the other."""
    parts = [
        next(runtime.chunks([x[:1] for x in fed], 1, file.session))
        for file, fed in ((a, fed_a), (b, fed_b))
    ]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _SECONDS
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
    difference = np.abs(a - b)
    worst = float(np.where(np.isnan(difference), np.inf, difference).max())
    scales = [p.scale for p in (port, other) if p.scale is not None]
    spread = float(np.ptp(a)) or 1.0
    return OutputFigures(
        name=port.name,
        max_abs_error=worst,
        relative_error=worst / spread,
        units=worst / max(scales) if scales else None,
        agreement=(
            float(np.mean(a.argmax(-1) == b.argmax(-1)))
            if a.ndim == 2 and a.shape[-1] > 1
            else None
        ),
    )


def _figures(file: _Loaded, times: Sequence[float]) -> FileFigures:
    return FileFigures(
        path=file.path,
        bytes=len(file.data),
        deflated_bytes=len(zlib.compress(file.data, 9)),
        inputs=tuple(_port(port) for port in file.inputs),
        latency_ms=statistics.median(times),
        fastest_ms=min(times),
    )


def _port(port: ports.Port) -> str:
    return f"{port.dtype} {'x'.join(map(str, port.shape)) or 'scalar'}"
