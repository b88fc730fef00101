"""Overlay: gives Keras variables other values while a model runs.

`Overlay` is a `keras.StatelessScope`: while it is open, reading a chosen
variable gives another tensor, so any layer computes with quantized weights and
no layer needs a change. Everything in this package that Keras does not promise
is in this file: the scope's hooks, `_direct_assign`, a layer's `_layers`, an
optimizer's exclusions. If a Keras release breaks one,
`tests/msq_tf/keras3/test_overlay.py` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msq_tf.keras3 import uncast
from msq_tf.keras3.lifting import LiftsGrids

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "msq_tf needs the TensorFlow backend of Keras 3. Expected "
        "KERAS_BACKEND=tensorflow in the environment before the first import "
        f"of keras. Received: {keras.backend.backend()!r}"
    )


class Overlay(LiftsGrids, keras.StatelessScope):
    """Substitutes tensors for variables while layers run.

    Losses that layers add inside are collected in `losses`: the caller has to
    add them again outside. Updates of variables (batch-norm statistics, seed
    generators) are written through to the variable, or to the enclosing
    `StatelessScope` when there is one. Grids of a file are lifted.

    Args:
        values: Pairs of a `keras.Variable` and the tensor that stands for it.
            It gets the variable's type, unless `uncast` is open.
        inner: Whether this lies inside of another one, which then collects
            the losses.
    """

    # Whether latent weights are read through it, as if it were not open.
    is_glass = False

    def __init__(self, values: Iterable[tuple[Any, Any]], inner: bool = False):
        own_types = uncast.is_open()
        super().__init__(
            state_mapping=None if own_types else values,
            collect_losses=True,
            initialize_variables=False,
        )
        if own_types:
            self.state_mapping.update({id(k): v for k, v in values})
        self.original_scope: Any = None
        self._inner = inner

    def add_loss(self, loss: Any) -> None:
        if self._inner and self.original_scope is not None:
            self.original_scope.add_loss(loss)
        else:
            super().add_loss(loss)

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, value = update
        if self.original_scope is not None:
            self.original_scope.add_update(update)
        else:
            variable._direct_assign(value)


class Aside(keras.StatelessScope):
    """Keeps what layers write into variables aside while it is open.

    A layer that reads what it wrote in the same call finds it; the variables
    stay as they were. So a traced graph holds no assignments. Losses that
    layers add inside are collected in `losses`.

    Attributes:
        updated: The variables that were written, by their `id`.
    """

    def __init__(self) -> None:
        super().__init__(collect_losses=True, initialize_variables=False)
        self.updated: dict[int, Any] = {}

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and isinstance(variable, keras.Variable):
            # Keras's regularizers ask for no other.
            value = variable._value
        return variable if value is None else value

    def add_update(self, update: tuple[Any, Any]) -> None:
        super().add_update(update)
        self.updated[id(update[0])] = update[0]

    def lay(self, variable: Any, value: Any) -> None:
        """Has layers read a value in the place of a variable's."""
        self.state_mapping[id(variable)] = value

    def forget(self) -> None:
        """Lets layers read the variables as they are again."""
        self.state_mapping.clear()


def laid_here(variable: Any) -> Overlay | None:
    """The open scope, where an overlay gives a variable another value."""
    here = scope = keras.src.backend.get_stateless_scope()
    while isinstance(scope, Overlay):
        if id(variable) in scope.state_mapping:
            return here
        scope = scope.original_scope
    return None


def is_behind_glass() -> bool:
    """Whether a scope of constants is open, see `Overlay.is_glass`."""
    scope = keras.src.backend.get_stateless_scope()
    while isinstance(scope, Overlay):
        if scope.is_glass:
            return True
        scope = scope.original_scope
    return False


def read_float32(variable: Any) -> tf.Tensor:
    """The variable's stored value in float32, under any autocast policy.

    Keras casts on read under `mixed_float16`; codes computed from a
    half-precision copy would not be those of the stored weight. Nor are they
    those of a value that was quantized before, see `Overlay.is_glass`.
    """
    scope = keras.src.backend.get_stateless_scope()
    while isinstance(scope, Overlay) and scope.is_glass:
        scope = scope.original_scope
    value = scope.get_current_value(variable) if scope else None
    if value is None:
        value = variable._value
    return tf.cast(tf.convert_to_tensor(value), tf.float32)


def drop_optimizers(model: Any) -> None:
    """Takes the optimizers from a model and the models inside it.

    A wrapped model is trained by its wrapper. Keras would save the state of
    an old optimizer with every checkpoint, and refuse to load it into a base
    that was compiled anew. Metrics and losses stay: `evaluate` still works.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "optimizer", None) is not None:
            layer.optimizer = None


def exclude_from_decay(optimizer: Any, variables: Iterable[Any]) -> None:
    """Has an optimizer's weight decay leave out some variables.

    Added to what it leaves out already: Keras's own
    `exclude_from_weight_decay` replaces the list, and takes none from an
    optimizer that was built.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    left_out = set(getattr(optimizer, "_exclude_from_weight_decay", ()))
    left_out.update(optimizer._var_key(variable) for variable in variables)
    optimizer._exclude_from_weight_decay = left_out
    # Keras remembers its answers by variable.
    optimizer._exclude_from_weight_decay_cache = {}


def built_variables(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built for."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(optimizer._trainable_variables)


def own_metrics(model: Any) -> list[Any]:
    """Metrics that a model holds itself, beside those of `compile`."""
    compiled = {
        id(metric)
        for name in ("_loss_tracker", "_compile_metrics")
        for metric in [getattr(model, name, None)]
    }
    return [metric for metric in model._metrics if id(metric) not in compiled]


def share_compiled(source: Any, target: Any) -> None:
    """Gives a compiled model the losses and metrics of another one.

    They are set as they are: Keras would track them twice, and wrap losses in
    a list or dictionary.
    """
    for name in ("_loss_tracker", "_compile_loss", "_compile_metrics", "loss"):
        if hasattr(source, name):
            object.__setattr__(target, name, getattr(source, name))


def give_back_losses(layer: Any, losses: Iterable[Any]) -> None:
    """Hands losses that an `Overlay` collected to the layers they are of."""
    layers = layer._flatten_layers() if hasattr(layer, "_loss_ids") else []
    for loss in losses:
        owner = next(part for part in layers if id(loss) in part._loss_ids)
        owner.add_loss(loss)


def all_layers(model: Any) -> list[Any]:
    """A model and all layers in it, however deep."""
    return list(model._flatten_layers())


def child_layers(layer: Any) -> list[Any]:
    """Direct sublayers of a layer, in the order of their tracking."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def symbolic_inputs(model: Any) -> Any:
    """The inputs of a Functional or Sequential model, as it takes them.

    `None` where the model has none.
    """
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return getattr(model, "_inputs_struct", None)


def input_name(tensor: Any) -> str:
    """The name of the input layer that a symbolic input is of."""
    return tensor._keras_history.operation.name


def input_names(model: Any) -> list[str]:
    """Names by which a model that takes a list of inputs takes a dictionary.

    None where the model was made of a dictionary itself, or does not know its
    inputs.
    """
    inputs = symbolic_inputs(model)
    if inputs is None or isinstance(inputs, dict):
        return []
    return [input_name(x) for x in keras.tree.flatten(inputs) if x is not None]


def flat_inputs(inputs: Any, names: Sequence[str]) -> list[Any] | None:
    """The arguments of a model's call, in the order of its inputs.

    `None` for a dictionary that lacks some of the names.
    """
    if not names or not isinstance(inputs, dict):
        return keras.tree.flatten(inputs)
    if not set(names) <= set(inputs):
        return None
    return [inputs[name] for name in names]


def saves_as_hdf5() -> bool:
    """Whether Keras is writing a model in its legacy format."""
    state = keras.src.backend.common.global_state
    return bool(state.get_global_attribute("use_legacy_config", False))


def fixed_batch_size(model: Any) -> int | None:
    """The one batch size that a model takes; `None` if it takes any.

    Inputs may have it, and recurrent layers that keep their states.
    """
    inputs = symbolic_inputs(model)
    shapes = [x.shape for x in keras.tree.flatten(inputs) if x is not None]
    sizes = (shape[0] for shape in shapes if len(shape))
    found = next((int(size) for size in sizes if size is not None), None)
    return state_batch_size(model) if found is None else found


def state_batch_size(model: Any) -> int | None:
    """The batch size of recurrent layers that keep their states."""
    for layer in model._flatten_layers():
        for state in kept_states(layer):
            return int(state.shape[0])
    return None


def kept_states(layer: Any) -> list[Any]:
    """The variables of a recurrent layer that keeps its states, else none.

    The layer may be of tf_keras, which is not imported for that.
    """
    recurrent = isinstance(layer, keras.layers.RNN) or any(
        kind.__name__ == "RNN" and kind.__module__.startswith("tf_keras.")
        for kind in type(layer).__mro__
    )
    if not recurrent or not layer.stateful:
        return []
    states = keras.tree.flatten(layer.states or ())
    return [state for state in states if state is not None]


def own_batch_size(model: Any) -> int | None:
    """The batch size of a model whose own layers may keep a state of it.

    That of its inputs, if a layer that is not of Keras has a variable with as
    many rows that training does not change; else `None`.
    """
    if not isinstance(model, keras.Model):
        return None
    size = fixed_batch_size(model)
    for layer in model._flatten_layers():
        own = not type(layer).__module__.startswith("keras.")
        for variable in layer._non_trainable_variables if own else ():
            if size is not None and variable.shape[:1] == (size,):
                return size
    return None


def run_graph(
    model: Any, inputs: Sequence[Any], call: Callable[..., Any]
) -> list[Any]:
    """Runs through the graph of a Functional model with values of any kind.

    Args:
        model: The model.
        inputs: A value for each of its inputs, flat.
        call: Function of a layer or operation and of what it is called with,
            in which such values stand for tensors, that returns values in the
            place of its outputs.

    Returns:
        The values in the place of the model's outputs, flat.
    """
    return keras.tree.flatten(
        model._run_through_graph(
            list(inputs), operation_fn=lambda layer: layer, call_fn=call
        )
    )


def operations(layer: Any) -> list[Any]:
    """Operations of a functional graph that are no layers, such as `a + b`."""
    return [
        operation
        for operation in getattr(layer, "operations", [])
        if not isinstance(operation, keras.layers.Layer)
    ]


def own_variables(layer: Any) -> list[Any]:
    """Variables that belong to the layer itself, not to a sublayer."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def state_variables(model: Any) -> list[Any]:
    """Variables that layers update themselves, such as moving statistics.

    Under `tf.distribute`, Keras 3 lets every replica have values of its own
    in them, and saves those of the first.
    """
    return [
        variable
        for layer in model._flatten_layers()
        for variable in layer._non_trainable_variables
    ]
