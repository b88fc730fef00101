"""A TF Model Optimization pipeline on tf_keras that ends in a packed file.

Run from anywhere after `pip install '.[tfmot]'`: python tfmot_pipeline.py
"""

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

import msq_tf
from msq_tf import tfmot as msq
from tflite_export import export

tf_keras.utils.set_random_seed(0)

# Images of which quadrant is brightest; take your own.
x = np.random.normal(size=(1024, 16, 16, 1)).astype("float32")
y = x.reshape(-1, 2, 8, 2, 8).mean((2, 4)).reshape(-1, 4).argmax(-1)

layers = tf_keras.layers
model = tf_keras.Sequential(
    [
        layers.Input((16, 16, 1)),
        layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(32, 3, strides=2, activation="relu", name="sep"),
        layers.Flatten(),
        layers.Dense(4, name="head"),
    ]
)


def compile_for(model, learning_rate):
    """Compiles for classification by logits."""
    model.compile(
        tf_keras.optimizers.Adam(learning_rate),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


# 1. Train in float, as always.
compile_for(model, 3e-3)
model.fit(x, y, epochs=4, batch_size=64, verbose=2)

# 2. Annotate and apply, as always; only the scheme is new.
annotated = tfmot.quantization.keras.quantize_annotate_model(model)
with tfmot.quantization.keras.quantize_scope():
    qat_model = tfmot.quantization.keras.quantize_apply(
        annotated, scheme=msq.MSQQuantizeScheme()
    )
msq.calibrate(qat_model, x[:256])

# 3. Fine-tune until the weights are 8 times smaller.
compile_for(qat_model, 1e-3)
rule = msq_tf.BudgetRule(target_compression=8, allowed_bits=(8, 4, 2))
qat_model.fit(
    x,
    y,
    epochs=4,
    batch_size=64,
    verbose=2,
    callbacks=[msq.MSQCallback(rule, data=(x, y))],
)
view = msq.ModelView(qat_model)
print(msq_tf.precision_report(view))

# 4. Save and load, as always.
qat_model.save("tfmot_pipeline.keras")
with tfmot.quantization.keras.quantize_scope():
    loaded = tf_keras.models.load_model("tfmot_pipeline.keras")

# 5. Write a file with the trained codes and ranges; it appears only if it
# computes what tf_keras computes.
report = export(
    msq.ModelView(loaded),
    "tfmot_pipeline.tflite",
    target="cpu_int8",
    representative_data=x[:64],
)
print(report)
