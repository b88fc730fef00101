"""MSQModel: a Keras model that computes with quantized weights."""

from __future__ import annotations

import contextlib
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
from msq_tf.config import MAX
from msq_tf.config import check_bits
from msq_tf.history import BitChange
from msq_tf.hooks import CallScope
from msq_tf.overlay import Overlay
from msq_tf.overlay import drop_optimizers
from msq_tf.overlay import exclude_from_decay
from msq_tf.plan import WeightPlan
from msq_tf.state import SearchVariables
from msq_tf.weight_quantizers import WeightQuantizers
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
        scale: `"max"` or `"learned"`.
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
        scale: str = MAX,
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
        self.scale = scale
        self._weights = WeightQuantizers(base, self.plan, quantizer, scale)
        # Held here as well, so that the model tracks its variables.
        self.learned_scales = self._weights.learned
        self.paths = self._weights.paths
        self.sizes = self._weights.sizes
        self.outlines = self._weights.outlines
        self.search = SearchVariables(
            start_bits=self._weights.start_bits,
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
        self.fit_validation_data: Any = None
        self._given_values: Sequence[tf.Tensor] | None = None
        self.built = True

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`. Learned scales are not decayed.

        The scale of a frozen weight is frozen with it.
        """
        super().compile(*args, **kwargs)
        if self.learned_scales is not None:
            self.learned_scales.follow(self.kernels)
            exclude_from_decay(self.optimizer, self.learned_scales.scale)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as at the time of saving; `compile` is ours, so this is."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

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
            values, penalty = self._weights.values_and_penalty(
                self.search.bits, self.search.lsb if pull else None
            )
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
        return self._weights.kernels

    def scales(self) -> list[tf.Tensor]:
        """Current scale of each quantized weight, no gradient."""
        return self._weights.scales()

    def quantized_values(self) -> list[tf.Tensor]:
        """float32 tensors: each kernel as `codes * step` at current bits."""
        return self._weights.values(self.search.bits)

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
        """The compiled loss in inference mode, kernels as given.

        Args:
            values: float32 tensors that stand for `kernels`.
            batch: `(x, y, sample_weight)`.

        Returns:
            float32 scalar, differentiable with respect to `values`.
        """
        x, y, sample_weight = batch
        loss = self.compute_loss(
            x=x,
            y=y,
            y_pred=self.outputs_at(values, x),
            sample_weight=sample_weight,
            training=False,
        )
        # Keras divides by the replicas of the strategy in scope, for `fit` to
        # sum over them; statistics are taken on one.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return tf.cast(loss, tf.float32) * replicas

    def outputs_at(self, values: Sequence[tf.Tensor], x: Any) -> Any:
        """The outputs in inference mode, kernels as given.

        Args:
            values: float32 tensors that stand for `kernels`.
            x: Inputs.
        """
        self._given_values = values
        try:
            return self(x, training=False)
        finally:
            self._given_values = None

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
            return self._weights.records(self.search.bits.numpy())

    def skipped_weights(self) -> list[SkippedWeight]:
        """The weights of two or more dimensions that stay in float."""
        return self._weights.skipped_records()

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

    def history_of_bits(self) -> list[BitChange]:
        """Every change of a width so far, in the order of time.

        Returns:
            `BitChange` records: step, epoch, path, old and new bits, the
            predicted cost, the share of nonzero LSBs, the sensitivity with
            its standard error, and the change that was next in line. They
            are saved with the model. `set_bits` begins a new history.

        Example:
        ```python
        for change in qmodel.history_of_bits():
            print(change.step, change.path, change.old, change.new)
        ```
        """
        return self.search.changes(self.paths)

    @property
    def float_size(self) -> int:
        """Elements of quantizable weights that stay in float."""
        return self._weights.float_size

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

        The data stays at hand in `fit_data` and `fit_validation_data` while
        it runs, so that `MSQCallback` can take its statistics on the first
        batches.
        """
        self.fit_data = (x, y, kwargs.get("sample_weight"))
        self.fit_validation_data = kwargs.get("validation_data")
        try:
            return super().fit(x, y, *args, **kwargs)
        finally:
            self.fit_data = None
            self.fit_validation_data = None

    @property
    def loss_weights(self) -> Any:
        """What `compile` was given as `loss_weights`."""
        config = self.get_compile_config() or {}
        return config.get("loss_weights")

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
            "scale": self.scale,
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
            scale=config["scale"],
            activations=config["activations"]
            and ActivationPlan.from_config(config["activations"]),
            name=config["name"],
        )
