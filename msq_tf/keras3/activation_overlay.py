"""Fake quantization laid over the activations of a model, call by call."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.keras3 import attention
from msq_tf.keras3 import separable
from msq_tf.keras3 import uncast
from msq_tf.keras3.activation_sites import CONTEXT
from msq_tf.keras3.activation_sites import GATE
from msq_tf.keras3.activation_sites import INPUT
from msq_tf.keras3.activation_sites import MIDDLE
from msq_tf.keras3.activation_sites import OUTPUT
from msq_tf.keras3.activation_sites import PREACTIVATION
from msq_tf.keras3.activation_sites import READ
from msq_tf.keras3.activation_sites import SCORES
from msq_tf.keras3.activation_sites import SITE_NAME
from msq_tf.keras3.activation_sites import Site
from msq_tf.keras3.activations import ActivationPlan
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.activations import fake_quantize
from msq_tf.keras3.activations import fixed_range
from msq_tf.keras3.activations import unit_of_range
from msq_tf.keras3.biases import Bias
from msq_tf.keras3.biases import biased_kernel
from msq_tf.keras3.biases import rounded
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.call_hooks import Visitor
from msq_tf.keras3.call_hooks import install
from msq_tf.keras3.flow import hookable
from msq_tf.keras3.overlay import Overlay
from msq_tf.keras3.overlay import flat_inputs
from msq_tf.keras3.overlay import input_names
from msq_tf.quantizers.range_average import SiteRange


def range_numbers(sites: Sequence[Site]) -> list[int | str]:
    """Position among the trained ranges, or the activation, of each site."""
    ranges: list[int | str] = []
    numbers = itertools.count()
    for site in sites:
        shared = site.like >= 0
        own = site.fixed or (ranges[site.like] if shared else next(numbers))
        ranges.append(own)
    return ranges


class SiteVisitor(Visitor):
    """Applies a function to the tensors at sites, call by call.

    Args:
        root: The model; its inputs are sites too.
        names: What `input_names` says of it.
        plan: The sites and biases.
        layers: The hookable layers, in the order that sites count.
        apply: Function of a tensor and the index of its site.
        rounded: Function of a bias that returns pairs of a variable and what
            to lay over it; `None` for biases in float.
    """

    def __init__(
        self,
        root: Any,
        names: Sequence[str],
        plan: ActivationPlan,
        layers: Sequence[Any],
        apply: Callable[[Any, int], Any],
        rounded: Callable[[Bias], list[tuple[Any, Any]]] | None,
    ):
        self._root = root
        self._names = names
        self._index = {
            (
                INPUT if s.layer == INPUT else id(layers[s.layer]),
                s.call,
                s.place,
            ): i
            for i, s in enumerate(plan.sites)
        }
        self._biases: dict[tuple[int, int], Bias] = {}
        if rounded is not None:
            for bias in plan.biases:
                layer, call = bias.place
                self._biases[id(layers[layer]), call] = bias
        self._counts: dict[int, int] = {}
        self._apply = apply
        self._rounded = rounded

    def enter(self, layer: Any, inputs: Any) -> Any:
        """Quantizes inputs that are sites, of the model or a layer."""
        if layer is not self._root:
            number = self._counts.get(id(layer), 0)
            return self._at(inputs, (id(layer), number, READ))
        self._counts = {}
        given = flat_inputs(inputs, self._names)
        if given is None:
            return inputs
        flat = [self._at(x, (INPUT, i, OUTPUT)) for i, x in enumerate(given)]
        if self._names and isinstance(inputs, dict):
            # By their names, to a model that takes a list of them.
            return {**inputs, **dict(zip(self._names, flat, strict=True))}
        return keras.tree.pack_sequence_as(inputs, flat)

    def during(self, layer: Any) -> contextlib.AbstractContextManager[Any]:
        """Lays a rounded bias over that of a layer."""
        bias = self._biases.get((id(layer), self._counts.get(id(layer), 0)))
        if bias is None or self._rounded is None:
            return contextlib.nullcontext()
        return Overlay(self._rounded(bias), inner=True)

    def computes(
        self, layer: Any, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Computes a layer in parts if a seam of them is a site."""
        number = self._counts.get(id(layer), 0)
        if (id(layer), number, SCORES) in self._index:
            return attention.computes(
                layer,
                call,
                lambda x, place: self._at(x, (id(layer), number, place)),
            )
        index = self._index.get((id(layer), number, MIDDLE))
        if index is None:
            return call
        return lambda inputs: separable.computed(
            layer, inputs, lambda x: self._apply(x, index)
        )

    def opens(self, layer: Any) -> bool:
        """Whether there are sites inside of an attention layer."""
        softmax = attention.softmax_of(layer)
        return (id(softmax), 0, SCORES) in self._index

    def context(self, layer: Any, outputs: Any) -> Any:
        """Quantizes the context of attention if that is a site."""
        softmax = id(attention.softmax_of(layer))
        # The softmax has been called.
        number = self._counts.get(softmax, 0) - 1
        return self._at(outputs, (softmax, number, CONTEXT))

    def activate(
        self, layer: Any, inputs: Any, function: Callable[[Any], Any]
    ) -> Any:
        """Quantizes what an activation function reads if that is a site.

        A swish is computed in its two parts if the first is a site.
        """
        number = self._counts.get(id(layer), 0)
        x = self._at(inputs, (id(layer), number, PREACTIVATION))
        gate = self._index.get((id(layer), number, GATE))
        if gate is None:
            return function(x)
        return x * self._apply(keras.ops.sigmoid(x), gate)

    def leave(self, layer: Any, inputs: Any, outputs: Any) -> Any:
        """Quantizes the output of a call if it is a site."""
        del inputs
        number = self._counts.get(id(layer), 0)
        self._counts[id(layer)] = number + 1
        return keras.tree.map_structure(
            lambda x: self._at(x, (id(layer), number, OUTPUT)), outputs
        )

    def _at(self, x: Any, place: tuple[int, int, str]) -> Any:
        index = self._index.get(place)
        return x if index is None else self._apply(x, index)


class ActivationOverlay:
    """Lays fake quantization over the activations of a model.

    Raises:
        ValueError: If the plan was made for another architecture.
    """

    def __init__(
        self,
        base: Any,
        plan: ActivationPlan,
        quantizers: ActivationQuantizers,
        kernels: Sequence[Any],
    ):
        layers = [layer for _, layer in hookable(base)]
        used = [site.layer for site in plan.sites]
        for bias in plan.biases:
            used += [bias.layer, bias.norm]
        if max(used, default=-1) >= len(layers):
            raise ValueError(
                "The activation plan does not fit the model. Expected more "
                f"than {max(used)} layers and operations. Received: "
                f"{len(layers)}"
            )
        install([*layers, base])
        attention.install(base)
        self._base = base
        self._names = input_names(base)
        self._layers = layers
        self._plan = plan
        self._range_of = range_numbers(plan.sites)
        self._position = {id(kernel): i for i, kernel in enumerate(kernels)}
        self.quantizers = quantizers

    def scope(self, training: bool, steps: Sequence[tf.Tensor]) -> CallScope:
        """A scope in which `base` computes with quantized activations.

        Ranges follow the data in training. Steps of weights are those that
        biases are rounded to.
        """
        bits = self._plan.bits

        def apply(x: Any, index: int) -> Any:
            site, found = self._plan.sites[index], self._range_of[index]
            if isinstance(found, str):
                low, high = fixed_range(found, bits)
                value = fake_quantize(tf.cast(x, tf.float32), low, high, bits)
                return tf.cast(value, x.dtype)
            observe = training and site.like < 0
            return self.quantizers(
                x, index=found, training=observe, seen=self._seen(x, site)
            )

        def unit(index: int) -> tf.Tensor:
            found = self._range_of[index]
            if isinstance(found, str):
                return unit_of_range(*fixed_range(found, bits), bits)
            return self.quantizers.unit_of(found)

        return self._scope(apply, steps.__getitem__, unit, training)

    def ranges(self) -> list[SiteRange]:
        """Today's range of each site, in the order of the sites.

        Raises:
            ValueError: If a site has seen no training batch.
        """
        trained = self.quantizers.trained_ranges()
        bits = self._plan.bits
        return [
            SiteRange(*fixed_range(found, bits), bits == 16)
            if isinstance(found, str)
            else SiteRange(trained[found].low, trained[found].high, bits == 16)
            for found in self._range_of
        ]

    def constant_scope(
        self,
        steps: Sequence[Any],
        tap: Callable[[int, tf.Tensor], tf.Tensor] | None = None,
    ) -> CallScope:
        """A scope with today's ranges as constants of the graph.

        A converter finds `tf.quantization.fake_quant_with_min_max_args`. A
        `tap` is a function of the position of a site and of what it computes
        there, that returns what to go on with.
        """
        bits = self._plan.bits
        ranges = self.ranges()
        exact = uncast.is_open()

        def apply(x: tf.Tensor, index: int) -> tf.Tensor:
            low, high, narrow = ranges[index]
            value = tf.quantization.fake_quant_with_min_max_args(
                tf.cast(x, tf.float32),
                low,
                high,
                num_bits=bits,
                narrow_range=narrow,
                name=f"{SITE_NAME}{index}_",
            )
            if tap is not None:
                value = tap(index, value)
            return value if exact else tf.cast(value, x.dtype)

        return self._scope(
            apply,
            lambda position: tf.constant(steps[position]),
            lambda index: tf.constant(
                unit_of_range(ranges[index].low, ranges[index].high, bits)
            ),
            False,
        )

    def observing_scope(
        self, see: Callable[[int, tf.Tensor], None]
    ) -> CallScope:
        """A scope that shows what the float model computes at ranges."""

        def apply(x: Any, index: int) -> Any:
            found = self._range_of[index]
            site = self._plan.sites[index]
            if isinstance(found, int) and site.like < 0:
                seen = self._seen(x, site)
                see(found, tf.cast(x if seen is None else seen, tf.float32))
            return x

        return CallScope(self._visitor(apply, None))

    def _seen(self, x: Any, site: Site) -> tf.Tensor | None:
        """What has a part in the range of a site, if not all of it has."""
        if site.place != SCORES:
            return None
        layer = self._layers[site.layer]
        return attention.within_reach(x, layer, self._plan.bits)

    def _scope(
        self,
        apply: Callable[[Any, int], Any],
        step: Callable[[int], tf.Tensor],
        unit: Callable[[int], tf.Tensor],
        training: bool,
    ) -> CallScope:
        def lay(bias: Bias) -> list[tuple[Any, tf.Tensor]]:
            layer = self._layers[bias.layer]
            norm = None if bias.norm < 0 else self._layers[bias.norm]
            position = self._position.get(id(biased_kernel(layer)))
            # A batch norm that learns computes with a batch's own moments.
            learns = training and norm is not None and norm.trainable
            if position is None or learns:
                return []
            return rounded(layer, norm, step(position), unit(bias.site))

        return CallScope(self._visitor(apply, lay))

    def _visitor(
        self,
        apply: Callable[[Any, int], Any],
        lay: Callable[[Bias], list[tuple[Any, Any]]] | None,
    ) -> SiteVisitor:
        return SiteVisitor(
            self._base, self._names, self._plan, self._layers, apply, lay
        )
