"""How much slower convolutions on 4-bit weights are than on 8-bit ones.

One layer a model, exported for `mcu`: the only target whose files have INT4 in
convolutions. The same file runs on LiteRT, with XNNPACK and with the builtin
kernels, and on TFLite Micro's reference kernels, all on this machine. What is
emulated has no latency, so no microcontroller is in here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
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

L = keras.layers
_LAYERS: dict[str, tuple[tuple[int, int, int], Callable[[], Any]]] = {
    "3x3, 32 channels, 28x28": (
        (28, 28, 32),
        lambda: L.Conv2D(32, 3, padding="same"),
    ),
    "3x3, 64 channels, 14x14": (
        (14, 14, 64),
        lambda: L.Conv2D(64, 3, padding="same"),
    ),
    "1x1, 128 channels, 14x14": ((14, 14, 128), lambda: L.Conv2D(128, 1)),
    "depthwise 3x3, 64 channels, 28x28": (
        (28, 28, 64),
        lambda: L.DepthwiseConv2D(3, padding="same"),
    ),
}
_BITS = (8, 4)
_ARENA = 1 << 21
_ROUNDS = {"xnnpack": 200, "builtin": 200, "micro": 20}


def measure() -> dict[str, Any]:
    """Times every layer at both widths on every set of kernels.

    Returns:
        Times and their ratios, JSON values.
    """
    runs = []
    for name, (shape, make) in _LAYERS.items():
        keras.utils.set_random_seed(0)
        qmodel = msq_tf.quantize_model(
            keras.Sequential([keras.Input(shape), make()])
        )
        sample = np.random.default_rng(0).normal(size=(8, *shape))
        sample = sample.astype(np.float32)
        files = {bits: _file(qmodel, bits, sample) for bits in _BITS}
        for kernels, rounds in _ROUNDS.items():
            functions = {
                str(bits): _runner(data, kernels, sample[:1])
                for bits, data in files.items()
            }
            seconds = timing.interleaved(functions, rounds)
            runs.append(
                {
                    "layer": name,
                    "kernels": kernels,
                    "rounds": rounds,
                    "ms": {
                        k: timing.milliseconds(s) for k, s in seconds.items()
                    },
                    "of_int8": timing.ratio(seconds, "4", "8"),
                }
            )
    return {"seed": 0, "runs": runs}


def _file(qmodel: msq_tf.MSQModel, bits: int, samples: np.ndarray) -> bytes:
    qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        export(qmodel, path, "mcu", samples, integer_io=True)
        return path.read_bytes()


def _runner(
    data: bytes, kernels: str, sample: np.ndarray
) -> Callable[[], object]:
    if kernels == "micro":
        from tflite_micro.python.tflite_micro import runtime

        micro = runtime.Interpreter.from_bytes(data, arena_size=_ARENA)
        micro.set_input(np.zeros(sample.shape, np.int8), 0)
        return micro.invoke
    resolvers = litert.OpResolverType
    interpreter = litert.Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=resolvers.AUTO
        if kernels == "xnnpack"
        else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (port,) = interpreter.get_input_details()
    interpreter.set_tensor(port["index"], np.zeros(sample.shape, np.int8))
    return interpreter.invoke


def markdown(content: dict[str, Any]) -> str:
    """Latency with 4 bits relative to 8, by layer and kernels."""
    found: dict[str, dict[str, float]] = {}
    for run in content["results"]["runs"]:
        found.setdefault(run["layer"], {})[run["kernels"]] = run["of_int8"]
    rows = [
        (name, *(f"{row[kernels]:.2f}x" for kernels in _ROUNDS))
        for name, row in found.items()
    ]
    heads = (
        "convolution",
        "LiteRT, XNNPACK",
        "LiteRT, builtin",
        "TFLite Micro, reference",
    )
    return page(table(heads, rows))
