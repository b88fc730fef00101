"""Files of models that read a text and write another one."""

import itertools

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tests.msq_tf.keras3 import test_generation as models
from tflite_export.flatbuffer import model as fb

hub = pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

from benchmarks.files import hub_models  # noqa: E402

SOURCE, LENGTH = 6, 8
SMALL = {
    "vocabulary_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}


def bart():
    backbone = hub.models.BartBackbone(**SMALL, max_sequence_length=LENGTH)
    return hub.models.BartSeq2SeqLM(backbone=backbone, preprocessor=None)


def t5():
    return hub_models.build(hub_models.row("T5"))


def t5gemma():
    return hub_models.build(hub_models.row("T5Gemma"))


def moonshine():
    return hub_models.build(hub_models.row("Moonshine"))


def quantized(build, bits=(8, 4, 2)):
    keras.utils.set_random_seed(0)
    base = build()
    if build in (bart, models.bart):
        for weight in base.weights:
            noise = keras.random.normal(weight.shape, stddev=0.2)
            weight.assign(weight + noise)
    qmodel = msq_tf.quantize_model(base)
    qmodel.set_bits(dict(zip(qmodel.bits, itertools.cycle(bits))))
    qmodel.compile(sampler="greedy")
    return qmodel


def written(path, report, read, prompt):
    """Greedy tokens of a file, as a LiteRT program makes them, and logits."""
    ids = np.zeros((1, SOURCE), np.int32)
    ids[0, : len(read)] = read
    mask = (np.arange(SOURCE)[None] < len(read)).astype(np.int32)
    given = {"encoder_token_ids": ids, "encoder_padding_mask": mask}
    seen = tflite_export.run(path, given, signature="encode")
    caches = {
        name: np.zeros(shape, np.float32)
        for name, shape in report.signatures["decode"].inputs.items()
        if "_cache_" in name
    }
    found = np.zeros((1, LENGTH), np.int32)
    found[0, : len(prompt)] = prompt
    for at in range(LENGTH - 1):
        given = {
            "token_ids": found[:, at : at + 1],
            "position": np.array([at], np.int32),
            "encoder_padding_mask": mask,
            **seen,
            **caches,
        }
        caches = tflite_export.run(path, given, signature="decode")
        logits = caches.pop("logits")
        if at + 1 >= len(prompt):
            found[:, at + 1] = logits.argmax(-1)
    return found, logits


def by_hand(qmodel, read, prompt):
    """The same, one call of the whole model for each token."""
    ids = np.zeros((1, SOURCE), np.int32)
    ids[0, : len(read)] = read
    mask = (np.arange(SOURCE)[None] < len(read)).astype(np.int32)
    found = np.zeros((1, LENGTH), np.int32)
    found[0, : len(prompt)] = prompt
    for at in range(len(prompt), LENGTH):
        logits = qmodel(
            {
                "encoder_token_ids": ids,
                "encoder_padding_mask": mask,
                "decoder_token_ids": found,
                "decoder_padding_mask": (np.arange(LENGTH)[None] < at).astype(
                    np.int32
                ),
            }
        )
        found[0, at] = np.argmax(np.asarray(logits)[0, at - 1])
    return found, np.asarray(logits)[:, LENGTH - 2]


# KerasHub warns of layers that it builds late, and of masks that it drops.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("build", [bart, t5, t5gemma], ids=lambda f: f.__name__)
def test_a_file_writes_what_keras_writes(build, tmp_path):
    qmodel = quantized(build)
    path = tmp_path / "lm.tflite"
    report = tflite_export.export_generation(
        qmodel, path, prompt_length=SOURCE, max_length=LENGTH, verbose=False
    )
    assert list(report.signatures) == ["encode", "decode"]
    for signature in report.signatures.values():
        assert all(check.ran for check in signature.checks)
    assert report.file_bytes == path.stat().st_size
    tensors = {}
    graphs = fb.load(path.read_bytes()).subgraphs
    for graph in graphs:
        for tensor in graph.tensors:
            if fb.name(tensor) in qmodel.bits:
                tensors.setdefault(fb.name(tensor), set()).add(tensor.buffer)
    assert set(tensors) == set(qmodel.bits)
    assert all(len(buffers) == 1 for buffers in tensors.values())
    scores = []
    for read, prompt in (
        ([1, 5, 7, 3, 9, 2], [1]),
        ([1, 5, 7], [1, 4, 6]),
        ([8], [2]),
        ([1, 5, 8, 3, 9, 2], [1]),
    ):
        tokens, logits = written(path, report, read, prompt)
        wanted, right = by_hand(qmodel, read, prompt)
        np.testing.assert_array_equal(tokens, wanted)
        spread = np.ptp(right)
        np.testing.assert_allclose(logits, right, atol=1e-4 * spread)
        scores.append(logits)
    # What was read matters.
    assert np.abs(scores[0] - scores[3]).max() > 1e-3 * np.ptp(scores[0])


@pytest.fixture(scope="module")
def translator():
    return quantized(models.bart)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "cpu_int8"}, "no trained ranges.*'cpu_int8'"),
        ({"max_length": 9, "prompt_length": 4}, "max_length.*at most 8"),
        ({"max_length": 8, "prompt_length": 9}, "prompt_length.*at most 8"),
        (
            {"max_length": 8, "representative_data": ["a text"]},
            "no preprocessor",
        ),
        (
            {
                "max_length": 8,
                "representative_data": {
                    "encoder_token_ids": [[1, 2]],
                    "decoder_token_ids": [[1, 32]],
                },
            },
            "ids from 1 to 32",
        ),
    ],
)
def test_wrong_arguments(arguments, message, translator, tmp_path):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_generation(
            translator, tmp_path / "m.tflite", **arguments
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_reads_no_text_is_refused(tmp_path):
    qmodel = msq_tf.quantize_model(moonshine())
    with pytest.raises(tflite_export.ExportError, match="reads something else"):
        tflite_export.export_generation(qmodel, tmp_path / "m.tflite")
