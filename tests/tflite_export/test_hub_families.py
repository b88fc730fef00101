"""KerasHub's families in small: from `quantize_model` to verified files."""

from __future__ import annotations

import itertools

import pytest

import msq_tf
from tflite_export import export
from tflite_export.flatbuffer import model as fb

# Importing it is slow, and it is an extra: `pip install .[hub]`.
pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

from benchmarks.files import hub_models  # noqa: E402

QUICK = (
    ("Bert", "min_size"),
    ("DINOV2", "cpu_int8"),
    ("ResNet", "cpu_int8"),
)
SLOW = (
    ("ViT", "min_size"),
    ("VideoPrism", "min_size"),
    ("VGG", "cpu_int8"),
    ("DeepLabV3", "min_size"),
)
# What an exporter has met: tokens and masks, rotary positions, banks of
# experts, distances, an unrolled recurrence, transforms, windows, two towers.
NAMES = (
    *("DebertaV3", "GPTNeoX", "Gemma3", "Mixtral", "QwenMoe", "GptOss"),
    *("Llama", "Qwen3_5", "RWKV7", "T5", "Moonshine", "CLIP", "FNet"),
    "MobileNetV5",
    *("SwinTransformer", "ViTDet", "SegFormer"),
)
# Small tables and single vectors weigh more in small models.
SHARE = 0.93


# KerasHub warns of layers that it builds late, and of masks that it drops.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *QUICK,
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW),
        *(pytest.param(n, "min_size", marks=pytest.mark.slow) for n in NAMES),
    ],
)
def test_a_family_reaches_a_file_with_an_open_batch(name, target, tmp_path):
    row = hub_models.row(name)
    model = hub_models.build(row)
    inputs = hub_models.inputs(row, 4, seed=2)
    qmodel = msq_tf.quantize_model(model)
    widths = itertools.cycle((8, 4, 2, 3, 6, 5, 7))
    qmodel.set_bits({path: next(widths) for path in qmodel.paths})
    elements = sum(
        v.value.numpy().size
        for v in model.weights
        if len(v.shape) > 1 and v.name != "bias"
    )
    codes = sum(w.codes.size for w in qmodel.quantized_weights())
    assert codes >= SHARE * elements
    path = tmp_path / "m.tflite"
    report = export(
        qmodel, path, target, representative_data=inputs, verbose=False
    )
    names = {t.name for t in report.tensors}
    names |= {also for t in report.tensors for also in t.also}
    assert names | set(report.unread) >= set(qmodel.bits)
    graph = fb.read(path.read_bytes()).subgraphs[0]
    axes = [fb.axes(graph.tensors[i]) for i in fb.inputs(graph)]
    assert all(shape[0] == -1 for shape in axes)
