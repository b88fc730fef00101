"""MSQModel: a Keras model that computes with quantized weights."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.core.config import LEARNED
from msq_tf.core.config import SCALES
from msq_tf.core.config import check_choice
from msq_tf.core.penalty import PenaltyMean
from msq_tf.core.penalty import as_loss
from msq_tf.core.penalty import mark_pull
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.weight_plan import WeightPlan
from msq_tf.core.weight_set import WeightQuantizers
from msq_tf.keras3 import lora_settings
from msq_tf.keras3.activation_overlay import ActivationOverlay
from msq_tf.keras3.activation_products import count_products
from msq_tf.keras3.activations import ActivationPlan
from msq_tf.keras3.activations import ActivationQuantizers
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.data_checks import ChecksItsData
from msq_tf.keras3.distillation import LearnsFromTeacher
from msq_tf.keras3.float_scope import ComputesInFloat
from msq_tf.keras3.held_scales import HeldScales
from msq_tf.keras3.input_ranges import InputRanges
from msq_tf.keras3.keras_interface import LooksLikeItsBase
from msq_tf.keras3.learned_scales import LearnedScales
from msq_tf.keras3.learned_scales import learn_scales
from msq_tf.keras3.lora import Adapters
from msq_tf.keras3.model_scopes import HasScopes
from msq_tf.keras3.model_scopes import check_outside
from msq_tf.keras3.model_statistics import TakesStatistics
from msq_tf.keras3.one_input import check_one_input
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import drop_optimizers
from msq_tf.keras3.overlay import exclude_from_decay
from msq_tf.keras3.overlay import give_back_losses
from msq_tf.keras3.overlay import state_variables
from msq_tf.keras3.own_loops import HasOwnLoops
from msq_tf.keras3.own_training import TrainsAsItsBase
from msq_tf.keras3.own_training import check_methods
from msq_tf.keras3.own_training import counts_now
from msq_tf.keras3.planning import match_plan
from msq_tf.keras3.search_variables import SearchVariables
from msq_tf.keras3.spectral import normalize_latent
from msq_tf.keras3.step_scope import StepScopes
from msq_tf.keras3.step_scope import given_values
from msq_tf.keras3.value_cache import HoldsValues
from msq_tf.quantizers import uniform
from msq_tf.sensitivity.fit_inputs import FitInputs

# Attribute of a loss: the context of the replica that computed it.
_REPLICA = "_msq_tf_replica"


@keras.saving.register_keras_serializable(package="msq_tf")
class MSQModel(
    HasOwnLoops,
    ChecksItsData,
    HoldsValues,
    HasScopes,
    LearnsFromTeacher,
    ComputesInFloat,
    TakesStatistics,
    TrainsAsItsBase,
    LooksLikeItsBase,
    keras.Model,
    QuantizedNetwork,
):
    """A Keras model that computes with quantized weights.

    `quantize_model` makes it. It is an ordinary `keras.Model`: `compile`,
    `fit`, `save` and every callback work. In `call`, an `Overlay` replaces the
    kernels of `base` by `codes * step` while `base` runs; the gradient reaches
    the float ("latent") weights straight through.

    Bits and all state of a search are non-trainable variables, so every Keras
    checkpoint has them, and a change of bits never retraces.

    Args:
        base: The built float model. Not copied.
        plan: A `WeightPlan` for each weight of `base`, in traversal order.
        quantizer: `"round_clamp"` or `"dorefa"`.
        activations: How activations are quantized; `None` for float
            activations.
        scale: `"max"`, `"mse"`, `"held"` or `"learned"`.
        name: Name of the model. Defaults to `"msq_"` and the base's name.

    Raises:
        ValueError: If the plan does not fit `base`, or a name is unknown.

    Attributes:
        base: The float model whose variables are the latent weights.
        plan: The decision for each weight.
        search: The search's variables, a `SearchVariables`.
        input_ranges: The ranges of inputs in training, an `InputRanges`.
    """

    def __init__(
        self,
        base: keras.Model,
        plan: Sequence[WeightPlan],
        quantizer: str = uniform.ROUND_CLAMP,
        activations: ActivationPlan | None = None,
        scale: str = uniform.MAX,
        name: str | None = None,
    ):
        # The inputs are cast by the layers of `base`, by their own policies.
        super().__init__(
            name=name or f"msq_{base.name}",
            dtype=base.dtype_policy,
            autocast=False,
        )
        # A saved configuration comes by here, too, and may be anyone's.
        check_choice("quantizer", quantizer, uniform.QUANTIZERS)
        check_choice("scale", scale, SCALES)
        saved.check_unique("path", (entry.path for entry in plan))
        learned = scale == LEARNED or (
            activations is not None and activations.ranges == LEARNED
        )
        check_methods(base, learned)
        drop_optimizers(base)
        self.base = base
        self.plan = tuple(plan)
        self.scale = scale
        weights = match_plan(base, self.plan)
        normalize_latent(all_layers(base))
        self._adapters = Adapters(weights)
        self.held_scales: HeldScales | None = None
        if scale == uniform.HELD:
            self.held_scales = HeldScales(
                [weight.scales for weight in weights if weight.quantized],
                name="held_scales",
            )
        self._weights = WeightQuantizers(
            weights,
            quantizer,
            self._adapters.read,
            scale=uniform.MAX if scale == LEARNED else scale,
            held=self.held_scales,
        )
        self.learned_scales: LearnedScales | None = None
        if scale == LEARNED:
            self.learned_scales = learn_scales(self._weights)
        self.search = SearchVariables(
            start_bits=[w.plan.start_bits for w in self.planned_weights],
            name="search",
        )
        self.hold_scales()
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
        self.fit_inputs = FitInputs()
        self.input_ranges = InputRanges.of(base)
        self.penalty = PenaltyMean()
        self._hold_values()
        self._begin_alone()
        self._use_methods_of(
            base,
            lambda: StepScopes(
                base,
                self._weights,
                self._adapters,
                self.search,
                self.penalty,
                lambda training: self._activation_scope(
                    training, self._steps_now()
                ),
            ),
        )
        self._ports = None
        self._generator = None
        self._told_of_columns = False
        self.built = True
        self.remember_shapes()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles as `keras.Model.compile`; learned scales do not decay.

        The scale of a frozen weight is frozen, too.
        """
        super().compile(*args, **kwargs)
        # Its sampler may be another.
        self._generator = None
        if self.learned_scales is not None:
            self.learned_scales.follow(
                [self._adapters.moves(kernel) for kernel in self.kernels]
            )
            exclude_from_decay(self.optimizer, self.learned_scales.scale)

    def make_train_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_train_function`.

        Raises:
            ValueError: If a `quantized_scope` is open.
        """
        check_outside("Training", self.name)
        lora_settings.revive(self.base)
        return super().make_train_function(force)

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: a base model is built before it is wrapped."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As of any model that takes one structure of inputs.

        Raises:
            ValueError: If the base's `call` takes several arguments, and there
                is more than one.
        """
        given = len(args) + len(kwargs.keys() - {"training", "mask"})
        if given > 1:
            check_one_input(self.base, given)
        return super().__call__(*args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        del mask  # attached to the inputs, where `base` finds it
        return self.run_base(inputs, training)

    def run_base(
        self,
        inputs: Any,
        training: bool | None = None,
        watch: Callable[[CallScope], CallScope] = lambda scope: scope,
    ) -> Any:
        """Runs the base as `call` does, under the eyes of a scope.

        `watch` gets the scope that quantizes activations, and returns the one
        to use.
        """
        self.check_kernels()
        if self._is_float:
            return self.base(inputs, training=training)
        pull = bool(training)
        given = given_values()
        penalty: tf.Tensor | None = None
        steps: Sequence[tf.Tensor] | None = None
        if given is not None:
            values = given
        elif pull:
            self.input_ranges.observe(inputs)
            values, penalty = self._weights.values_and_penalty(
                self.search.bits, self.search.lsb
            )
        else:
            count = len(self.kernels)
            held = self._held()
            values, steps = held[:count], held[count:]
        if steps is None:
            steps = self._steps_now()
        with (
            self._laid(values) as scope,
            watch(self._activation_scope(pull, steps)),
        ):
            outputs = self.base(inputs, training=training)
        if "compute_loss" in self._own:
            give_back_losses(self.base, scope.losses)
        else:
            self._add_losses_here(scope.losses)
        if penalty is not None:
            penalty *= self.search.strength
            self.penalty.add(penalty)
            self.penalty.count()
            # Keras adds losses up in the one type that all of them have.
            loss = tf.cast(as_loss(penalty), keras.config.floatx())
            self._add_losses_here([mark_pull(loss)])
            self._learn(inputs, outputs, mark_pull)
        return outputs

    def _add_losses_here(self, losses: Sequence[tf.Tensor]) -> None:
        for loss in losses:
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
            if (here is None or getattr(loss, _REPLICA, here) is here)
            and counts_now(loss)
        ]

    @property
    def _rounds_biases(self) -> bool:
        return self.activations is not None and bool(self.activations.biases)

    def _values_to_hold(self) -> list[tf.Tensor]:
        return [*self._values_now(), *self._steps_now()]

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

    @property
    def state_variables(self) -> list[Any]:
        return state_variables(self.base)

    def products(self) -> int:
        return count_products(self.base)

    def get_config(self) -> dict[str, Any]:
        self.check_format()
        base = keras.saving.serialize_keras_object(self.base)
        base.pop("compile_config", None)
        return {
            "name": self.name,
            "base": base,
            "plan": [entry.to_config() for entry in self.plan],
            "quantizer": self.quantizer,
            "scale": self.scale,
            "activations": self.activations and self.activations.to_config(),
            "optimizers": self._built_optimizers(),
            "lora": lora_settings.settings(self.base),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> MSQModel:
        # Before the base is built, which takes a while.
        plan = [
            WeightPlan.from_config(entry)
            for entry in saved.records("plan", config["plan"])
        ]
        base = keras.saving.deserialize_keras_object(
            config["base"], custom_objects=custom_objects
        )
        lora_settings.restore(base, config.get("lora", []))
        model = cls(
            base,
            plan,
            quantizer=config["quantizer"],
            scale=config["scale"],
            activations=config["activations"]
            and ActivationPlan.from_config(config["activations"]),
            name=config["name"],
        )
        model.expect_optimizers(config.get("optimizers", {}))
        return model
