"""Scopes in which the base of a quantized model computes with other values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.constants import constant
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.weight_set import WeightQuantizers
from msq_tf.keras3 import generation
from msq_tf.keras3.activation_overlay import ActivationOverlay
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.compiled import traced_apart
from msq_tf.keras3.lora import Adapters
from msq_tf.keras3.lora import Merged
from msq_tf.keras3.lora import is_enabled
from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import Overlay
from msq_tf.keras3.overlay import is_behind_glass
from msq_tf.quantizers.range_average import SiteRange


def check_outside(what: str, name: str) -> None:
    """Raises a ValueError for what a scope of constants would spoil.

    Args:
        what: What the user does.
        name: Of the model.
    """
    if is_behind_glass():
        raise ValueError(
            f"{what} stands in a scope in which the weights are constants. "
            "Expected it before or after the scope, as "
            "`with qmodel.quantized_scope():` ends with its block. Received: "
            f"an open scope, for '{name}'"
        )


class HasScopes:
    """The scopes of a quantized model. A mixin for it."""

    # Of the other bases.
    _adapters: Adapters
    _weights: WeightQuantizers
    _activation_overlay: ActivationOverlay | None
    _activation_scope: Callable[[bool, Sequence[tf.Tensor]], CallScope]
    _generator: Any
    _steps_now: Callable[[], list[tf.Tensor]]
    _values_now: Callable[[], list[tf.Tensor]]
    base: Any
    kernels: Any
    name: Any
    quantized_values: Any
    quantized_weights: Callable[[], list[QuantizedWeight]]

    def __getattr__(self, name: str) -> Any:
        """Raises an AttributeError, and says where methods of the base are."""
        base = vars(self).get("base")
        if name.startswith("_") or not callable(
            getattr(type(base), name, None)
        ):
            # Once more, for what a property has to say.
            return object.__getattribute__(self, name)
        raise AttributeError(
            f"`{name}` is a method of `{type(base).__name__}`, not of its "
            "quantized model. Expected a call of the base in the scope of "
            "quantized weights: `with qmodel.quantized_scope(): "
            f"qmodel.base.{name}(...)`. Received: qmodel.{name}"
        )

    def quantized_scope(self) -> Overlay:
        """A scope in which `base` computes with its quantized weights.

        The values are constants taken on entry, so that a graph traced inside
        holds exactly the codes of `quantized_weights()`. `predict`, `evaluate`
        and `generate` trace their function anew inside, and have the one of
        before when it ends. This model itself computes what it does outside.

        Example:
        ```python
        with qmodel.quantized_scope():
            y = qmodel.base(x, training=False)
        ```
        """
        return self._overlay_of(self.quantized_weights())

    def _overlay_of(self, weights: Sequence[QuantizedWeight]) -> Overlay:
        values = [constant(weight.values) for weight in weights]
        laid = list(zip(self.kernels, values, strict=True))
        for weight in self._weights.skipped:
            if is_enabled(weight.layer):
                value = self._adapters.read(weight.variable)
                laid.append((weight.variable, constant(np.asarray(value))))
        return Merged(laid, self._apart())

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """A scope of traces of its own, in which no factor is added."""
        with traced_apart(self), self._adapters.off():
            yield

    def _laid(self, values: Iterable[tf.Tensor]) -> Overlay:
        """An overlay of values of the quantized weights."""
        laid = zip(self.kernels, values, strict=True)
        return Overlay([*laid, *self._adapters.silenced(self.kernels)])

    @property
    def generate(self) -> Callable[..., Any]:
        """The `generate` of a KerasHub language model, with quantized weights.

        Arguments and results are those of the base's own. Bits and weights are
        those of the moment of the call.

        Raises:
            AttributeError: If the base has no `generate` of KerasHub.
        """
        if not generation.generates(self.base):
            raise AttributeError(
                f"'{self.name}' generates nothing. Expected a `CausalLM` or "
                "`Seq2SeqLM` of KerasHub as the base. Received: "
                f"{type(self.base).__name__}"
            )
        if self._generator is None:
            made = generation.generator(self.base, self._computing_scope)
            # Keras would take it for a layer of the model.
            object.__setattr__(self, "_generator", made)
        return self._generator.generate

    @contextlib.contextmanager
    def _computing_scope(self) -> Iterator[None]:
        """A scope in which values are computed from the variables."""
        steps = self._steps_now()
        with (
            self._laid(self._values_now()),
            self._activation_scope(False, steps),
        ):
            yield

    @contextlib.contextmanager
    def integer_scope(
        self, tap: Callable[[int, tf.Tensor], tf.Tensor] | None = None
    ) -> Iterator[None]:
        """Like `quantized_scope`, with the trained activation ranges too.

        In it, `base` computes what a runtime with integer activations
        computes. Weights and ranges are constants taken on entry.

        Args:
            tap: Function of the position of a site and of what the model
                computes there, that returns what it goes on with.

        Raises:
            ValueError: If the model has no trained activations.
        """
        if self._activation_overlay is None:
            raise ValueError(
                "The model has float activations. Expected one prepared with "
                "`MSQConfig(activation_bits=8)`. Received: "
                f"'{self.name}'"
            )
        weights = self.quantized_weights()
        steps = [weight.step for weight in weights]
        with (
            self._overlay_of(weights),
            self._activation_overlay.constant_scope(steps, tap),
        ):
            yield

    def site_ranges(self) -> list[SiteRange]:
        """Today's range of each site of `integer_scope`, by its position.

        Raises:
            ValueError: If a site has seen no training batch.
        """
        overlay = self._activation_overlay
        return [] if overlay is None else overlay.ranges()

    @contextlib.contextmanager
    def observing_scope(
        self, see: Callable[[int, tf.Tensor], None]
    ) -> Iterator[Callable[[Any], Any]]:
        """A scope that shows what is computed where ranges are trained.

        In it weights are quantized, activations are not, and no state moves.
        `see` gets the number of a range and a tensor; the scope gives a
        function of inputs to call.
        """
        overlay: Any = self._activation_overlay
        laid = self._laid(self.quantized_values())
        with Aside(), laid, overlay.observing_scope(see):
            yield lambda x: self.base(x, training=False)
