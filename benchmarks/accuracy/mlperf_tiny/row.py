"""Measures one row of the table, in a process of its own.

python -m benchmarks.accuracy.mlperf_tiny.row NETWORK ROW RESULT
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
import tflite_export
from benchmarks.accuracy.mlperf_tiny import idle
from benchmarks.accuracy.mlperf_tiny import machines
from benchmarks.accuracy.mlperf_tiny import networks
from benchmarks.accuracy.mlperf_tiny import published
from benchmarks.accuracy.mlperf_tiny import scores
from benchmarks.accuracy.mlperf_tiny import speech
from benchmarks.accuracy.mlperf_tiny.inputs import Inputs
from benchmarks.accuracy.mlperf_tiny.networks import Network
from benchmarks.harness import child
from tflite_export.devices import ethos_u
from tflite_export.devices import micro
from tflite_export.runtime import ports

FLOAT, INT8 = "float", "int8"
ROWS = (FLOAT, INT8, *networks.TARGETS)
ACCELERATOR = "ethos-u55-128"
_SAMPLES = 64


def run(network: Network, row: str) -> dict[str, Any]:
    """Measures a published file, or trains for a target and measures that.

    Args:
        network: Which one.
        row: One of `ROWS`.

    Returns:
        A record; JSON values.
    """
    begin = time.perf_counter()
    data = network.load()
    if row in networks.TARGETS:
        content, found = trained(network, row, data)
    else:
        file = network.float_file if row == FLOAT else network.int8_file
        content, found = file.path.read_bytes(), {}
    return {
        "network": network.name,
        "row": row,
        "bytes": len(content),
        **measured(network, content, data),
        **(on_devices(content, data) if row in (INT8, "ethos_u") else {}),
        **found,
        "seconds": round(time.perf_counter() - begin),
    }


def outputs(content: bytes, x: np.ndarray) -> np.ndarray:
    """What a file computes, as real numbers."""
    found = tflite_export.run(content, ports.quantized(content, [x]))
    return np.asarray(ports.outputs(content)[0].real(found))


def predicted(model: Any, x: np.ndarray) -> np.ndarray:
    """What a Keras model computes."""
    return np.asarray(model.predict(x, batch_size=250, verbose=0))


def measured(network: Network, content: bytes, data: Inputs) -> dict[str, Any]:
    """How good a file is on the test inputs, beside the float model.

    Returns:
        `score`, of what counts for the network; `details` by name.
    """
    wanted = predicted(network.float_model(), data.test)
    found = outputs(content, data.test)
    score = network.score(
        data.test, found, wanted, data.test_labels, data.windows
    )
    details: dict[str, Any] = {}
    if network.measure == networks.AREA:
        pair = [
            scores.anomalies(data.test, y, data.windows)
            for y in (found, wanted)
        ]
        details["difference"] = scores.relative(*pair)
        details["order"] = scores.same_order(*pair)
        details |= _toy_car(content)
    else:
        details["agreement"] = scores.agreement(found, wanted)
        counts = np.bincount(wanted.argmax(-1), minlength=wanted.shape[-1])
        details["classes"] = [int(n) for n in counts]
        if len(data.test_labels):
            details["accuracy"] = scores.accuracy(found, data.test_labels)
    if network.needs is speech.missing:
        details["synthesizer"] = speech.version()
    return {"score": score, "details": details}


def _toy_car(content: bytes) -> dict[str, float]:
    """Score of the one recording of the data set that is published."""
    if published.TOY_CAR.missing():
        return {}
    energies = np.fromfile(published.TOY_CAR.path, "<f4")
    x = machines.windows(energies.reshape(-1, machines.BANDS))
    score = scores.anomalies(x, outputs(content, x), len(x))
    return {"recorded": float(score[0])}


def on_devices(content: bytes, data: Inputs) -> dict[str, Any]:
    """What Vela and TFLite Micro say of an int8 file."""
    settings = ethos_u.known_accelerators()[ACCELERATOR]
    figures, _ = ethos_u.compile_file(content, ACCELERATOR, settings)
    samples = ports.whole_batches(content, [data.test[:8]], 8)
    done = micro.run(content, samples)
    arena = micro.smallest_arena(content, samples, done.arena_bytes)
    return {"vela": figures, "arena_bytes": arena}


def config(network: Network, target: str) -> msq_tf.MSQConfig:
    """How a model is quantized for a target."""
    if target == "min_size":
        one_scale = msq_tf.LayerConfig(granularity=msq_tf.PerTensor())
        return msq_tf.MSQConfig(
            targets=(target,),
            overrides=dict.fromkeys(network.one_scale, one_scale),
        )
    dense = msq_tf.PerTensor() if target == "mcu" else None
    return msq_tf.MSQConfig(
        activation_bits=8, dense_granularity=dense, targets=(target,)
    )


def trained(
    network: Network, target: str, data: Inputs
) -> tuple[bytes, dict[str, Any]]:
    """Searches the smallest file that keeps the promise, and writes it.

    Returns:
        The bytes of the verified file, and how it came to be; JSON values.
    """
    keras.utils.set_random_seed(0)
    teacher = network.float_model()
    qmodel = msq_tf.quantize_model(
        network.float_model(), config(network, target)
    )
    wanted = predicted(teacher, data.choose)
    idle_ones = idle.idle_groups(qmodel)
    removed: dict[str, Any] = {}
    if idle_ones:
        qmodel = msq_tf.remove_channels(qmodel, idle_ones)
        moved = np.abs(predicted(qmodel.base, data.choose) - wanted).max()
        removed = {
            "channels": sum(map(len, idle_ones.values())),
            "weights": teacher.count_params() - qmodel.base.count_params(),
            "difference": float(moved),
        }
    if qmodel.activation_quantizers is not None:
        msq_tf.calibrate(qmodel, data.train[:512])
    msq_tf.distill(qmodel, teacher)
    qmodel.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                network.rate, network.epochs * network.steps
            )
        )
    )

    def score(model: Any) -> float:
        """The metric of the network on what a search chooses by."""
        return network.score(
            data.choose,
            predicted(model, data.choose),
            wanted,
            data.choose_labels,
            data.windows,
        )

    promise = network.goal
    if target in network.as_int8:
        promise = max(promise, _lost_by_int8(network, data, wanted))
    rule = msq_tf.ToleranceRule(
        max_drop=promise, monitor=score, mode="max", device=target
    )
    search = msq_tf.MSQCallback(rule, (data.train[:512], None))
    qmodel.fit(
        batches(data.train, network.batch_size),
        epochs=network.epochs,
        steps_per_epoch=network.steps,
        shuffle=False,
        verbose=2,
        callbacks=[search],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        report = tflite_export.export(
            qmodel,
            path,
            target=target,
            representative_data=data.train[:_SAMPLES],
            integer_io=None if target == "min_size" else True,
            device_options=(
                {"accelerators": [ACCELERATOR]} if target == "ethos_u" else None
            ),
            verbose=False,
        )
        content = path.read_bytes()
    found: dict[str, Any] = {
        "removed": removed,
        "bits": dict(qmodel.bits),
        "promise": promise,
        "average_bits": report.average_bits,
        "outcome": search.outcome and dataclasses.asdict(search.outcome),
        "notes": list(report.notes),
    }
    if target == "mcu":
        found["arena_bytes"] = report.device["arena_bytes"]
    return content, found


def _lost_by_int8(network: Network, data: Inputs, wanted: np.ndarray) -> float:
    """Points that the published int8 file loses on what a search chooses by."""
    int8 = outputs(network.int8_file.path.read_bytes(), data.choose)
    reference, score = (
        network.score(
            data.choose, found, wanted, data.choose_labels, data.windows
        )
        for found in (wanted, int8)
    )
    return 100.0 * (reference - score)


def batches(x: np.ndarray, size: int) -> Any:
    """Batches of inputs without end, in another order each time."""
    import tensorflow as tf

    def pieces() -> Any:
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(len(x))
            for at in range(0, len(x) - size + 1, size):
                yield x[order[at : at + size]]

    spec = tf.TensorSpec((size, *x.shape[1:]), x.dtype)
    return tf.data.Dataset.from_generator(pieces, output_signature=spec)


def main(words: list[str]) -> None:
    """Runs what a command line names, and writes the record."""
    name, row, result = words
    network = next(n for n in networks.NETWORKS if n.name == name)
    child.write(result, run(network, row))


if __name__ == "__main__":
    main(sys.argv[1:])
