"""RoundClampQuantizer: RoundClamp as a quantizer of TFMOT."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from msq_tf.core.config import check_bits
from msq_tf.core.config import check_choice
from msq_tf.core.scoped import scoped
from msq_tf.quantizers import batched
from msq_tf.quantizers import uniform
from msq_tf.tfmot import search_variables
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.imports import tfmot
from msq_tf.tfmot.compat.names import weight_name
from msq_tf.tfmot.compat.private import without_autocast
from msq_tf.tfmot.own_training import penalty_loss

# Values that stand for weights while statistics are taken, by reference of
# the variable.
_GIVEN: contextvars.ContextVar[Mapping[Any, tf.Tensor] | None] = (
    contextvars.ContextVar("msq_tf_given_values", default=None)
)


def given_values(
    values: Mapping[Any, tf.Tensor],
) -> contextlib.AbstractContextManager[None]:
    """While open, quantizers return these tensors, by a weight's `ref()`."""
    return scoped(_GIVEN, values)


def check_widths(start_bits: Any, min_bits: Any) -> None:
    """Raises a ValueError unless both are widths, the least one below."""
    check_bits("start_bits", start_bits)
    check_bits("min_bits", min_bits)
    if min_bits > start_bits:
        raise ValueError(
            "`min_bits` cannot exceed `start_bits`. Received: "
            f"min_bits={min_bits}, start_bits={start_bits}"
        )


def with_scale(config: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration that names its scale, as earlier ones do not."""
    if "quantizer" in config and "scale" not in config:
        return {**config, "scale": uniform.MAX}
    return config


@tf_keras.utils.register_keras_serializable(package="msq_tf")
class RoundClampQuantizer(tfmot.quantizers.Quantizer):
    """Quantizes a weight with RoundClamp at bits that a search may change.

    The bits and everything that a search remembers of the weight are variables
    of the `QuantizeWrapper`. So `.h5`, `.keras` and `BackupAndRestore` restore
    them, and a change of bits never retraces. The LSB penalty is a loss of the
    wrapper; it is zero outside of a search.

    Args:
        start_bits: Stored bits at the start, the sign included, 2 to 8.
        min_bits: Fewest stored bits a search may choose.
        channel_axes: Axes of the weight with a scale for each entry; `None`
            for one scale. Defaults to the last axis.
        quantizer: `"round_clamp"` or `"dorefa"`.
        scale: `"held"`, `"mse"` or `"max"`, as in `MSQConfig`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    ```python
    class MyConfig(tfmot.quantization.keras.QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.kernel, msq.RoundClampQuantizer(start_bits=8))]
    ```
    """

    def __init__(
        self,
        start_bits: int = 8,
        min_bits: int = 2,
        channel_axes: Sequence[int] | None = (-1,),
        quantizer: str = uniform.ROUND_CLAMP,
        scale: str = uniform.HELD,
    ):
        check_choice("scale", scale, uniform.STATISTICS)
        check_widths(start_bits, min_bits)
        if quantizer not in uniform.QUANTIZERS:
            raise ValueError(
                "`quantizer` is unknown. Expected one of "
                f"{uniform.QUANTIZERS}. Received: quantizer={quantizer!r}"
            )
        self.start_bits = int(start_bits)
        self.min_bits = int(min_bits)
        self.channel_axes = (
            None if channel_axes is None else tuple(channel_axes)
        )
        self.quantizer = quantizer
        self.scale = scale

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Makes the variables of one weight in its wrapper.

        Args:
            tensor_shape: Shape of the weight.
            name: Name of the weight.
            layer: The `QuantizeWrapper`, built as far as its own layer.

        Raises:
            ValueError: If `layer` is no wrapper, or `name` is not the name of
                exactly one weight of its layer.
        """
        if not isinstance(layer, tfmot.QuantizeWrapper) or tensor_shape is None:
            raise ValueError(
                "RoundClampQuantizer is for weights. Expected it in "
                "`get_weights_and_quantizers` of a QuantizeConfig; for "
                "activations take a MovingAverageQuantizer. Received: "
                f"'{name}' of {type(layer).__name__} '{layer.name}'"
            )
        named = {w.ref(): w for w in layer.layer.weights}.values()
        found = [weight for weight in named if weight_name(weight) == name]
        if len(found) != 1:
            raise ValueError(
                "TFMOT knows weights by the last part of their variables' "
                "names. Expected a name of its own for each weight of layer "
                f"'{layer.layer.name}'. Received: {len(found)} variables "
                f"named '{name}' among {[w.name for w in named]}"
            )
        weight = found[0]
        layout = self._layout(weight)
        variables = search_variables.make_variables(
            layer,
            name,
            self.start_bits,
            sum(layout.counts) if self.scale == uniform.HELD else 0,
        )
        layer.add_loss(lambda: self._penalty(weight, variables))
        return variables

    def __call__(
        self, inputs: Any, training: Any, weights: Any, **kwargs: Any
    ) -> tf.Tensor:
        """The weight as `codes * step`; the gradient goes straight through.

        Args:
            inputs: The weight, a float32 variable, which reads as float16
                under a mixed policy.
            training: Not used: what is trained is what is run.
            weights: The variables that `build` returned.
            **kwargs: Not used.
        """
        del training, kwargs
        dtype = tf.convert_to_tensor(inputs).dtype
        given = _GIVEN.get()
        if given is not None and isinstance(inputs, tf.Variable):
            value = given.get(inputs.ref())
            if value is not None:
                return tf.cast(value, dtype)
        # Codes are those of the float32 weight.
        with without_autocast():
            w = tf.cast(tf.convert_to_tensor(inputs), tf.float32)
        layout = self._layout(w)
        scales, bits = self._scales(layout, w, weights)
        (value,) = batched.values(layout, [w], scales, bits, self.quantizer)
        return tf.cast(value, dtype)

    def _penalty(self, weight: Any, variables: Mapping[str, Any]) -> tf.Tensor:
        w = tf.cast(tf.convert_to_tensor(weight), tf.float32)
        layout = self._layout(w)
        scales, bits = self._scales(layout, w, variables)
        _, penalty = batched.penalized(
            layout,
            [w],
            scales,
            bits,
            variables["lsb"][None],
            self.quantizer,
        )
        return penalty_loss(weight, variables["strength"] * penalty)

    def _layout(self, w: Any) -> batched.ScaleLayout:
        """One weight as a list of one."""
        return batched.ScaleLayout([w.shape], [self.scale_axes(len(w.shape))])

    def _scales(
        self,
        layout: batched.ScaleLayout,
        w: tf.Tensor,
        variables: Mapping[str, Any],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The vector of scales, and the bits, of shape (1,)."""
        bits = tf.convert_to_tensor(variables["bits"])[None]
        now = layout.scales([w], bits, self.quantizer, self.scale)
        if self.scale != uniform.HELD:
            return now, bits
        held = search_variables.WrapperScales([variables])
        return (
            batched.held_scales(
                layout, now, bits, held.scales(), held.widths()
            ),
            bits,
        )

    def scale_axes(self, rank: int) -> tuple[int, ...] | None:
        """`channel_axes` of a weight of this rank, as non-negatives."""
        if self.channel_axes is None:
            return None
        return tuple(sorted(axis % rank for axis in self.channel_axes))

    def get_config(self) -> dict[str, Any]:
        return {
            "start_bits": self.start_bits,
            "min_bits": self.min_bits,
            "channel_axes": self.channel_axes,
            "quantizer": self.quantizer,
            "scale": self.scale,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**with_scale(config))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RoundClampQuantizer)
            and self.get_config() == other.get_config()
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]
