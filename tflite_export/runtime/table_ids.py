"""Whether inputs that select rows of a table name existing rows.

Runtimes treat other inputs in different ways: one refuses in the middle of its
work, another reads memory behind the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import names as tensor_names

# Operators that give on the numbers that they get.
_GIVE_ON = ("CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "TILE")
# Places of positions and table among the inputs of operators that look up.
_LOOKUPS = {"GATHER": (1, 0), "EMBEDDING_LOOKUP": (0, 1)}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that an input is looked up in.

    Attributes:
        input: Position of the input.
        name: Of the layer or the weight; empty where it has none.
        rows: How many it has.
        from_end: Whether negative positions count from its end.
    """

    input: int
    name: str
    rows: int
    from_end: bool


def of_model(base: Any) -> list[Table]:
    """Tables of a Keras model that its inputs go to as they come.

    What lies behind other layers is left to its file.
    """
    from msq_tf.keras3.overlay import all_layers

    inputs = list(getattr(base, "inputs", None) or ())
    found = []
    for layer in all_layers(base):
        if type(layer).__name__ != "Embedding":
            continue
        try:
            source = layer.input
        # Called several times or never, as each Keras says it.
        except (AttributeError, ValueError, RuntimeError):
            continue
        own = not type(layer).__module__.startswith("tf_keras.")
        found += [
            Table(position, layer.name, int(layer.input_dim), own)
            for position, tensor in enumerate(inputs)
            if tensor is source
        ]
    return found


def of_file(model: schema.ModelT) -> list[Table]:
    """Tables of a file that its inputs go to as they come.

    Positions that it computes from an input by more than counting from the
    end are not known.
    """
    graph = model.subgraphs[0]
    writers = fb.writers(graph)
    inputs = fb.inputs(graph)
    found = []
    for op in graph.operators:
        places = _LOOKUPS.get(fb.op_name(model, op))
        if places is None or len(fb.inputs(op)) < 2:
            continue
        at, table = (fb.inputs(op)[place] for place in places)
        axis = getattr(op.builtinOptions, "axis", 0)
        if min(at, table) < 0 or axis < 0:
            continue
        at, from_end = _origin(model, writers, at)
        rows = fb.shape(graph.tensors[table])[axis : axis + 1]
        if at in inputs and rows and fb.axes(graph.tensors[table])[axis] > 0:
            name = _name(model, writers, table)
            found.append(Table(inputs.index(at), name, rows[0], from_end))
    return found


def check(
    tables: Iterable[Table],
    names: Sequence[str],
    arrays: Sequence[np.ndarray],
    argument: str,
) -> None:
    """Raises a ValueError for positions that a table does not have.

    `argument` is what the arrays were given as.
    """
    for table in tables:
        if table.input >= len(arrays):
            continue
        # As a model cuts the floats that it takes for positions.
        ids = np.trunc(arrays[table.input])
        least = -table.rows if table.from_end else 0
        wrong = (ids < least) | (ids >= table.rows)
        if not np.any(wrong):
            continue
        row = int(np.argwhere(wrong)[0][0]) if wrong.ndim else 0
        name = f" '{table.name}'" if table.name else ""
        end = (
            f", or from {least} to -1 to count from its end"
            if table.from_end
            else ""
        )
        raise ValueError(
            f"{argument} for the input '{names[table.input]}' asks for rows "
            f"that the table{name} does not have. Expected ids from 0 to "
            f"{table.rows - 1}{end}; the `input_dim` of its Embedding is "
            f"{table.rows}. Received: ids from {int(ids.min())} to "
            f"{int(ids.max())}, the first wrong one in sample {row}"
        )


def check_whole(name: str, dtype: np.dtype, array: np.ndarray) -> None:
    """Raises a ValueError for numbers that an input of integers changes."""
    if dtype.kind not in "iu" or array.dtype.kind not in "iuf":
        return
    if not array.size or np.can_cast(array.dtype, dtype):
        return
    info = np.iinfo(dtype)
    wrong = (array < info.min) | (array > info.max)
    if array.dtype.kind == "f":
        # NaN is equal to nothing.
        wrong |= np.trunc(array) != array
    if np.any(wrong):
        raise ValueError(
            f"Samples don't fit the input '{name}', which is of integers. "
            f"Expected whole numbers from {info.min} to {info.max}. Received: "
            f"{array[wrong].ravel()[0]:.9g}, dtype={array.dtype}"
        )


def _origin(
    model: schema.ModelT, writers: dict[int, schema.OperatorT], at: int
) -> tuple[int, bool]:
    """The tensor that positions come from; whether they count from the end."""
    from_end = False
    seen = set()
    while at in writers and at not in seen:
        seen.add(at)
        op = writers[at]
        name = fb.op_name(model, op)
        before = fb.inputs(op)
        if name in _GIVE_ON and before:
            at = before[0]
        elif name in ("SELECT", "SELECT_V2") and len(before) == 3:
            # Where it is negative, the sum of it and the length.
            shifted = writers.get(before[1])
            if shifted is None or before[2] not in fb.inputs(shifted):
                break
            at, from_end = before[2], True
        elif name == "ADD" and _is_step(model, writers, before):
            at, from_end = before[0], True
        else:
            break
    return at, from_end


def _is_step(
    model: schema.ModelT,
    writers: dict[int, schema.OperatorT],
    operands: Sequence[int],
) -> bool:
    """Whether a sum is that with 0 or the length, see `integer.indices`."""
    position, step = operands
    for expected in ("MUL", "CAST", "LESS"):
        op = writers.get(step)
        if op is None or fb.op_name(model, op) != expected:
            return False
        step = fb.inputs(op)[0]
    return step == position


def _name(
    model: schema.ModelT, writers: dict[int, schema.OperatorT], table: int
) -> str:
    """What a table is called, where it is made of codes the codes'."""
    tensors = model.subgraphs[0].tensors
    while not tensor_names.own(tensors[table]) and table in writers:
        table = fb.inputs(writers[table])[0]
    return fb.name(tensors[table])
