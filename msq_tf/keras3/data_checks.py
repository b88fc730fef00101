"""Checks of data that Keras would refuse without a clear message.

Only arrays in memory are looked at, before the first step of a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf import distribute
from msq_tf.keras3 import columns
from msq_tf.keras3.activation_sites import INPUT
from msq_tf.keras3.overlay import flat_inputs
from msq_tf.keras3.overlay import input_names
from msq_tf.keras3.overlay import symbolic_inputs
from msq_tf.sensitivity.fit_inputs import FitInputs

_PARTS = ("x", "y", "sample_weight")
# Spellings of the loss that takes numbers of classes, as Keras reads them.
_SPARSE = "sparsecategoricalcrossentropy"
_CLASSES = keras.losses.SparseCategoricalCrossentropy


class ChecksItsData:
    """`fit`, `evaluate` and `predict` that look at their arguments.

    A mixin, before `keras.Model`.
    """

    activations: Any
    base: Any
    distribute_strategy: Any
    fit_inputs: FitInputs
    # What the base replaces of Keras's training.
    _own: frozenset[str]
    has_teacher: bool
    _told_of_columns: bool

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Trains as `keras.Model.fit`.

        While it runs, `fit_inputs` holds the data, so that `MSQCallback` can
        take its statistics on it.

        Raises:
            ValueError: Under a strategy over several workers, where Keras's
                `fit` does not work; if the arguments can't be used to train.
        """
        workers = distribute.workers(self.distribute_strategy)
        if workers > 1:
            raise ValueError(
                "Keras's `fit` does not run over several workers. Expected a "
                "loop with `strategy.run`, as docs/distribution.md has it, or "
                f"one worker. Received: {workers} workers"
            )
        fit = super().fit  # type: ignore[misc]
        self.check_call(fit, (x, y, *args), kwargs)
        self.fit_inputs = FitInputs.of(fit, (x, y, *args), kwargs)
        self.look_at_columns(x)
        try:
            return fit(x, y, *args, **kwargs)
        finally:
            self.fit_inputs = FitInputs()

    def look_at_columns(self, x: Any) -> None:
        """Warns, once, of columns that the grid of an input loses."""
        if self._told_of_columns or self.activations is None:
            return
        flat = flat_inputs(x, input_names(self.base)) or ()
        rounded = {
            site.call: flat[site.call]
            for site in self.activations.sites
            if site.layer == INPUT and site.call < len(flat)
        }
        self._told_of_columns = columns.warn_of_data(
            rounded, self.activations.bits, stacklevel=3
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`."""
        evaluate = super().evaluate  # type: ignore[misc]
        # `fit` has checked what it evaluates on.
        if self.fit_inputs.data is None:
            self.check_call(evaluate, args, kwargs)
        return evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`."""
        predict = super().predict  # type: ignore[misc]
        self.check_call(predict, args, kwargs)
        return predict(*args, **kwargs)

    def check_call(self, method: Any, args: Any, kwargs: Any) -> None:
        """Checks what `fit`, `evaluate` or `predict` is called with.

        Raises:
            ValueError: If a callback is none; if an array holds text; if there
                are no targets for a loss, or labels without a class.
        """
        # That of Keras, which others stand before.
        signature = inspect.signature(getattr(keras.Model, method.__name__))
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return  # the method itself says what is wrong
        given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        _check_callbacks(given.get("callbacks"))
        self._check_data(
            {part: given.get(part) for part in _PARTS},
            "y" in signature.parameters,
        )
        held_out = given.get("validation_data")
        if isinstance(held_out, tuple | list) and 2 <= len(held_out) <= 3:
            parts = dict(zip(_PARTS, held_out, strict=False))
            self._check_data(parts, True, " of validation_data")

    def _check_data(
        self, parts: Mapping[str, Any], has_targets: bool, of: str = ""
    ) -> None:
        reads_text = {
            "x": _may_read_text(self.base),
            # The loss of a step of its own may look labels up.
            "y": bool(self._own) or getattr(self, "loss", None) is None,
        }
        for name, data in parts.items():
            _check_numbers(f"`{name}`{of}", data, reads_text.get(name, False))
        # A loss of the model's own may do without.
        if not has_targets or self._own or getattr(self, "loss", None) is None:
            return
        x, y = parts["x"], parts["y"]
        # A teacher's outputs are targets, too.
        if y is None and not self.has_teacher and _is_all(x):
            raise ValueError(
                f"There is no `y`{of}, and the model was compiled with a loss "
                "that compares with it. Expected targets beside the inputs, "
                "as in `fit(x, y)` or batches of `(x, y)`, or "
                "`compile(loss=None)`. Received: y=None, "
                f"loss={self.loss!r}"  # type: ignore[attr-defined]
            )
        for name, output, loss, labels in self._compared(y):
            of_output = f" for the output '{name}'" if name else ""
            _check_labels(f"`y`{of}{of_output}", output, loss, labels)

    def _compared(self, y: Any) -> Iterator[tuple[str, Any, Any, Any]]:
        """Outputs of a functional base, each with its loss and targets.

        Their names are empty where there is one.
        """
        outputs = getattr(self.base, "outputs", None)
        if not outputs:
            return
        # A Sequential model knows no structure of them.
        structure = getattr(self.base, "output", outputs[0])
        losses = self.loss  # type: ignore[attr-defined]
        if isinstance(structure, Mapping):
            for name, output in structure.items():
                yield name, output, _at(losses, name), _at(y, name)
        elif isinstance(structure, list | tuple):
            names = self.base.output_names
            for i, (name, output) in enumerate(
                zip(names, structure, strict=False)
            ):
                yield name, output, _at(losses, name, i), _at(y, name, i)
        else:
            yield "", structure, _only(losses), _only(y)


def _at(values: Any, name: str, position: int | None = None) -> Any:
    """The part of a structure that belongs to an output, or `None`."""
    if isinstance(values, Mapping):
        return values.get(name)
    if isinstance(values, list | tuple) and position is not None:
        return values[position] if position < len(values) else None
    return None


def _only(values: Any) -> Any:
    single = isinstance(values, list | tuple) and len(values) == 1
    return values[0] if single else values


def _check_callbacks(callbacks: Any) -> None:
    # What is false is no callback for Keras, either.
    for entry in keras.tree.flatten(callbacks) if callbacks else ():
        is_class = isinstance(entry, type)
        is_one = callable(getattr(entry, "set_model", None)) and not is_class
        if entry is not None and not is_one:
            raise ValueError(
                "`callbacks` are objects, not their classes or names. Expected "
                "`callbacks=[msq_tf.MSQCallback(rule)]` and the like. Received:"
                f" {f'the class {entry.__name__}' if is_class else repr(entry)}"
            )


def _may_read_text(base: Any) -> bool:
    """Whether an input is text, or what the inputs are is not known."""
    inputs = symbolic_inputs(base)
    return inputs is None or any(
        x is not None and x.dtype == "string"
        for x in keras.tree.flatten(inputs)
    )


def _is_text(array: np.ndarray) -> bool:
    """Whether Keras makes a tensor of text of an array of objects."""
    return array.dtype.kind == "O" and all(isinstance(e, str) for e in array)


def _check_numbers(what: str, data: Any, reads_text: bool) -> None:
    for leaf in keras.tree.flatten(data):
        if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "USO":
            continue
        if not (reads_text and _is_text(leaf)):
            raise ValueError(
                f"{what} holds text or objects in an array, which Keras does "
                "not take. Expected numbers, as of "
                "`array.astype('float32')`, or a `tf.constant` for a model "
                f"that reads text. Received: dtype={leaf.dtype}, "
                f"shape={leaf.shape}"
            )


def _is_all(x: Any) -> bool:
    """Whether no targets can stand beside or in what is given as inputs."""
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        return not isinstance(spec, tuple) or len(spec) == 1
    leaves = keras.tree.flatten(x)
    return all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in leaves)


def _check_labels(what: str, output: Any, loss: Any, labels: Any) -> None:
    """Refuses classes that an output does not have.

    On a CPU a kernel does so, and elsewhere the loss becomes NaN.
    """
    # A structure of outputs inside of another has losses of its own form.
    shape = getattr(output, "shape", ())
    if not shape:
        return
    count, ignored = shape[-1], None
    if type(loss) is _CLASSES:
        ignored = loss.get_config().get("ignore_class")
        if loss.get_config().get("axis", -1) != -1:
            return
    elif isinstance(loss, str):
        if loss.replace("_", "").lower() != _SPARSE:
            return
    elif loss is not keras.losses.sparse_categorical_crossentropy:
        return
    if (
        count is None
        or isinstance(labels, np.memmap)
        or not isinstance(labels, np.ndarray | tf.Tensor)
    ):
        return
    numbers = np.asarray(labels)
    flat = numbers.ndim == output.ndim and numbers.shape[-1] == 1
    if numbers.dtype.kind not in "iuf" or (
        numbers.ndim != output.ndim - 1 and not flat
    ):
        return  # Keras itself says what is wrong
    if ignored is not None:
        numbers = numbers[numbers != ignored]
    if numbers.size and (numbers.min() <= -1 or numbers.max() >= count):
        raise ValueError(
            f"{what} has labels for which the model has no class. Expected "
            f"whole numbers from 0 to {count - 1} (where they count from 1, "
            f"give `y - 1`). Received: {numbers.min():g} to "
            f"{numbers.max():g}"
        )
