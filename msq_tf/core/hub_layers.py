"""The weights of layers that are known by name.

KerasHub need not be installed, so that its classes are not at hand. What is
not here is a `Dense`, `EinsumDense`, `Conv2D` or `Embedding` inside. Of
Keras's own layers, the cell of convolutional LSTMs is not exported.
"""

from __future__ import annotations

from msq_tf.core.weight_spec import WeightSpec
from msq_tf.weight_layout import Layout

_HUB, _KERAS = "keras_hub.", "keras."
_TOKEN = "a token of its own, one vector beside those of the input"
_BIAS = "added to the scores of attention, a number for each head"


def _experts(*attributes: str) -> tuple[WeightSpec, ...]:
    """Banks (experts, in, out), a scale for each expert and feature."""
    return tuple(WeightSpec(name, (0, -1)) for name in attributes)


def _table(attribute: str) -> tuple[WeightSpec, ...]:
    """Positions, one scale: integer kernels add what has one."""
    return (WeightSpec(attribute, ()),)


def _floats(reason: str, *attributes: str) -> tuple[WeightSpec, ...]:
    return tuple(
        WeightSpec(name, (), float_reason=reason) for name in attributes
    )


_FUSED = _experts(
    "_expert_feedforward_gate_dense", "_expert_feedforward_output_dense"
)
_DINO_TOKENS = _floats(_TOKEN, "cls_token", "mask_token", "register_tokens")
_LAYERS = {
    "MixtralMoeExperts": _experts(
        "_expert_feedforward_gate_dense",
        "_expert_feedforward_intermediate_dense",
        "_expert_feedforward_output_dense",
    ),
    "QwenMoeExperts": _FUSED,
    "Qwen3MoeExperts": _FUSED,
    "Qwen3_5MoeExperts": _FUSED,
    "GptOssExperts": (
        *_experts("gate_up_proj", "down_proj"),
        *_floats(
            "a bias for each expert", "gate_up_proj_bias", "down_proj_bias"
        ),
    ),
    "Gemma4MoEBlock": _experts("gate_proj", "up_proj", "down_proj"),
    "Qwen3_5GatedDeltaNet": (WeightSpec("conv1d_weight", (0,)),),
    "RWKV7TimeMix": (
        *(
            WeightSpec(f"{name}{part}", (-1,), Layout.DENSE)
            for name in "wavg"
            for part in (1, 2)
        ),
        *_floats("factors of single features", "r_k"),
    ),
    "MaskedLMHead": (WeightSpec("_kernel", (-1,), Layout.DENSE),),
    "PositionEmbedding": _table("position_embeddings"),
    "DeiTEmbeddings": (
        *_table("position_embedding"),
        *_floats(_TOKEN, "class_token", "distillation_token", "mask_token"),
    ),
    "DINOV2Embedding": (
        *_table("position_embeddings"),
        *_floats(
            "computed from the table of positions that is trained",
            "interpolated_position_embeddings",
        ),
        *_DINO_TOKENS,
    ),
    "DINOV3Embedding": _DINO_TOKENS,
    "AddPositionalEmbedding": _table("pos_embed"),
    "AddRelativePositionalEmbedding": (
        *_table("rel_pos_h"),
        *_table("rel_pos_w"),
    ),
    "RelativeEmbedding": _table("rel_embeddings"),
    "PARSeqDecoder": _table("pos_query_embeddings"),
    "Gemma4AudioRelativePositionEmbedding": (
        WeightSpec("pos_proj", (-1,), Layout.DENSE),
    ),
    "Gemma4VisionPatchEmbedder": _table("position_embedding_table"),
    "SAM3Embedding": (
        *_table("tiled_position_embeddings"),
        *_table("position_embeddings"),
    ),
    "SAM3ViTRotaryEmbedding": _floats(
        "sines and cosines of positions, which are computed",
        "rope_embeddings_cos",
        "rope_embeddings_sin",
    ),
    "VectorQuantizerEMA": _table("embeddings"),
    "ViTPatchingAndEmbedding": _floats(_TOKEN, "class_token"),
    "VideoPrismClassToken": _floats(_TOKEN, "cls_token"),
    "VideoPrismAttenTokenPoolingLayer": _floats(
        _TOKEN, "pooling_attention_query"
    ),
    "SigLIPMultiHeadAttentionPooling": _floats(_TOKEN, "probe"),
    "MultiHeadAttentionPooling": _floats(_TOKEN, "probe"),
    "BLIP2QueryTokens": _floats(_TOKEN, "query_tokens"),
    "XLNetAttentionMaskLayer": _floats(_TOKEN, "mask_emb"),
    "XLNetEncoder": (
        *_floats(
            "added to queries, as a bias",
            "content_attention_bias",
            "positional_attention_bias",
            "segment_attention_bias",
        ),
        *_floats("two vectors of segments for each head", "segment_encoding"),
    ),
    "T5MultiHeadAttention": _floats(_BIAS, "relative_attention_bias"),
    "WindowAttention": _floats(_BIAS, "relative_position_bias_table"),
    "RandomFrequencyPositionalEmbeddings": _floats(
        "frequencies of an encoding of coordinates",
        "positional_encoding_gaussian_matrix",
    ),
}
_CELLS = {
    "ConvLSTMCell": tuple(
        WeightSpec(name, (-1,), Layout.CONV_RECURRENT)
        for name in ("kernel", "recurrent_kernel")
    )
}


def specs_of(layer_class: type) -> tuple[WeightSpec, ...]:
    """The weights of a class, not those of the classes it inherits from."""
    name, module = layer_class.__name__, layer_class.__module__
    for package, known in ((_HUB, _LAYERS), (_KERAS, _CELLS)):
        if module.startswith(package):
            return known.get(name, ())
    return ()
