"""A float model that is the teacher of a quantized model.

A teacher is not part of its student: Keras neither tracks nor saves it. It runs
in inference mode, without a gradient, and its layers update nothing. A
quantized model trains the variables of the float model that it wraps. If that
model is the teacher, its values are copied first and replace those of the
variables while it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.keras3 import lifting
from msq_tf.keras3.call_hooks import CallScope
from msq_tf.keras3.overlay import Aside
from msq_tf.keras3.overlay import Overlay
from msq_tf.sensitivity import distillation
from msq_tf.sensitivity.distillation import Measure

_LOGGER = logging.getLogger(__name__)


class Teacher:
    """A model with what it needs to teach one student.

    Args:
        model: The teacher, built.
        student: The `MSQModel`.
        weight: Weight of the distance of the outputs.
        temperature: Of classes.
        meaning: What the outputs are, one of `distillation.MEANINGS`.

    Attributes:
        mean: The mean of the distance over training steps.
        told: What was said last of how the outputs are compared.
    """

    def __init__(
        self,
        model: keras.layers.Layer,
        student: Any,
        weight: float,
        temperature: float,
        meaning: str,
    ):
        self._model = model
        self._weight = weight
        self._temperature = temperature
        self._meaning = meaning
        self.told = ""
        shared = shared_variables(model, student)
        with student.distribute_strategy.scope():
            self._copies = [
                (variable, tf.Variable(variable.numpy(), trainable=False))
                for variable in shared
            ]
            self.mean = StepMean()

    def outputs(self, x: Any) -> Any:
        """The teacher's outputs, through which no gradient passes."""
        laid = Overlay(self._copies)
        with Aside(), CallScope(None), laid, lifting.lifted(False):
            outputs = self._model(x, training=False)
        return tf.nest.map_structure(tf.stop_gradient, outputs)

    def distance(self, student: Any, reference: Any, outputs: Any) -> tf.Tensor:
        """The weighted distance of the student's outputs, a float32 scalar."""
        compiled = student.task_losses()
        names = _names(outputs, compiled.output_names)
        chosen = distillation.measures(
            compiled,
            outputs,
            [_activation(student.base, name) for name in names],
            self._temperature,
            self._meaning,
        )
        self._tell(names, chosen)
        apart = distillation.distance(chosen, reference, outputs)
        return self._weight * apart

    def _tell(
        self, names: Sequence[str | int], chosen: Sequence[Measure | None]
    ) -> None:
        told = ", ".join(
            f"{name}: {'none' if measure is None else measure.name}"
            for name, measure in zip(names, chosen, strict=True)
        )
        if told != self.told:
            self.told = told
            _LOGGER.info("outputs are compared with the teacher's by %s", told)


class StepMean:
    """The mean of a number over samples of training steps and replicas.

    Its variables are no part of a model's state.
    """

    def __init__(self) -> None:
        self._strategy = tf.distribute.get_strategy()
        self._total, self._samples = (
            tf.Variable(
                0.0,
                trainable=False,
                dtype=tf.float32,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for _ in range(2)
        )

    def add(self, value: tf.Tensor, samples: tf.Tensor) -> None:
        """Adds the number of one step, a mean over so many samples.

        A call outside of the replicas is no step.
        """
        here = tf.distribute.get_strategy() is self._strategy
        if not here or tf.distribute.in_cross_replica_context():
            return
        samples = tf.cast(samples, tf.float32)
        self._total.assign_add(tf.stop_gradient(value) * samples)
        self._samples.assign_add(samples)

    def reset(self) -> None:
        """Begins anew, as at the start of an epoch."""
        self._total.assign(0.0)
        self._samples.assign(0.0)

    @property
    def counted(self) -> bool:
        """Whether there was a step since `reset`; not in a graph."""
        return float(self._samples.numpy()) > 0.0

    def result(self) -> tf.Tensor:
        """The mean; in a replica, that of its own steps."""
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self._total),
            tf.convert_to_tensor(self._samples),
        )


def shared_variables(model: Any, student: Any) -> list[Any]:
    """The variables of a model that a student has, too."""
    own = {id(variable) for variable in student.variables}
    return [variable for variable in model.variables if id(variable) in own]


def divergence_of(teacher: Teacher, student: Any) -> CompiledLosses:
    """The losses of a student that has none but its teacher's."""
    return CompiledLosses(
        None,
        keras.losses,
        divergence=lambda reference, outputs: teacher.distance(
            student, reference, outputs
        ),
    )


def _names(outputs: Any, output_names: Sequence[str] | None) -> list[str | int]:
    """Keys or names of outputs, in the order in which they are flattened."""
    count = len(tf.nest.flatten(outputs))
    if isinstance(outputs, dict) and len(outputs) == count:
        return sorted(outputs)
    names: list[str | int] = list(output_names or ())
    return names if len(names) == count else list(range(count))


def _activation(model: Any, output: str | int) -> str:
    """Name of the activation that an output comes from; empty if unknown."""
    layers = getattr(model, "layers", None)
    if isinstance(model, keras.Sequential):
        layer = layers[-1] if layers else None
    elif layers is None or not hasattr(model, "output_names"):
        layer = None
    else:
        names = {layer.name: layer for layer in layers}
        layer = names.get(_layer_name(model, output))
    if isinstance(layer, keras.Model):
        return _activation(layer, 0)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "")


def _layer_name(model: Any, output: str | int) -> str:
    names = list(model.output_names)
    if isinstance(output, int):
        return names[output] if output < len(names) else ""
    return output if output in names else ""
