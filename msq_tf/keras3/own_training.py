"""Training methods of a float model, used by its quantized model.

A model may override `train_step`, `compute_loss`, `compile` and more. Keras
calls the wrapper and not the wrapped model, so these methods would be ignored.
Here the wrapper calls them. Which of the two runs the step:

- With its own `train_step`, `test_step` or `predict_step` the base runs the
  step, in a scope of `step_scope`.
- Otherwise the wrapper runs Keras's step, and calls the base's own
  `compute_loss` and `compute_metrics` from there.

Either way the base is compiled as the wrapper is, and the two share the
optimizer, the compiled losses and the metrics.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import Any

import keras
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.core.penalty import apart
from msq_tf.core.penalty import is_pull
from msq_tf.core.penalty import with_pulls
from msq_tf.core.scoped import scoped
from msq_tf.keras3.overlay import built_variables
from msq_tf.keras3.overlay import own_metrics
from msq_tf.keras3.overlay import share_compiled
from msq_tf.keras3.own_loops import LOOPS
from msq_tf.keras3.own_loops import replaces
from msq_tf.keras3.step_scope import StepScopes

_TRAIN = "train_step"
_LOSS = "compute_loss"
_NAMES = (
    "compile",
    "compile_from_config",
    "compute_metrics",
    "get_compile_config",
    "get_metrics_result",
    "metrics",
    "predict_step",
    "reset_metrics",
    "test_step",
    _LOSS,
    _TRAIN,
)
# What wraps whole loops around steps; nothing can be put in between.
_LOOPS = ("make_train_function", "make_test_function", "make_predict_function")

# Whether `losses` are those of the task alone.
_TASK_ALONE: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "msq_tf_task_alone", default=False
)


def own_methods(model: Any) -> frozenset[str]:
    """The names of what a model replaces of Keras's training.

    Metrics that it holds count as `"metrics"`.
    """
    found = {name for name in _NAMES if replaces(model, name)}
    if own_metrics(model):
        found.add("metrics")
    return frozenset(found)


def check_methods(model: Any, learned: bool) -> None:
    """Raises a ValueError for training that cannot be quantized.

    `learned` says whether scales or ranges are learned.
    """
    loops = [name for name in _LOOPS if replaces(model, name)]
    if loops:
        raise ValueError(
            f"`{type(model).__name__}` replaces the loop around its steps, "
            "where quantized weights have no place. Expected a model with "
            "`train_step`, `test_step` or `predict_step` instead, or a loop "
            f"outside of the model, see docs/custom-loops.md. Received: {loops}"
        )
    bound = [name for name in LOOPS if name in vars(model)]
    if bound:
        raise ValueError(
            f"Loops that are set on the object '{model.name}' train that "
            "object, and would not see quantized weights. Expected a class "
            f"that has them. Received: {bound}"
        )
    if learned and replaces(model, _TRAIN):
        raise ValueError(
            f"`{type(model).__name__}.train_step` knows no variables but its "
            "own, so learned scales and ranges would stand still. Expected "
            "`MSQConfig(scale='max', activation_ranges='ema')`, or a model "
            "with `compute_loss` instead of `train_step`. Received: learned "
            "ones"
        )


def counts_now(loss: tf.Tensor) -> bool:
    """Whether a term is among a model's losses where they are asked for."""
    return not (_TASK_ALONE.get() and is_pull(loss))


class TrainsAsItsBase:
    """Compiles and trains as the base model does that it wraps.

    A mixin, before `keras.Model`. What it is mixed into has `base`, and calls
    `_use_methods_of`.
    """

    base: Any
    _own: frozenset[str] = frozenset()
    _steps: StepScopes | None = None

    def _use_methods_of(self, base: Any, steps: Any) -> None:
        self._own = own_methods(base)
        self._compiled_with: dict[str, Any] | None = None
        self._optimizer_variables: dict[str, list[int]] = {}
        if self._own:
            self._steps = steps()

    @property
    def has_loss(self) -> bool:
        """Whether a loss is known outside of the base's own step."""
        return (
            _TRAIN not in self._own
            or _LOSS in self._own
            or getattr(self.base, "loss", None) is not None
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        if not self._own:
            super().compile(*args, **kwargs)  # type: ignore[misc]
            return
        self.base.compile(*args, **kwargs)
        bound = inspect.signature(self.base.compile).bind(*args, **kwargs)
        given = dict(bound.arguments)
        self._keep_plain("_compiled_with", given | given.pop("kwargs", {}))
        self._share()

    def _keep_plain(self, name: str, value: Any) -> None:
        # Keras would wrap a dictionary.
        object.__setattr__(self, name, value)

    def _share(self) -> None:
        """Takes over what the base was compiled with."""
        base = self.base
        if not base.compiled:
            return
        super().compile(  # type: ignore[misc]
            optimizer=base.optimizer,
            run_eagerly=base.run_eagerly,
            jit_compile=base.jit_compile,
            steps_per_execution=base.steps_per_execution,
            auto_scale_loss=False,
        )
        share_compiled(base, self)

    def get_compile_config(self) -> dict[str, Any]:
        """As of any model, with the arguments of the base's own `compile`."""
        if not self._own:
            return super().get_compile_config()  # type: ignore[misc]
        if "get_compile_config" in self._own:
            return self.base.get_compile_config()
        if not self._compiled_with:
            return {}
        return keras.saving.serialize_keras_object(self._compiled_with)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as at the time of saving, optimizers built."""
        if "compile_from_config" in self._own:
            self.base.compile_from_config(config)
            self._share()
        else:
            self.compile(**keras.saving.deserialize_keras_object(config))
        if not self._own:
            self.optimizer.build(self.trainable_variables)  # type: ignore[attr-defined]
            return
        for place, optimizer in self._optimizers().items():
            indices = self._optimizer_variables.get(place)
            if indices is not None:
                variables = self.variables  # type: ignore[attr-defined]
                if max(indices, default=-1) >= len(variables):
                    raise ValueError(
                        "The saved optimizers do not fit the model. Expected "
                        f"variables below {len(variables)}. Received: "
                        f"{max(indices)}"
                    )
                optimizer.build([variables[i] for i in indices])

    def expect_optimizers(self, variables: dict[str, list[int]]) -> None:
        """Says what optimizers are built for in `compile_from_config`.

        Raises:
            ValueError: If it is not what `_built_optimizers` returned before.
        """
        if not isinstance(variables, dict):
            raise ValueError(
                "`optimizers` must be a mapping. Received: "
                f"optimizers={variables!r:.200}"
            )
        for place, indices in variables.items():
            saved.check_text("optimizers", place)
            if not isinstance(indices, list | tuple):
                raise ValueError(
                    "`optimizers` must map to lists of variables. Received: "
                    f"{indices!r:.200}"
                )
            for index in indices:
                saved.check_integer("optimizers", index, 0)
            saved.check_unique("optimizers", indices)
        self._keep_plain("_optimizer_variables", variables)

    def _optimizers(self) -> dict[str, Any]:
        return {} if self._steps is None else self._steps.optimizers()

    def _built_optimizers(self) -> dict[str, list[int]]:
        """Which of the model's variables each optimizer moves, by place."""
        numbers = {
            id(variable): i
            for i, variable in enumerate(self.variables)  # type: ignore[attr-defined]
        }
        return {
            place: [numbers[id(v)] for v in built_variables(optimizer)]
            for place, optimizer in self._optimizers().items()
            if optimizer.built
        }

    def train_step(self, data: Any) -> Any:
        """As that of the base; the loss it reports is the task's alone."""
        if self._steps is not None and _TRAIN in self._own:
            # Its calls are those of the base, or of parts of it.
            self.input_ranges.observe(  # type: ignore[attr-defined]
                keras.utils.unpack_x_y_sample_weight(data)[0]
            )
            with self._steps.training_step():
                return self.base.train_step(data)
        with apart():
            return super().train_step(data)  # type: ignore[misc]

    def test_step(self, data: Any) -> Any:
        if self._steps is not None and "test_step" in self._own:
            with self._steps.calls(training=False):
                return self.base.test_step(data)
        return super().test_step(data)  # type: ignore[misc]

    def predict_step(self, data: Any) -> Any:
        if self._steps is not None and "predict_step" in self._own:
            with self._steps.calls(training=False):
                return self.base.predict_step(data)
        return super().predict_step(data)  # type: ignore[misc]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """As that of the base, and in training the pull on the low bits.

        Raises:
            ValueError: As Keras raises, if there is no loss beside the pull.
        """
        pulls = [t for t in self.losses if is_pull(t)]  # type: ignore[attr-defined]
        if self._steps is None or _LOSS not in self._own:
            with scoped(_TASK_ALONE, True):
                loss = super().compute_loss(  # type: ignore[misc]
                    x, y, y_pred, sample_weight, training=training
                )
        else:
            named = {}
            # Younger than most models' own.
            if _takes(self.base.compute_loss, "training"):
                named["training"] = training
            with self._steps.calls(training):
                loss = self.base.compute_loss(
                    x, y, y_pred, sample_weight, **named
                )
        return with_pulls(loss, pulls)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        if self._steps is not None and "compute_metrics" in self._own:
            with self._steps.calls(training=False):
                return self.base.compute_metrics(x, y, y_pred, sample_weight)
        return super().compute_metrics(  # type: ignore[misc]
            x, y, y_pred, sample_weight
        )

    @property
    def metrics(self) -> list[Any]:
        """Those of the base where it has its own."""
        return self.base.metrics if self._own else super().metrics  # type: ignore[misc]

    def reset_metrics(self) -> None:
        if self._own:
            self.base.reset_metrics()
        else:
            super().reset_metrics()  # type: ignore[misc]

    def get_metrics_result(self) -> Any:
        if self._own:
            return self.base.get_metrics_result()
        return super().get_metrics_result()  # type: ignore[misc]

    def _outputs_of_step(self, data: Any) -> list[tf.Tensor]:
        """What the calls of the base's own step return."""
        steps: Any = self._steps
        tests = "test_step" in self._own
        if steps.unseen and not tests:
            raise ValueError(
                "Statistics would train the model: its own `train_step` moves "
                "weights by other means than an optimizer that the model "
                "holds. Expected a `test_step`, a `compute_loss`, or "
                "optimizers that are attributes of the model. Received: "
                f"'{self.base.name}'"
            )
        outputs: list[Any] = []
        with steps.probe(outputs):
            (self.base.test_step if tests else self.base.train_step)(data)
        # Calls in the loop of a graph are of that graph.
        here = tf.compat.v1.get_default_graph()
        found = [
            tensor
            for tensor in keras.tree.flatten(outputs)
            if isinstance(tensor, tf.Tensor)
            and tensor.dtype.is_floating
            and (tf.executing_eagerly() or tensor.graph is here)
        ]
        if not found:
            raise ValueError(
                "Nothing tells what a width costs: the model's own step calls "
                "no layer. Expected a step that calls the model or its "
                f"layers, or a `compute_loss`. Received: '{self.base.name}'"
            )
        return found


def _takes(method: Any, name: str) -> bool:
    parameters = inspect.signature(method).parameters
    return name in parameters or any(
        p.kind is p.VAR_KEYWORD for p in parameters.values()
    )
