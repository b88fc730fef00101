"""KerasHub's models of text, sound, and text with pictures, in small."""

from __future__ import annotations

from typing import Any

from benchmarks.files.hub_rows import BLOCKS
from benchmarks.files.hub_rows import LENGTH
from benchmarks.files.hub_rows import SIDES
from benchmarks.files.hub_rows import WORDS
from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Ports
from benchmarks.files.hub_rows import Row
from benchmarks.files.hub_rows import padding
from benchmarks.files.hub_rows import pixels
from benchmarks.files.hub_rows import text
from benchmarks.files.hub_rows import tokens
from benchmarks.files.hub_rows import translation

_CLASSES = 4
_BLOCKS = {"vocabulary_size": WORDS} | BLOCKS
_ENCODER = _BLOCKS | {"max_sequence_length": LENGTH, "dropout": 0.0}
# Grouped queries, as in most decoders of today.
_DECODER = {
    "vocabulary_size": WORDS,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
_HEADS = {"head_dim": 8}
_EXPERTS = {"num_experts": 4, "top_k": 2}
_GEMMA2 = {
    "attention_logit_soft_cap": 50,
    "final_logit_soft_cap": 30,
    "query_head_dim_normalize": False,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 5,
}
_GEMMA3 = _HEADS | {
    "image_size": 16,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 5,
    "vision_encoder": None,
}
_LINEAR = {
    "num_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}


def _without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in names}


def _encoder(name: str, family: str, ports: Ports, **config: Any) -> Row:
    return Row(
        name,
        family,
        "text",
        Part(f"{name}Backbone", _ENCODER | config),
        ports,
        Part(f"{name}TextClassifier", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    )


def _decoder(name: str, family: str, config: dict[str, Any]) -> Row:
    return Row(
        name,
        family,
        "language model",
        Part(f"{name}Backbone", config),
        text(),
        Part(f"{name}CausalLM", {}),
    )


_GPTLIKE = _ENCODER | {"num_heads": 2}
_T5GEMMA = SIDES | {
    "vocabulary_size": WORDS,
    "query_pre_attn_scalar": 8.0,
    "sliding_window": 5,
    "attn_logit_softcapping": 50.0,
    "cross_attention_hidden_size": 32,
}


def _tower(name: str, kind: str, **config: Any) -> Part:
    return Part(f"{name}{kind}Encoder", config | {"name": f"{kind}_encoder"})


def _two_towers(name: str, family: str, projection: bool) -> Row:
    towers = {
        "vision_encoder": _tower(
            name, "Vision", patch_size=8, image_shape=(16, 16, 3), **BLOCKS
        ),
        "text_encoder": _tower(
            name,
            "Text",
            vocabulary_size=WORDS,
            embedding_dim=32,
            max_sequence_length=LENGTH,
            **BLOCKS,
        ),
    }
    more = {"projection_dim": 32} if projection else {}
    return Row(
        name,
        family,
        "image and text",
        Part(f"{name}Backbone", towers | more),
        {"images": pixels(16), "token_ids": tokens()},
    )


ROWS = (
    _encoder("Bert", "BERT", text(segments=True)),
    _encoder("DistilBert", "DistilBERT", text()),
    _encoder("Roberta", "RoBERTa", text()),
    _encoder("XLMRoberta", "XLM-RoBERTa", text()),
    _encoder("Albert", "ALBERT", text(segments=True), embedding_dim=16),
    _encoder("DebertaV3", "DeBERTa-v3", text(), bucket_size=8),
    Row(
        "Electra",
        "ELECTRA",
        "text",
        Part(
            "ElectraBackbone",
            _without(_ENCODER, "vocabulary_size")
            | {"vocab_size": WORDS, "embedding_dim": 16},
        ),
        text(segments=True),
    ),
    Row(
        "FNet",
        "F-Net",
        "text",
        Part("FNetBackbone", _without(_ENCODER, "num_heads")),
        text(segments=True, mask=False),
        Part("FNetTextClassifier", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    ),
    Row(
        "RoformerV2",
        "RoFormer V2",
        "text",
        Part("RoformerV2Backbone", _BLOCKS | {"head_size": 16}),
        text(segments=True, mask=False),
        Part("RoformerV2TextClassifier", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    ),
    Row(
        "XLNet",
        "XLNet",
        "text",
        Part("XLNetBackbone", _BLOCKS),
        text(segments=True),
    ),
    Row(
        "ESM",
        "ESM",
        "text",
        Part("ESMBackbone", _BLOCKS),
        text(mask=False),
        Part("ESMProteinClassifier", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    ),
    _decoder("GPT2", "GPT-2", _GPTLIKE),
    _decoder("OPT", "OPT", _GPTLIKE),
    _decoder("GPTNeoX", "GPT-NeoX", _GPTLIKE),
    _decoder("Bloom", "BLOOM", _BLOCKS),
    _decoder(
        "Falcon",
        "Falcon",
        _without(_BLOCKS, "num_heads") | {"num_attention_heads": 4},
    ),
    _decoder("Gemma", "Gemma", _DECODER | _HEADS),
    Row(
        "Gemma2",
        "Gemma",
        "language model",
        Part("GemmaBackbone", _DECODER | _HEADS | _GEMMA2),
        text(),
        Part("GemmaCausalLM", {}),
    ),
    _decoder("Gemma3", "Gemma", _DECODER | _GEMMA3),
    _decoder("Llama", "Llama", _DECODER),
    _decoder("Llama3", "Llama", _DECODER),
    _decoder("Mistral", "Mistral", _DECODER | {"sliding_window": 5}),
    _decoder("Mixtral", "Mixtral", _DECODER | _EXPERTS),
    _decoder("Qwen", "Qwen", _DECODER),
    _decoder("Qwen3", "Qwen", _DECODER | _HEADS),
    _decoder(
        "QwenMoe",
        "Qwen",
        _DECODER
        | _EXPERTS
        | {"moe_intermediate_dim": 32, "shared_expert_intermediate_dim": 32},
    ),
    _decoder(
        "Qwen3Moe", "Qwen", _DECODER | _EXPERTS | {"moe_intermediate_dim": 32}
    ),
    _decoder("Qwen3_5", "Qwen", _DECODER | _LINEAR),
    _decoder(
        "Qwen3_5Moe",
        "Qwen",
        _without(_DECODER, "intermediate_dim")
        | _LINEAR
        | _EXPERTS
        | {"moe_intermediate_dim": 32, "shared_expert_intermediate_size": 32},
    ),
    _decoder("GptOss", "GPT-OSS", _DECODER | _EXPERTS),
    _decoder("Phi3", "Phi-3", _DECODER),
    _decoder(
        "SmolLM3",
        "SmolLM3",
        _without(_DECODER, "num_query_heads")
        | {
            "num_attention_heads": 4,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_layer_enabled_list": [True, False],
            "layer_types": ["attention", "attention"],
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-5,
            "max_position_embeddings": 32,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    _decoder(
        "RWKV7",
        "RWKV-7",
        {
            "vocabulary_size": WORDS,
            "hidden_size": 32,
            "head_size": 8,
            "num_layers": 2,
            "intermediate_dim": 64,
            "gate_lora": 16,
            "mv_lora": 16,
            "aaa_lora": 16,
            "decay_lora": 16,
        },
    ),
    Row(
        "T5",
        "T5",
        "sequence to sequence",
        Part("T5Backbone", _BLOCKS | {"dropout": 0.0}),
        translation(),
        Part("T5Seq2SeqLM", {}),
    ),
    Row(
        "Bart",
        "BART",
        "sequence to sequence",
        Part("BartBackbone", _ENCODER),
        translation(),
        Part("BartSeq2SeqLM", {}),
    ),
    Row(
        "T5Gemma",
        "T5Gemma",
        "sequence to sequence",
        Part("T5GemmaBackbone", _T5GEMMA),
        translation(),
        Part("T5GemmaSeq2SeqLM", {}),
    ),
    Row(
        "Whisper",
        "Whisper",
        "audio",
        Part(
            "WhisperBackbone",
            _BLOCKS
            | {
                "num_mels": 16,
                "max_encoder_sequence_length": 24,
                "max_decoder_sequence_length": 8,
            },
        ),
        {
            "encoder_features": Port((24, 16), -1.0, 1.0),
            "decoder_token_ids": tokens(8),
            "decoder_padding_mask": padding(8),
        },
    ),
    Row(
        "Moonshine",
        "Moonshine",
        "audio",
        Part(
            "MoonshineBackbone",
            {
                "vocabulary_size": WORDS,
                "filter_dim": 32,
                "encoder_num_layers": 2,
                "decoder_num_layers": 2,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "encoder_num_heads": 2,
                "decoder_num_heads": 2,
            },
        ),
        {
            "encoder_input_values": Port((4000, 1), -1.0, 1.0),
            "encoder_padding_mask": Port((4000,), dtype="bool", form="mask"),
            "decoder_token_ids": tokens(8),
            "decoder_padding_mask": padding(8),
        },
        Part("MoonshineAudioToText", {}),
    ),
    _two_towers("CLIP", "CLIP", True),
    _two_towers("MetaCLIP2", "MetaCLIP 2", True),
    _two_towers("SigLIP", "SigLIP", False),
    Row(
        "PaliGemma",
        "PaliGemma",
        "image and text",
        Part(
            "PaliGemmaBackbone",
            _DECODER
            | _HEADS
            | {
                "image_size": 16,
                "vit_patch_size": 8,
                "vit_num_heads": 2,
                "vit_hidden_dim": 32,
                "vit_num_layers": 2,
                "vit_intermediate_dim": 64,
            },
        ),
        {"images": pixels(16)}
        | text()
        | {"response_mask": Port((LENGTH,), dtype="int32", form="zeros")},
        Part("PaliGemmaCausalLM", {}),
    ),
)
