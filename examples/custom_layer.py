"""Layers with weights of their own: registered, and named where they stand.

Run from anywhere after `pip install .`: python custom_layer.py
"""

import keras
import numpy as np

import msq_tf
from tflite_export import export

keras.utils.set_random_seed(0)


# The first way: the class says what it computes with.
@msq_tf.register_quantizable("scale_kernel", layout=msq_tf.Layout.CONV)
@keras.saving.register_keras_serializable(package="example")
class PatchEmbedding(keras.layers.Layer):
    """Cuts an image into patches and projects each."""

    def __init__(self, size, units, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.units = units

    def build(self, input_shape):
        self.scale_kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1], self.units)
        )

    def call(self, images):
        return keras.ops.conv(images, self.scale_kernel, strides=self.size)

    def get_config(self):
        config = {"size": self.size, "units": self.units}
        return {**super().get_config(), **config}


# The second way needs nothing here: somebody else's class, say.
@keras.saving.register_keras_serializable(package="example")
class GatedLinear(keras.layers.Layer):
    """Gated linear units, one after the other."""

    def __init__(self, units, depth, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.depth = depth

    def build(self, input_shape):
        sizes = [input_shape[-1], *[self.units] * self.depth]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.gates = [self.add_weight(shape=pair) for pair in pairs]
        self.values = [self.add_weight(shape=pair) for pair in pairs]

    def call(self, x):
        for gate, value in zip(self.gates, self.values, strict=True):
            gated = keras.ops.sigmoid(keras.ops.matmul(x, gate))
            x = keras.ops.matmul(x, value) * gated
        return x

    def get_config(self):
        config = {"units": self.units, "depth": self.depth}
        return {**super().get_config(), **config}


# Images of which quadrant is brightest; take your own.
x = np.random.normal(size=(4096, 16, 16, 1)).astype("float32")
y = x.reshape(-1, 2, 8, 2, 8).mean((2, 4)).reshape(-1, 4).argmax(-1)

model = keras.Sequential(
    [
        keras.Input((16, 16, 1)),
        PatchEmbedding(4, 16, name="patches"),
        keras.layers.LayerNormalization(),
        keras.layers.Flatten(),
        GatedLinear(32, depth=2, name="glu"),
        keras.layers.Dense(4, name="logits"),
    ]
)


def compile_for(model, learning_rate):
    """Compiles for classification by logits."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


compile_for(model, 3e-3)
model.fit(x, y, epochs=4, batch_size=64, verbose=2)

# A key that spells an attribute quantizes what it holds.
config = msq_tf.MSQConfig(
    overrides={
        r".*/gates/\d+": msq_tf.LayerConfig(axis=-1),
        r".*/values/\d+": msq_tf.LayerConfig(min_bits=3, axis=-1),
    }
)
qmodel = msq_tf.quantize_model(model, config)
compile_for(qmodel, 1e-3)
qmodel.fit(
    x,
    y,
    epochs=4,
    batch_size=64,
    verbose=2,
    callbacks=[msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8))],
)
print(msq_tf.precision_report(qmodel))

# The file appears only if it holds the trained codes and computes the same.
report = export(
    qmodel,
    "custom_layer.tflite",
    target="min_size",
    representative_data=x[:64],
)
print(report)
