"""From an MSQModel to a plain Keras model with quantized values."""

from __future__ import annotations

from typing import Any

import keras

from msq_tf.keras3 import lora_settings
from msq_tf.keras3.activation_grid import without_grids
from msq_tf.keras3.lora import merge
from msq_tf.keras3.model import MSQModel
from msq_tf.keras3.model_scopes import check_outside
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.planning import match_plan


def bake(qmodel: MSQModel) -> Any:
    """Copies the base model and writes the quantized values into it.

    The result computes what `qmodel` computes, needs no `msq_tf` to load,
    and shares no variable with it.

    Args:
        qmodel: An `MSQModel`.

    Returns:
        A plain Keras model of the base's class, uncompiled.

    Raises:
        ValueError: If `qmodel` is no `MSQModel` or its base cannot be rebuilt
            from its configuration, or a `quantized_scope` is open.

    Example:
    ```python
    msq_tf.bake(qmodel).save("baked.keras")
    ```
    """
    if not isinstance(qmodel, MSQModel):
        raise ValueError(
            f"`bake` takes an MSQModel. Received: {type(qmodel).__name__}"
        )
    check_outside("`bake`", qmodel.name)
    base = qmodel.base
    try:
        copy = keras.saving.deserialize_keras_object(
            without_grids(keras.saving.serialize_keras_object(base))
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            "The base model cannot be copied: Keras does not rebuild it from "
            "its configuration. Expected a model with a complete "
            "`get_config` and `from_config`. Received: "
            f"{type(base).__name__}, {error}"
        ) from error
    lora_settings.restore(copy, lora_settings.settings(base))
    if len(copy.variables) != len(base.variables):
        raise ValueError(
            "The base model cannot be copied: the copy is not built. "
            "Expected a `build` or `get_build_config` that creates its "
            f"{len(base.variables)} variables. Received: "
            f"{type(base).__name__} with {len(copy.variables)} variables"
        )
    copy.set_weights(base.get_weights())
    merge(all_layers(copy))
    values = {
        weight.path: weight.values for weight in qmodel.quantized_weights()
    }
    for weight in match_plan(copy, qmodel.plan):
        if weight.path in values:
            weight.variable.assign(values[weight.path])
    return copy
