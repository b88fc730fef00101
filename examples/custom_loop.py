"""A subclassed model and a training loop of its own: MSQ without `fit`.

From the root of the repository: python -m examples.custom_loop
"""

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from tflite_export import export
from train.data import datasets


@keras.saving.register_keras_serializable(package="example")
class Classifier(keras.Model):
    """A small convolutional classifier; `call` is ordinary Python."""

    def __init__(self, width=24, classes=10, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.classes = classes
        self.rescale = keras.layers.Rescaling(1 / 127.5, offset=-1)
        self.stem = keras.layers.Conv2D(
            width, 3, strides=2, use_bias=False, name="stem"
        )
        self.blocks = [
            keras.layers.SeparableConv2D(
                2 * i * width,
                3,
                padding="same",
                use_bias=False,
                name=f"block{i}",
            )
            for i in (1, 2)
        ]
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9) for _ in range(3)
        ]
        self.pool = keras.layers.MaxPooling2D()
        self.mean = keras.layers.GlobalAveragePooling2D()
        self.logits = keras.layers.Dense(classes, name="logits")

    def call(self, images, training=False):
        x = self.stem(self.rescale(images))
        x = keras.ops.relu(self.norms[0](x, training=training))
        for block, norm in zip(self.blocks, self.norms[1:], strict=True):
            x = self.pool(x)
            x = keras.ops.relu(norm(block(x), training=training))
        return self.logits(self.mean(x))

    def get_config(self):
        config = {"width": self.width, "classes": self.classes}
        return {**super().get_config(), **config}


def make_step(model):
    """One step of training, as a graph."""

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = model.loss(labels, logits)
            # `losses` holds MSQ's pull, and whatever layers add.
            total = loss + sum(model.losses)
        variables = model.trainable_variables
        gradients = tape.gradient(total, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return step


def train(model, data, epochs, *callbacks):
    """Trains, and has Keras callbacks follow as in `fit`.

    Args:
        model: A compiled model.
        data: A `tf.data.Dataset` of batches whose length is known.
        epochs: How often to go through it.
        *callbacks: Keras callbacks, an `MSQCallback` among them.

    Returns:
        The compiled step.
    """
    step = make_step(model)
    watch = keras.callbacks.CallbackList(
        callbacks, model=model, epochs=epochs, steps=len(data), verbose=1
    )
    watch.on_train_begin()
    for epoch in range(epochs):
        watch.on_epoch_begin(epoch)
        mean = keras.metrics.Mean()
        for number, (images, labels) in enumerate(data):
            watch.on_train_batch_begin(number)
            mean.update_state(step(images, labels))
            watch.on_train_batch_end(number)  # decisions fall here
        print(f"epoch {epoch + 1}: loss {float(mean.result()):.4f}")
        watch.on_epoch_end(epoch)
    watch.on_train_end()
    return step


def compile_for(model, learning_rate, steps):
    """Gives a model an optimizer, and the loss that MSQ's statistics take."""
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # Variables made in the step would have it traced twice.
    model.optimizer.build(model.trainable_variables)


def accuracy(model, images, labels):
    """Share of the images that are classified as labelled."""
    hits = [
        np.argmax(model(images[i : i + 500], training=False), -1)
        == labels[i : i + 500]
        for i in range(0, len(images), 500)
    ]
    return float(np.concatenate(hits).mean())


def main():
    keras.utils.set_random_seed(0)
    source = datasets.load("fashion_mnist_mini")
    x, y = source.train.images.astype("float32"), source.train.labels
    test = source.test.images.astype("float32"), source.test.labels
    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.shuffle(len(x), seed=0).batch(100, drop_remainder=True)

    # 1. Train in float.
    model = Classifier()
    model(x[:1])  # makes the variables
    compile_for(model, 1e-2, 3 * len(data))
    train(model, data, 3)
    print(f"float: {accuracy(model, *test):.2%} of the test images")

    # 2. Search and fine-tune: the same loop, with one callback.
    qmodel = msq_tf.quantize_model(model)
    compile_for(qmodel, 2e-3, 4 * len(data))
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8), data=(x, y), batch_size=100
    )
    step = train(qmodel, data, 4, search)
    print(f"MSQ: {accuracy(qmodel, *test):.2%} of the test images")
    # Bits are variables: no change of theirs compiles anything anew.
    print(f"traces of the step: {step.experimental_get_tracing_count()}")
    print(msq_tf.precision_report(qmodel))

    # 3. The file appears only if it computes what Keras computes.
    print(
        export(
            qmodel,
            "custom_loop.tflite",
            target="min_size",
            representative_data=x[:64],
        )
    )
    return qmodel, step


if __name__ == "__main__":
    main()
