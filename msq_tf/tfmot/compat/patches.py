"""Replacements for parts of TFMOT and tf_keras: one table, an entry a symbol.

These are for TFMOT 0.8.1.

For files to load; those of models that TFMOT makes by itself do not either:

- `QuantizeLayer.build` does not set `built`. Keras builds the layer from the
  file, finds it unbuilt, builds it again, and refuses the file: its variables
  are there twice.
- `QuantizeWrapperV2` holds a kernel twice when it was made from a built layer,
  and once when it was made from a file: the numbers of variables differ.
- `OutputOnlyConfig`, which layers in front of an annotated one get, writes an
  object into the file where it reads a dict.

For weights that would change in silence:

- `QuantizeWrapperV2` trains the kernels of frozen layers all the same.
- `LayerReLUQuantize` loses the `QuantizeConfig` of a layer in front of a ReLU,
  whose weights would stay in float.

For activations `fake_quant` and `ranges`, for losses `losses` says why.
"""

from __future__ import annotations

from typing import Any

# These are not public.
from tensorflow_model_optimization.python.core.quantization.keras import (
    quant_ops,
)
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_config,
)
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layer,
)
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_wrapper,
)
from tensorflow_model_optimization.python.core.quantization.keras import utils
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (  # noqa: E501
    default_8bit_transforms as transforms,
)

from msq_tf.tfmot.compat import fake_quant
from msq_tf.tfmot.compat import losses
from msq_tf.tfmot.compat import ranges
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.compat.names import weight_name

QuantizeLayer = quantize_layer.QuantizeLayer

_build = QuantizeLayer.build


def _build_once(self: Any, input_shape: Any) -> None:
    if not self.built:
        _build(self, input_shape)
        self.built = True


def _by_name(wrapper: Any) -> dict[str, Any]:
    variables = [weight for weight, _, _ in wrapper._weight_vars]
    variables += wrapper._non_trainable_weights
    return {weight_name(variable): variable for variable in variables}


def _save_own_variables(self: Any, store: Any) -> None:
    for name, variable in _by_name(self).items():
        store[name] = variable.numpy()


def _load_own_variables(self: Any, store: Any) -> None:
    variables = _by_name(self)
    if set(store.keys()) != set(variables):
        raise ValueError(
            f"The file does not fit layer '{self.name}'. Expected variables "
            f"{sorted(variables)}. Received: {sorted(store.keys())}"
        )
    for name, variable in variables.items():
        variable.assign(store[name])


def _trainable(self: Any) -> list[Any]:
    if not self.trainable:
        return []
    return self._dedup_weights(
        self._trainable_weights + self.layer.trainable_weights
    )


def _non_trainable(self: Any) -> list[Any]:
    frozen = [] if self.trainable else self._trainable_weights
    return self._dedup_weights(
        frozen + self.layer.non_trainable_weights + self._non_trainable_weights
    )


QuantizeWrapperV2 = quantize_wrapper.QuantizeWrapperV2
OutputOnlyConfig = quantize_config.OutputOnlyConfig


def _get_config(self: Any) -> dict[str, Any]:
    return {
        "quantize_config": utils.serialize_keras_object(self.quantize_config)
    }


def _from_config(cls: type, config: dict[str, Any]) -> Any:
    inner = config["quantize_config"]
    if isinstance(inner, dict):
        inner = utils.deserialize_keras_object(inner)
    return cls(inner)


_replacement = transforms.LayerReLUQuantize.replacement


def _keep_config(self: Any, match_layer: Any) -> Any:
    node = match_layer.input_layers[0]
    given = node.metadata.get("quantize_config")
    result = _replacement(self, match_layer)
    if given is not None:
        if hasattr(given, "without_activations"):
            given = given.without_activations()
        node.metadata["quantize_config"] = given
    return result


# Owner and name of each symbol, and what takes its place.
PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (transforms.LayerReLUQuantize, "replacement", _keep_config),
    (OutputOnlyConfig, "get_config", _get_config),
    (OutputOnlyConfig, "from_config", classmethod(_from_config)),
    (QuantizeLayer, "build", _build_once),
    (QuantizeWrapperV2, "trainable_weights", property(_trainable)),
    (QuantizeWrapperV2, "non_trainable_weights", property(_non_trainable)),
    (tfmot.QuantizeWrapper, "save_own_variables", _save_own_variables),
    (tfmot.QuantizeWrapper, "load_own_variables", _load_own_variables),
    (losses.LossesContainer, "__call__", losses.total_loss),
    (quant_ops, "_FakeQuantWithMinMaxVars", fake_quant.fake_quantize),
    (quant_ops, "MovingAvgQuantize", ranges.moving_average),
    (quant_ops, "AllValuesQuantize", ranges.all_values),
)


def apply_patches() -> None:
    """Puts every replacement in its place; a second call changes nothing.

    Replacements call what they replace by the reference that their modules took
    on import, so neither the order of the table nor that of imports matters.
    """
    for owner, name, replacement in PATCHES:
        setattr(owner, name, replacement)
