"""KerasHub's classifiers and encoders of pictures, in small."""

from __future__ import annotations

from typing import Any

from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Row
from benchmarks.files.hub_rows import pixels

_CLASSES = 4
_SIDE = 32
TOKENS = {
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 32,
}
SQUARE = {"image_shape": (_SIDE, _SIDE, 3)}
MIX = {
    "layerwise_depths": [1, 1],
    "image_shape": (_SIDE, _SIDE, 3),
    "hidden_dims": [16, 32],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.0,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
RESIDUAL = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 64, 64],
    "stackwise_num_blocks": [1, 1, 1],
    "stackwise_num_strides": [1, 2, 2],
    "block_type": "basic_block",
}
HG = {
    "stem_channels": [3, 8, 8],
    "stackwise_stage_filters": [[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
    "depths": [1, 1],
    "hidden_sizes": [16, 32],
    "embedding_size": 8,
    "use_learnable_affine_block": True,
    "hidden_act": "relu",
}


def _image(
    name: str,
    family: str,
    config: dict[str, Any],
    *,
    of: str = "",
    side: int = _SIDE,
    task: bool = True,
    port: str = "",
    **head: Any,
) -> Row:
    of = of or name
    classifier = Part(f"{of}ImageClassifier", {"num_classes": _CLASSES, **head})
    return Row(
        name,
        family,
        "image",
        Part(f"{of}Backbone", config),
        {port: pixels(side)} if port else pixels(side),
        classifier if task else None,
        classes=_CLASSES if task else 0,
    )


_MOBILE_V5 = {
    "stackwise_block_types": [["er"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[16], [32, 32]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[2.0], [2.0, 2.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [3, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 2]],
    "stackwise_key_dims": [[0], [0, 16]],
    "stackwise_value_dims": [[0], [0, 16]],
    "stackwise_kv_strides": [[0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False]],
    "stem_size": 16,
    "use_msfa": False,
    "num_features": 64,
}

ROWS = (
    _image("ViT", "ViT", TOKENS | SQUARE | {"mlp_dim": 64}),
    _image("DeiT", "DeiT", TOKENS | SQUARE | {"intermediate_dim": 64}),
    _image(
        "DINOV2",
        "DINO",
        TOKENS
        | SQUARE
        | {
            "intermediate_dim": 64,
            "num_register_tokens": 2,
            "position_embedding_shape": (_SIDE, _SIDE, 3),
        },
        task=False,
        port="images",
    ),
    _image(
        "DINOV3",
        "DINO",
        TOKENS | SQUARE | {"intermediate_dim": 64},
        task=False,
        port="pixel_values",
    ),
    _image(
        "SwinTransformer",
        "Swin",
        SQUARE
        | {
            "embed_dim": 16,
            "depths": (2, 2),
            "num_heads": (2, 4),
            "window_size": 4,
            "drop_path": 0.0,
        },
    ),
    _image("MiT", "SegFormer", MIX),
    _image("ResNet", "ResNet", RESIDUAL | SQUARE),
    _image(
        "ResNetBottleneck",
        "ResNet",
        RESIDUAL
        | SQUARE
        | {"block_type": "bottleneck_block", "use_pre_activation": True},
        of="ResNet",
    ),
    _image(
        "EfficientNet",
        "EfficientNet",
        {
            "stackwise_kernel_sizes": [3, 3, 3],
            "stackwise_num_repeats": [1, 1, 1],
            "stackwise_input_filters": [16, 16, 24],
            "stackwise_output_filters": [16, 24, 32],
            "stackwise_expansion_ratios": [1, 2, 4],
            "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25],
            "stackwise_strides": [1, 2, 2],
            "stackwise_block_types": ["fused", "fused", "unfused"],
            "stackwise_force_input_filters": [0] * 3,
            "stackwise_nores_option": [False] * 3,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "input_shape": (_SIDE, _SIDE, 3),
            "num_features": 64,
        },
    ),
    _image(
        "MobileNet",
        "MobileNet",
        SQUARE
        | {
            "stackwise_expansion": [[24], [48, 48]],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_filters": [[16], [24, 24]],
            "stackwise_kernel_size": [[3], [5, 5]],
            "stackwise_num_strides": [[2], [2, 1]],
            "stackwise_se_ratio": [[None], [0.25, 0.25]],
            "stackwise_activation": [
                ["relu"],
                ["hard_swish", "hard_swish"],
                ["hard_swish"],
            ],
            "stackwise_padding": [[1], [2, 2]],
            "output_num_filters": 64,
            "depthwise_filters": 8,
            "depthwise_stride": 2,
            "depthwise_residual": False,
            "squeeze_and_excite": 0.5,
            "last_layer_filter": 64,
        },
    ),
    _image("MobileNetV5", "MobileNet", _MOBILE_V5 | SQUARE),
    _image(
        "DenseNet",
        "DenseNet",
        SQUARE | {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8},
    ),
    _image(
        "VGG",
        "VGG",
        SQUARE
        | {
            "stackwise_num_repeats": [1, 2, 2],
            "stackwise_num_filters": [16, 32, 32],
        },
        pooling="flatten",
        pooling_hidden_dim=32,
    ),
    _image(
        "Xception",
        "Xception",
        {
            "image_shape": (64, 64, 3),
            "stackwise_conv_filters": [[16, 32], [48, 48], [64, 64]],
            "stackwise_pooling": [False, True, False],
        },
        side=64,
    ),
    _image(
        "CSPNet",
        "CSPNet",
        SQUARE
        | {
            "stem_filters": 16,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stackwise_strides": 2,
            "stackwise_depth": [1, 2, 1],
            "stackwise_num_filters": [16, 24, 32],
            "down_growth": True,
            "bottle_ratio": (0.5, 1.0),
            "block_ratio": (1.0, 0.5),
            "expand_ratio": (2.0, 1.0),
            "block_type": "dark_block",
            "stage_type": "csp",
            "stem_padding": "same",
        },
    ),
    _image("HGNetV2", "HGNetV2", HG | SQUARE),
    _image(
        "ViTDet",
        "ViTDet",
        {
            "image_shape": (_SIDE, _SIDE, 3),
            "patch_size": 4,
            "hidden_size": 32,
            "num_layers": 2,
            "global_attention_layer_indices": [1],
            "intermediate_dim": 64,
            "num_heads": 2,
            "num_output_channels": 16,
            # Eight tokens a side are not a multiple of it.
            "window_size": 3,
        },
        task=False,
    ),
    Row(
        "VideoPrism",
        "VideoPrism",
        "image",
        Part(
            "VideoPrismBackbone",
            {
                "image_shape": (16, 16, 3),
                "num_frames": 4,
                "patch_size": 8,
                "hidden_dim": 32,
                "intermediate_dim": 64,
                "num_heads": 2,
                "num_spatial_layers": 1,
                "num_temporal_layers": 1,
                "num_auxiliary_layers": 1,
            },
        ),
        Port((4, 16, 16, 3), -1.0, 1.0),
    ),
)
