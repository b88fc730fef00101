"""Constants that TensorFlow does not copy.

TensorFlow's allocator keeps all memory that it once had for later tensors, in
pieces of doubling size. So a short-lived copy of all weights can occupy the
memory of two copies for good.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# That TensorFlow's kernels rely on.
_ALIGNMENT = 64


def constant(array: np.ndarray) -> tf.Tensor:
    """A tensor of the values of an array, in memory of the CPU of its own."""
    size = array.nbytes
    if not size:
        return tf.constant(array)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    aligned = memory[start : start + size].view(array.dtype)
    aligned = aligned.reshape(array.shape)
    aligned[...] = array
    return tf.experimental.dlpack.from_dlpack(aligned.__dlpack__())
