"""Measures operators on this machine, into the table of latencies.

    python -m tools.latency_table                 # the one of the package
    python -m tools.latency_table mine.json       # another, or more of it

Quiet machines measure best: every operator's time is that of its fastest block
of calls, on one thread. Operators that the file has already stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

import msq_tf
from benchmarks.files.vela import as_if_trained
from benchmarks.harness.networks import Network
from msq_tf.keras3.model import MSQModel
from tflite_export.costs import cpu
from tflite_export.latency.table import LatencyTable
from tflite_export.predicting import files_of

FILE = Path("tflite_export/latency/x86_64.json")
_TARGETS = ("cpu_int8", "cpu_float", "min_size")
_WIDTHS = (8, 4, 2)
# Height, width and channels of images on which each kind of layer is measured.
_IMAGES = (
    *((96, 96, 8), (48, 48, 16), (48, 48, 48), (32, 32, 16), (32, 32, 64)),
    *((24, 24, 24), (24, 24, 144), (16, 16, 32), (16, 16, 128), (12, 12, 96)),
    *((12, 12, 192), (8, 8, 64), (8, 8, 256), (6, 6, 96), (4, 4, 128)),
    *((3, 3, 256), (30, 6, 48), (20, 4, 96), (14, 14, 32), (7, 7, 128)),
)
# Those that a first layer reads.
_PICTURES = ((96, 96, 3), (64, 64, 3), (28, 28, 1), (60, 12, 1), (32, 32, 3))
_DENSE = (8, 16, 64, 128, 256, 640, 1280)


def networks() -> Iterator[tuple[str, keras.Model]]:
    """Networks that are measured whole, too."""
    for name, shape, classes, alpha in (
        ("resnet8", (28, 28, 1), 10, 1.0),
        ("resnet20", (32, 32, 3), 10, 1.0),
        ("mobilenet_v2", (96, 96, 3), 1000, 0.35),
        ("mobilenet_v2", (128, 128, 3), 100, 0.5),
        ("vit_micro", (32, 32, 3), 10, 1.0),
    ):
        network = Network(name, shape, 1, classes, alpha)
        yield f"{name} {shape}", network.build()


def layers() -> Iterator[tuple[str, keras.Model]]:
    """Layers of each kind at a grid of sizes."""
    for shape in _IMAGES:
        yield f"image {shape}", _image(shape)
    for shape in _PICTURES:
        yield f"picture {shape}", _picture(shape)
    yield "dense", _dense()


def _picture(shape: tuple[int, int, int]) -> keras.Model:
    """Convolutions of few channels, with large kernels among them."""
    layers = keras.layers
    inputs = keras.Input(shape)
    outputs = []
    for filters in (8, 32, 64):
        for kernel, strides in (
            *((3, 1), (3, 2), (5, 1), (5, 2), (7, 2)),
            *(((8, 4), 2), ((10, 4), 1)),
        ):
            layer = layers.Conv2D(
                filters,
                kernel,
                strides=strides,
                padding="same",
                activation="relu",
            )
            outputs.append(layer(inputs))
    return keras.Model(inputs, outputs)


def _image(shape: tuple[int, int, int]) -> keras.Model:
    """Convolutions of each kind, additions and means of one image."""
    layers = keras.layers
    channels = shape[-1]
    x = inputs = keras.Input(shape)
    outputs: list[Any] = []
    for activation in (None, "relu", "relu6"):
        options = {"padding": "same", "activation": activation}
        outputs += [
            layers.Conv2D(channels, 3, **options)(x),
            layers.Conv2D(2 * channels, 3, strides=2, **options)(x),
            layers.DepthwiseConv2D(3, **options)(x),
            layers.DepthwiseConv2D(3, strides=2, **options)(x),
            layers.DepthwiseConv2D(5, **options)(x),
            layers.Conv2D(channels, 1, **options)(x),
            layers.Conv2D(max(channels // 4, 4), 1, **options)(x),
            layers.Conv2D(max(channels // 2, 4), 3, **options)(x),
            layers.Conv2D(2 * channels, 1, **options)(x),
            layers.Conv2D(2 * channels, 1, strides=2, **options)(x),
        ]
    total = layers.Add()([x, outputs[0]])
    means = [
        layers.GlobalAveragePooling2D()(layers.ReLU()(total)),
        layers.Flatten()(layers.MaxPooling2D()(x)),
        layers.Flatten()(layers.AveragePooling2D(2)(x)),
    ]
    return keras.Model(inputs, [*outputs, *means])


def _dense() -> keras.Model:
    inputs, outputs = [], []
    for size in _DENSE:
        x = keras.Input((size,))
        inputs.append(x)
        for units in _DENSE:
            for activation in (None, "relu", "softmax"):
                layer = keras.layers.Dense(units, activation=activation)
                outputs.append(layer(x))
    return keras.Model(inputs, outputs)


def measured(
    table: LatencyTable, model: MSQModel, target: str, whole: bool
) -> int:
    """Adds the operators of a model's files at every container.

    Args:
        table: Where to.
        model: The model.
        target: What the files are for.
        whole: Whether to measure the whole files, too.
    """
    with files_of(model, target, batch_size=1) as files:
        built = [files.at(dict.fromkeys(model.paths, w)) for w in _WIDTHS]
    rounds = cpu.ROUNDS if whole else 1
    return sum(table.measure(each.data, whole=whole) for each in rounds * built)


def main(arguments: list[str]) -> int:
    """Measures into a file; returns the exit status."""
    path = Path(arguments[0]) if arguments else FILE
    table = (
        LatencyTable.load(path)
        if arguments and path.exists()
        else LatencyTable.of_this_machine()
    )
    for made, whole in ((networks, True), (layers, False)):
        for name, model in made():
            as_if_trained(model)  # biases of zeros are not in a file
            qmodel = msq_tf.quantize_model(model)
            for target in _TARGETS:
                count = measured(table, qmodel, target, whole)
                print(f"{name}, {target}: {count} operators more")
            table.save(path)
    print(f"{len(table.rows)} operators of {table.processor} in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
