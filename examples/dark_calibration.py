"""A model that goes wrong at its export, and the page that shows why.

A float ResNet-8 is quantized to 8 bits without training. The ranges of its
activations are measured on photographs that were taken in the dark.

From the root of the repository: python -m examples.dark_calibration
"""

import pathlib

import keras

import msq_tf
import tflite_export
from train.data import datasets
from train.models import builders

BATCH = 128


def float_model(data, epochs):
    """A ResNet-8, trained as always, for images from 0 to 1."""
    model = builders.build("resnet8", data.image_shape, data.classes)
    steps = epochs * -(-len(data.train) // BATCH)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-3, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x = data.train.images.astype("float32") / 255
    model.fit(x, data.train.labels, epochs=epochs, batch_size=BATCH, verbose=2)
    return model


def look(model, data, folder):
    """Exports the model with wrong ranges and with right ones, and looks.

    Returns:
        What `tflite_export.look` finds in the wrong file, in the right one,
        and in both side by side.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    x_train = data.train.images[:256].astype("float32") / 255
    x_test = data.test.images[:512].astype("float32") / 255
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 8))
    samples = {"wrong": 0.25 * x_train, "right": x_train}
    for name, calibration in samples.items():
        tflite_export.export(
            qmodel,
            folder / f"{name}.tflite",
            target="cpu_int8",
            representative_data=calibration,
        )
    found = []
    for names in (["wrong"], ["right"], ["wrong", "right"]):
        found.append(
            tflite_export.look(
                *(folder / f"{name}.tflite" for name in names),
                model=qmodel,
                float_model=model,
                representative_data=x_test,
                labels=data.test.labels[: len(x_test)],
                samples=len(x_test),
                output=folder / f"{'_and_'.join(names)}.html",
            )
        )
    return found


def main():
    """Does all of it, and prints what the pages say."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini")
    model = float_model(data, epochs=4)
    for found in look(model, data, "out/dark_calibration"):
        print(found)


if __name__ == "__main__":
    main()
