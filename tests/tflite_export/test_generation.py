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
    causal(
        "Gemma3",
        **GROUPED,
        head_dim=8,
        image_size=16,
        vision_encoder=None,
    ),
    causal("Falcon", **SMALL, num_attention_heads=2),
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


def graphs(path):
    """The graph of each signature."""
    model = fb.load(path.read_bytes())
    return {
        signature.signatureKey.decode(): model.subgraphs[
            signature.subgraphIndex
        ]
        for signature in model.signatureDefs
    }


def generated(path, report, prompt, length):
    """Greedy tokens of a file, as a LiteRT program makes them."""
    caches = {
        name: np.zeros(shape, np.float32)
        for name, shape in report.signatures["decode"].inputs.items()
        if "_cache_" in name
    }
    ids = np.zeros((1, length), np.int32)
    ids[0, : len(prompt)] = prompt

    def call(signature, at, count, caches):
        given = {
            "token_ids": ids[:, at : at + count],
            "position": np.array([at], np.int32),
            **caches,
        }
        return tflite_export.run(path, given, signature=signature)

    last = len(prompt) - 1
    chunk = report.prompt_length
    for start in range(0, last, chunk):
        if start + chunk <= length:
            caches = call("prefill", start, chunk, caches)
        else:
            for at in range(start, last):
                caches = call("decode", at, 1, caches)
                del caches["logits"]
    for at in range(last, length - 1):
        caches = call("decode", at, 1, caches)
        ids[:, at + 1] = caches.pop("logits").argmax(-1)
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=lambda f: f.__name__)
def test_a_file_generates_what_keras_generates(build, tmp_path):
    qmodel = quantized(build)
    path = tmp_path / "lm.tflite"
    report = tflite_export.export_generation(
        qmodel, path, prompt_length=3, max_length=LENGTH
    )
    for signature in report.signatures.values():
        assert all(check.ran for check in signature.checks)
        assert len(signature.checks) == 3
    assert report.file_bytes == path.stat().st_size
    assert not any("more than once" in note for note in report.notes)
    held = {}
    for graph in graphs(path).values():
        for tensor in graph.tensors:
            if fb.name(tensor) in qmodel.bits:
                held.setdefault(fb.name(tensor), set()).add(tensor.buffer)
    assert set(held) == set(qmodel.bits)
    assert all(len(buffers) == 1 for buffers in held.values())
    for prompt in ([1, 5, 7], [1, 9, 3, 4, 2, 6, 8], [2]):
        whole = np.zeros((1, LENGTH), np.int32)
        whole[0, : len(prompt)] = prompt
        known = np.arange(LENGTH)[None] < len(prompt)
        np.testing.assert_array_equal(
            generated(path, report, prompt, LENGTH),
            models.by_hand(qmodel, {"token_ids": whole, "padding_mask": known}),
        )


@pytest.mark.slow
def test_all_widths_and_targets_and_given_tokens(tmp_path):
    qmodel = quantized(models.gpt2, (2, 8, 4, 3))
    sizes = {}
    for target in ("cpu_float", "min_size"):
        path = tmp_path / f"{target}.tflite"
        report = tflite_export.export_generation(
            qmodel,
            path,
            target=target,
            max_length=LENGTH,
            representative_data=[[1, 2, 3, 4], [5, 6, 7, 8]],
            verbose=False,
        )
        assert report.prompt_length == LENGTH // 2
        assert {c.samples for c in report.signatures["decode"].checks} == {2}
        found = {t.name: t.bits for t in report.signatures["decode"].tensors}
        assert found == qmodel.bits
        assert f"{report.file_bytes:,}" in str(report)
        assert '"decode"' in report.to_json()
        sizes[target] = report.file_bytes
    assert sizes["min_size"] < sizes["cpu_float"]


@pytest.mark.slow
def test_lora_of_a_backbone_is_in_the_file(tmp_path):
    keras.utils.set_random_seed(0)
    base = models.gemma()
    base.backbone.enable_lora(2)
    qmodel = msq_tf.quantize_model(base)
    paths = [path for path in qmodel.bits if "attention" in path]
    qmodel.set_bits(dict.fromkeys(paths, 4))
    qmodel.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sampler="greedy",
    )
    ids = np.random.default_rng(0).integers(1, 32, (32, LENGTH + 1))
    ids[:, 1:] = (3 * ids[:, :-1] + 1) % 32
    given = {
        "token_ids": ids[:, :-1],
        "padding_mask": np.ones((32, LENGTH), bool),
    }
    factors = [v for v in base.trainable_variables if "lora_" in v.path]
    before = [np.asarray(v) for v in factors]
    qmodel.fit(given, ids[:, 1:], epochs=2, shuffle=False, verbose=0)
    assert len(factors) == 8
    assert all(
        (np.asarray(v) != b).any() for v, b in zip(factors, before, strict=True)
    )
    path = tmp_path / "lm.tflite"
    report = tflite_export.export_generation(qmodel, path, max_length=LENGTH)
    whole = np.zeros((1, LENGTH), np.int32)
    whole[0, :2] = 5, 7
    prompt = {"token_ids": whole, "padding_mask": np.arange(LENGTH)[None] < 2}
    wanted = models.tokens(qmodel.generate, prompt)
    np.testing.assert_array_equal(wanted, models.by_hand(qmodel, prompt))
    np.testing.assert_array_equal(
        generated(path, report, [5, 7], LENGTH), wanted
    )


@pytest.fixture(scope="module")
def language_model():
    return quantized(models.gpt2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "cpu_int8"}, "no trained ranges.*'cpu_int8'"),
        ({"max_length": 9}, "at most 8"),
        ({"max_length": 8, "prompt_length": 9}, "prompt_length of at most"),
        (
            {"max_length": 8, "representative_data": ["a text"]},
            "no preprocessor",
        ),
        (
            {"max_length": 8, "representative_data": [[1, 32]]},
            "ids from 1 to 32",
        ),
    ],
)
def test_wrong_arguments(arguments, message, language_model, tmp_path):
    with pytest.raises(ValueError, match=message):
        tflite_export.export_generation(
            language_model, tmp_path / "m.tflite", **arguments
        )
    assert not list(tmp_path.iterdir())


def test_other_models_are_refused(tmp_path):
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for base, name in ((plain, "Sequential"),):
        qmodel = msq_tf.quantize_model(base)
        with pytest.raises(ValueError, match=f"CausalLM.*Received: {name}"):
            tflite_export.export_generation(qmodel, tmp_path / "m.tflite")


def test_a_missing_signature_is_named(tmp_path):
    path = tmp_path / "m.tflite"
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    tflite_export.float_file(base, path)
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(
        tflite_export.run(path, x, signature="serving_default"),
        tflite_export.run(path, x),
    )
    with pytest.raises(ValueError, match="serving_default.*'decode'"):
        tflite_export.run(path, x, signature="decode")
