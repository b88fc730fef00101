"""KerasHub's models that several models make up, in small."""

from __future__ import annotations

from typing import Any

from benchmarks.files.hub_rows import BLOCKS
from benchmarks.files.hub_rows import LENGTH
from benchmarks.files.hub_rows import WORDS
from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Row
from benchmarks.files.hub_rows import pixels
from benchmarks.files.hub_rows import text
from benchmarks.files.hub_rows import tokens

# Of three halvings, as the backbone takes it for granted.
_FILTERS, _DEPTHS = [32, 32, 32, 32], [1, 1, 1, 1]
_SIDE, _PATCH = 56, 7


def _words(name: str) -> Part:
    return Part(
        "CLIPTextEncoder",
        BLOCKS
        | {
            "vocabulary_size": WORDS,
            "embedding_dim": 32,
            "intermediate_output_index": -2,
            "max_sequence_length": LENGTH,
            "name": name,
        },
    )


def _of_sam3(kind: str, **config: Any) -> Part:
    return Part(f"SAM3{kind}", BLOCKS | config)


ROWS = (
    Row(
        "StableDiffusion3",
        "Stable Diffusion 3",
        "diffusion",
        Part(
            "StableDiffusion3Backbone",
            {
                "mmdit_patch_size": 2,
                "mmdit_hidden_dim": 32,
                "mmdit_num_layers": 2,
                "mmdit_num_heads": 2,
                "mmdit_position_size": 8,
                "mmdit_qk_norm": None,
                "mmdit_dual_attention_indices": None,
                # It samples, as in use.
                "vae": Part(
                    "VAEBackbone",
                    {
                        "encoder_num_filters": _FILTERS,
                        "encoder_num_blocks": _DEPTHS,
                        "decoder_num_filters": _FILTERS,
                        "decoder_num_blocks": _DEPTHS,
                    },
                ),
                "clip_l": _words("clip_l"),
                "clip_g": _words("clip_g"),
                "image_shape": (32, 32, 3),
            },
        ),
        {
            "images": pixels(32),
            "latents": Port((4, 4, 16), -1.0, 1.0),
            "clip_l_token_ids": tokens(),
            "clip_l_negative_token_ids": tokens(),
            "clip_g_token_ids": tokens(),
            "clip_g_negative_token_ids": tokens(),
            "num_steps": Port((), 4, 8, "int32"),
            "guidance_scale": Port((), 1.0, 4.0),
        },
    ),
    Row(
        "SAM3",
        "SAM",
        "segmentation",
        Part(
            "SAM3PromptableConceptBackbone",
            {
                "vision_encoder": _of_sam3(
                    "VisionEncoder",
                    image_shape=(_SIDE, _SIDE, 3),
                    patch_size=_PATCH,
                    fpn_hidden_dim=32,
                    fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
                    pretrain_image_shape=(28, 28, 3),
                    window_size=2,
                    global_attn_indexes=[1],
                ),
                "text_encoder": _of_sam3(
                    "TextEncoder",
                    vocabulary_size=WORDS,
                    embedding_dim=32,
                    max_sequence_length=LENGTH,
                ),
                "geometry_encoder": _of_sam3("GeometryEncoder", roi_size=3),
                "detr_encoder": _of_sam3("DetrEncoder"),
                "detr_decoder": _of_sam3(
                    "DetrDecoder",
                    image_shape=(_SIDE, _SIDE, 3),
                    patch_size=_PATCH,
                    num_queries=10,
                ),
                "mask_decoder": Part(
                    "SAM3MaskDecoder",
                    {
                        "num_upsampling_stages": 3,
                        "hidden_dim": 32,
                        "num_heads": 2,
                    },
                ),
            },
        ),
        {"pixel_values": pixels(_SIDE)}
        | text()
        | {
            "boxes": Port((2, 5), 0.1, 0.9),
            "box_labels": Port((2,), 0, 2, "int32"),
        },
    ),
)
