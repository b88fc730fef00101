"""MSQModel: a Keras model that computes with quantized weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf import replicas
from msq_tf import round_clamp
from msq_tf.activation_overlay import ActivationOverlay
from msq_tf.activations import ActivationPlan
from msq_tf.activations import ActivationQuantizers
from msq_tf.config import LEARNED
from msq_tf.config import MAX
from msq_tf.config import SCALES
from msq_tf.config import check_choice
from msq_tf.constants import constant
from msq_tf.divergence import CompiledLosses
from msq_tf.held import HoldsValues
from msq_tf.hooks import CallScope
from msq_tf.learned_scales import LearnedScales
from msq_tf.learned_scales import learn_scales
from msq_tf.network import QuantizedNetwork
from msq_tf.overlay import Overlay
from msq_tf.overlay import drop_optimizers
from msq_tf.overlay import exclude_from_decay
from msq_tf.overlay import read_float32
from msq_tf.overlay import state_variables
from msq_tf.plan import match_plan
from msq_tf.products import count_products
from msq_tf.search_variables import SearchVariables
from msq_tf.weight_plan import WeightPlan
from msq_tf.weight_quantizers import WeightQuantizers

# Attribute of a loss: the context of the replica that computed it.
_REPLICA = "_msq_tf_replica"


@keras.saving.register_keras_serializable(package="msq_tf")
class MSQModel(HoldsValues, keras.Model, QuantizedNetwork):
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

    Raises:
        ValueError: If the plan does not fit `base`, or a name is unknown.

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
        # A saved configuration comes by here, too, and may be anyone's.
        check_choice("quantizer", quantizer, round_clamp.QUANTIZERS)
        check_choice("scale", scale, SCALES)
        drop_optimizers(base)
        self.base = base
        self.plan = tuple(plan)
        self.scale = scale
        self._weights = WeightQuantizers(
            zip(self.plan, match_plan(base, self.plan), strict=True),
            quantizer,
            read_float32,
        )
        self.learned_scales: LearnedScales | None = None
        if scale == LEARNED:
            self.learned_scales = learn_scales(self._weights)
        self.search = SearchVariables(
            start_bits=self._weights.start_bits,
            name="search",
        )
        self.activations = activations
        self.activation_quantizers: ActivationQuantizers | None = None
        self._activation_overlay: ActivationOverlay | None = None
        if activations is not None:
            self.activation_quantizers = ActivationQuantizers(
                [site.path for site in activations.trained_sites],
                activations.bits,
                activations.ranges,
                name="activation_quantizers",
            )
            self._activation_overlay = ActivationOverlay(
                base, activations, self.activation_quantizers, self.kernels
            )
        self.fit_data: Any = None
        self.fit_validation_data: Any = None
        self._given_values: Sequence[tf.Tensor] | None = None
        shapes = [kernel.shape for kernel in self.kernels]
        if self._rounds_biases:
            shapes += self._weights.step_shapes
        self._hold_values_of(shapes)
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
        penalty: tf.Tensor | None = None
        steps: Sequence[tf.Tensor] | None = None
        if self._given_values is not None:
            values = self._given_values
        elif pull:
            values, penalty = self._weights.values_and_penalty(
                self.search.bits, self.search.lsb
            )
        else:
            count = len(self.kernels)
            held = self._held(lambda: [*self._values_now(), *self._steps_now()])
            values, steps = held[:count], held[count:]
        if steps is None:
            steps = self._steps_now()
        with (
            Overlay(zip(self.kernels, values, strict=True)) as scope,
            self._activation_scope(pull, steps),
        ):
            outputs = self.base(inputs, training=training)
        for loss in scope.losses:
            self._add_loss_here(loss)
        if penalty is not None:
            self._add_loss_here(self.search.strength * penalty)
        return outputs

    def _add_loss_here(self, loss: tf.Tensor) -> None:
        setattr(loss, _REPLICA, tf.distribute.get_replica_context())
        self.add_loss(loss)

    @property
    def losses(self) -> list[tf.Tensor]:
        """As of any layer. A replica that asks gets its own.

        Keras keeps those of all replicas in one list, in which one finds what
        another left where they take turns in the middle of a pass, as with
        synchronized batch norm.
        """
        here = tf.distribute.get_replica_context()
        return [
            loss
            for loss in super().losses
            if here is None or getattr(loss, _REPLICA, here) is here
        ]

    @property
    def _rounds_biases(self) -> bool:
        return self.activations is not None and bool(self.activations.biases)

    def _values_now(self) -> list[tf.Tensor]:
        return self._weights.values(self.search.bits)

    def _steps_now(self) -> list[tf.Tensor]:
        """Steps of the quantized weights, where biases are whole ones."""
        if not self._rounds_biases:
            return []
        return self._weights.steps(self.search.bits)

    def _activation_scope(
        self, training: bool, steps: Sequence[tf.Tensor]
    ) -> CallScope:
        if self._activation_overlay is None:
            return CallScope(None)
        return self._activation_overlay.scope(training, steps)

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
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
            (variable, constant(weight.values))
            for variable, weight in zip(self.kernels, weights, strict=True)
        )

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
        steps = [weight.step for weight in self.quantized_weights()]
        with (
            self.quantized_scope(),
            self._activation_overlay.constant_scope(steps, tap),
        ):
            yield

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `keras.Model.fit`.

        The data stays at hand in `fit_data` and `fit_validation_data` while
        it runs, so that `MSQCallback` can take its statistics on it.

        Raises:
            ValueError: Under a strategy over several workers, where Keras's
                `fit` does not work.
        """
        workers = replicas.workers(self.distribute_strategy)
        if workers > 1:
            raise ValueError(
                "Keras's `fit` does not run over several workers. Expected a "
                "loop with `strategy.run`, as docs/distribution.md has it, or "
                f"one worker. Received: {workers} workers"
            )
        self.fit_data = (x, y, kwargs.get("sample_weight"))
        self.fit_validation_data = kwargs.get("validation_data")
        try:
            return super().fit(x, y, *args, **kwargs)
        finally:
            self.fit_data = None
            self.fit_validation_data = None

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.export`: a graph that computes with floats.

        The inputs are those of a functional base; any other needs an
        `input_signature`. For integers see `tflite_export.export`.
        """
        inputs = getattr(self.base, "input", None)
        if input_signature is None and inputs is not None:
            input_signature = [
                keras.tree.map_structure(
                    lambda x: keras.InputSpec(
                        shape=(None, *x.shape[1:]), dtype=x.dtype, name=x.name
                    ),
                    inputs,
                )
            ]
        super().export(filepath, format, verbose, input_signature, **kwargs)

    @property
    def state_variables(self) -> list[Any]:
        return state_variables(self.base)

    def products(self) -> int:
        return count_products(self.base)

    def compiled_losses(self) -> CompiledLosses:
        config = self.get_compile_config() or {}
        return CompiledLosses(
            self.loss,
            keras.losses,
            config.get("loss_weights"),
            getattr(self, "output_names", None),
        )

    @contextlib.contextmanager
    def metrics_kept(self) -> Iterator[None]:
        # Each replica's own: to read their sum, all workers have to be there.
        parts = [
            part
            for variable in self.metrics_variables
            for part in self.distribute_strategy.experimental_local_results(
                variable.value
            )
        ]
        values = [part.numpy() for part in parts]
        try:
            yield
        finally:
            for part, value in zip(parts, values, strict=True):
                part.assign(value)

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
