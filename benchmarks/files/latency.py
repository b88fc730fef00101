"""Predicted latencies against measured ones, on networks of no table.

On this machine: files run on one thread, against the table of operators that
comes with the package (of another day, or of another processor), and against
operators and files of one width that are measured now. For Ethos-U: sums over
weights, of files with all weights at one width, against Vela's estimate of the
mixed file.
"""

from __future__ import annotations

from typing import Any

import keras

import msq_tf
from benchmarks.files.vela import as_if_trained
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from msq_tf.keras3.model import MSQModel
from tflite_export.costs import cpu
from tflite_export.costs import ethos_u as costs_of_npu
from tflite_export.costs.files import Files
from tflite_export.devices import ethos_u
from tflite_export.latency import operators
from tflite_export.latency import timing
from tflite_export.latency.table import LatencyTable
from tflite_export.latency.table import share_measured
from tflite_export.predicting import files_of
from train.models import builders

_PROCESSORS = ("cpu_int8", "cpu_float", "min_size")
_NPUS = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u85-256")
_WIDTHS = (8, 4, 2)
_SECONDS = 2.0
_SESSIONS = 8


def networks() -> dict[str, keras.Model]:
    """Five networks; MLPerf Tiny's four tasks, and a transformer."""
    found = {
        "resnet8 32x32": builders.build("resnet8", (32, 32, 3), 10, 1.0),
        "mobilenet_v1 0.25 96x96": keras.applications.MobileNet(
            (96, 96, 3), alpha=0.25, weights=None, classes=2
        ),
        "ds_cnn 49x10": _keywords(),
        "autoencoder 640": _autoencoder(),
        "vit_micro 28x28": builders.build("vit_micro", (28, 28, 1), 10, 1.0),
    }
    for model in found.values():
        as_if_trained(model)
    return found


def _keywords() -> keras.Model:
    layers = keras.layers
    x = inputs = keras.Input((49, 10, 1))
    x = layers.Conv2D(64, (10, 4), strides=2, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(4):
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(64, 1)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(12, activation="softmax")(x))


def _autoencoder() -> keras.Model:
    layers = keras.layers
    x = inputs = keras.Input((640,))
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return keras.Model(inputs, layers.Dense(640)(x))


def measure() -> dict[str, Any]:
    """Predicts and measures every network on every device.

    Returns:
        Milliseconds, JSON values.
    """
    keras.utils.set_random_seed(0)
    shipped = LatencyTable.load()
    fresh = LatencyTable.of_this_machine()
    rows: list[dict[str, Any]] = []
    for name, model in networks().items():
        qmodel = msq_tf.quantize_model(model)
        for target in _PROCESSORS:
            with files_of(qmodel, target, batch_size=1) as files:
                rows += [
                    {"network": name, "device": target, **row}
                    for row in _on_processor(files, qmodel, shipped, fresh)
                ]
        if "vit" not in name:  # which no Ethos-U runs whole
            with files_of(qmodel, "ethos_u") as files:
                for npu in _NPUS:
                    row = _on_npu(files, qmodel, npu)
                    rows.append({"network": name, "device": npu, **row})
    return {
        "table": {
            "processor": shipped.processor,
            "date": shipped.date,
            "operators": len(shipped.rows),
        },
        "processor": fresh.processor,
        "runtime": fresh.runtime,
        "rows": rows,
    }


def _schemes(qmodel: MSQModel) -> dict[str, dict[str, int]]:
    mixed = {path: _WIDTHS[i % 3] for i, path in enumerate(qmodel.paths)}
    return {
        "8": dict.fromkeys(qmodel.paths, 8),
        "4": dict.fromkeys(qmodel.paths, 4),
        "8, 4, 2 in turn": mixed,
    }


def _on_processor(
    files: Files, qmodel: MSQModel, shipped: LatencyTable, fresh: LatencyTable
) -> list[dict[str, Any]]:
    built = [files.at(dict.fromkeys(qmodel.paths, w)) for w in _WIDTHS]
    for each in cpu.ROUNDS * built:
        fresh.measure(each.data)
    predicted = {
        name: cpu.look_up(files, "", qmodel.paths, known)
        for name, known in (("table", shipped), ("now", fresh))
    }
    rows = []
    for scheme, bits in _schemes(qmodel).items():
        data = files.at(bits).data
        found = [shipped.predict(o) for o in operators.split(data)]
        rows.append(
            {
                "bits": scheme,
                "measured_ms": timing.milliseconds(data, _SECONDS, _SESSIONS),
                "table_ms": predicted["table"].latency_at(bits),
                "share_in_table": share_measured(found),
                "operators_ms": predicted["now"].latency_at(bits),
            }
        )
    return rows


def _on_npu(files: Files, qmodel: MSQModel, npu: str) -> dict[str, Any]:
    costs = costs_of_npu.costs(files, npu, npu, qmodel.paths)
    bits = _schemes(qmodel)["8, 4, 2 in turn"]
    settings = ethos_u.known_accelerators()[npu]
    figures, _ = ethos_u.compile_file(files.at(bits).data, npu, settings)
    return {
        "bits": "8, 4, 2 in turn",
        "estimated_ms": figures["estimated_ms"],
        "predicted_ms": costs.latency_at(bits),
        "sram_bytes": figures["sram_bytes"],
        "predicted_sram_bytes": costs.ram_at(bits),
    }


def markdown(content: dict[str, Any]) -> str:
    """Predicted against measured, and against Vela's estimate."""
    rows = content["results"]["rows"]
    on_cpu = [
        (
            row["network"],
            row["device"],
            row["bits"],
            f"{row['measured_ms']:.4f}",
            *_beside(row["table_ms"], row["measured_ms"]),
            f"{100 * row['share_in_table']:.0f}%",
            *_beside(row["operators_ms"], row["measured_ms"]),
        )
        for row in rows
        if "measured_ms" in row
    ]
    on_npu = [
        (
            row["network"],
            row["device"],
            f"{row['estimated_ms']:.4f}",
            *_beside(row["predicted_ms"], row["estimated_ms"]),
            f"{row['sram_bytes']:,}",
            f"{row['predicted_sram_bytes']:,.0f}",
        )
        for row in rows
        if "estimated_ms" in row
    ]
    known = content["results"]["table"]
    return page(
        f"{ran(content['environment'])}, {content['results']['processor']}, "
        f"one thread; table of {known['operators']:,} operators, "
        f"{known['processor']}, {known['date']}. *In table*: the share of the "
        "time that is of operators of just these shapes.",
        table(
            (
                "network",
                "device",
                "bits",
                "measured ms",
                "table ms",
                "off by",
                "in table",
                "measured here, ms",
                "off by",
            ),
            on_cpu,
            left=3,
        ),
        table(
            (
                "network, 8, 4 and 2 bits in turn",
                "accelerator",
                "Vela's ms",
                "predicted ms",
                "off by",
                "Vela's SRAM",
                "predicted",
            ),
            on_npu,
            left=2,
        ),
    )


def _beside(predicted: float, measured: float) -> tuple[str, str]:
    return f"{predicted:.4f}", f"{100 * (predicted / measured - 1):+.1f}%"
