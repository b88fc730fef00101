"""from_tflite: a Keras model that computes what a file computes."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export import files
from tflite_export.flatbuffer import model as flat
from tflite_export.importing import constants
from tflite_export.importing import elementwise
from tflite_export.importing import shapes
from tflite_export.importing import weighted
from tflite_export.importing.operator import NeedsFixedBatch
from tflite_export.importing.operator import Operator

# Of an axis that is open, where a model is tried out.
_LENGTH = 32

_OPERATORS = weighted.OPERATORS | elementwise.OPERATORS | shapes.OPERATORS


def from_tflite(
    path: str | os.PathLike[str], *, name: str | None = None
) -> keras.Model:
    """Makes a Keras model of a TFLite file; see `msq_tf.from_tflite`."""
    data = files.read_bytes(path, flat.check_identifier)
    model = flat.read(data)
    name = name or os.path.splitext(os.path.basename(os.fspath(path)))[0]
    _check_operators(model)
    graph = model.subgraphs[0]
    given = [graph.tensors[i] for i in flat.inputs(graph)]
    if {flat.shape(tensor)[:1] for tensor in given} <= {(1,)}:
        with contextlib.suppress(NeedsFixedBatch):
            made = _made(model, name, fixed=False)
            if _samples_are_apart(made):
                return made
    for tensor in given:
        if -1 in flat.axes(tensor)[1:]:
            raise ValueError(
                "The file's graph depends on axes that are open. Expected open "
                "axes that it passes on, or inputs of one size. Received: the "
                f"input '{flat.name(tensor)}' of axes {flat.axes(tensor)}"
            )
    return _made(model, name, fixed=True)


def _samples_are_apart(model: keras.Model) -> bool:
    """Whether a sample gives among others what it gives alone."""
    rng = np.random.default_rng(0)
    two = []
    for x in model.inputs:
        shape = (2, *(_LENGTH if n is None else n for n in x.shape[1:]))
        two.append(
            rng.normal(size=shape).astype(np.float32)
            if x.dtype == "float32"
            else rng.integers(0, 2, shape).astype(x.dtype)
        )
    try:
        both = keras.tree.flatten(model(two if len(two) > 1 else two[0]))
        one = [x[:1] for x in two]
        alone = keras.tree.flatten(model(one if len(one) > 1 else one[0]))
    except Exception:  # Whatever Keras or TensorFlow say of the shapes.
        return False
    return all(
        len(a) == 2 * len(b)
        and np.allclose(a[: len(b)], b, 1e-4, 1e-5, equal_nan=True)
        for a, b in zip(both, alone, strict=True)
    )


def _check_operators(model: schema.ModelT) -> None:
    """Raises a ValueError that names all operators that are not known."""
    graph = model.subgraphs[0]
    missing: dict[str, list[str]] = collections.defaultdict(list)
    for op in graph.operators:
        kind = flat.op_name(model, op)
        if kind not in _OPERATORS:
            written = [graph.tensors[i] for i in flat.outputs(op)]
            missing[kind] += [flat.name(tensor) for tensor in written[:1]]
    if missing:
        found = "; ".join(
            f"{kind} ({len(names)}, the first writes '{names[0]}')"
            for kind, names in sorted(missing.items())
        )
        raise ValueError(
            "The file has operators that no Keras layer is made of. Expected "
            f"some of {', '.join(sorted(_OPERATORS))}. Received: {found}"
        )


def _made(model: schema.ModelT, name: str, fixed: bool) -> keras.Model:
    graph = model.subgraphs[0]
    values: dict[int, Any] = {}
    inputs = []
    batches: set[int] = set()
    for i in flat.inputs(graph):
        tensor = graph.tensors[i]
        shape = flat.shape(tensor)
        batches.update(shape[:1])
        inputs.append(
            keras.Input(
                [None if n == -1 else n for n in flat.axes(tensor)[1:]],
                batch_size=shape[0] if fixed else None,
                dtype=_input_type(tensor),
                name=_plain(flat.name(tensor)) or f"input_{i}",
            )
        )
        values[i] = inputs[-1]
    batch = max(batches, default=1) if fixed else None
    layers: dict[Any, keras.layers.Layer] = {}
    weights: list[tuple[keras.layers.Layer, list[np.ndarray]]] = []
    for at, op in enumerate(graph.operators):
        for i, value in zip(
            flat.outputs(op),
            _outputs(model, graph, values, op, at, batch, layers, weights),
            strict=False,
        ):
            values[i] = value
    outputs = [values[i] for i in flat.outputs(graph)]
    constant = [y for y in outputs if isinstance(y, np.ndarray)]
    if constant:
        raise ValueError(
            "The file has an output that does not depend on its inputs. "
            f"Expected none. Received: '{name}', {len(constant)} such outputs"
        )
    made = keras.Model(
        inputs if len(inputs) != 1 else inputs[0],
        outputs if len(outputs) != 1 else outputs[0],
        name=_plain(name) or "model",
    )
    for layer, arrays in weights:
        layer.set_weights(arrays)
    return made


def _outputs(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    values: dict[int, Any],
    op: schema.OperatorT,
    at: int,
    batch: int | None,
    made: dict[Any, keras.layers.Layer],
    weights: list[Any],
) -> list[Any]:
    """What an operator writes; symbolic tensors, or arrays of constants."""
    kind = flat.op_name(model, op)
    read = flat.inputs(op)
    for i in read:
        if i >= 0 and i not in values:
            values[i] = constants.real(model, graph.tensors[i])
    written = [graph.tensors[i] for i in flat.outputs(op)]
    operator = Operator(
        kind=kind,
        name=f"{kind.lower()}_at_{at}",
        options=op.builtinOptions,
        inputs=[values[i] if i >= 0 else None for i in read],
        given=[flat.shape(graph.tensors[i]) if i >= 0 else () for i in read],
        on_grid=[i >= 0 and _on_grid(graph.tensors[i]) for i in read],
        shapes=[flat.shape(tensor) for tensor in written],
        output=flat.name(written[0]),
        batch=batch,
        lengths_open=any(
            -1 in flat.axes(graph.tensors[i])[1:] for i in flat.inputs(graph)
        ),
        anchor=next(iter(values.values())),
        constants=tuple(
            i for i in read if i >= 0 and isinstance(values[i], np.ndarray)
        ),
        layers=made,
        weights=weights,
    )
    with _named(operator):
        found = _OPERATORS[kind](operator)
    several = found if isinstance(found, list) else [found]
    for value in several:
        if isinstance(value, keras.KerasTensor):
            operator.check_size(n for n in value.shape if n is not None)
    return [
        value if isinstance(value, keras.KerasTensor) else np.asarray(value)
        for value in several
    ]


@contextlib.contextmanager
def _named(operator: Operator) -> Iterator[None]:
    """Errors of Keras with the operator that they are about."""
    try:
        yield
    except (
        *(TypeError, IndexError, AttributeError, ArithmeticError),
        *(MemoryError, tf.errors.OpError),
    ) as error:
        raise operator.unknown(str(error)) from error


def _input_type(tensor: schema.TensorT) -> str:
    """Real numbers come as float32, indices as they are."""
    if _on_grid(tensor):
        return "float32"
    kind = flat.type_name(tensor).lower()
    return "float32" if kind.startswith("float") else kind


def _on_grid(tensor: schema.TensorT) -> bool:
    """Whether its integers stand for real numbers."""
    grid = tensor.quantization
    return grid is not None and grid.scale is not None and len(grid.scale) > 0


def _plain(name: str) -> str:
    """A name that Keras takes."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name)
