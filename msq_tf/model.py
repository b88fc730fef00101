"""MSQModel: a Keras model that computes with quantized weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf import round_clamp
from msq_tf.activations import ActivationOverlay
from msq_tf.activations import ActivationPlan
from msq_tf.activations import ActivationQuantizers
from msq_tf.config import PerChannel
from msq_tf.config import check_bits
from msq_tf.devices import kind_of
from msq_tf.hooks import CallScope
from msq_tf.overlay import Overlay
from msq_tf.overlay import drop_optimizers
from msq_tf.overlay import read_float32
from msq_tf.plan import WeightPlan
from msq_tf.plan import match_plan
from msq_tf.records import quantized_record
from msq_tf.records import skipped_record
from msq_tf.state import SearchVariables
from msq_tf.weights import QuantizedWeight
from msq_tf.weights import SkippedWeight


@keras.saving.register_keras_serializable(package="msq_tf")
class MSQModel(keras.Model):
    """A Keras model that computes with quantized weights.

    Made by `quantize_model`. It is an ordinary `keras.Model` from there on:
    `compile`, `fit`, `save` and every callback work. In `call`, an `Overlay`
    lays `codes * step` over the kernels of `base` while `base` runs; the
    gradient reaches the float ("latent") weights straight through.

    Bits and all state of a search are non-trainable variables, so that every
    Keras checkpoint carries them and a change of bits never retraces.

    Args:
        base: The built float model. Not copied.
        plan: A `WeightPlan` for each weight of `base`, in traversal order.
        quantizer: `"round_clamp"` or `"dorefa"`.
        activations: How activations are quantized; `None` for not at all.
        name: Name of the model. Defaults to `"msq_"` and the base's name.

    Attributes:
        base: The float model whose variables are the latent weights.
        plan: What was decided for each weight.
        search: The search's variables, a `SearchVariables`.
    """

    def __init__(
        self,
        base: keras.Model,
        plan: Sequence[WeightPlan],
        quantizer: str = round_clamp.ROUND_CLAMP,
        activations: ActivationPlan | None = None,
        name: str | None = None,
    ):
        # The inputs are cast by the layers of `base`, by their own policies.
        super().__init__(
            name=name or f"msq_{base.name}",
            dtype=base.dtype_policy,
            autocast=False,
        )
        drop_optimizers(base)
        self.base = base
        self.plan = tuple(plan)
        self.quantizer = quantizer
        found = match_plan(base, self.plan)
        self._quantized = [
            (entry, weight)
            for entry, weight in zip(self.plan, found, strict=True)
            if not entry.skip_reason
        ]
        self._skipped = [
            (entry, weight)
            for entry, weight in zip(self.plan, found, strict=True)
            if entry.skip_reason
        ]
        self._axes = [
            weight.spec.axes(weight.layer, len(weight.variable.shape))
            for _, weight in self._quantized
        ]
        self.paths = tuple(entry.path for entry, _ in self._quantized)
        self.sizes = tuple(
            int(np.prod(weight.variable.shape)) for _, weight in self._quantized
        )
        # Path, kind and output channels of each quantized weight.
        self.outlines = tuple(
            (
                entry,
                kind_of(
                    weight.layer, weight.spec.layout, weight.variable.shape
                ),
                math.prod(weight.variable.shape[axis] for axis in axes),
            )
            for (entry, weight), axes in zip(
                self._quantized, self._axes, strict=True
            )
        )
        self.search = SearchVariables(
            start_bits=[entry.start_bits for entry, _ in self._quantized],
            name="search",
        )
        self.activations = activations
        self.activation_quantizers: ActivationQuantizers | None = None
        self._activation_overlay: ActivationOverlay | None = None
        if activations is not None:
            self.activation_quantizers = ActivationQuantizers(
                [site.path for site in activations.sites],
                activations.bits,
                activations.ranges,
                name="activation_quantizers",
            )
            self._activation_overlay = ActivationOverlay(
                base, activations, self.activation_quantizers
            )
        self.fit_data: Any = None
        self._given_values: Sequence[tf.Tensor] | None = None
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: a base model is built before it is wrapped."""

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        del mask  # attached to the inputs, where `base` finds it
        pull = bool(training)
        if self._given_values is not None:
            values, penalty = self._given_values, tf.constant(0.0)
        else:
            values, penalty = self._fake_quantize(pull)
        with (
            Overlay(zip(self.kernels, values, strict=True)) as scope,
            self._activation_scope(pull),
        ):
            outputs = self.base(inputs, training=training)
        for loss in scope.losses:
            self.add_loss(loss)
        if pull:
            self.add_loss(self.search.strength * penalty)
        return outputs

    def _activation_scope(self, training: bool) -> CallScope:
        if self._activation_overlay is None:
            return CallScope(None)
        return self._activation_overlay.scope(training)

    @property
    def kernels(self) -> list[Any]:
        """The quantized weights' latent variables, in the order of `paths`."""
        return [weight.variable for _, weight in self._quantized]

    def scales(self) -> list[tf.Tensor]:
        """Current scale of each quantized weight: `max|w|`, no gradient."""
        return [
            round_clamp.max_scale(
                read_float32(weight.variable), self._scale_axes(i)
            )
            for i, (_, weight) in enumerate(self._quantized)
        ]

    def _scale_axes(self, index: int) -> tuple[int, ...] | None:
        if self._quantized[index][0].granularity == PerChannel():
            return self._axes[index]
        return None

    def _fake_quantize(
        self, with_penalty: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        bits = tf.unstack(tf.convert_to_tensor(self.search.bits))
        lsb = tf.unstack(tf.convert_to_tensor(self.search.lsb))
        values, penalty = [], tf.constant(0.0)
        for i, variable in enumerate(self.kernels):
            w = read_float32(variable)
            scale = round_clamp.max_scale(w, self._scale_axes(i))
            k = lsb[i] if with_penalty else 0
            quantized = round_clamp.quantize(
                w, scale, bits[i], k, self.quantizer
            )
            values.append(quantized.value)
            if with_penalty:
                penalty += round_clamp.lsb_penalty(
                    quantized.lsb, scale, bits[i], k, self.quantizer
                )
        return values, penalty

    def quantized_values(self) -> list[tf.Tensor]:
        """float32 tensors: each kernel as `codes * step` at current bits."""
        return self._fake_quantize(with_penalty=False)[0]

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
        """The compiled loss in inference mode, kernels as given.

        Args:
            values: float32 tensors that stand for `kernels`.
            batch: `(x, y, sample_weight)`.

        Returns:
            float32 scalar, differentiable with respect to `values`.
        """
        x, y, sample_weight = batch
        self._given_values = values
        try:
            y_pred = self(x, training=False)
            loss = self.compute_loss(
                x=x,
                y=y,
                y_pred=y_pred,
                sample_weight=sample_weight,
                training=False,
            )
        finally:
            self._given_values = None
        return tf.cast(loss, tf.float32)

    def quantized_scope(self) -> Overlay:
        """A scope in which `base` computes with its quantized weights.

        The values are constants taken on entry, so that a graph traced inside
        holds exactly the codes of `quantized_weights()`.

        Example:
        ```python
        with qmodel.quantized_scope():
            y = qmodel.base(x, training=False)
        ```
        """
        weights = self.quantized_weights()
        return Overlay(
            (variable, tf.constant(weight.values))
            for variable, weight in zip(self.kernels, weights, strict=True)
        )

    @contextlib.contextmanager
    def integer_scope(self) -> Iterator[None]:
        """Like `quantized_scope`, with the trained activation ranges too.

        In it, `base` computes what a runtime with integer activations
        computes. Weights and ranges are constants taken on entry.

        Raises:
            ValueError: If the model has no trained activations.
        """
        if self._activation_overlay is None:
            raise ValueError(
                "The model has float activations. Expected one prepared with "
                "`MSQConfig(activation_bits=8)`. Received: "
                f"'{self.name}'"
            )
        with self.quantized_scope(), self._activation_overlay.constant_scope():
            yield

    def quantized_weights(self) -> list[QuantizedWeight]:
        """The codes, steps and bits of every quantized weight.

        Returns:
            `QuantizedWeight` records in the order of `paths`.

        Raises:
            ValueError: If a latent weight is not finite.
        """
        # Also inside a trace: today's values, as constants.
        with tf.init_scope():
            widths = self.search.bits.numpy()
            return [
                quantized_record(
                    entry,
                    weight,
                    int(bits),
                    self._axes[i],
                    self._scale_axes(i),
                    self.quantizer,
                )
                for i, ((entry, weight), bits) in enumerate(
                    zip(self._quantized, widths, strict=True)
                )
            ]

    def skipped_weights(self) -> list[SkippedWeight]:
        """The weights of two or more dimensions that stay in float."""
        return [skipped_record(*entry) for entry in self._skipped]

    @property
    def bits(self) -> dict[str, int]:
        """Stored bits of every quantized weight, the sign included."""
        return dict(
            zip(self.paths, map(int, self.search.bits.numpy()), strict=True)
        )

    def set_bits(self, bits: Mapping[str, int]) -> None:
        """Sets stored bits by hand. Nothing retraces.

        Args:
            bits: Maps paths, as in `bits`, to widths from 2 to 8. Paths that
                are left out keep theirs.

        Raises:
            ValueError: If a path is unknown or a width is out of range; then
                nothing is changed.
        """
        unknown = sorted(set(bits) - set(self.paths))
        if unknown:
            raise ValueError(
                "Unknown layer names in `set_bits`. Expected names among "
                f"{list(self.paths)}. Received: {unknown}"
            )
        current = self.search.bits.numpy()
        for path, width in bits.items():
            width = int(width) if isinstance(width, np.integer) else width
            check_bits(f"bits[{path!r}]", width)
            current[self.paths.index(path)] = width
        self.search.restart(current)

    @property
    def float_size(self) -> int:
        """Elements of quantizable weights that stay in float."""
        return sum(
            int(np.prod(weight.variable.shape))
            for entry, weight in self._skipped
            if entry.quantizable
        )

    @property
    def average_bits(self) -> float:
        """Stored bits per quantizable weight; skipped ones count 32."""
        stored = 32 * self.float_size + sum(
            size * width
            for size, width in zip(self.sizes, self.bits.values(), strict=True)
        )
        return stored / (self.float_size + sum(self.sizes))

    @property
    def compression(self) -> float:
        """32 divided by `average_bits`."""
        return 32.0 / self.average_bits

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `keras.Model.fit`.

        The data stays at hand in `fit_data` while it runs, so that
        `MSQCallback` can take its statistics on the first batches.
        """
        self.fit_data = (x, y, kwargs.get("sample_weight"))
        try:
            return super().fit(x, y, *args, **kwargs)
        finally:
            self.fit_data = None

    @property
    def output_names(self) -> Any:
        """Output names of a functional base, which `compile` looks up."""
        return self.base.output_names

    def get_layer(
        self, name: str | None = None, index: int | None = None
    ) -> Any:
        """A layer of the base model, by name or index."""
        return self.base.get_layer(name, index)

    def get_config(self) -> dict[str, Any]:
        base = keras.saving.serialize_keras_object(self.base)
        base.pop("compile_config", None)
        return {
            "name": self.name,
            "base": base,
            "plan": [entry.to_config() for entry in self.plan],
            "quantizer": self.quantizer,
            "activations": self.activations and self.activations.to_config(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> MSQModel:
        base = keras.saving.deserialize_keras_object(
            config["base"], custom_objects=custom_objects
        )
        return cls(
            base,
            [WeightPlan.from_config(entry) for entry in config["plan"]],
            quantizer=config["quantizer"],
            activations=config["activations"]
            and ActivationPlan.from_config(config["activations"]),
            name=config["name"],
        )
