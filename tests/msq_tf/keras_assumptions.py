"""What Keras has to do for the code that uses private parts of it.

Each function checks one assumption on the installed Keras by itself, without
code of this package in between.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

OVERLAY = "msq_tf/keras3/overlay.py"


def dense() -> keras.layers.Layer:
    layer = keras.layers.Dense(2, name="dense")
    layer.build((None, 3))
    return layer


def nested() -> tuple[keras.Model, list[keras.layers.Layer]]:
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="a")], name="inner"
    )
    outer = keras.Sequential(
        [keras.Input((3,)), inner, keras.layers.Dense(1, name="b")]
    )
    return outer, [inner, outer.layers[1]]


def direct_assign() -> None:
    """Writes a variable whatever scope is open."""
    variable = keras.Variable(1.0)
    with keras.StatelessScope():
        variable._direct_assign(2.0)
    assert float(variable.numpy()) == 2.0


def value() -> None:
    """The TensorFlow variable itself, which no autocast touches."""
    variable = keras.Variable(np.float32(1.0 + 2.0**-12))
    with keras.src.backend.AutocastScope("float16"):
        assert variable._value.dtype == tf.float32
    assert isinstance(variable._value, tf.Variable)


def scope_hooks() -> None:
    """Reads and updates in a scope go through two methods of it."""
    variable, seen = keras.Variable(1.0), []

    class Scope(keras.StatelessScope):
        def get_current_value(self, variable):
            seen.append(("read", variable))
            return super().get_current_value(variable)

        def add_update(self, update):
            seen.append(("update", update[0]))
            super().add_update(update)

    with Scope(
        state_mapping=[(variable, tf.constant(3.0))],
        collect_losses=True,
        initialize_variables=False,
    ) as scope:
        assert float(variable.value) == 3.0
        variable.assign(4.0)
        assert keras.src.backend.get_stateless_scope() is scope
    assert [kind for kind, _ in seen] == ["read", "update"]
    assert all(v is variable for _, v in seen)
    assert keras.src.backend.get_stateless_scope() is None
    assert scope.original_scope is None
    assert scope.losses == []


def flatten_layers() -> None:
    """All layers of a model, or its direct ones, in order of tracking."""
    outer, children = nested()
    flat = outer._flatten_layers()
    assert flat[0] is outer
    assert {layer.name for layer in flat} >= {"inner", "a", "b"}
    direct = outer._flatten_layers(include_self=False, recursive=False)
    assert [c for c in direct if c in children] == children
    assert not dense()._flatten_layers(include_self=False)


def own_variables() -> None:
    """A layer's own variables, in the order in which they were made."""
    layer = keras.layers.BatchNormalization()
    layer.build((None, 3))
    names = [v.name for v in layer._trainable_variables]
    assert names == ["gamma", "beta"]
    names = [v.name for v in layer._non_trainable_variables]
    assert names == ["moving_mean", "moving_variance"]
    assert not nested()[0]._trainable_variables


def attributes_of_a_layer() -> None:
    """Lists of everything start with `_self_` or `_tracked`, no others do."""
    layer = dense()
    holding = {
        name
        for name, held in vars(layer).items()
        for part in (held if isinstance(held, list | tuple) else [held])
        if part is layer.kernel
    }
    left = {n for n in holding if not n.startswith(("_self_", "_tracked"))}
    assert left - {"_trainable_variables"} <= {"kernel", "_kernel"}


def kernel_under_lora() -> None:
    """With LoRA `kernel` is a sum; the variable is `_kernel`."""
    layer = dense()
    layer.enable_lora(1)
    assert isinstance(layer._kernel, keras.Variable)


def inputs_struct() -> None:
    """The inputs of a functional model in the structure it takes."""
    a = keras.Input((2,), name="a")
    model = keras.Model({"a": a}, keras.layers.Dense(1)(a))
    assert model._inputs_struct == {"a": a}


def run_through_graph() -> None:
    """A functional model calls a function for each layer, with any values."""
    a, b = keras.Input((2,)), keras.Input((2,))
    layer = keras.layers.Dense(2, name="dense")
    total = keras.layers.Add(name="add")
    model = keras.Model([a, b], [total([layer(a), b]), layer(b)])
    seen = []

    def call(operation, *args, **kwargs):
        args = tuple(keras.tree.flatten(args))
        seen.append((operation.name, args))
        return f"{operation.name}({','.join(args)})"

    found = model._run_through_graph(
        ["a", "b"], operation_fn=lambda layer: layer, call_fn=call
    )
    assert found == ["add(dense(a),b)", "dense(b)"]
    assert sorted(seen)[1:] == [("dense", ("a",)), ("dense", ("b",))]


def input_of_a_tensor() -> None:
    """The input layer of a symbolic input."""
    assert keras.Input((2,), name="a")._keras_history.operation.name == "a"


def legacy_format() -> None:
    """A flag says to `get_config` that a model goes into an HDF5 file."""
    state, seen = keras.src.backend.common.global_state, []

    class Saved(keras.layers.Dense):
        def get_config(self):
            seen.append(state.get_global_attribute("use_legacy_config"))
            return super().get_config()

    model = keras.Sequential([keras.Input((2,)), Saved(1)])
    assert model.to_json() and not any(seen)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/m.h5")
    assert seen[-1] is True


def decay() -> None:
    """Variables with a key in `_exclude_from_weight_decay` are not decayed."""
    optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
    kept, decayed = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer.build([kept, decayed])
    optimizer._exclude_from_weight_decay = {optimizer._var_key(kept)}
    optimizer._exclude_from_weight_decay_cache = {}
    optimizer.apply([tf.zeros(1), tf.zeros(1)])
    assert float(kept.numpy()[0]) == 1.0
    assert float(decayed.numpy()[0]) == 0.5


def call_on_an_instance() -> None:
    """A layer calls the `call` that was set on its instance."""
    layer = dense()
    call = layer.call
    layer.call = lambda inputs: call(inputs) * 0.0 + 7.0
    model = keras.Sequential([keras.Input((3,)), layer])
    np.testing.assert_array_equal(model(np.ones((1, 3))), [[7.0, 7.0]])


def losses_are_the_tensors_given() -> None:
    """`add_loss` keeps the tensor, with the attributes set on it."""
    model = nested()[0]
    loss = tf.constant(1.0)
    loss._mark = "ours"
    model.add_loss(loss)
    assert [found._mark for found in model.losses] == ["ours"]


def loss_over_replicas() -> None:
    """`compute_loss` divides all of a loss, also what layers add to it."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(1),
                keras.layers.ActivityRegularization(l2=1.0),
            ]
        )
        model.compile("sgd", "mse")
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)

    def loss():
        prediction = model(x)
        return float(model.compute_loss(x, y, prediction))

    alone = loss()
    with strategy.scope():
        np.testing.assert_allclose(loss(), alone / 2, rtol=1e-6)


def losses_are_known_by_their_layer() -> None:
    """A layer in a scope keeps the ids of the losses that it adds."""
    layer = keras.layers.ActivityRegularization(l2=1.0)
    with keras.StatelessScope(collect_losses=True) as scope:
        layer(np.ones((1, 2), np.float32))
    assert [id(loss) in layer._loss_ids for loss in scope.losses] == [True]


def metrics_and_what_is_compiled() -> None:
    """A model's own metrics are in `_metrics`, those of `compile` apart."""
    model = nested()[0]
    model.mine = keras.metrics.Mean(name="mine")
    model.compile("sgd", "mse", metrics=["mae"])
    assert model._metrics == [model.mine]
    other = nested()[0]
    other.compile("sgd")
    for name in ("_loss_tracker", "_compile_loss", "_compile_metrics"):
        assert name in vars(model)
        object.__setattr__(other, name, vars(model)[name])
    other.evaluate(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    kept = [metric.name for metric in other.metrics]
    assert kept == [
        metric.name for metric in model.metrics if metric.name != "mine"
    ]
    assert float(model.metrics[0].result()) > 0.0


def what_an_optimizer_was_built_for() -> None:
    """An optimizer keeps its variables, and calls the `apply` set on it."""
    optimizer, seen = keras.optimizers.SGD(1.0), []
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    assert optimizer._trainable_variables[0] is variable
    optimizer.apply = lambda grads, variables=None: seen.append(variables)
    optimizer.apply_gradients([(tf.ones(1), variable)])
    assert seen[0][0] is variable


def attention_by_layers() -> None:
    """`_compute_attention` runs `_softmax` where scores are asked for."""
    x = np.ones((1, 3, 4), np.float32)
    for layer in (
        keras.layers.MultiHeadAttention(2, 2),
        keras.layers.GroupQueryAttention(2, 2, 1),
    ):
        layer(x, x)
        compute, softmax, seen = layer._compute_attention, layer._softmax, []
        call = softmax.call
        softmax.call = lambda *a, seen=seen, call=call, **k: (
            seen.append(0) or call(*a, **k)
        )

        def asking(*args, layer=layer, compute=compute, **kwargs):
            names = inspect.signature(compute).parameters
            given = inspect.signature(compute).bind(*args, **kwargs)
            assert "query" in given.arguments
            if "return_attention_scores" in names:
                given.arguments["return_attention_scores"] = True
            else:
                layer._return_attention_scores = True
            return compute(*given.args, **given.kwargs)

        layer._compute_attention = asking
        assert not isinstance(layer(x, x), tuple)
        assert seen == [0]


def values_of_replicas() -> None:
    """A variable made in a strategy's scope holds a value per replica."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        variable = keras.Variable(1.0)
    parts = strategy.experimental_local_results(variable.value)
    assert [float(part.numpy()) for part in parts] == [1.0, 1.0]


# Assumption -> the private names that it covers, and where they are used.
CHECKS: dict[Callable[[], None], tuple[set[str], str]] = {
    direct_assign: ({"_direct_assign"}, f"{OVERLAY} (Overlay)"),
    value: ({"_value", "keras.src"}, f"{OVERLAY} (read_float32)"),
    scope_hooks: ({"keras.src"}, f"{OVERLAY} (Overlay, read_float32)"),
    flatten_layers: (
        {"_flatten_layers"},
        OVERLAY,
    ),
    own_variables: (
        {"_trainable_variables", "_non_trainable_variables"},
        f"{OVERLAY} (own_variables, state_variables, built_variables)",
    ),
    attributes_of_a_layer: (
        set(),
        "msq_tf/keras3/attributes.py (variable_attributes)",
    ),
    kernel_under_lora: (set(), "msq_tf/keras3/discovery.py (_known)"),
    inputs_struct: ({"_inputs_struct"}, f"{OVERLAY} (symbolic_inputs)"),
    run_through_graph: ({"_run_through_graph"}, f"{OVERLAY} (run_graph)"),
    input_of_a_tensor: ({"_keras_history"}, f"{OVERLAY} (input_name)"),
    legacy_format: ({"keras.src"}, f"{OVERLAY} (saves_as_hdf5)"),
    decay: (
        {
            "_exclude_from_weight_decay",
            "_exclude_from_weight_decay_cache",
            "_var_key",
        },
        f"{OVERLAY} (exclude_from_decay)",
    ),
    call_on_an_instance: (set(), "msq_tf/keras3/call_hooks.py"),
    losses_are_the_tensors_given: (set(), "msq_tf/keras3/model.py (losses)"),
    losses_are_known_by_their_layer: (
        {"_loss_ids"},
        f"{OVERLAY} (give_back_losses)",
    ),
    metrics_and_what_is_compiled: (
        {"_metrics"},
        f"{OVERLAY} (own_metrics, share_compiled)",
    ),
    what_an_optimizer_was_built_for: (
        set(),
        f"{OVERLAY} (built_variables), msq_tf/keras3/optimizer_hooks.py",
    ),
    loss_over_replicas: (
        set(),
        "msq_tf/keras3/{model.py (call), model_statistics.py (loss_at)}",
    ),
    attention_by_layers: (
        {"_compute_attention", "_return_attention_scores", "_softmax"},
        "msq_tf/keras3/attention.py",
    ),
    values_of_replicas: (
        set(),
        "msq_tf/{keras3/model_statistics.py (metrics_kept), distribute.py}",
    ),
}
_FREEZING = (
    "TensorFlow's; where it is gone TensorFlow freezes the graph itself, and "
    "tests/benchmarks/files/test_large.py sees the memory"
)
# Of other packages: name -> why it is no danger.
NOT_OF_KERAS = {
    "_FunctionConverterDataInEager": _FREEZING,
    "_build_cache": (
        "KerasHub's: what its `generate` makes caches with, so every test of "
        "a file that generates goes through it"
    ),
    "_exit": "Python's",
    "_experimental_use_buffer_offset": (
        "the TFLite converter's; where it is gone, it looks for equal "
        "constants itself, which takes longer"
    ),
    "_freeze_concrete_function": _FREEZING,
    "_funcs": _FREEZING,
    "_get_ops_details": "LiteRT's; tflite_export does without where it is gone",
    "_replace_variables_by_constants": _FREEZING,
    "_set_attr": _FREEZING,
    "_tab": "of generated code; every test of a file goes through it",
    "tensorflow.python": _FREEZING,
}
