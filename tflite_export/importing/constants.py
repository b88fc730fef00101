"""The real values of the constants of a file."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as flat
from tflite_export.flatbuffer import packing

_PACKED = {"INT4": 4, "INT2": 2}


def real(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """The value of a constant tensor, in real numbers.

    Args:
        model: The file.
        tensor: One of its tensors.

    Returns:
        An array in the tensor's shape: float32 where it is a number on a grid
        or a float of another width, else of the type of the file; `None` for
        a tensor that is no constant.

    Raises:
        ValueError: If the file stores it in a way that is not known here.
    """
    codes = _stored(model, tensor)
    if codes is None:
        return None
    if codes.dtype in (np.float16, np.float64):
        return codes.astype(np.float32)
    grid = tensor.quantization
    if grid is None or grid.scale is None or not len(grid.scale):
        return codes
    scale = np.asarray(grid.scale, np.float32)
    zero = np.zeros(len(scale), np.int64)
    if grid.zeroPoint is not None and len(grid.zeroPoint):
        zero = np.broadcast_to(np.asarray(grid.zeroPoint), scale.shape)
    along = [1] * codes.ndim
    if codes.ndim:
        along[int(grid.quantizedDimension) if len(scale) > 1 else 0] = -1
    # Differences of codes are whole numbers, which float32 holds; so a value
    # is rounded once, as kernels round it.
    shifted = (codes.astype(np.int64) - zero.reshape(along)).astype(np.float32)
    return np.asarray(shifted * scale.reshape(along))


def _stored(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    data = flat.raw_data(model, tensor)
    if data is None:
        return None
    kind = flat.type_name(tensor)
    if tensor.sparsity is None:
        if kind in _PACKED:
            shape = flat.shape(tensor)
            count = int(np.prod(shape, dtype=np.int64))
            codes = packing.unpack(data, _PACKED[kind], count)
            return codes.reshape(shape)
        value = flat.constant(model, tensor)
        if value is not None:
            return value
    raise ValueError(
        "A constant is stored in a way that no Keras model is made of. "
        "Expected dense floats or integers. Received: tensor "
        f"'{flat.name(tensor)}', {kind}"
        + (", sparse" if tensor.sparsity is not None else "")
    )
