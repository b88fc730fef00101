"""MSQLayoutTransform: TFMOT's layouts, without what they lose.

TFMOT's own transforms see to it that nothing is quantized between a layer and
the batch normalization or activation that a runtime fuses into it. They also

- take the `QuantizeConfig` of a layer in front of a ReLU away, weights
  included (`LayerReLUQuantize`): the file then has whatever the converter
  makes of float weights, which is int8;
- give what is concatenated a configuration of their own, with 8-bit weights;
- quantize inputs that are integers, or read as such, as tokens are;
- know batch normalization behind 2-D convolutions and dense layers only;
- forget the moments that a `Normalization` has adapted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# None of these is public.
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E501
    default_8bit_transforms as transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (  # noqa: E501
    model_transformer,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (  # noqa: E501
    transforms as patterns,
)

from msq_tf.tfmot import columns
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.layers import known_weights
from msq_tf.tfmot.quantize_config import MSQQuantizeConfig
from msq_tf.tfmot.separable import SplitSeparable
from msq_tf.tfmot.target_checks import check_targets

_CONFIG = "quantize_config"
# Of one dimension, three, or transposed. TFMOT's pattern "Conv2D" fits every
# name that begins so.
_OTHERS = (
    "Conv1D|Conv3D|DepthwiseConv1D|SeparableConv1D|Conv1DTranspose|"
    "Conv3DTranspose"
)
# They cut what they read to integers, whose values a grid would change.
_CUTTING = (tf_keras.layers.Discretization, tf_keras.layers.Embedding)


class MSQLayoutTransform(tfmot.QuantizeLayoutTransform):
    """Transforms a model for `quantize_apply`, before layers are wrapped."""

    def __init__(
        self,
        config: dict[str, Any],
        registry: Any,
        targets: Sequence[str] = (),
    ):
        self._config = config
        self._registry = registry
        self._targets = targets

    def apply(
        self, model: Any, layer_quantize_map: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The model transformed, and the metadata of layers by name.

        Raises:
            ValueError: If a layer can't run on one of the targets.
        """
        bits = self._config["activation_bits"]
        check_targets(model, self._targets, bits)
        metadata = layer_quantize_map
        given = {n: entry.get(_CONFIG) for n, entry in metadata.items()}
        _finalize(model)
        if bits is not None:
            for layer in private.input_layers(model):
                if _is_cut(layer):
                    metadata.pop(layer.name, None)
                elif columns.narrow(layer):
                    self._round_behind(layer, metadata)
            model, metadata = _transform(model, metadata)
            for layer in model.layers:
                # As a 2-D convolution between lambdas, which is what TFMOT
                # makes of one that is not split, it could not be saved.
                if isinstance(layer, tf_keras.layers.SeparableConv1D) and (
                    metadata.get(layer.name, {}).get(_CONFIG, "") is None
                ):
                    metadata[layer.name][_CONFIG] = self._ours()
            default = tfmot.default_8bit.Default8BitQuantizeLayoutTransform()
            model, metadata = default.apply(model, metadata)
        _finalize(model)
        for layer in model.layers:
            if layer.name in metadata:
                self._mend(layer, metadata, given.get(layer.name))
        return model, metadata

    def _round_behind(self, layer: Any, metadata: dict[str, Any]) -> None:
        """Rounds what normalizes an input in its place."""
        metadata.pop(layer.name, None)
        for reader in columns.readers(layer):
            entry = metadata.get(reader.name)
            if (
                entry is not None
                and entry.get(_CONFIG) is None
                and not self._registry.quantizes(reader)
            ):
                entry[_CONFIG] = self._ours(weights=[], quantize_output=True)

    def _mend(self, layer: Any, metadata: dict[str, Any], given: Any) -> None:
        now = metadata[layer.name].get(_CONFIG)
        if now is None:
            # A wrapper that does nothing cannot be called in every way.
            if not isinstance(
                layer, tf_keras.layers.InputLayer
            ) and not self._registry.quantizes(layer):
                if "quantizer" not in metadata[layer.name]:
                    del metadata[layer.name]
        elif given is None and known_weights(layer):
            if not isinstance(now, MSQQuantizeConfig):
                # In front of a ReLU, or of a concatenation, which has a range
                # for all its inputs.
                plain = type(now).__name__ == "NoOpQuantizeConfig" or getattr(
                    layer, "activation", None
                ) in (tf_keras.activations.linear, tf_keras.activations.relu)
                metadata[layer.name][_CONFIG] = self._ours(
                    activations=[] if plain else None, quantize_output=False
                )

    def _ours(self, **changes: Any) -> MSQQuantizeConfig:
        return MSQQuantizeConfig(**{**self._config, **changes})


def _is_cut(layer: Any) -> bool:
    """Whether an input is only read as integers, such as tokens."""
    readers = columns.readers(layer)
    return not tf.as_dtype(layer.dtype).is_floating or (
        bool(readers) and all(isinstance(x, _CUTTING) for x in readers)
    )


def _finalize(model: Any) -> None:
    """Has layers take note of weights that were set behind their backs."""
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.Normalization):
            layer.finalize_state()


def _transform(
    model: Any, metadata: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    rules = [
        SplitSeparable(),
        _OtherBatchNormReLU(),
        _OtherBatchNormActivation(),
        _OtherBatchNorm(),
        _OtherReLU(),
        _OtherReLUActivation(),
    ]
    return model_transformer.ModelTransformer(
        model, rules, set(metadata), metadata
    ).transform()


def _other() -> Any:
    return patterns.LayerPattern(_OTHERS, config={"activation": "linear"})


def _batch_norm() -> Any:
    return patterns.LayerPattern(
        "BatchNormalization|SyncBatchNormalization", inputs=[_other()]
    )


class _OtherBatchNorm(transforms.Conv2DBatchNormQuantize):
    def pattern(self) -> Any:
        return _batch_norm()


class _OtherBatchNormReLU(transforms.Conv2DBatchNormReLUQuantize):
    def pattern(self) -> Any:
        return patterns.LayerPattern("ReLU", inputs=[_batch_norm()])


class _OtherBatchNormActivation(transforms.Conv2DBatchNormReLUQuantize):
    def pattern(self) -> Any:
        return patterns.LayerPattern(
            "Activation", config={"activation": "relu"}, inputs=[_batch_norm()]
        )


class _OtherReLU(transforms.LayerReLUQuantize):
    def pattern(self) -> Any:
        return patterns.LayerPattern("ReLU", inputs=[_other()])


class _OtherReLUActivation(transforms.LayerReLUQuantize):
    def pattern(self) -> Any:
        return patterns.LayerPattern(
            "Activation", config={"activation": "relu"}, inputs=[_other()]
        )
