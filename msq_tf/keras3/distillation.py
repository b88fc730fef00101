"""distill: a quantized model learns from the outputs of its float model."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.arguments import check_number
from msq_tf.core.compiled_losses import CompiledLosses
from msq_tf.core.config import check_choice
from msq_tf.core.penalty import as_loss
from msq_tf.core.scoped import scoped
from msq_tf.keras3.overlay import all_layers
from msq_tf.keras3.overlay import kept_states
from msq_tf.keras3.teacher import Teacher
from msq_tf.keras3.teacher import divergence_of
from msq_tf.keras3.teacher import shared_variables
from msq_tf.sensitivity.distillation import AUTO
from msq_tf.sensitivity.distillation import MEANINGS

_LOG = "msq_distillation"
_TRAINING = "training"
_TESTING = "testing"

# Whose step runs in this thread, and whether its loss is the teacher's alone.
_STEP: contextvars.ContextVar[tuple[str, bool]] = contextvars.ContextVar(
    "msq_tf_distilled_step", default=("", False)
)


def distill(
    model: Any,
    teacher: keras.Model | None,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    outputs: str = AUTO,
) -> None:
    """Trains a quantized model towards the outputs of a teacher.

    After this call, every training step adds to its loss the distance of the
    model's outputs from the teacher's outputs on the same inputs. In a loop of
    your own, `qmodel.losses` has this distance. Without labels, as in `fit(x)`
    or with a data set of inputs alone, or without a compiled loss, the distance
    is the loss, also in `evaluate` and in the statistics of a search.

    The distance follows from the compiled loss, else from the layer of the
    output: the Kullback-Leibler divergence for classes, the loss itself for a
    regression. If neither is known, it is the squared error over the variance
    of the teacher's outputs. Loss weights count; sample weights, class weights
    and masks do not.

    `loss` stays the loss of the task, as in `fit` without a teacher;
    `msq_distillation` is the mean of the distance, times `weight`. Without
    labels, `loss` is the distance.

    The teacher is not part of the model: it is not trained and not saved. After
    loading a model, give it again.

    Args:
        model: Made by `quantize_model`.
        teacher: A built model with the same inputs and outputs; it runs in
            inference mode. It may be the float model that was quantized: its
            weights are copied now, before training moves them. `None` removes
            the teacher.
        weight: Factor of the distance in the sum with the task's loss.
        temperature: Divides the logits of classes; the divergence is
            multiplied by its square.
        outputs: Kind of the outputs: `"probabilities"`, `"logits"` of classes,
            `"values"`, or `"auto"` to follow the loss or the last layer.

    Raises:
        ValueError: If an argument is of the wrong kind; if the model has its
            own `train_step`; if the teacher keeps states, is unbuilt, or shares
            weights that were trained already.

    Example:
    ```python
    qmodel = msq_tf.quantize_model(model)
    msq_tf.distill(qmodel, model)
    qmodel.compile("adam")
    qmodel.fit(images, callbacks=[msq_tf.MSQCallback(rule)])
    ```
    """
    if not isinstance(model, LearnsFromTeacher):
        raise ValueError(
            "`distill` takes a model from `msq_tf.quantize_model`. Received: "
            f"model={type(model).__name__}"
        )
    check_number("weight", weight, 0)
    check_number("temperature", temperature, 0)
    if not temperature:
        raise ValueError(
            "`temperature` divides logits. Expected a number above 0. "
            f"Received: temperature={temperature!r}"
        )
    check_choice("outputs", outputs, MEANINGS)
    if teacher is None:
        model.learn_from(None)
        return
    _check(model, teacher)
    model.learn_from(
        Teacher(teacher, model, float(weight), float(temperature), outputs)
    )


class LearnsFromTeacher:
    """The part of a quantized model that a teacher changes.

    A mixin, before `own_training.TrainsAsItsBase` and
    `model_statistics.TakesStatistics`. Without a teacher it passes on.
    """

    # Of the other bases.
    _add_losses_here: Callable[[Sequence[tf.Tensor]], None]
    _own: frozenset[str]
    loss: Any
    train_function: Any
    test_function: Any

    def _begin_alone(self) -> None:
        self._teacher: Teacher | None = None

    @property
    def has_own_step(self) -> bool:
        """Whether the base brings the step that trains it."""
        return "train_step" in self._own

    @property
    def has_teacher(self) -> bool:
        """Whether training follows a teacher's outputs."""
        return self._teacher is not None

    def learn_from(self, teacher: Teacher | None) -> None:
        """Has training follow a teacher, or none. See `distill`."""
        # Past Keras, which would look for layers inside.
        object.__setattr__(self, "_teacher", teacher)
        # They were traced with another one.
        self.train_function = self.test_function = None

    def task_losses(self) -> CompiledLosses:
        """The losses that the model was compiled with, whatever teaches it."""
        # Keras reads a learning rate on the way, which no graph can.
        with tf.init_scope():
            return super().compiled_losses()  # type: ignore[misc]

    def compiled_losses(self) -> CompiledLosses:
        if self._teacher is not None and self._unlabelled(()):
            return divergence_of(self._teacher, self)
        return self.task_losses()

    def _unlabelled(self, y: Any) -> bool:
        """Whether a teacher gives the only loss, with these labels."""
        if self._teacher is None or "compute_loss" in self._own:
            return False
        return y is None or getattr(self, "loss", None) is None

    def _distance(self, x: Any, y_pred: Any) -> tf.Tensor:
        teacher: Any = self._teacher
        return teacher.distance(self, teacher.outputs(x), y_pred)

    def _learn(self, x: Any, y_pred: Any, mark: Callable[..., Any]) -> None:
        """Adds the teacher's loss to those of a training step."""
        if self._teacher is None:
            return
        term = self._distance(x, y_pred)
        # Batches count by their size, as in the loss that Keras reports.
        first = keras.tree.flatten(y_pred)[0]
        self._teacher.mean.add(term, tf.shape(first)[0] if first.ndim else 1)
        _, alone = _STEP.get()
        term = term if alone else as_loss(term)
        self._add_losses_here([mark(tf.cast(term, keras.config.floatx()))])

    def train_step(self, data: Any) -> Any:
        if self._teacher is None:
            return super().train_step(data)  # type: ignore[misc]
        _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with scoped(_STEP, (_TRAINING, self._unlabelled(y))):
            return super().train_step(data)  # type: ignore[misc]

    def test_step(self, data: Any) -> Any:
        if self._teacher is None:
            return super().test_step(data)  # type: ignore[misc]
        with scoped(_STEP, (_TESTING, False)):
            return super().test_step(data)  # type: ignore[misc]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        if not self._unlabelled(y):
            return super().compute_loss(  # type: ignore[misc]
                x, y, y_pred, sample_weight, training=training
            )
        # In training the teacher's is among them.
        terms = [] if training else [self._distance(x, y_pred)]
        own: list[Any] = self.losses  # type: ignore[attr-defined]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        kind = keras.config.floatx()
        return tf.add_n(
            [
                tf.reduce_sum(tf.cast(term, kind)) / replicas
                for term in (*terms, *own)
            ]
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        if y is None and self._unlabelled(y):
            return self.get_metrics_result()
        return super().compute_metrics(  # type: ignore[misc]
            x, y, y_pred, sample_weight
        )

    @property
    def metrics(self) -> list[Any]:
        found = super().metrics  # type: ignore[misc]
        if self._teacher is None:
            return found
        # Those that have not seen a label yet have no result.
        return [m for m in found if getattr(m, "built", True) is not False]

    def get_metrics_result(self) -> Any:
        results = super().get_metrics_result()  # type: ignore[misc]
        if self._teacher is None:
            return results
        step, _ = _STEP.get()
        mean = self._teacher.mean
        if step == _TRAINING or (not step and mean.counted):
            results = {**results, _LOG: mean.result()}
        return results

    def reset_metrics(self) -> None:
        super().reset_metrics()  # type: ignore[misc]
        if self._teacher is not None:
            self._teacher.mean.reset()


def _check(model: Any, teacher: Any) -> None:
    """Raises a ValueError for a teacher that can't teach the model."""
    if isinstance(teacher, (str, os.PathLike)) or not isinstance(
        teacher, keras.layers.Layer
    ):
        raise ValueError(
            "`teacher` must be a Keras 3 model, such as the float model that "
            f"was quantized, or None. Received: teacher={teacher!r}"
        )
    if teacher is model:
        raise ValueError(
            "A model cannot be its own teacher. Expected the float model, as "
            "in `msq_tf.distill(qmodel, model)`. Received: the quantized "
            f"model '{model.name}'"
        )
    if model.has_own_step:
        raise ValueError(
            f"`{type(model.base).__name__}.train_step` computes its loss "
            "itself, where a teacher's has no place. Expected a model without "
            "`train_step`, or a step that calls the teacher. Received: "
            f"teacher '{teacher.name}'"
        )
    if not teacher.built:
        raise ValueError(
            "The teacher is unbuilt: its weights do not exist yet. Expected a "
            "built model; call it on a batch first. Received: model "
            f"'{teacher.name}'"
        )
    if any(kept_states(layer) for layer in all_layers(teacher)):
        raise ValueError(
            "The teacher keeps states from batch to batch, and would not be "
            "where the model is in a sequence. Expected recurrent layers "
            f"with `stateful=False`. Received: model '{teacher.name}'"
        )
    optimizer = getattr(model, "optimizer", None)
    trained = optimizer is not None and int(optimizer.iterations.numpy()) > 0
    trained |= bool(model.search.rule_state.started)
    if trained and shared_variables(teacher, model):
        raise ValueError(
            "The teacher's weights were trained with the quantized model, "
            "whose weights they are. Expected the float model as it was before "
            "training: give it before `fit`, or load it again. Received: "
            f"model '{teacher.name}'"
        )
