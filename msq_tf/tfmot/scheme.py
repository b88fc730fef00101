"""MSQQuantizeScheme: a whole model by `quantize_apply(scheme=...)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msq_tf.quantizers import uniform
from msq_tf.rules import target_limits
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.layers import is_operation
from msq_tf.tfmot.layers import known_weights
from msq_tf.tfmot.layout_transform import MSQLayoutTransform
from msq_tf.tfmot.quantize_config import MSQQuantizeConfig

layers = tf_keras.layers

# Element-wise merges that TFMOT's registry does not know; an integer file has
# a grid behind each.
_MERGES = (
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)

# What TFMOT knows of 2-D images alone, and of no `Resizing`.
_AVERAGING = (layers.AveragePooling3D,)


def _averages(layer: Any) -> bool:
    """Whether a kernel averages integers, and rounds."""
    if isinstance(layer, layers.Resizing):
        return layer.interpolation != "nearest"
    return isinstance(layer, _AVERAGING)


class MSQQuantizeScheme(tfmot.QuantizeScheme):
    """Quantizes every layer with weights by MSQ, activations as TFMOT does.

    TFMOT's own layout transforms handle batch normalization behind a
    convolution or dense layer. The scheme accepts layers without weights that
    TFMOT refuses (`x + 1`, hard swish, `Rescaling`, ...); the export calibrates
    their ranges. It also accepts layers with weights that no wrapper can reach,
    such as attention and recurrent layers; the report says that they stay in
    float.

    Args:
        start_bits: Stored bits of the weights at the start.
        min_bits: Fewest stored bits a search may choose.
        per_channel: A scale for each output channel, or one for the tensor.
        activation_bits: 8, or `None` for float activations.
        quantizer: `"round_clamp"` or `"dorefa"`.
        scale: `"held"`, `"mse"` or `"max"`, as in `MSQConfig`.
        targets: Names of the export targets on which the model will run, such
            as `("mcu", "edgetpu")`: layers that can't run there are refused
            before the training. Defaults to none.

    Raises:
        ValueError: If an argument is out of its range; in `quantize_apply`,
            if the model has layers that can't run on one of `targets`.

    Example:
    ```python
    with tfmot.quantization.keras.quantize_scope():
        qat_model = tfmot.quantization.keras.quantize_apply(
            annotated, scheme=msq.MSQQuantizeScheme()
        )
    ```
    """

    def __init__(
        self,
        start_bits: int = 8,
        min_bits: int = 2,
        per_channel: bool = True,
        activation_bits: int | None = 8,
        quantizer: str = uniform.ROUND_CLAMP,
        scale: str = uniform.HELD,
        targets: Sequence[str] = (),
    ):
        target_limits.check_names(targets)
        self._targets = tuple(targets)
        self._config: dict[str, Any] = {
            "start_bits": start_bits,
            "min_bits": min_bits,
            "per_channel": per_channel,
            "activation_bits": activation_bits,
            "quantizer": quantizer,
            "scale": scale,
        }
        MSQQuantizeConfig(**self._config)  # checks
        target_limits.check_bits(self._targets, activation_bits)

    @property
    def activation_bits(self) -> int | None:
        """Bits of activations, `None` for float ones."""
        return self._config["activation_bits"]

    def get_layout_transformer(self) -> Any:
        return MSQLayoutTransform(
            self._config, self.get_quantize_registry(), self._targets
        )

    def get_quantize_registry(self) -> Any:
        return MSQQuantizeRegistry(self._config)


class MSQQuantizeRegistry(tfmot.QuantizeRegistry):
    """Says how each layer is quantized."""

    def __init__(self, config: dict[str, Any]):
        self._config = config
        self._default = tfmot.default_8bit.Default8BitQuantizeRegistry()

    def quantizes(self, layer: Any) -> bool:
        """Whether anything of a layer is quantized."""
        return self.get_quantize_config(layer) is not None

    def supports(self, layer: Any) -> bool:
        """`True`: what is not quantized is left as it is."""
        return True

    def get_quantize_config(self, layer: Any) -> Any:
        """The `QuantizeConfig` of a layer, `None` for no wrapper."""
        if is_operation(layer):
            return None
        if known_weights(layer):
            return MSQQuantizeConfig(**self._config)
        if self._config["activation_bits"] is None:
            return None
        if isinstance(layer, _MERGES) or _averages(layer):
            return MSQQuantizeConfig(weights=[], quantize_output=True)
        if not self._default.supports(layer):
            return None
        config = self._default.get_quantize_config(layer)
        try:
            config.get_output_quantizers(layer)
        except ValueError:  # an Activation that TFMOT does not quantize
            return None
        return config
