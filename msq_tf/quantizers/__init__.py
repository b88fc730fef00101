"""From weights and ranges to codes and values."""

from msq_tf.quantizers.uniform import Quantized as Quantized
from msq_tf.quantizers.uniform import dorefa as dorefa
from msq_tf.quantizers.uniform import lsb_penalty as lsb_penalty
from msq_tf.quantizers.uniform import max_scale as max_scale
from msq_tf.quantizers.uniform import quantize as quantize
from msq_tf.quantizers.uniform import round_clamp as round_clamp
from msq_tf.quantizers.uniform import step_size as step_size

__all__ = [
    "Quantized",
    "dorefa",
    "lsb_penalty",
    "max_scale",
    "quantize",
    "round_clamp",
    "step_size",
]
