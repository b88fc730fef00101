"""Siamese network: two photographs of one kind lie near each other.

Fashion-MNIST, pairs of equal and of different classes, and a `train_step` of
its own with the contrastive loss.

Watch: the file holds what `call` computes, the embedding of one picture; so the
distance, and the threshold on it, are the program's. Measure the threshold on
the file, whose distances are not quite those of the float model.

    python -m examples.recipes.siamese
"""

import keras
import numpy as np
import tensorflow as tf

import msq_tf
import tflite_export
from train.data import datasets


@keras.saving.register_keras_serializable(package="recipes")
class Siamese(keras.Model):
    """An encoder that is called on both pictures of a pair."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = keras.Sequential(
            [
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
                keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(16),
            ]
        )
        self.mean = keras.metrics.Mean("loss")

    @property
    def metrics(self):
        return [self.mean]

    def build(self, input_shape):
        self.encoder.build(input_shape)

    def call(self, image, training=None):
        return self.encoder(image, training=training)

    def loss_of(self, data, training):
        """Contrastive: equal pairs near, the others at least 1 apart."""
        (left, right), equal = data
        difference = self(left, training=training) - self(
            right, training=training
        )
        squares = tf.reduce_sum(difference**2, -1)
        apart = tf.maximum(1.0 - tf.sqrt(squares + 1e-9), 0.0) ** 2
        equal = tf.cast(equal, squares.dtype)
        return tf.reduce_mean(equal * squares + (1.0 - equal) * apart)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.loss_of(data, training=True)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}

    def test_step(self, data):
        self.mean.update_state(self.loss_of(data, training=False))
        return {"loss": self.mean.result()}


def pairs(examples, seed):
    """Two lists of pictures, and whether they are of one class."""
    rng = np.random.default_rng(seed)
    images = examples.images.astype("float32")
    left = np.arange(len(examples))
    right = rng.permutation(left)
    # Half of them with one of their own class.
    for i in left[::2]:
        right[i] = rng.choice(
            np.flatnonzero(examples.labels == examples.labels[i])
        )
    equal = examples.labels == examples.labels[right]
    return (images, images[right]), equal.astype("float32")


def accuracy(embed, data):
    """Share of pairs that the best threshold tells apart."""
    (left, right), equal = data
    distances = np.linalg.norm(embed(left) - embed(right), axis=-1)
    thresholds = np.quantile(distances, np.linspace(0, 1, 101))
    return max(np.mean((distances < t) == (equal > 0)) for t in thresholds)


def main(path="siamese.tflite", epochs=4, count=1500):
    """Runs the recipe; returns accuracies of the model and of its file."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", train_examples=count)
    train, test = pairs(data.train, seed=0), pairs(data.test, seed=1)
    batches = tf.data.Dataset.from_tensor_slices(train)
    batches = batches.shuffle(count).batch(50)
    model = Siamese()
    model.build((None, 28, 28, 1))
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(batches, epochs=epochs, verbose=2, shuffle=False)

    images = data.test.images[:64].astype("float32")
    qmodel = msq_tf.quantize_model(model, example_inputs=images[:1])
    qmodel.compile(keras.optimizers.Adam(3e-4))
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0),
        data=batches,
        interval=1,
        max_probes=2,
    )
    qmodel.fit(
        batches, epochs=epochs, verbose=2, shuffle=False, callbacks=[search]
    )
    ours = accuracy(lambda x: qmodel.predict(x, verbose=0), test)

    report = tflite_export.export(qmodel, path, representative_data=images)
    print(report)
    file = accuracy(lambda x: tflite_export.run(path, x), test)
    print(f"{qmodel.compression:.1f}x: Keras {ours:.1%}, {path} {file:.1%}")
    return {"keras": float(ours), "file": float(file), "report": report}


if __name__ == "__main__":
    main()
