"""Train, quantize, export: the whole way on data made up here.

Run from anywhere after `pip install .`: python quickstart.py
"""

import keras
import numpy as np

import msq_tf
from tflite_export import export

keras.utils.set_random_seed(0)

# Images of which quadrant is brightest; take your own.
x = np.random.normal(size=(4096, 16, 16, 1)).astype("float32")
y = x.reshape(-1, 2, 8, 2, 8).mean((2, 4)).reshape(-1, 4).argmax(-1)

model = keras.Sequential(
    [
        keras.Input((16, 16, 1)),
        keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.SeparableConv2D(32, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(4),
    ]
)


def compile_for(model, learning_rate):
    """Compiles for classification by logits."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


# 1. Train in float, as always.
compile_for(model, 3e-3)
model.fit(x, y, epochs=4, batch_size=64, verbose=2)

# 2. Fine-tune with MSQ until the weights are 8 times smaller.
qmodel = msq_tf.quantize_model(model)
compile_for(qmodel, 1e-3)
qmodel.fit(
    x,
    y,
    epochs=4,
    batch_size=64,
    verbose=2,
    callbacks=[
        msq_tf.MSQCallback(
            msq_tf.BudgetRule(target_compression=8, device="min_size")
        )
    ],
)
print(msq_tf.precision_report(qmodel))

# 3. Write a packed file; it appears only if it computes what Keras computes.
report = export(
    qmodel,
    "quickstart.tflite",
    target="min_size",
    representative_data=x[:64],
)
print(report)
