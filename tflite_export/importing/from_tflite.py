"""from_tflite: a Keras model that computes what a file computes."""

from __future__ import annotations

import collections
import contextlib
import os
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from msq_tf.keras3 import lifting
from tflite_export import files
from tflite_export.flatbuffer import model as flat
from tflite_export.importing import grids
from tflite_export.importing.graph import OPERATORS
from tflite_export.importing.graph import Builder
from tflite_export.importing.operator import NeedsFixedBatch

# Of an axis that is open, where a model is tried out.
_LENGTH = 32


def from_tflite(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    signature: str | None = None,
    round_activations: bool = True,
) -> keras.Model:
    """Makes a Keras model of a TFLite file; see `msq_tf.from_tflite`."""
    data = files.read_bytes(path, flat.check_identifier)
    model = flat.read(data)
    name = name or os.path.splitext(os.path.basename(os.fspath(path)))[0]
    number, names = _chosen(model, signature)
    _check_operators(model, number)
    graph = model.subgraphs[number]
    given = [graph.tensors[i] for i in flat.inputs(graph)]
    if {flat.shape(tensor)[:1] for tensor in given} <= {(1,)}:
        with contextlib.suppress(NeedsFixedBatch):
            made = _made(model, number, name, names, round_activations, False)
            if _samples_are_apart(made):
                return made
    for tensor in given:
        if -1 in flat.axes(tensor)[1:]:
            raise ValueError(
                "The file's graph depends on axes that are open. Expected open "
                "axes that it passes on, or inputs of one size. Received: the "
                f"input '{flat.name(tensor)}' of axes {flat.axes(tensor)}"
            )
    return _made(model, number, name, names, round_activations, True)


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
        # A last bit would be a code where numbers are rounded.
        with lifting.lifted():
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


def _check_operators(model: schema.ModelT, number: int) -> None:
    """Raises a ValueError that names all operators that are not known."""
    missing: dict[str, list[str]] = collections.defaultdict(list)
    for graph in _reached(model, number):
        for op in graph.operators:
            kind = flat.op_name(model, op)
            if kind not in OPERATORS:
                written = [graph.tensors[i] for i in flat.outputs(op)]
                missing[kind] += [flat.name(tensor) for tensor in written[:1]]
    if missing:
        found = "; ".join(
            f"{kind} ({len(names)}, the first writes '{next(iter(names), '')}')"
            for kind, names in sorted(missing.items())
        )
        raise ValueError(
            "The file has operators that no Keras layer is made of. Expected "
            f"some of {', '.join(sorted(OPERATORS))}. Received: {found}"
        )


def _reached(model: schema.ModelT, number: int) -> list[schema.SubGraphT]:
    """A graph, and those that its loops run."""
    found, todo = [], [number]
    while todo:
        at = todo.pop(0)
        if at in found:
            continue
        found.append(at)
        for op in model.subgraphs[at].operators:
            options = op.builtinOptions
            if flat.op_name(model, op) == "WHILE" and options is not None:
                parts = options.condSubgraphIndex, options.bodySubgraphIndex
                todo += [i for i in parts if 0 <= i < len(model.subgraphs)]
    return [model.subgraphs[at] for at in found]


def _chosen(
    model: schema.ModelT, signature: str | None
) -> tuple[int, dict[int, str]]:
    """The graph of a signature, the first for none, and names of its inputs."""
    entries = model.signatureDefs or []
    if signature is None:
        entry = next((e for e in entries if e.subgraphIndex == 0), None)
        return 0, {} if entry is None else _input_names(entry)
    known = {flat.text(entry.signatureKey): entry for entry in entries}
    if signature not in known:
        raise ValueError(
            f"The file has no such signature. Expected one of {sorted(known)}. "
            f"Received: signature={signature!r}"
        )
    entry = known[signature]
    return int(entry.subgraphIndex), _input_names(entry)


def _input_names(entry: schema.SignatureDefT) -> dict[int, str]:
    """What a signature calls tensors, if Keras can tell them apart."""
    names = {
        int(given.tensorIndex): _plain(flat.text(given.name))
        for given in entry.inputs or ()
    }
    return names if len(set(names.values())) == len(names) else {}


def _made(
    model: schema.ModelT,
    number: int,
    name: str,
    names: dict[int, str],
    rounds: bool,
    fixed: bool,
) -> keras.Model:
    graph = model.subgraphs[number]
    given: list[Any] = []
    inputs = []
    batches: set[int] = set()
    for i in flat.inputs(graph):
        tensor = graph.tensors[i]
        shape = flat.shape(tensor)
        batches.update(shape[:1])
        x = keras.Input(
            [None if n == -1 else n for n in flat.axes(tensor)[1:]],
            batch_size=shape[0] if fixed else None,
            dtype=_input_type(tensor),
            name=names.get(i) or _plain(flat.name(tensor)) or f"input_{i}",
        )
        inputs.append(x)
        grid = grids.of_activation(tensor) if rounds else None
        if grid is not None:
            x = grid.layer(f"{x.name}_grid", False)(x)
        given.append(x)
    builder = Builder(
        model,
        batch=max(batches, default=1) if fixed else None,
        rounds=rounds,
        lengths_open=any(
            -1 in flat.axes(graph.tensors[i])[1:] for i in flat.inputs(graph)
        ),
        anchor=next(iter(inputs), None),
    )
    outputs = builder.run(number, given)
    constant = [y for y in outputs if not isinstance(y, keras.KerasTensor)]
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
    for layer, arrays in builder.weights:
        layer.set_weights(arrays)
    return made


def _input_type(tensor: schema.TensorT) -> str:
    """Real numbers come as float32, indices as they are."""
    if grids.is_on_grid(tensor):
        return "float32"
    kind = flat.type_name(tensor).lower()
    return "float32" if kind.startswith("float") else kind


def _plain(name: str) -> str:
    """A name that Keras takes."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name)
