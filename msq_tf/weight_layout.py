"""How the axes of a weight are used."""

from __future__ import annotations

import enum


class Layout(enum.Enum):
    """The use of a weight's axes by its layer, named by the Keras layout.

    The exporter needs it to recognize the weight after the converter has
    permuted and folded it.
    """

    DENSE = "dense"  # (in, out)
    CONV = "conv"  # (*spatial, in / groups, out), 1 to 3 spatial axes
    DEPTHWISE = "depthwise"  # (*spatial, in, multiplier)
    CONV_TRANSPOSE = "conv_transpose"  # (*spatial, out, in)
    EINSUM = "einsum"  # output axes anywhere, named by `channel_axes`
    EMBEDDING = "embedding"  # (vocabulary, features)
    RECURRENT = "recurrent"  # (in, gates * units)
    CONV_RECURRENT = "conv_recurrent"  # (*spatial, in, gates * filters)
    OTHER = "other"  # a custom layer's weight, `channel_axes` as registered
