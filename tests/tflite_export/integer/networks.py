"""Small models whose operators integer targets know."""

from __future__ import annotations

import keras
import numpy as np

import msq_tf

L = keras.layers


def residual():
    """Convolutions with all that fuses, 1x1 ones, an addition, a mean."""
    x = inputs = keras.Input((8, 8, 4))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = short = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(16, 1)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.Conv2D(8, 1, use_bias=False)(x)
    x = L.Add()([L.BatchNormalization()(x), short])
    x = L.Conv2D(6, 1, strides=2)(x)
    return keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def elementwise():
    """Operators on one and two activations, with grids that meet."""
    x = inputs = keras.Input((8, 8, 4))
    c = L.Conv2D(4, 3, padding="same")(x)
    a = L.LeakyReLU()(c)
    b = L.PReLU(shared_axes=[1, 2])(c)
    e = L.Subtract()([a, b])
    f = L.Multiply()([e, L.Activation("hard_swish")(c)])
    g, h = L.Activation("sigmoid")(c), L.Activation("tanh")(c)
    k = L.Concatenate()([e, f, g, h, L.ReLU()(e)])
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(k)))


def moving():
    """Operators that move, pool and resize."""
    x = inputs = keras.Input((8, 8, 3))
    k = L.AveragePooling2D(2)(L.ZeroPadding2D(1)(x))
    m = L.MaxPooling2D(2, padding="same")(k)
    u = L.UpSampling2D(2, interpolation="bilinear")(m)
    k = L.Concatenate()([L.Cropping2D(((0, 1), (1, 0)))(u), k])
    k = L.Permute((3, 1, 2))(L.Conv2D(2, 1)(k))
    return keras.Model(inputs, L.Softmax()(L.Flatten()(k)))


def up():
    x = inputs = keras.Input((4, 4, 4))
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2DTranspose(3, 2, strides=2)(x)
    return keras.Model(inputs, L.GlobalMaxPooling2D()(x))


def tokens():
    """A table that an operator reads as an activation."""
    x = inputs = keras.Input((6,), dtype="int32")
    x = L.Conv1D(8, 3, padding="same")(L.Embedding(20, 8)(x))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def samples(model: keras.Model, count: int = 16) -> np.ndarray:
    """Inputs of a model with one input."""
    rng = np.random.default_rng(0)
    shape = (count, *model.inputs[0].shape[1:])
    if "int" in model.inputs[0].dtype:
        return rng.integers(0, 20, shape)
    return rng.normal(size=shape).astype(np.float32)


def see(qmodel: msq_tf.MSQModel, data: np.ndarray) -> msq_tf.MSQModel:
    """Lets a model find its activation ranges and changes nothing else."""
    for layer in qmodel.base._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    qmodel.compile(keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros(qmodel(data, training=False).shape)
    qmodel.fit(data, targets, batch_size=len(data), verbose=0)
    return qmodel
