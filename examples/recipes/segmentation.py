"""Segmentation: a U-Net finds clothes in front of a cluttered background.

Photographs of Fashion-MNIST, which the repository has; the background is made
of pieces of others.

Watch: the skips of a U-Net are joined by a concatenation, and an integer file
stores all that is joined on one grid: keep the parts on one scale, as batch
normalization does here.

    python -m examples.recipes.segmentation
"""

import keras
import numpy as np

import msq_tf
import tflite_export
from train.data import datasets


def scenes(images, seed):
    """Pictures from 0 to 1, and masks of what stands in front."""
    rng = np.random.default_rng(seed)
    front = images.astype("float32") / 255
    back = np.roll(front[rng.permutation(len(front))], 14, axis=(1, 2)) * 0.4
    back += rng.uniform(0, 0.3, (len(front), 1, 1, 1)).astype("float32")
    mask = front > 0.1
    return np.where(mask, front, back), mask.astype("float32")


def block(x, filters):
    """A convolution with batch normalization."""
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x)


def unet():
    """A U-Net of two levels for pictures of 28x28."""
    inputs = keras.Input((28, 28, 1))
    skips, x = [], inputs
    for filters in (8, 16):
        x = block(x, filters)
        skips.append(x)
        x = keras.layers.MaxPooling2D()(x)
    x = block(x, 32)
    for filters, skip in zip((16, 8), reversed(skips), strict=True):
        x = block(keras.layers.UpSampling2D()(x), filters)
        x = block(keras.layers.Concatenate()([x, skip]), filters)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1)(x))


def compile_for(model, learning_rate):
    """Compiles for logits of pixels."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )


def overlap(logits, masks):
    """Intersection over union, the mean over pictures."""
    found, wanted = logits > 0, masks > 0
    both = (found & wanted).sum((1, 2, 3))
    return float(np.mean(both / (found | wanted).sum((1, 2, 3))))


def main(path="segmentation.tflite", epochs=3, count=1000):
    """Runs the recipe; returns overlaps of the model and of its file."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", train_examples=count)
    x, y = scenes(data.train.images, seed=0)
    x_test, y_test = scenes(data.test.images[:200], seed=1)
    model = unet()
    compile_for(model, 3e-3)
    model.fit(x, y, epochs=epochs, verbose=2)

    config = msq_tf.MSQConfig(activation_bits=8, targets=["cpu_int8"])
    qmodel = msq_tf.quantize_model(model, config)
    compile_for(qmodel, 1e-3)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=epochs, verbose=2, callbacks=[search])
    ours = overlap(qmodel.predict(x_test, verbose=0), y_test)

    report = tflite_export.export(
        qmodel, path, target="cpu_int8", representative_data=x[:64]
    )
    print(report)
    file = overlap(tflite_export.run(path, x_test), y_test)
    print(f"{qmodel.compression:.1f}x: Keras {ours:.1%}, {path} {file:.1%}")
    return {"keras": ours, "file": file, "report": report}


if __name__ == "__main__":
    main()
