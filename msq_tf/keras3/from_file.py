"""from_tflite: where a model begins that is there as a file alone."""

from __future__ import annotations

import importlib
import os

import keras


def from_tflite(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    signature: str | None = None,
    round_activations: bool = True,
) -> keras.Model:
    """Makes a Keras model of a TFLite file.

    The model trains, searches and exports as any other. Weights are variables
    of ordinary layers (`Conv2D`, `DepthwiseConv2D`, `Dense`, `Embedding`,
    `LSTM`, ...), named by operator and place, as `"conv_2d_at_3"`. Weights that
    the file has as integers or float16 become the real numbers that they stand
    for, to the bit. So a file of `tflite_export` gives a model whose weights
    are multiples of the trained steps.

    Values are real numbers. The model of an integer file takes and gives
    floats, and rounds its activations to the integers that the file has for
    them: its outputs are those of the file, but for the last bit of kernels
    that compute with integers. A quantized model of it (`quantize_model`)
    rounds none without `MSQConfig(activation_bits=...)`; with it, ranges begin
    with those of the file.

    The batch is open, unless the graph mixes it with other axes; then it is
    that of the file.

    Args:
        path: The file: float32, float16, with weights of 8, 4 or 2 bits, or
            of integers throughout.
        name: Name of the model. Defaults to that of the file.
        signature: Key of the signature whose graph it is, such as
            `"serving_default"`. Defaults to the file's first graph.
        round_activations: Whether the model of an integer file rounds to the
            integers of the file, in training, too. Without it the model is
            the network of real numbers behind the file, whose outputs differ
            from those of the file by this rounding.

    Returns:
        A functional model, not compiled. Inputs and outputs are in the order
        of the graph.

    Raises:
        ValueError: If it is no TFLite file or a damaged one, or has operators
            that no Keras layer is made of; the message names all of them,
            each with a tensor. If there is no such signature.

    Example:
    ```python
    model = msq_tf.from_tflite("mobilenet.tflite")
    qmodel = msq_tf.quantize_model(model)
    ```
    """
    # What reads files is a package above this one, and loaded with a file.
    importing = importlib.import_module("tflite_export.importing")
    model: keras.Model = importing.from_tflite(
        path,
        name=name,
        signature=signature,
        round_activations=round_activations,
    )
    return model
