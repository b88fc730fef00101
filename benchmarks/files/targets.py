"""What each target makes of a model: bytes, and latency on this machine.

All weights at 4 bits, made up; nothing here says anything about accuracy.
Latencies are of one sample on one thread of LiteRT with XNNPACK, files run in
turn, so that only their ratios hold.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ai_edge_litert import interpreter as litert

import msq_tf
from benchmarks.harness import timing
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from tflite_export import export
from tflite_export import float_tflite
from tflite_export.runtime import interpreter as runtime
from train.models import builders

_MODELS: dict[str, tuple[tuple[int, int, int], int, float]] = {
    "resnet8": ((32, 32, 3), 10, 1.0),
    "resnet20": ((32, 32, 3), 10, 1.0),
    "mobilenet_v2": ((96, 96, 3), 1000, 0.5),
}
_BITS = 4
_TARGETS = ("cpu_float", "min_size", "cpu_int8", "cpu_int16", "mcu")
_FLOAT, _INT8 = "float", "int8"
_SAMPLES = 16


def measure(rounds: int = 200) -> dict[str, Any]:
    """Exports and times every model for every target.

    Args:
        rounds: Timed runs of each file.

    Returns:
        Bytes and times, JSON values.
    """
    runs = []
    for name, (shape, classes, alpha) in _MODELS.items():
        keras.utils.set_random_seed(0)
        model = builders.build(name, shape, classes, alpha)
        _as_if_trained(model)
        samples = np.random.default_rng(0).normal(size=(_SAMPLES, *shape))
        files = _files(model, samples.astype(np.float32))
        functions = {k: _runner(data, shape) for k, data in files.items()}
        seconds = timing.interleaved(functions, rounds, warmup=10)
        for kind, data in files.items():
            session = runtime.Session(data, "xnnpack")
            runs.append(
                {
                    "model": name,
                    "file": kind,
                    "bytes": len(data),
                    "deflated_bytes": len(zlib.compress(data)),
                    "ms": timing.milliseconds(seconds[kind]),
                    "fastest_ms": 1e3 * min(seconds[kind]),
                    "of_float": timing.ratio(seconds, kind, _FLOAT),
                    "of_int8": timing.ratio(seconds, kind, _INT8),
                    "pieces": session.delegated(),
                    "builtin": session.not_delegated(),
                }
            )
    return {
        "bits": _BITS,
        "rounds": rounds,
        "seed": 0,
        "inputs": {name: list(spec[0]) for name, spec in _MODELS.items()},
        "runs": runs,
    }


def _as_if_trained(model: keras.Model) -> None:
    """Gives normalizations statistics, some of them with negative gammas."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        size = layer.gamma.shape
        layer.gamma.assign(rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1]))
        layer.beta.assign(rng.normal(0, 0.3, size))
        layer.moving_mean.assign(rng.normal(0, 0.1, size))
        layer.moving_variance.assign(rng.uniform(0.5, 1.5, size))


def _files(model: keras.Model, samples: np.ndarray) -> dict[str, bytes]:
    """The float file, the plain int8 file, and one file per target."""
    files = {_FLOAT: float_tflite(model)}
    qmodel = msq_tf.quantize_model(model)
    with tempfile.TemporaryDirectory() as folder:

        def exported(target: str, bits: int) -> bytes:
            qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
            path = Path(folder) / f"{target}.tflite"
            export(qmodel, path, target=target, representative_data=samples)
            return path.read_bytes()

        # At 8 bits nothing is left that could be stored in less.
        files[_INT8] = exported("cpu_int8", 8)
        for target in _TARGETS:
            files[target] = exported(target, _BITS)
    return files


def _runner(data: bytes, shape: tuple[int, int, int]) -> Any:
    interpreter = litert.Interpreter(model_content=data, num_threads=1)
    interpreter.resize_tensor_input(
        interpreter.get_input_details()[0]["index"], (1, *shape)
    )
    interpreter.allocate_tensors()
    (port,) = interpreter.get_input_details()
    sample = np.random.default_rng(1).normal(size=(1, *shape))
    interpreter.set_tensor(port["index"], sample.astype(port["dtype"]))
    return interpreter.invoke


def markdown(content: dict[str, Any]) -> str:
    """Bytes and latencies of all files, against plain int8."""
    results, environment = content["results"], content["environment"]
    runs = results["runs"]
    plain = {r["model"]: r["bytes"] for r in runs if r["file"] == _INT8}
    return page(
        f"`make bench`, all weights at {results['bits']} bits, LiteRT, one "
        f"thread, medians of {results['rounds']} interleaved rounds, "
        f"{environment['date']}, {environment['machine']} (ARM will differ); "
        "plain int8 is `cpu_int8` with all weights at 8 bits:",
        table(
            (
                "model",
                "file",
                "bytes",
                "deflated",
                "of plain int8",
                "latency of plain int8",
            ),
            (
                (
                    run["model"],
                    run["file"],
                    f"{run['bytes']:,}",
                    f"{run['deflated_bytes']:,}",
                    f"{run['bytes'] / plain[run['model']]:.2f}x",
                    f"{run['of_int8']:.2f}x",
                )
                for run in runs
                if run["file"] != _INT8
            ),
            left=2,
        ),
    )


def containers(content: dict[str, Any]) -> str:
    """What containers take of one model."""
    results, environment = content["results"], content["environment"]
    runs = {
        run["file"]: run for run in results["runs"] if run["model"] == "resnet8"
    }
    return page(
        f"`python -m benchmarks targets`, all weights at {results['bits']} "
        f"bits, one thread, medians of {results['rounds']} interleaved rounds, "
        f"{environment['date']}:",
        table(
            ("file", "bytes", "deflated", "latency of float"),
            (
                (
                    name if name == _FLOAT else f"`{name}`",
                    f"{runs[name]['bytes']:,}",
                    f"{runs[name]['deflated_bytes']:,}",
                    f"{runs[name]['of_float']:.2f}x",
                )
                for name in (_FLOAT, "cpu_float", "min_size")
            ),
        ),
    )
