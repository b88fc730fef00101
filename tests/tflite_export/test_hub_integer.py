"""KerasHub's families as integer files, from ids, sounds and pictures."""

from __future__ import annotations

import itertools

import pytest

import msq_tf
from benchmarks.files import hub_models
from tflite_export import export

# Importing it is slow, and it is an extra: `pip install .[hub]`.
pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

BITS = (8, 4, 2, 3, 6, 5, 7)
ENCODERS = ["Bert", "DebertaV3", "RoformerV2", "XLNet"]
DECODERS = ["GPT2", "Bloom", "Gemma2", "Llama", "Mixtral", "QwenMoe"]
BOTH = ["T5", "Whisper", "Moonshine"]
PICTURES = ["ViT", "SwinTransformer", "CLIP", "SegFormer", "DeepLabV3"]


# What KerasHub's T5 says of its own masks.
@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS, *BOTH, *PICTURES])
@pytest.mark.parametrize("bits", [8, None], ids=["trained", "measured"])
def test_a_family_in_integers(name, bits, monkeypatch, tmp_path):
    # It has tests of its own and takes a minute for each of these files.
    monkeypatch.setenv("MSQ_TF_TOSA_DIR", str(tmp_path))
    row = hub_models.row(name)
    samples = hub_models.inputs(row, 12, seed=2)
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(hub_models.build(row), config)
    widths = itertools.cycle(BITS)
    qmodel.set_bits({path: next(widths) for path in qmodel.bits})
    if bits:
        msq_tf.calibrate(qmodel, samples)
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=samples,
    )
    # The export compared codes, operators and outputs; here is that it did.
    stored = {tensor.name for tensor in report.tensors}
    assert stored == set(qmodel.bits) - set(report.unread)
    ran = {check.kernels for check in report.checks if check.ran}
    assert ran >= {"xnnpack", "builtin"}
