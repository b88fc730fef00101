"""Constants that TensorFlow does not copy.

What TensorFlow's own allocator once had it keeps for the next tensors, in
pieces that double: a copy of all weights that lived for a moment takes up to
two of them for good.
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
