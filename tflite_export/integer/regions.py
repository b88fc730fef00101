"""Which operators of an integer graph compute in float.

Five kinds compute in float: operators without a kernel for the target's
activations; layer normalizations (see `float_islands`); operators that
normalize an input which training does not round; what computes positions, such
as lengths and angles, from integers alone; and delicate operators, such
as EXP and DIV, if training has no grid for their input or output, as one unit
there would become many behind it. Operators between them and the next tensor
that training rounds compute in float, too. So the file rounds where training
does and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import positions
from tflite_export.integer.trained_grids import as_float32
from tflite_export.targets import Target
from tflite_export.targets.operator_rows import OperatorRow

# They multiply activations, which is what integers are for.
_HEAVY = {"BATCH_MATMUL"}
_AFFINE = {"ADD", "DIV", "MUL", "SUB"}
# They give the numbers of a weight in another order.
_CARRYING = {
    "EXPAND_DIMS",
    "RESHAPE",
    "SLICE",
    "SPLIT",
    "SPLIT_V",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
    "UNPACK",
}
_RANGES = {
    "LOGISTIC": (0.0, 1.0),
    "SOFTMAX": (0.0, 1.0),
    "TANH": (-1.0, 1.0),
}


def row_of(
    model: schema.ModelT, target: Target, op: schema.OperatorT
) -> OperatorRow | None:
    """The row of an operator, where the target has one for what it reads."""
    name = fb.op_name(model, op)
    row = target.operators.get(name)
    if row is None or row.version(target.mode) is None:
        return None
    if row.reads:
        first = model.subgraphs[0].tensors[fb.inputs(op)[0]]
        if fb.type_name(first) not in row.reads:
            return None
    return row


def rows_of(
    model: schema.ModelT,
    target: Target,
    floats: Sequence[schema.OperatorT] = (),
) -> list[OperatorRow | None]:
    """The row of each operator of the main graph.

    `None` where it touches no float tensor that becomes an integer one, as
    those of `floats`.

    Raises:
        ExportError: If the target has no row for an operator that does, with
            the names of all of them.
    """
    rows: list[OperatorRow | None] = []
    missing: dict[str, str] = {}
    graph = model.subgraphs[0]
    for op in graph.operators:
        name = fb.op_name(model, op)
        touched = not any(op is kept for kept in floats) and touches_floats(
            model, op
        )
        row = row_of(model, target, op) if touched else None
        if touched and row is None:
            output = graph.tensors[fb.outputs(op)[0]]
            missing.setdefault(name, fb.name(output))
        rows.append(row)
    if missing:
        listed = ", ".join(f"{k} (tensor '{v}')" for k, v in missing.items())
        advice = ""
        if "WHILE" in missing:
            advice = (
                " A recurrent layer that runs as a loop has no integer form "
                "here: build it with unroll=True."
            )
        raise ExportError(
            f"Target '{target.name}' has no policy for the operators "
            f"{listed} with {target.mode} activations.{advice} Expected "
            f"operators from {', '.join(sorted(target.operators))}. "
            f"Received: {', '.join(missing)}"
        )
    return rows


def touches_floats(model: schema.ModelT, op: schema.OperatorT) -> bool:
    """Whether an operator reads or writes a float tensor."""
    tensors = model.subgraphs[0].tensors
    return any(
        i >= 0 and fb.type_name(tensors[i]) == "FLOAT32"
        for i in (*fb.inputs(op), *fb.outputs(op))
    )


def known_ranges(
    model: schema.ModelT, floats: Collection[schema.OperatorT]
) -> dict[int, tuple[float, float]]:
    """Ranges of what float operators write, whatever they read."""
    return {
        fb.outputs(op)[0]: _RANGES[fb.op_name(model, op)]
        for op in floats
        if fb.op_name(model, op) in _RANGES
    }


def find(
    model: schema.ModelT,
    target: Target,
    trained: Collection[int],
    normalizations: Collection[schema.OperatorT] = (),
    weights: Collection[int] = (),
) -> list[schema.OperatorT]:
    """The operators that compute in float, in order.

    Args:
        model: The float model.
        target: Where it shall run.
        trained: Tensors with a trained grid.
        normalizations: Operators that do in any case.
        weights: Trained weights that no integer operator can read.
    """
    search = _Search(model, target, trained, normalizations, weights)
    return search.run()


class _Search:
    def __init__(
        self,
        model: schema.ModelT,
        target: Target,
        trained: Collection[int],
        normalizations: Collection[schema.OperatorT],
        weights: Collection[int],
    ):
        self._model = model
        self._graph = model.subgraphs[0]
        self._target = target
        self._trained = set(trained)
        self._fixed = {id(op) for op in normalizations}
        self._weights = set(weights)
        self._found: set[int] = set()

    def run(self) -> list[schema.OperatorT]:
        known = self._known()
        if self._target.float_regions:
            self._found |= positions.find(self._model)
        for op in self._graph.operators:
            if self._is_seed(op, known):
                self._found.add(id(op))
        self._carry()
        while self._grow():
            pass
        found = self._found | self._fixed
        return [op for op in self._graph.operators if id(op) in found]

    def _carry(self) -> None:
        """Takes in what reads a weight that was moved in float.

        A grid of its own would round the trained codes anew.
        """
        carried = set(self._weights)
        for op in self._graph.operators:
            if not carried & set(fb.inputs(op)) or id(op) in self._fixed:
                continue
            self._found.add(id(op))
            if fb.op_name(self._model, op) in _CARRYING and carried >= set(
                self._floats(fb.inputs(op))
            ):
                carried.update(fb.outputs(op))

    def _known(self) -> set[int]:
        """Tensors whose grid training knows, also where it only moves on."""
        known = set(self._trained)
        for op in self._graph.operators:
            row = row_of(self._model, self._target, op)
            moved = self._floats(fb.inputs(op))
            if row and row.output == "same" and moved and known >= set(moved):
                known.update(fb.outputs(op))
            if row and row.output == "fixed":
                known.update(fb.outputs(op))
        return known

    def _floats(self, indices: list[int]) -> list[int]:
        """Those of some tensors that are float and no constants."""
        tensors = self._graph.tensors
        return [
            i
            for i in indices
            if i >= 0
            and fb.type_name(tensors[i]) == "FLOAT32"
            and as_float32(self._model, i) is None
        ]

    def _is_seed(self, op: schema.OperatorT, known: set[int]) -> bool:
        if id(op) in self._fixed or not touches_floats(self._model, op):
            return False
        row = row_of(self._model, self._target, op)
        if row is None or self._weights & set(fb.inputs(op)):
            return True
        if self._normalizes_input(op):
            return True
        around = self._floats([*fb.inputs(op), *fb.outputs(op)])
        return row.delicate and not known >= set(around)

    def _normalizes_input(self, op: schema.OperatorT) -> bool:
        """Whether it computes with constants and an input without a grid."""
        reads = self._floats(fb.inputs(op))
        return (
            bool(self._trained)
            and bool(self._target.float_regions)
            and fb.op_name(self._model, op) in _AFFINE
            and len(reads) == 1
            and reads[0] in fb.inputs(self._graph)
            and reads[0] not in self._trained
        )

    def _grow(self) -> bool:
        """Takes in neighbours; returns whether there were any."""
        before = len(self._found)
        written: set[int] = set()
        read: dict[int, list[bool]] = {}
        shared: set[int] = set()
        for op in self._graph.operators:
            inside = id(op) in self._found
            for index in fb.inputs(op):
                read.setdefault(index, []).append(inside)
            if inside:
                written.update(self._floats(fb.outputs(op)))
                shared.update(self._constants(op))
        written -= self._trained
        for op in self._graph.operators:
            if id(op) in self._found | self._fixed:
                continue
            if shared & set(self._constants(op)):
                # A weight is either float or integer, for all its readers.
                self._found.add(id(op))
            elif self._is_light(op):
                outputs = self._floats(fb.outputs(op))
                behind = bool(self._trained) and bool(
                    written & set(fb.inputs(op))
                )
                ahead = bool(outputs) and all(
                    i not in self._trained
                    and i not in fb.outputs(self._graph)
                    and all(read.get(i, [False]))
                    for i in outputs
                )
                if behind or ahead:
                    self._found.add(id(op))
        return len(self._found) > before

    def _constants(self, op: schema.OperatorT) -> list[int]:
        """Matrices that an operator reads as weights."""
        row = row_of(self._model, self._target, op)
        heavy = row is None or "weight" in row.operands
        return [
            i
            for i in (fb.inputs(op) if heavy else ())
            if i >= 0
            and len(fb.shape(self._graph.tensors[i])) > 1
            and as_float32(self._model, i) is not None
        ]

    def _is_light(self, op: schema.OperatorT) -> bool:
        row = row_of(self._model, self._target, op)
        return (
            row is not None
            and "weight" not in row.operands
            and row.name not in _HEAVY
            and row.output != "integers"
        )
