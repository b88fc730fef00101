"""KerasHub's newer models of text, of text in pictures and of diffusion."""

from __future__ import annotations

from benchmarks.files.hub_rows import BLOCKS
from benchmarks.files.hub_rows import LAYERS
from benchmarks.files.hub_rows import LENGTH
from benchmarks.files.hub_rows import SIDES
from benchmarks.files.hub_rows import WORDS
from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Row
from benchmarks.files.hub_rows import padding
from benchmarks.files.hub_rows import pixels
from benchmarks.files.hub_rows import text
from benchmarks.files.hub_rows import tokens
from benchmarks.files.hub_rows import translation

_VIT = {
    "image_shape": (16, 32, 3),
    "patch_size": (8, 8),
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 32,
    "mlp_dim": 64,
    "use_class_token": False,
}
ROWS = (
    Row(
        "Gemma3n",
        "Gemma",
        "language model",
        Part(
            "Gemma3nBackbone",
            {
                "text_vocab_size": WORDS,
                "text_hidden_size": 32,
                "num_hidden_layers": 2,
                "pad_token_id": 0,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "intermediate_size": [64, 64],
                "hidden_activation": "gelu_approximate",
                "layer_types": LAYERS,
                "sliding_window": 5,
                "rope_theta": 10000.0,
                "max_position_embeddings": LENGTH,
                "vocab_size_per_layer_input": WORDS,
                "hidden_size_per_layer_input": 8,
                "altup_num_inputs": 2,
                "laurel_rank": 8,
            },
        ),
        {
            "token_ids": tokens(),
            "padding_mask": Port((LENGTH,), dtype="bool", form="mask"),
        },
        Part("Gemma3nCausalLM", {}),
    ),
    Row(
        "Gemma4",
        "Gemma",
        "language model",
        Part(
            "Gemma4Backbone",
            {
                "vocabulary_size": WORDS,
                "image_size": 16,
                "num_layers": 2,
                "num_query_heads": 4,
                "num_key_value_heads": 2,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "head_dim": 8,
                "layer_types": LAYERS,
                "sliding_window_size": 5,
                "hidden_size_per_layer_input": 8,
                "enable_moe_block": True,
                "num_experts": 4,
                "expert_intermediate_dim": 32,
                "num_experts_per_token": 2,
            },
        ),
        text()
        | {"position_ids": Port((LENGTH,), dtype="int32", form="places")},
        Part("Gemma4CausalLM", {}),
    ),
    Row(
        "T5Gemma2",
        "T5Gemma",
        "sequence to sequence",
        Part(
            "T5Gemma2Backbone",
            {
                "vocabulary_size": WORDS,
                "query_pre_attn_scalar": 8.0,
                "sliding_window": 5,
                "cross_attention_hidden_size": 32,
                "eoi_token_index": WORDS - 1,
            }
            | SIDES,
        ),
        translation(),
        Part("T5Gemma2Seq2SeqLM", {}),
    ),
    Row(
        "PARSeq",
        "PARSeq",
        "image and text",
        Part(
            "PARSeqBackbone",
            {
                "image_encoder": Part("ViTBackbone", _VIT),
                "vocabulary_size": WORDS,
                "max_label_length": LENGTH,
                "decoder_hidden_dim": 32,
                "num_decoder_layers": 1,
                "num_decoder_heads": 2,
                "decoder_mlp_dim": 64,
                "dropout_rate": 0.0,
                "attention_dropout": 0.0,
            },
        ),
        # Its task needs a tokenizer; the backbone gives logits, too.
        {"images": pixels(16, 32)} | text(),
        classes=WORDS - 2,
    ),
    Row(
        "BLIP2",
        "BLIP-2",
        "image and text",
        Part(
            "BLIP2Backbone",
            {
                "vision_encoder": Part(
                    "BLIP2VisionEncoder",
                    {
                        "image_size": 16,
                        "patch_size": 8,
                        "use_patch_bias": True,
                        "use_class_token": True,
                        "use_mha_bias": True,
                        "use_mlp_bias": True,
                        "dropout_rate": 0.0,
                        "layer_norm_epsilon": 1e-6,
                        "initializer_range": 0.02,
                    }
                    | BLOCKS,
                ),
                "qformer": Part(
                    "BLIP2QFormer",
                    {
                        "num_query_tokens": 4,
                        "vision_dim": 32,
                        "cross_attention_frequency": 2,
                        "dropout": 0.0,
                        "layer_norm_epsilon": 1e-6,
                    }
                    | BLOCKS,
                ),
                "language_model": Part(
                    "BLIP2CustomOPT",
                    {
                        "vocabulary_size": WORDS,
                        "num_query_tokens": 4,
                        "dropout": 0.0,
                        "max_sequence_length": LENGTH + 4,
                        "qformer_hidden_dim": 32,
                    }
                    | BLOCKS,
                ),
            },
        ),
        {
            "images": pixels(16),
            "token_ids": tokens(),
            "padding_mask": padding(),
        },
        Part("BLIP2CausalLM", {}),
    ),
    Row(
        "EdRec",
        "EdRec",
        "sequence to sequence",
        Part(
            "EdRecBackbone",
            {
                "vocab_size": WORDS,
                "num_layers_enc": 2,
                "num_layers_dec": 2,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "num_heads": 2,
            },
        ),
        translation(),
        Part("EdRecSeq2SeqLM", {}),
    ),
    Row(
        "VAE",
        "VAE",
        "diffusion",
        Part(
            "VAEBackbone",
            {
                "encoder_num_filters": [32, 32, 64],
                "encoder_num_blocks": [1, 1, 1],
                "decoder_num_filters": [64, 32, 32],
                "decoder_num_blocks": [1, 1, 1],
                # A sample would be another one in Keras and in the file.
                "sampler_method": "mode",
                "sample_channels": 8,
            },
        ),
        pixels(16),
    ),
    Row(
        "Flux",
        "Flux",
        "diffusion",
        Part(
            "FluxBackbone",
            {
                "input_channels": 16,
                "hidden_size": 32,
                "mlp_ratio": 2.0,
                "num_heads": 2,
                "depth": 1,
                "depth_single_blocks": 1,
                "axes_dim": [4, 6, 6],
                "theta": 10000,
                "use_bias": True,
                "image_shape": (16, 16),
                "text_shape": (LENGTH, 16),
                "image_ids_shape": (16, 3),
                "text_ids_shape": (LENGTH, 3),
                "y_shape": (16,),
            },
        ),
        {
            "image": Port((16, 16), -1.0, 1.0),
            "image_ids": Port((16, 3), 0.0, 4.0),
            "text": Port((LENGTH, 16), -1.0, 1.0),
            "text_ids": Port((LENGTH, 3), 0.0, 4.0),
            "y": Port((16,), -1.0, 1.0),
            "timesteps": Port((), 0.0, 1.0),
            "guidance": Port((), 1.0, 4.0),
        },
    ),
)
