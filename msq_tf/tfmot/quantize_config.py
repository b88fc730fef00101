"""MSQQuantizeConfig: how TFMOT quantizes a layer with MSQ."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.core.config import check_choice
from msq_tf.quantizers import uniform
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.layers import channel_axes
from msq_tf.tfmot.layers import known_weights
from msq_tf.tfmot.quantizer import RoundClampQuantizer
from msq_tf.tfmot.quantizer import check_widths
from msq_tf.tfmot.quantizer import with_scale
from msq_tf.tfmot.strip import check_kind

# The activations that TFMOT 0.8.1 quantizes inside of a layer; of others it
# raises an error.
_INSIDE = (
    "NoOpActivation",
    "gelu",
    "linear",
    "relu",
    "sigmoid",
    "softmax",
    "swish",
    "tanh",
)


def activation_quantizer() -> Any:
    """TFMOT's own quantizer of activations, 8 bits."""
    return tfmot.quantizers.MovingAverageQuantizer(
        num_bits=8, per_axis=False, symmetric=False, narrow_range=False
    )


@tf_keras.utils.register_keras_serializable(package="msq_tf")
class MSQQuantizeConfig(tfmot.QuantizeConfig):
    """A configuration of TFMOT: RoundClamp for weights, TFMOT's activations.

    Args:
        weights: Names of the weights to quantize, as attributes of the layer.
            Defaults to the known weights of the layer's class: kernels,
            depthwise and pointwise kernels, embeddings.
        activations: Names of the activation attributes to quantize. Defaults to
            `"activation"` if the layer has one.
        start_bits: Stored bits of the weights at the start.
        min_bits: Fewest stored bits a search may choose.
        per_channel: A scale for each output channel, or one for the tensor.
        channel_axes: Axes of output channels by name of the weight, for
            weights of custom layers. Defaults to the last axis.
        activation_bits: 8, or `None` for float activations.
        quantize_output: Whether to quantize the layer's output; layers without
            an activation need it. By default it is on if the layer has an
            activation that TFMOT cannot quantize inside of it.
        quantizer: `"round_clamp"` or `"dorefa"`.
        scale: `"held"`, `"mse"` or `"max"`, as in `MSQConfig`.

    Raises:
        ValueError: If an argument is out of its range; in `quantize_apply`,
            if the layer has no such weight.

    Example:
    ```python
    layer = tfmot.quantization.keras.quantize_annotate_layer(
        tf_keras.layers.Dense(10), msq.MSQQuantizeConfig(start_bits=8)
    )
    ```
    """

    def __init__(
        self,
        weights: Sequence[str] | None = None,
        activations: Sequence[str] | None = None,
        start_bits: int = 8,
        min_bits: int = 2,
        per_channel: bool = True,
        channel_axes: Mapping[str, Sequence[int]] | None = None,
        activation_bits: int | None = 8,
        quantize_output: bool | None = None,
        quantizer: str = uniform.ROUND_CLAMP,
        scale: str = uniform.HELD,
    ):
        check_widths(start_bits, min_bits)
        check_choice("quantizer", quantizer, uniform.QUANTIZERS)
        if activation_bits not in (None, 8):
            raise ValueError(
                "`activation_bits` must be 8, as TFMOT has it, or None for "
                "float activations. Received: "
                f"activation_bits={activation_bits!r}"
            )
        self.weights = _names("weights", weights)
        self.activations = _names("activations", activations)
        self.start_bits = int(start_bits)
        self.min_bits = int(min_bits)
        self.per_channel = bool(per_channel)
        self.channel_axes = _axes(channel_axes)
        self.activation_bits = activation_bits
        self.quantize_output = quantize_output
        self.quantizer = quantizer
        self.scale = scale
        # Raises where bits and quantizer do not go together.
        self._weight_quantizer(None)

    def _weight_quantizer(self, axes: Sequence[int] | None) -> Any:
        return RoundClampQuantizer(
            self.start_bits, self.min_bits, axes, self.quantizer, self.scale
        )

    def without_activations(self) -> MSQQuantizeConfig:
        """The same for weights, for layers that something is fused into."""
        return MSQQuantizeConfig(
            **{**self.get_config(), "activations": [], "quantize_output": False}
        )

    @property
    def splits(self) -> bool:
        """Whether the parts of a layer can be quantized as the layer is."""
        return self.weights is None and self.activations is None

    def with_linear_output(self) -> MSQQuantizeConfig:
        """The same for a part of a layer, whose output another part reads."""
        return MSQQuantizeConfig(
            **{**self.get_config(), "quantize_output": None}
        )

    def weight_names(self, layer: Any) -> list[str]:
        """Names of the weights of a layer that are quantized.

        Raises:
            ValueError: If the layer is of Keras 3, or has no such weight.
        """
        check_kind(layer, tf_keras.layers.Layer, "layers")
        if self.weights is None:
            return [spec.attribute for spec in known_weights(layer)]
        missing = [n for n in self.weights if not hasattr(layer, n)]
        if missing:
            raise ValueError(
                f"Layer '{layer.name}' ({type(layer).__name__}) has no weight "
                f"{missing}. Expected names of its attributes, among "
                f"{sorted(n for n, v in vars(layer).items() if _is_weight(v))}."
                f" Received: weights={self.weights}"
            )
        return self.weights

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        pairs = []
        for name in self.weight_names(layer):
            axes = None
            if self.per_channel:
                axes = channel_axes(layer, name, self.channel_axes)
            pairs.append((getattr(layer, name), self._weight_quantizer(axes)))
        return pairs

    def set_quantize_weights(
        self, layer: Any, quantize_weights: Sequence[Any]
    ) -> None:
        _set_all(layer, self.weight_names(layer), quantize_weights)

    def activation_names(self, layer: Any) -> list[str]:
        """Names of the activation attributes that are quantized inside."""
        check_kind(layer, tf_keras.layers.Layer, "layers")
        if self.activation_bits is None:
            return []
        if self.activations is not None:
            return self.activations
        found = getattr(layer, "activation", None)
        return ["activation"] if found and _name(found) in _INSIDE else []

    def get_activations_and_quantizers(
        self, layer: Any
    ) -> list[tuple[Any, Any]]:
        return [
            (getattr(layer, name), activation_quantizer())
            for name in self.activation_names(layer)
        ]

    def set_quantize_activations(
        self, layer: Any, quantize_activations: Sequence[Any]
    ) -> None:
        _set_all(layer, self.activation_names(layer), quantize_activations)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        check_kind(layer, tf_keras.layers.Layer, "layers")
        if self.activation_bits is None:
            return []
        wanted = self.quantize_output
        if wanted is None:
            found = getattr(layer, "activation", None)
            outside = found is not None and _name(found) not in _INSIDE
            wanted = outside and self.activations is None
        return [activation_quantizer()] if wanted else []

    def get_config(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "activations": self.activations,
            "start_bits": self.start_bits,
            "min_bits": self.min_bits,
            "per_channel": self.per_channel,
            "channel_axes": {k: list(v) for k, v in self.channel_axes.items()},
            "activation_bits": self.activation_bits,
            "quantize_output": self.quantize_output,
            "quantizer": self.quantizer,
            "scale": self.scale,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**with_scale(config))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MSQQuantizeConfig)
            and self.get_config() == other.get_config()
        )

    __hash__ = None  # type: ignore[assignment]


def _set_all(layer: Any, names: Sequence[str], values: Sequence[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(layer, name, value)


def _axes(given: Any) -> dict[str, tuple[int, ...]]:
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(
        isinstance(axes, Sequence)
        and all(isinstance(axis, int) for axis in axes)
        for axes in given.values()
    ):
        raise ValueError(
            "`channel_axes` must be a dictionary of names of weights to axes, "
            "such as {'kernel': (-1,)}. Received: "
            f"channel_axes={given!r}"
        )
    return {name: tuple(axes) for name, axes in given.items()}


def _names(argument: str, names: Any) -> list[str] | None:
    if names is None:
        return None
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ValueError(
            f"`{argument}` must be a list of names of attributes, such as "
            f"['kernel']. Received: {argument}={names!r}"
        )
    return list(names)


def _name(activation: Any) -> str:
    if type(activation).__name__ == "QuantizeAwareActivation":
        # A wrapper that was called holds its own object around it.
        activation = activation.activation
    return getattr(activation, "__name__", type(activation).__name__)


def _is_weight(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "trainable")
