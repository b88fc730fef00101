"""Variational autoencoder: photographs through eight numbers and back.

Fashion-MNIST, and a sampling layer that adds the divergence to the loss.

Watch: in inference the sampling layer gives the mean, so the file has no random
numbers and can be compared with Keras; a layer that draws in inference, too,
makes a file that draws others at every run. `quantize_model` warns that
inference never reads `log_variance`: rightly, no file needs it.

    python -m examples.recipes.vae
"""

import keras
import numpy as np

import msq_tf
import tflite_export
from train.data import datasets

LATENT = 8


@keras.saving.register_keras_serializable(package="recipes")
class Sampling(keras.layers.Layer):
    """Draws around a mean in training; its divergence is a loss."""

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, inputs, training=None):
        mean, log_variance = inputs
        divergence = 1 + log_variance - mean**2 - keras.ops.exp(log_variance)
        self.add_loss(-0.5 * self.weight * keras.ops.mean(divergence))
        if not training:
            return mean
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        return mean + keras.ops.exp(0.5 * log_variance) * noise

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


def autoencoder():
    """Pictures of 28x28 from 0 to 1 to pictures."""
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(16, 3, 2, "same", activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 3, 2, "same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    mean = keras.layers.Dense(LATENT, name="mean")(x)
    log_variance = keras.layers.Dense(LATENT, name="log_variance")(x)
    x = Sampling(0.02)([mean, log_variance])
    x = keras.layers.Dense(7 * 7 * 32, activation="relu")(x)
    x = keras.layers.Reshape((7, 7, 32))(x)
    x = keras.layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(x)
    x = keras.layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid")(x)
    return keras.Model(inputs, x)


def main(path="vae.tflite", epochs=4, count=1500):
    """Runs the recipe; returns errors of the model and of its file."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", train_examples=count)
    x, x_test = (
        split.images.astype("float32") / 255
        for split in (data.train, data.test)
    )
    model = autoencoder()
    model.compile(keras.optimizers.Adam(2e-3), "binary_crossentropy")
    model.fit(x, x, epochs=epochs, verbose=2)

    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(x, x, epochs=epochs, verbose=2, callbacks=[search])
    ours = float(np.mean((qmodel.predict(x_test, verbose=0) - x_test) ** 2))

    report = tflite_export.export(qmodel, path, representative_data=x[:64])
    print(report)
    file = float(np.mean((tflite_export.run(path, x_test) - x_test) ** 2))
    mean = float(np.mean((x.mean(0) - x_test) ** 2))
    print(
        f"{qmodel.compression:.1f}x: mean squared error of Keras {ours:.4f}, "
        f"of {path} {file:.4f}, of the mean picture {mean:.4f}"
    )
    return {"keras": ours, "file": file, "mean": mean, "report": report}


if __name__ == "__main__":
    main()
