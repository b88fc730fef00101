"""from_tflite: where a model begins that is there as a file alone."""

from __future__ import annotations

import importlib
import os

import keras


def from_tflite(
    path: str | os.PathLike[str], *, name: str | None = None
) -> keras.Model:
    """Makes a Keras model of a TFLite file.

    The model trains, searches and exports as any other. Weights are variables
    of ordinary layers (`Conv2D`, `DepthwiseConv2D`, `Dense`, `Embedding`,
    `LSTM`, ...), named by operator and place, as `"conv_2d_at_3"`. Weights that
    the file has as integers or float16 become the real numbers that they stand
    for, to the bit. So a file of `tflite_export` gives a model whose weights
    are multiples of the trained steps.

    Values are real numbers everywhere: the model of an integer file takes and
    gives floats, and rounds no activation. Its outputs are those of the file
    but for that rounding.

    The batch is open, unless the graph mixes it with other axes; then it is
    that of the file.

    Args:
        path: The file: float32, float16, with weights of 8, 4 or 2 bits, or
            of integers throughout.
        name: Name of the model. Defaults to that of the file.

    Returns:
        A functional model, not compiled. Inputs and outputs are in the order
        of the file's first graph.

    Raises:
        ValueError: If it is no TFLite file or a damaged one, or has operators
            that no Keras layer is made of; the message names all of them,
            each with a tensor.

    Example:
    ```python
    model = msq_tf.from_tflite("mobilenet.tflite")
    qmodel = msq_tf.quantize_model(model)
    ```
    """
    # What reads files is a package above this one, and loaded with a file.
    importing = importlib.import_module("tflite_export.importing")
    model: keras.Model = importing.from_tflite(path, name=name)
    return model
