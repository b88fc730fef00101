"""Measures a file in this process.

A worker: `measured.measure` starts it as a process of its own, because the
interpreter is native code that a file may bring down.
"""

from __future__ import annotations

import collections
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import files
from tflite_export.differences import Decision
from tflite_export.differences import divergence
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import compare_worker
from tflite_export.looking import answers
from tflite_export.looking import reference
from tflite_export.looking import tensor_errors
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.runtime import sandbox

# Samples that tensors are compared on, and at once.
_TENSOR_SAMPLES = 32
_AT_ONCE = 32
_WORST = 12
_WARM_UP, _ROUNDS, _SECONDS = 3, 50, 1.0
# Share of answers that weights which are not rounded must have in common with
# those that are, to be a model to compare with.
_ALIKE = 0.8
# How long the damage of single layers is measured.
_DAMAGE_SECONDS = 60.0


def main(folder: str) -> None:
    """Answers the request in a folder, see `sandbox`."""
    request = sandbox.read_request(folder)
    with sandbox.answering(folder, request):
        found = measure(request, sandbox.read_arrays(folder))
        sandbox.answer(folder, json.dumps(_finite(found), allow_nan=False))


def measure(
    request: Mapping[str, Any], arrays: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Runs the file of a request.

    `arrays` are the inputs, the float weights of the tensors in
    `request["floats"]`, the outputs of the float model if `request["given"]`,
    and the labels if `request["labels"]`.

    Raises:
        ValueError: If the file can't be read, or not be run on the inputs.
    """
    data = files.read_bytes(request["path"], fb.check_identifier)
    with fb.parsed_once():
        model = fb.read(data)
        check_model.check_written(model)
        ends = ports.inputs(data)
        count = request["inputs"]
        if not count:
            return _without_data(data, model, ends)
        samples = [np.asarray(x) for x in arrays[:count]]
        rest = list(arrays[count:])
        floats = {int(index): rest.pop(0) for index in request["floats"]}
        given = [rest.pop(0) for _ in range(request["given"])]
        labels = rest.pop(0) if request["labels"] else None
        decisions = [
            None if row is None else Decision(**row)
            for row in request["decisions"]
        ]
        found: dict[str, Any] = {"missing": {}}
        session = interpreter.Session(data, "xnnpack")
        found["kernels"] = _kernels(data, model, ends, samples)
        fed = [p.quantize(x) for p, x in zip(ends, samples, strict=True)]
        got = _real(data, interpreter.in_batches(fed, _AT_ONCE, session))
        found["latency_ms"] = _latency(session, fed)
        try:
            twin = _Twin(data, ends, floats)
            plain = twin(samples)
            if floats and request["trained"]:
                trained = _Twin(data, ends, {})(samples)
                found["alike"] = answers.alike(decisions, trained, plain)
                if found["alike"] < _ALIKE:
                    # What training moves is no model by itself any more.
                    floats, plain = {}, trained
                    twin = _Twin(data, ends, floats)
            found["floats"] = bool(floats)
            wanted = given or plain
        except (RuntimeError, ValueError) as error:
            found["missing"]["tensors"] = _reason(error)
            wanted = given
        else:
            few = [x[:_TENSOR_SAMPLES] for x in samples]
            try:
                rows = tensor_errors.measure(data, floats, few)
                found["tensors"] = rows
                found["wrong"] = tensor_errors.first_wrong(rows)
            except (RuntimeError, ValueError) as error:
                found["missing"]["tensors"] = _reason(error)
            if floats:
                found["damage"] = _damage(twin, floats, few, decisions)
        places = session.output_names
        names = sorted(places, key=places.__getitem__)
        if not wanted:
            found["missing"]["samples"] = "there is no float model to look at"
            return found
        try:
            found |= answers.compare(
                _padded(names, len(got)), decisions, wanted, got, labels, _WORST
            )
        except ValueError as error:
            if labels is not None:
                raise
            found["missing"]["samples"] = _reason(error)
        else:
            found["max_units"] = _units(ports.outputs(data), wanted, got)
        return found


def _without_data(
    data: bytes, model: Any, ends: Sequence[ports.Port]
) -> dict[str, Any]:
    """Which kernels run the file, and how fast, on random inputs."""
    rng = np.random.default_rng(0)
    samples = [compare_worker.random_samples(rng, p, p) for p in ends]
    fed = [p.quantize(x) for p, x in zip(ends, samples, strict=True)]
    session = interpreter.Session(data, "xnnpack")
    return {
        "missing": {},
        "kernels": _kernels(data, model, ends, samples),
        "latency_ms": _latency(session, fed),
    }


class _Twin:
    """The float model of a file, see `reference`."""

    def __init__(
        self,
        data: bytes,
        ends: Sequence[ports.Port],
        floats: Mapping[int, np.ndarray],
    ):
        self._file = data
        self._ends = ends
        self.data = reference.unquantized(data, floats).data
        self._session = interpreter.Session(self.data, "xnnpack")

    def __call__(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._run(self._session, samples)

    def _run(
        self, session: interpreter.Session, samples: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        real = [
            p.real(x).astype(np.float32)
            if x.dtype.kind in "iu" and p.scale is not None
            else x
            for p, x in zip(self._ends, samples, strict=True)
        ]
        return interpreter.in_batches(real, _AT_ONCE, session)

    def with_floats(
        self, floats: Mapping[int, np.ndarray], samples: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Its outputs where other weights are float."""
        data = reference.unquantized(self._file, floats).data
        return self._run(interpreter.Session(data, "xnnpack"), samples)


def _damage(
    twin: _Twin,
    floats: Mapping[int, np.ndarray],
    samples: Sequence[np.ndarray],
    decisions: Sequence[Decision | None],
) -> dict[str, float]:
    """What one quantized weight does to the outputs, all others in float."""
    wanted = twin(samples)
    found: dict[str, float] = {}
    end = time.monotonic() + _DAMAGE_SECONDS
    for tensor in floats:
        others = {k: v for k, v in floats.items() if k != tensor}
        got = twin.with_floats(others, samples)
        found[str(tensor)] = sum(map(divergence, decisions, wanted, got))
        if time.monotonic() > end:
            break
    return found


def _kernels(
    data: bytes,
    model: Any,
    ends: Sequence[ports.Port],
    samples: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Which sets of kernels run the file, and what XNNPACK leaves over."""
    found: dict[str, Any] = {}
    names = [fb.op_name(model, op) for op in model.subgraphs[0].operators]
    for kernels in interpreter.KERNELS:
        try:
            session = interpreter.Session(data, kernels)
            fed = [p.quantize(x) for p, x in zip(ends, samples, strict=True)]
            session(next(interpreter.chunks(fed, 1, session)))
        except (RuntimeError, ValueError) as error:
            found[kernels] = _reason(error)
            continue
        found[kernels] = None
        if kernels == "xnnpack":
            left = session.left_over()
            if left is not None:
                rest = collections.Counter(left.values())
                taken = collections.Counter(names)
                taken.subtract(rest)
                found["left"] = sorted(rest.items())
                found["taken"] = sorted((+taken).items())
    return found


def _latency(
    session: interpreter.Session, fed: Sequence[np.ndarray]
) -> float | None:
    """Median milliseconds of one run of one batch, one thread."""
    single = next(interpreter.chunks([x[:1] for x in fed], 1, session))
    times = []
    end = time.perf_counter() + _SECONDS
    for number in range(_WARM_UP + _ROUNDS):
        start = time.perf_counter()
        session(single)
        if number >= _WARM_UP:
            times.append(1e3 * (time.perf_counter() - start))
        if time.perf_counter() > end and times:
            break
    return statistics.median(times) if times else None


def _real(data: bytes, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [
        port.real(array)
        for port, array in zip(ports.outputs(data), outputs, strict=True)
    ]


def _units(
    ends: Sequence[ports.Port],
    wanted: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
) -> float | None:
    """Largest difference of an output in units of its grid."""
    found = [
        float(np.abs(a - b).max(initial=0.0)) / port.scale
        for port, a, b in zip(ends, wanted, got, strict=True)
        if port.scale is not None
    ]
    return max(found, default=None)


def _padded(names: Sequence[str], count: int) -> list[str]:
    return [*names[:count], *(f"output {k}" for k in range(len(names), count))]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:400] or type(error).__name__


def _finite(value: Any) -> Any:
    """The same with `None` for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
