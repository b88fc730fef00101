"""What Qualcomm's compiler makes of n-bit codes, by SoC.

Weights are drawn from normal distributions, as trained ones look. The NPU is
emulated on x86, so there is no latency: what counts is what it stores, what an
inference reads from memory, and how far its outputs are from LiteRT's kernels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.files import vela
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from msq_tf.sensitivity.statistics import layer_outlines
from tflite_export import export
from tflite_export.devices import qualcomm
from tflite_export.devices import qualcomm_tools
from train.models import builders

# These store every weight type; the others compile the same files.
_WHOLE = ("SM8650", "SM8750", "SM8850")
_SAMPLES = 16


def measure() -> dict[str, Any]:
    """Compiles every model at every width for every SoC.

    Returns:
        Figures of the compiler and the emulator, JSON values.
    """
    runs = []
    for name, (shape, classes, alpha) in vela.MODELS.items():
        keras.utils.set_random_seed(0)
        model = builders.build(name, shape, classes, alpha)
        vela.as_if_trained(model)
        qmodel = msq_tf.quantize_model(model)
        rng = np.random.default_rng(0)
        samples = rng.normal(size=(_SAMPLES, *shape)).astype(np.float32)
        for bits in (8, 4, 2):
            qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
            runs += _compiled(qmodel, name, bits, samples)
    return {"seed": 0, "runs": runs}


def _compiled(
    qmodel: msq_tf.MSQModel, name: str, bits: int, samples: np.ndarray
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        report = export(
            qmodel,
            path,
            target=qualcomm.NAME,
            representative_data=samples,
            device_options={"socs": list(_WHOLE)},
        )
        data = path.read_bytes()
    found = dict(report.device["socs"])
    for soc, facts in qualcomm.known_socs().items():
        if soc not in found:
            compiled = qualcomm_tools.compile_file(data, soc)
            found[soc] = {
                "architecture": facts["architecture"],
                "context_bytes": compiled.context_bytes,
                "read_bytes": compiled.read_bytes,
                "cpu_operators": list(compiled.left),
                "max_units": None,
            }
    layers = layer_outlines(qmodel)
    return [
        {
            "model": name,
            "bits": bits,
            "file_bytes": report.file_bytes,
            "codes": sum(layer.size for layer in layers),
            "channels": sum(layer.channels for layer in layers),
            "layers": len(layers),
            "stored_bits": sum(8 * t.bytes for t in report.tensors),
            "soc": soc,
            **figures,
        }
        for soc, figures in found.items()
    ]


def markdown(content: dict[str, Any]) -> str:
    """Bytes of the context by model, width and architecture."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    names: dict[str, list[str]] = {}
    for run in content["results"]["runs"]:
        rows.setdefault((run["model"], run["bits"]), {})[run["soc"]] = run
        same = names.setdefault(run["architecture"], [])
        if run["soc"] not in same:
            same.append(run["soc"])
    order = sorted(names)
    lines = []
    for (model, bits), row in rows.items():
        whole = row[_WHOLE[0]]
        lines.append(
            (
                model,
                str(bits),
                f"{whole['file_bytes']:,}",
                *(f"{row[names[a][0]]['context_bytes']:,}" for a in order),
                f"{whole['read_bytes'] or 0:,}",
                f"{max(row[soc]['max_units'] for soc in _WHOLE):g}",
            )
        )
    heads = (
        "model",
        "bits",
        "file",
        *(f"{a}: {', '.join(names[a])}" for a in order),
        f"read an inference, {_WHOLE[0]}",
        "units",
    )
    return page(table(heads, lines))
