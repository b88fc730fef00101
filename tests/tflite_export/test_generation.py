"""Files of language models have a prompt's signature and a token's."""

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

SMALL = {
    "vocabulary_size": 32,
    "num_layers": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
GROUPED = {**SMALL, "num_query_heads": 2, "num_key_value_heads": 1}
LENGTH = 8


def causal(name, **sizes):
    def build():
        backbone = getattr(hub.models, f"{name}Backbone")(**sizes)
        kind = getattr(hub.models, f"{name}CausalLM")
        return kind(backbone=backbone, preprocessor=None)

    build.__name__ = name
    return build


BUILDS = [
    models.gpt2,
    models.gemma,
    causal("Llama", **GROUPED),
    causal("Mistral", **GROUPED, sliding_window=4),
    causal("Phi3", **GROUPED),
    causal("Qwen", **GROUPED),
    causal("Qwen3", **GROUPED, head_dim=8),
    causal("Bloom", **SMALL, num_heads=2, max_sequence_length=LENGTH),
    causal("OPT", **SMALL, num_heads=2, max_sequence_length=LENGTH),
    causal("GPTNeoX", **SMALL, num_heads=2, max_sequence_length=LENGTH),
    causal(
        "Gemma3",
        **GROUPED,
        head_dim=8,
        image_size=16,
        vision_encoder=None,
    ),
    causal("SmolLM3", **GROUPED, layer_types=["attention"] * 2),
]


def quantized(build, bits=(8, 4, 2)):
    keras.utils.set_random_seed(0)
    base = build()
    for weight in base.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.2))
    qmodel = msq_tf.quantize_model(base)
    qmodel.set_bits(dict(zip(qmodel.bits, itertools.cycle(bits))))
    qmodel.compile(sampler="greedy")
    return qmodel


def generated(path, prompt, chunk):
    """Greedy tokens of a file, as a LiteRT program makes them."""
    shapes = tflite_export.inspect_file  # noqa: F841 (a file of several)
    model = fb.load(path.read_bytes())
    decode = next(s for s in model.signatureDefs if s.signatureKey == b"decode")
    graph = model.subgraphs[decode.subgraphIndex]
    caches = {
        entry.name.decode(): np.zeros(
            fb.shape(graph.tensors[entry.tensorIndex]), np.float32
        )
        for entry in decode.inputs
        if b"_cache_" in entry.name
    }
    ids = prompt["token_ids"][:1].astype("int32")
    known = int(prompt["padding_mask"][:1].sum())
    for start in range(0, known - 1, chunk):
        if start + chunk > LENGTH:
            break
        caches = tflite_export.run(
            path,
            {
                "token_ids": ids[:, start : start + chunk],
                "position": np.array([start], np.int32),
                **caches,
            },
            signature="prefill",
        )
    for at in range(known - 1, LENGTH - 1):
        found = tflite_export.run(
            path,
            {
                "token_ids": ids[:, at : at + 1],
                "position": np.array([at], np.int32),
                **caches,
            },
            signature="decode",
        )
        ids[:, at + 1] = found.pop("logits").argmax(-1)
        caches = found
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_a_file_generates_what_keras_generates(build, tmp_path):
    qmodel = quantized(build)
    path = tmp_path / "lm.tflite"
    report = tflite_export.export_generation(
        qmodel, path, prompt_length=4, max_length=LENGTH
    )
    for signature in report.signatures.values():
        assert all(check.ran for check in signature.checks)
    assert report.file_bytes == path.stat().st_size
    prompt = {
        "token_ids": np.array([[1, 5, 7, 0, 0, 0, 0, 0]]),
        "padding_mask": np.array([[1, 1, 1, 0, 0, 0, 0, 0]]),
    }
    wanted = models.tokens(qmodel.generate, prompt)
    np.testing.assert_array_equal(generated(path, prompt, 4), wanted)
