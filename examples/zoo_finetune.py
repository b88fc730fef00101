"""A zoo model under a new head: the two phases of the Keras guides, with MSQ.

Phase 1 trains the head on a frozen backbone. Phase 2 unfreezes the backbone
and fine-tunes everything at a low learning rate, while MSQ searches the bits.
At the end stands a file that was verified.

From the root of the repository:

    python -m examples.zoo_finetune --weights=imagenet --size=96

Without `--weights` nothing is downloaded: the backbone learns the first five
classes of the data, and the last five are what it is fine-tuned on.
"""

import argparse

import keras
import numpy as np

import msq_tf
import tflite_export
from train.data import datasets

CLASSES = 5


def arguments(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="'imagenet' or a file; none: see top")
    parser.add_argument(
        "--architecture", default="MobileNet", help="or MobileNetV2"
    )
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--alpha", type=float, default=0.25, help="width")
    parser.add_argument("--examples", type=int, help="of the training split")
    parser.add_argument("--pretraining", type=int, default=4, help="epochs")
    parser.add_argument("--epochs", type=int, default=3, help="of each phase")
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--compression", type=float, default=8.0)
    parser.add_argument("--target", default="min_size")
    parser.add_argument("--output", default="zoo_finetune.tflite")
    return parser.parse_args(argv)


def task(examples, size, first):
    """Images and labels of five classes, labelled from 0.

    Returns:
        float32 images (example, size, size, 3) from 0 to 255, int32 labels.
    """
    chosen = (examples.labels >= first) & (examples.labels < first + CLASSES)
    images = examples.images[chosen].astype("float32")
    images = np.asarray(keras.ops.image.resize(images, (size, size)))
    return np.repeat(images, 3, axis=-1), examples.labels[chosen] - first


def with_head(backbone, size):
    """A classifier on top of a backbone, which takes pixels from 0 to 255."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = backbone(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(x))


def normalizations(backbone):
    """The batch normalizations of a backbone."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in backbone.layers if isinstance(layer, kind)]


def fit(model, learning_rate, data, validation_data, epochs, callbacks=()):
    """Compiles and trains.

    Returns:
        The accuracy on the validation data.
    """
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *data,
        epochs=epochs,
        validation_data=validation_data,
        batch_size=32,
        verbose=2,
        callbacks=list(callbacks),
    )
    return model.evaluate(*validation_data, verbose=0)[1]


def main(argv=None):
    """Runs the recipe.

    Returns:
        Accuracies after the phases and of the file.
    """
    flags = arguments(argv)
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", train_examples=flags.examples)
    train, test = (
        task(split, flags.size, first=5) for split in (data.train, data.test)
    )

    backbone = getattr(keras.applications, flags.architecture)(
        input_shape=(flags.size, flags.size, 3),
        alpha=flags.alpha,
        include_top=False,
        weights=flags.weights,
    )
    if flags.weights is None:
        others = [
            task(split, flags.size, first=0)
            for split in (data.train, data.test)
        ]
        for layer in normalizations(backbone):
            layer.momentum = 0.9  # for a few hundred steps
        fit(with_head(backbone, flags.size), 2e-3, *others, flags.pretraining)

    # Phase 1: the head alone.
    backbone.trainable = False
    model = with_head(backbone, flags.size)
    head = fit(model, 1e-3, train, test, flags.epochs)

    # Phase 2: everything, at a low learning rate, in fewer and fewer bits.
    # Batch normalizations keep their statistics: `backbone(x, training=False)`
    # would not see to that, Keras 3.15 overrides it in `fit`.
    backbone.trainable = True
    for layer in normalizations(backbone):
        layer.trainable = False
    qmodel = msq_tf.quantize_model(model)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=flags.compression)
    )
    tuned = fit(
        qmodel, flags.learning_rate, train, test, flags.epochs, [search]
    )
    print(msq_tf.precision_report(qmodel))

    report = tflite_export.export(
        qmodel,
        flags.output,
        target=flags.target,
        representative_data=train[0][:64],
    )
    print(report)
    logits = tflite_export.run(flags.output, test[0])
    file = float(np.mean(logits.argmax(-1) == test[1]))
    print(
        f"accuracy after phase 1 {head:.2%}, after phase 2 {tuned:.2%} at "
        f"{qmodel.compression:.1f}x; {flags.output}: {file:.2%}, "
        f"{report.file_bytes:,} bytes ({report.float_file_bytes:,} in float)"
    )
    return {"head": head, "tuned": tuned, "file": file, "model": qmodel}


if __name__ == "__main__":
    main()
