"""KerasHub's language models generate with quantized weights."""

import keras
import numpy as np
import pytest

import msq_tf

# Importing it is slow, and it is an extra: `pip install .[hub]`.
hub = pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

PROMPT = {
    "token_ids": np.array([[1, 5, 7, 0, 0, 0, 0, 0], [1, 9, 3, 4, 0, 0, 0, 0]]),
    "padding_mask": np.array([[1, 1, 1, 0, 0, 0, 0, 0], [1] * 4 + [0] * 4]),
}


def gpt2():
    backbone = hub.models.GPT2Backbone(
        vocabulary_size=32,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    return hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def gemma():
    backbone = hub.models.GemmaBackbone(
        vocabulary_size=32,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=8,
    )
    return hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)


def bart():
    backbone = hub.models.BartBackbone(
        vocabulary_size=32,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    return hub.models.BartSeq2SeqLM(backbone=backbone, preprocessor=None)


def prompt_of(base):
    if not isinstance(base, hub.models.Seq2SeqLM):
        return PROMPT
    return {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in PROMPT.items()
    }


def tokens(generate, prompt):
    found = generate(prompt, stop_token_ids=None)
    return np.asarray(found.get("token_ids", found.get("decoder_token_ids")))


def by_hand(qmodel, prompt):
    """Greedy tokens, one call of the whole model for each."""
    ids = prompt["token_ids"].copy()
    for row, length in enumerate(prompt["padding_mask"].sum(1)):
        for at in range(length, ids.shape[1]):
            logits = qmodel(
                {
                    "token_ids": ids[row : row + 1],
                    "padding_mask": np.arange(ids.shape[1])[None] < at,
                }
            )
            ids[row, at] = np.argmax(np.asarray(logits)[0, at - 1])
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("build", [gpt2, gemma, bart], ids=lambda f: f.__name__)
def test_it_follows_bits_and_leaves_the_base_alone(build):
    keras.utils.set_random_seed(0)
    base = build()
    for weight in base.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.3))
    prompt = prompt_of(base)
    qmodel = msq_tf.quantize_model(base)
    qmodel.compile(sampler="greedy")
    found = {}
    for bits in (8, 2, 4, 8):
        qmodel.set_bits(dict.fromkeys(qmodel.bits, bits))
        now = tokens(qmodel.generate, prompt)
        if "token_ids" in prompt:
            np.testing.assert_array_equal(now, by_hand(qmodel, prompt))
        np.testing.assert_array_equal(found.setdefault(bits, now), now)
    assert (found[2] != found[8]).any()
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 2))
    with qmodel.quantized_scope():
        np.testing.assert_array_equal(tokens(base.generate, prompt), found[2])
    plain = build()
    plain.set_weights(base.get_weights())
    plain.compile(sampler="greedy")
    np.testing.assert_array_equal(
        tokens(base.generate, prompt), tokens(plain.generate, prompt)
    )
    assert not any("generator" in layer.name for layer in qmodel.layers)


def test_other_models_generate_nothing():
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    qmodel = msq_tf.quantize_model(base)
    assert not hasattr(qmodel, "generate")
    with pytest.raises(AttributeError, match="Received: Sequential"):
        qmodel.generate("a prompt")
