"""ModelView: a model of TFMOT as search, report and export see it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.core.constants import constant
from msq_tf.core.penalty import PenaltyMean
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.weight_set import WeightQuantizers
from msq_tf.quantizers import uniform
from msq_tf.quantizers.range_average import SiteRange
from msq_tf.tfmot.calibrate import site_ranges
from msq_tf.tfmot.calibrate import watched
from msq_tf.tfmot.columns import look_at
from msq_tf.tfmot.compat import private
from msq_tf.tfmot.compat.fake_quant import Tap
from msq_tf.tfmot.compat.fake_quant import differentiable_twice
from msq_tf.tfmot.compat.imports import tf_keras
from msq_tf.tfmot.compat.losses import LossesWithoutMetrics
from msq_tf.tfmot.model_state import fixed_batch_size
from msq_tf.tfmot.model_state import kept
from msq_tf.tfmot.model_state import second_moments
from msq_tf.tfmot.model_state import state_variables
from msq_tf.tfmot.model_state import training_state
from msq_tf.tfmot.own_training import keep_penalty_apart
from msq_tf.tfmot.own_training import own_methods
from msq_tf.tfmot.quantizer import given_values
from msq_tf.tfmot.search_variables import HELD_NAMES
from msq_tf.tfmot.search_variables import WrapperScales
from msq_tf.tfmot.search_variables import WrapperState
from msq_tf.tfmot.strip import check_model
from msq_tf.tfmot.strip import copy_weights
from msq_tf.tfmot.strip import in_float32
from msq_tf.tfmot.strip import strip_quantization
from msq_tf.tfmot.wrapped_weights import WrappedWeight
from msq_tf.tfmot.wrapped_weights import activation_widths
from msq_tf.tfmot.wrapped_weights import find_weights
from msq_tf.tfmot.wrapped_weights import weights_as

# Layers that multiply activations by activations.
_MULTIPLYING = (
    tf_keras.layers.AdditiveAttention,
    tf_keras.layers.Attention,
    tf_keras.layers.Dot,
    tf_keras.layers.MultiHeadAttention,
)


@dataclasses.dataclass(frozen=True)
class TrainedActivations:
    """The bits of the codes of activations that a model was trained with."""

    bits: int


class ModelView(QuantizedNetwork):
    """The interface of MSQ to a model that `quantize_apply` returned.

    A view holds no state: bits and the search are variables of the model's
    wrappers, and all views of a model show the same. `precision_report` and
    `tflite_export.export` take a view; `MSQCallback` makes one.

    Args:
        model: A tf_keras model with `RoundClampQuantizer`s in it.

    Attributes:
        model: The given model.
        search: The search's state in the wrappers.

    Raises:
        ValueError: If `model` is not of tf_keras, or nothing in it is
            quantized by MSQ.

    Example:
    ```python
    view = msq.ModelView(qat_model)
    view.set_bits({"conv2d": 4})
    print(msq_tf.precision_report(view))
    export(view, "m.tflite", target="cpu_int8", representative_data=x)
    ```
    """

    def __init__(self, model: Any):
        check_model(model)
        found = find_weights(model)
        ours = [entry for entry in found if entry.by_msq]
        if not ours:
            raise ValueError(
                "Nothing in the model is quantized by MSQ. Expected a model "
                "of `quantize_apply` with MSQQuantizeConfig or "
                "MSQQuantizeScheme. Received: model "
                f"'{model.name}', {[entry.path for entry in found]}"
            )
        kinds = sorted(
            {
                (entry.quantizer.quantizer, entry.quantizer.scale)
                for entry in ours
            }
        )
        if len(kinds) > 1:
            raise ValueError(
                "All weights of a model need the same quantizer and scale. "
                f"Received: {kinds}"
            )
        quantizer, scale = kinds[0]
        self.model = model
        self.name = model.name
        self._found = found
        self.search = WrapperState(
            [entry.variables for entry in ours if entry.variables]
        )
        self._weights = WeightQuantizers(
            found,
            quantizer,
            lambda variable: tf.cast(variable, tf.float32),
            scale,
            WrapperScales([entry.variables or {} for entry in ours])
            if scale == uniform.HELD
            else None,
        )
        self._by_tfmot = [
            entry
            for entry in found
            if entry.quantizer is not None and not entry.by_msq
        ]
        self._plain: Any = None

    @property
    def penalty(self) -> PenaltyMean:  # type: ignore[override]
        return keep_penalty_apart(self.model)

    @property
    def fixed_batch_size(self) -> int | None:
        return fixed_batch_size(self.model)

    @property
    def search_variables(self) -> list[Any]:
        return [
            variable
            for entry in self._found
            for variable in (entry.by_msq and entry.variables or {}).values()
        ]

    def state_kept(self) -> contextlib.AbstractContextManager[None]:
        ours = {variable.ref() for variable in self.search_variables}
        return kept(
            [v for v in state_variables(self.model) if v.ref() not in ours]
        )

    @contextlib.contextmanager
    def float_model(self, compiled: bool) -> Iterator[Any]:
        plain = strip_quantization(self.model)
        if compiled:
            plain.compile(**private.compile_arguments(self.model))
        yield plain

    def training_state(self) -> list[Any]:
        bits = [
            variable
            for entry in self._found
            if entry.by_msq
            for name, variable in (entry.variables or {}).items()
            if name not in HELD_NAMES
        ]
        return training_state(self.model, bits)

    def trains_kernels(self) -> list[bool]:
        trained = {v.ref() for v in self.model.trainable_variables}
        return [kernel.ref() in trained for kernel in self.kernels]

    def second_moments(self) -> list[Any]:
        return second_moments(self.model)

    @property
    def distribute_strategy(self) -> tf.distribute.Strategy:
        return self.model.distribute_strategy

    @property
    def compiled(self) -> bool:  # type: ignore[override]
        return self.model.compiled_loss is not None

    def look_at_columns(self, x: Any) -> None:
        look_at(self.model, x)

    def outputs_at(self, values: Sequence[tf.Tensor], x: Any) -> Any:
        given = {
            kernel.ref(): value
            for kernel, value in zip(self.kernels, values, strict=True)
        }
        with given_values(given), differentiable_twice():
            return self.model(x, training=False)

    def loss_at(self, values: Sequence[tf.Tensor], batch: Any) -> tf.Tensor:
        x, y, sample_weight = batch
        outputs = self.outputs_at(values, x)
        if self._own_loss:
            loss = self.model.compute_loss(x, y, outputs, sample_weight)
        else:
            loss = LossesWithoutMetrics(self.model.compiled_loss)(
                y, outputs, sample_weight
            )
        # As in Keras 3: divided by the replicas, for `fit` to sum over them.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Training sums up what a loss does not reduce.
        return tf.reduce_sum(tf.cast(loss, tf.float32)) * replicas

    def products(self) -> int:
        return sum(
            isinstance(layer, _MULTIPLYING)
            for layer in private.all_layers(self.model)
        )

    @property
    def _own_loss(self) -> bool:
        return "compute_loss" in own_methods(self.model)

    def compiled_losses(self) -> CompiledLosses:
        if self._own_loss:
            return CompiledLosses(self.model.compute_loss, tf_keras.losses)
        container = self.model.compiled_loss
        return CompiledLosses(
            getattr(self.model, "loss", None),
            tf_keras.losses,
            container and private.loss_weights(container),
            getattr(self.model, "output_names", None),
        )

    def metrics_kept(self) -> contextlib.AbstractContextManager[None]:
        if not self._own_loss:
            return contextlib.nullcontext()
        metrics = self.model.metrics
        return kept([v for metric in metrics for v in metric.variables])

    def skipped_weights(self) -> list[SkippedWeight]:
        values = {
            weight.path: value for weight, value in self._values_by_tfmot()
        }
        return [
            dataclasses.replace(
                record, value=values.get(record.path, record.value)
            )
            for record in super().skipped_weights()
        ]

    def _values_by_tfmot(self) -> list[tuple[WrappedWeight, np.ndarray]]:
        with tf.init_scope():
            return [(weight, weight.value()) for weight in self._by_tfmot]

    def values_by_variable(self) -> Mapping[Any, np.ndarray]:
        """float32 arrays: quantized values by the variable's `ref()`.

        Those of weights that TFMOT quantizes are there, too.
        """
        quantized = zip(
            self.planned_weights, self.quantized_weights(), strict=True
        )
        return {
            **{weight.variable.ref(): own.values for weight, own in quantized},
            **{
                weight.variable.ref(): value
                for weight, value in self._values_by_tfmot()
            },
        }

    @property
    def base(self) -> Any:
        """The plain model that a file with float activations is made of."""
        if self._plain is None:
            self._plain = strip_quantization(self.model)
        return self._plain

    @contextlib.contextmanager
    def quantized_scope(self) -> Iterator[None]:
        """From here on `base` holds today's quantized values."""
        copy_weights(self.model, self.base, self.values_by_variable())
        yield

    @property
    def activations(self) -> TrainedActivations | None:
        """The bits that activations were trained with; `None` for floats.

        Raises:
            ValueError: If they have several widths.
        """
        widths = activation_widths(self.model)
        if len(widths) > 1:
            raise ValueError(
                "Activations of several widths have no common file. Expected "
                f"8 bits throughout. Received: {sorted(widths)} bits"
            )
        return TrainedActivations(widths.pop()) if widths else None

    @property
    def integer_base(self) -> Any:
        """The model that a file with integer activations is made of."""
        return self.model

    @contextlib.contextmanager
    def integer_scope(self, tap: Tap | None = None) -> Iterator[None]:
        """While open, `integer_base` reads its weights as constants.

        Raises:
            ValueError: If a latent weight is not finite.
        """
        constants = {
            ref: constant(value)
            for ref, value in self.values_by_variable().items()
        }
        with (
            given_values(constants),
            weights_as(self.model, constants),
            watched(self.model, tap),
            in_float32(self.model),
        ):
            yield

    def site_ranges(self) -> list[SiteRange]:
        """Today's range of each site of `integer_scope`, by its position."""
        return site_ranges(self.model)


def bake(model: Any) -> Any:
    """Makes a plain tf_keras model with the quantized values.

    Its weights compute what those of `model` compute; activations are float.

    Args:
        model: A model that `quantize_apply` returned, or a `ModelView` of it.

    Returns:
        A tf_keras model, uncompiled, that needs neither `msq_tf` nor TFMOT.

    Raises:
        ValueError: As in `ModelView` and `strip_quantization`.
    """
    view = model if isinstance(model, ModelView) else ModelView(model)
    plain = strip_quantization(view.model)
    copy_weights(view.model, plain, view.values_by_variable())
    return plain
