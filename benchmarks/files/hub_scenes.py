"""KerasHub's detectors, segmenters and estimators of depth, in small."""

from __future__ import annotations

from benchmarks.files.hub_rows import Part
from benchmarks.files.hub_rows import Port
from benchmarks.files.hub_rows import Row
from benchmarks.files.hub_rows import pixels
from benchmarks.files.hub_vision import HG
from benchmarks.files.hub_vision import MIX
from benchmarks.files.hub_vision import RESIDUAL
from benchmarks.files.hub_vision import TOKENS

_CLASSES = 4
_SIDE = 32
_DETECTOR = {
    "backbone": Part(
        "HGNetV2Backbone",
        HG
        | {
            "image_shape": (None, None, 3),
            "out_features": ["stage1", "stage2"],
        },
    ),
    "decoder_in_channels": [16, 16],
    "encoder_hidden_dim": 16,
    "num_denoising": 10,
    "num_labels": _CLASSES,
    "hidden_dim": 16,
    "learn_initial_query": False,
    "num_queries": 10,
    "anchor_image_size": (32, 32),
    "feat_strides": [4, 8],
    "num_feature_levels": 2,
    "encoder_in_channels": [16, 32],
    "encode_proj_layers": [1],
    "num_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_encoder_layers": 1,
    "hidden_expansion": 0.5,
    "depth_multiplier": 0.5,
    "eval_idx": -1,
    "num_decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "decoder_n_points": [2, 2],
    "lqe_hidden_dim": 16,
    "num_lqe_layers": 2,
    "out_features": ["stage1", "stage2"],
    "image_shape": (32, 32, 3),
    "seed": 0,
}

ROWS = (
    Row(
        "RetinaNet",
        "RetinaNet",
        "detection",
        Part(
            "RetinaNetBackbone",
            {
                "image_encoder": Part(
                    "ResNetBackbone", RESIDUAL | {"image_shape": (64, 64, 3)}
                ),
                "min_level": 3,
                "max_level": 4,
                "use_p5": False,
                "image_shape": (64, 64, 3),
            },
        ),
        pixels(64),
        Part(
            "RetinaNetObjectDetector",
            {
                "num_classes": _CLASSES,
                "bounding_box_format": "yxyx",
                "label_encoder": Part(
                    "RetinaNetLabelEncoder",
                    {
                        "bounding_box_format": "yxyx",
                        "anchor_generator": Part(
                            "AnchorGenerator",
                            {
                                "bounding_box_format": "yxyx",
                                "min_level": 3,
                                "max_level": 4,
                                "num_scales": 3,
                                "aspect_ratios": [0.5, 1.0, 2.0],
                                "anchor_size": 4,
                            },
                        ),
                    },
                ),
            },
        ),
    ),
    Row(
        "DFine",
        "D-FINE",
        "detection",
        Part("DFineBackbone", _DETECTOR),
        pixels(32),
        Part(
            "DFineObjectDetector",
            {"num_classes": _CLASSES, "bounding_box_format": "yxyx"},
        ),
    ),
    Row(
        "DeepLabV3",
        "DeepLabV3",
        "segmentation",
        Part(
            "DeepLabV3Backbone",
            {
                "image_encoder": Part(
                    "ResNetBackbone", RESIDUAL | {"image_shape": (64, 64, 3)}
                ),
                "low_level_feature_key": "P2",
                "spatial_pyramid_pooling_key": "P4",
                "dilation_rates": [2, 4],
                "upsampling_size": 4,
                "projection_filters": 16,
                "image_shape": (64, 64, 3),
            },
        ),
        pixels(64),
        Part("DeepLabV3ImageSegmenter", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    ),
    Row(
        "SegFormer",
        "SegFormer",
        "segmentation",
        Part(
            "SegFormerBackbone",
            {
                "image_encoder": Part("MiTBackbone", MIX),
                "projection_filters": 32,
            },
        ),
        pixels(_SIDE),
        Part("SegFormerImageSegmenter", {"num_classes": _CLASSES}),
        classes=_CLASSES,
    ),
    Row(
        "BASNet",
        "BASNet",
        "segmentation",
        Part(
            "BASNetBackbone",
            {
                "image_encoder": Part(
                    "ResNetBackbone",
                    RESIDUAL
                    | {
                        # Its first blocks take no other number.
                        "stackwise_num_filters": [64, 64, 64, 64],
                        "stackwise_num_blocks": [1, 1, 1, 1],
                        "stackwise_num_strides": [1, 2, 2, 2],
                    },
                ),
                "num_classes": 1,
                "projection_filters": 64,
                "image_shape": (64, 64, 3),
            },
        ),
        pixels(64),
    ),
    Row(
        "SAM",
        "SAM",
        "segmentation",
        Part(
            "SAMBackbone",
            {
                "image_encoder": Part(
                    "ViTDetBackbone",
                    {
                        "hidden_size": 32,
                        "num_layers": 2,
                        "intermediate_dim": 64,
                        "num_heads": 2,
                        "global_attention_layer_indices": [1],
                        "patch_size": 8,
                        "num_output_channels": 16,
                        "window_size": 2,
                        "image_shape": (64, 64, 3),
                    },
                ),
                "prompt_encoder": Part(
                    "SAMPromptEncoder",
                    {
                        "hidden_size": 16,
                        "image_embedding_size": (8, 8),
                        "input_image_size": (64, 64),
                        "mask_in_channels": 8,
                    },
                ),
                "mask_decoder": Part(
                    "SAMMaskDecoder",
                    {
                        "num_layers": 2,
                        "hidden_size": 16,
                        "intermediate_dim": 32,
                        "num_heads": 2,
                        "embedding_dim": 16,
                        "num_multimask_outputs": 3,
                        "iou_head_depth": 2,
                        "iou_head_hidden_dim": 16,
                    },
                ),
            },
        ),
        {
            "images": pixels(64),
            "points": Port((1, 2), 0.0, 64.0),
            # Whether a point is of the object, or of what is around it.
            "labels": Port((1,), 0.0, 2.0, form="whole"),
            "boxes": Port((1, 2, 2), 0.0, 64.0),
            "masks": Port((1, 32, 32, 1), -1.0, 1.0),
        },
        Part("SAMImageSegmenter", {}),
    ),
    Row(
        "DepthAnything",
        "Depth Anything",
        "segmentation",
        Part(
            "DepthAnythingBackbone",
            {
                "image_encoder": Part(
                    "DINOV2Backbone",
                    TOKENS
                    | {
                        "image_shape": (48, 48, 3),
                        "num_layers": 4,
                        "intermediate_dim": 64,
                        "position_embedding_shape": (48, 48, 3),
                        "apply_layernorm": True,
                    },
                ),
                "reassemble_factors": [4, 2, 1, 0.5],
                "neck_hidden_dims": [16, 16, 32, 32],
                "fusion_hidden_dim": 32,
                "head_hidden_dim": 16,
                "head_in_index": -1,
                "feature_keys": [f"stage{i}" for i in (1, 2, 3, 4)],
            },
        ),
        pixels(48),
        Part(
            "DepthAnythingDepthEstimator", {"depth_estimation_type": "relative"}
        ),
    ),
)
