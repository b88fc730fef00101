"""Detection: a box and a class from one network, with a loss for each.

Photographs of Fashion-MNIST at any place of a larger picture.

Watch: outputs and losses are dictionaries, and the file has outputs of these
names; a search minds the sum of the losses, so weigh them (`loss_weights`)
before it begins.

    python -m examples.recipes.detection
"""

import keras
import numpy as np

import msq_tf
import tflite_export
from train.data import datasets

SIZE = 48


def scenes(examples, seed):
    """Pictures from 0 to 1, and a box (y, x, height, width) and class each."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0, 0.3, (len(examples), SIZE, SIZE, 1))
    boxes = np.zeros((len(examples), 4))
    for picture, box, image in zip(
        pictures, boxes, examples.images, strict=True
    ):
        rows, columns = (np.flatnonzero(image.any((a, 2))) for a in (1, 0))
        y, x = rng.integers(0, SIZE - 28, 2)
        part = picture[y : y + 28, x : x + 28]
        np.maximum(part, image / 255, out=part)
        box[:] = y + rows[0], x + columns[0], np.ptp(rows), np.ptp(columns)
    return pictures.astype("float32"), {
        "box": (boxes / SIZE).astype("float32"),
        "kind": examples.labels,
    }


def network():
    """Convolutions, and two heads."""
    x = inputs = keras.Input((SIZE, SIZE, 1))
    for filters in (16, 32, 48, 64):
        x = keras.layers.Conv2D(filters, 3, 2, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Flatten()(x)
    outputs = {
        "box": keras.layers.Dense(4, activation="sigmoid", name="box")(x),
        "kind": keras.layers.Dense(10, name="kind")(x),
    }
    return keras.Model(inputs, outputs)


def compile_for(model, learning_rate):
    """Compiles with a loss for each output."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        {
            "box": keras.losses.MeanAbsoluteError(),
            "kind": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True
            ),
        },
        loss_weights={"box": 5.0, "kind": 1.0},
        metrics={"kind": "accuracy"},
    )


def overlap(found, wanted):
    """Intersection over union of boxes, the mean."""
    ends = [boxes[:, :2] + boxes[:, 2:] for boxes in (found, wanted)]
    both = np.minimum(*ends) - np.maximum(found[:, :2], wanted[:, :2])
    both = np.prod(np.maximum(both, 0), axis=1)
    areas = np.prod(found[:, 2:], axis=1) + np.prod(wanted[:, 2:], axis=1)
    return float(np.mean(both / (areas - both)))


def main(path="detection.tflite", epochs=4, count=1500):
    """Runs the recipe; returns overlaps of the model and of its file."""
    keras.utils.set_random_seed(0)
    data = datasets.load("fashion_mnist_mini", train_examples=count)
    x, y = scenes(data.train, seed=0)
    x_test, y_test = scenes(data.test, seed=1)
    model = network()
    compile_for(model, 3e-3)
    model.fit(x, y, epochs=epochs, verbose=2)

    qmodel = msq_tf.quantize_model(model)
    compile_for(qmodel, 1e-3)
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=8.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=epochs, verbose=2, callbacks=[search])
    ours = qmodel.predict(x_test, verbose=0)

    report = tflite_export.export(qmodel, path, representative_data=x[:64])
    print(report)
    file = tflite_export.run(path, x_test)
    overlaps = [overlap(found["box"], y_test["box"]) for found in (ours, file)]
    print(f"{qmodel.compression:.1f}x: overlaps of Keras and file {overlaps}")
    return {"keras": overlaps[0], "file": overlaps[1], "report": report}


if __name__ == "__main__":
    main()
