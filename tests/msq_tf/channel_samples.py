"""Networks whose channels can be removed, and what they have to compute."""

import keras
import numpy as np

import msq_tf
from msq_tf.keras3.channels import Channels

layers = keras.layers


def residual_model(size=8):
    """A stem, two blocks with additions, one of them with a shortcut."""
    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(12, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Conv2D(8, 3, padding="same", name="b")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    y = layers.Conv2D(16, 3, strides=2, padding="same", name="c")(x)
    y = layers.BatchNormalization(name="c_bn")(y)
    shortcut = layers.Conv2D(16, 1, strides=2, name="shortcut")(x)
    x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="residual")


def settle(model, seed=0):
    """Gives every variable of a model numbers of its own."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in variable.dtype:
            continue
        value = np.asarray(variable)
        if "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 2.0, value.shape))
        elif value.ndim < 2:
            variable.assign(value + rng.normal(0.0, 0.3, value.shape))
    return model


def draw(qmodel, share=0.4, seed=0):
    """Channels of every group that can go, for `remove_channels`."""
    rng = np.random.default_rng(seed)
    return {
        group.paths[0]: sorted(
            map(
                int,
                rng.choice(
                    group.channels, int(group.channels * share), replace=False
                ),
            )
        )
        for group in msq_tf.channel_groups(qmodel)
        if not group.reason
    }


def zero(qmodel, channels):
    """Makes the weights of channels zero, in the model as it is."""
    own = Channels(qmodel)
    gone = own.chosen(channels)
    variables = [v for v in qmodel.base.variables if len(v.shape) > 1]
    for variable, mask in zip(
        variables, own.masks(gone, variables), strict=True
    ):
        if mask is not None:
            variable.assign(np.asarray(variable) * mask)
    return qmodel
