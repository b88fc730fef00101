"""Gives every activation tensor a grid.

The operators' rows are the rules. Where a rule wants another grid than a
tensor has, the operator reads or writes a copy on the grid of the rule, which
a QUANTIZE converts.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import factors
from tflite_export.integer.calibrate import Range
from tflite_export.integer.calibrate import finite_range
from tflite_export.integer.calibrate import infinite
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import coarser
from tflite_export.integer.grids import finer
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.grids import make_grid
from tflite_export.integer.respell import Respelled
from tflite_export.integer.trained_grids import as_float32
from tflite_export.targets import Target
from tflite_export.targets.operator_rows import OperatorRow

# Units of the output that fixed-point kernels can make of a sum.
_LARGEST = 2.0**29


@dataclasses.dataclass
class Solution:
    """Grids of a graph.

    Attributes:
        tensors: Grid of each activation tensor.
        reads: By position of an operator and of its input: the grid on which
            it reads, where the input is an activation or a constant.
        writes: By position of an operator: the grid of its outputs.
        untrained: Tensors that are rounded to a grid of their own which no
            training knows. Outputs of the graph on fixed grids don't count.
    """

    tensors: dict[int, Grid]
    reads: dict[tuple[int, int], Grid]
    writes: dict[int, Grid]
    untrained: list[int] = dataclasses.field(default_factory=list)


class Solver:
    """One walk over a graph.

    Args:
        model: The prepared float model.
        rows: The row of each operator of the main graph, `None` where no
            float tensor is involved.
        target: Where it shall run.
        activations: Float tensors that are no constants.
        trained: Grids from training.
        ranges: Ranges from calibration.
        tables: Grids of constant weights that are read as activations.
        known: What is known of tensors without training or samples.
        tied: Grids that inputs of the graph shall have.
    """

    def __init__(
        self,
        model: schema.ModelT,
        rows: list[OperatorRow | None],
        target: Target,
        activations: set[int],
        trained: Mapping[int, Grid],
        ranges: Mapping[int, Range],
        tables: Mapping[int, Grid],
        known: Respelled | None = None,
        tied: Mapping[int, Grid] | None = None,
    ):
        self._model = model
        self._graph = model.subgraphs[0]
        self._rows = rows
        self._mode = target.mode
        self._activations = activations
        self._trained = trained
        self._ranges = ranges
        self._tables = tables
        self._known = known or Respelled()
        # Tensors that are rounded to a trained grid, their own or that of the
        # one which their values only move to.
        self._from_training = set(trained)
        self._readers: collections.Counter[int] = collections.Counter()
        for op in self._graph.operators:
            # A shape is the same on any grid.
            if fb.op_name(model, op) != "SHAPE":
                self._readers.update(fb.inputs(op))
        self._readers.update(fb.outputs(self._graph))
        self._wanted = self._adopted() | dict(tied or {})

    def solve(self) -> Solution:
        """Assigns all grids.

        Raises:
            ExportError: If the range of a tensor is not known.
        """
        found = Solution({}, {}, {})
        for index in fb.inputs(self._graph):
            if index in self._activations:
                found.tensors[index] = self._own(index)
                if index not in self._trained:
                    found.untrained.append(index)
        for position, op in enumerate(self._graph.operators):
            row = self._rows[position]
            if row is not None:
                self._step(position, op, row, found)
        covered = self._covered(found)
        found.untrained = [i for i in found.untrained if i not in covered]
        return found

    def _covered(self, found: Solution) -> set[int]:
        """Tensors that are rounded as training does it somewhere else.

        A tensor that only one operator reads, which gives the same numbers
        on the same grid, may be rounded before or behind it.
        """
        covered = set(self._trained)
        for position in reversed(range(len(self._rows))):
            row = self._rows[position]
            op = self._graph.operators[position]
            grid = found.writes.get(position)
            if row is None or row.output != "same" or row.mixes:
                continue
            if not set(fb.outputs(op)) <= covered:
                continue
            covered.update(
                index
                for place, index in enumerate(fb.inputs(op))
                if row.role(place) == "same"
                and self._readers.get(index) == 1
                and found.tensors.get(index) == grid
                and all(found.tensors[i] == grid for i in fb.outputs(op))
            )
        return covered

    def _ends(self, index: int) -> bool:
        """Whether all that happens to a tensor is that it is an output."""
        if index in fb.outputs(self._graph):
            return True
        readers = [
            (row, op)
            for row, op in zip(self._rows, self._graph.operators, strict=True)
            if index in fb.inputs(op)
        ]
        return bool(readers) and all(
            row is not None
            and row.output == "same"
            and not row.mixes
            and all(map(self._ends, fb.outputs(op)))
            for row, op in readers
        )

    def _step(
        self,
        position: int,
        op: schema.OperatorT,
        row: OperatorRow,
        found: Solution,
    ) -> None:
        common = self._common(op, row, found)
        for place, index in enumerate(fb.inputs(op)):
            role = row.role(place)
            if index < 0 or role not in ("activation", "same", "any"):
                continue
            grid = found.tensors.get(index)
            if role == "same" and common is not None:
                grid = common
            elif grid is None:
                grid = self._constant(index)
            if grid is not None:
                # Beyond the finer grid's ends such operators are constant.
                coarsest = row.coarsest.get(self._mode, math.inf)
                # Below the coarser grid's unit they are, too.
                least = row.least.get(self._mode, 0.0)
                read = coarser(finer(grid, coarsest), least)
                found.reads[position, place] = read
        outputs = [i for i in fb.outputs(op) if i in self._activations]
        if not outputs:
            return
        if row.output == "fixed":
            common = make_grid(self._mode, *row.grid[self._mode])
        if common is not None:
            found.writes[position] = common
        finest = self._finest(position, op, row, found)
        for index in outputs:
            scaled = self._scaled(index, op, found)
            grid = self._trained.get(index) or common or scaled
            if grid is None:
                grid = coarser(self._own(index), finest)
            found.tensors[index] = grid
            found.writes.setdefault(position, coarser(grid, finest))
            if not (scaled or self._is_known(index)) and (
                row.output == "free"
                or (row.output == "fixed" and not self._ends(index))
            ):
                found.untrained.append(index)

    def _scaled(
        self, index: int, op: schema.OperatorT, found: Solution
    ) -> Grid | None:
        """The grid on which a product with a number needs no rounding."""
        factor = factors.find(self._model, op)
        if (
            factor is None
            or factor.operand not in found.tensors
            or index in self._wanted
            or index in self._known.parts
        ):
            return None
        return factor.forth(found.tensors[factor.operand], self._mode)

    def _finest(
        self,
        position: int,
        op: schema.OperatorT,
        row: OperatorRow,
        found: Solution,
    ) -> float:
        """The least unit that an operator can write on a grid of its own.

        An output that was dead in training, or on all samples, may have a grid
        far below those of the inputs, and kernels overflow there.
        """
        if row.output != "free":
            return 0.0
        reads = {
            place: grid
            for place in range(len(fb.inputs(op)))
            if (grid := found.reads.get((position, place))) is not None
        }
        scales = [grid.scale for grid in reads.values()] or [0.0]
        top = math.prod(scales) if row.multiplies else max(scales)
        finest = row.finest.get(self._mode, 0.0) * top
        for place, index in enumerate(fb.inputs(op)):
            value = None
            if row.role(place) == "weight":
                value = as_float32(self._model, index)
            if value is not None:
                wide = np.moveaxis(np.abs(value), row.channel_axis, 0)
                sums = wide.reshape(len(wide), -1).sum(1, dtype=np.float64)
                units = max(
                    max(high - grid.zero_point, grid.zero_point - low)
                    for grid in reads.values()
                    for low, high in [grid.limits]
                )
                finest = max(finest, sums.max() * top * units / _LARGEST)
        return finest

    def _is_known(self, index: int) -> bool:
        """Whether a grid comes from training, or loses nothing."""
        whole, _ = self._known.parts.get(index, (index, 1.0))
        return whole in self._from_training or index in self._known.ranges

    def _common(
        self, op: schema.OperatorT, row: OperatorRow, found: Solution
    ) -> Grid | None:
        """The grid that the inputs and outputs of an operator share."""
        if row.output != "same":
            return None
        same = _same(op, row)
        for index in same:
            if index in self._tables:
                return self._tables[index]
        if len(same) == 1:
            result = fb.outputs(op)[0]
            if same[0] in found.tensors:
                return found.tensors[same[0]]
            # A constant is rounded once, to the grid that is wanted of it.
            return self._wanted.get(result) or self._constant(same[0])
        return self._of_parts(op, same, found)

    def _of_parts(
        self, op: schema.OperatorT, same: list[int], found: Solution
    ) -> Grid:
        grids = {found.tensors[i] for i in same if i in found.tensors}
        output = fb.outputs(op)[0]
        if len(grids) == 1 and output not in self._trained:
            # What is added to them may need more room.
            grid = next(iter(grids))
            if all(i in found.tensors or self._fits(i, grid) for i in same):
                return grid
        return self._wanted.get(output) or self._own(output)

    def _fits(self, index: int, grid: Grid) -> bool:
        value = fb.constant(self._model, self._graph.tensors[index])
        low, high = grid.range
        slack = grid.scale / 2
        if value is None:
            return False
        # The codes at the ends stand for what is infinite.
        finite = value[~infinite(value)]
        return bool(
            np.all(finite >= low - slack) and np.all(finite <= high + slack)
        )

    def _adopted(self) -> dict[int, Grid]:
        """Grids that tensors take over from what reads them.

        A tensor with one reader that wants a common grid can be produced on
        it right away, if its producer leaves the grid free.
        """
        wanted = dict(self._trained)
        for position in reversed(range(len(self._rows))):
            row = self._rows[position]
            op = self._graph.operators[position]
            if row is None:
                continue
            outputs = fb.outputs(op)
            if row.output != "same":
                self._adopt_scaled(op, wanted)
                continue
            same = _same(op, row)
            grid = wanted.get(outputs[0])
            if grid is None and len(same) > 1 and outputs[0] in self._ranges:
                grid = grid_of_range(self._mode, *self._ranges[outputs[0]])
                wanted[outputs[0]] = grid
            if grid is None or row.mixes or len(outputs) > 1:
                continue
            for index in same:
                if self._readers.get(index) == 1 and index in self._activations:
                    wanted.setdefault(index, grid)
                    if outputs[0] in self._from_training:
                        self._from_training.add(index)
        return wanted

    def _adopt_scaled(
        self, op: schema.OperatorT, wanted: dict[int, Grid]
    ) -> None:
        """Has a product with a number keep the codes of its operand."""
        factor = factors.find(self._model, op)
        result = fb.outputs(op)[0]
        if (
            factor is not None
            and result in wanted
            and self._readers.get(factor.operand) == 1
            and factor.operand in self._activations
        ):
            grid = factor.back(wanted[result], self._mode)
            wanted.setdefault(factor.operand, grid)
            if result in self._from_training:
                self._from_training.add(factor.operand)

    def _own(self, index: int) -> Grid:
        if index in self._known.parts:
            whole, factor = self._known.parts[index]
            grid = self._own(whole)
            return make_grid(self._mode, grid.scale * factor, grid.zero_point)
        if index in self._wanted:
            return self._wanted[index]
        if index in self._ranges:
            return grid_of_range(self._mode, *self._ranges[index])
        tensor = self._graph.tensors[index]
        raise ExportError(
            "The range of an activation is not known. Expected "
            "representative_data, or a model trained with activation_bits. "
            f"Received: neither for the tensor '{fb.name(tensor)}', written by "
            f"{self._producer(index)}"
        )

    def _constant(self, index: int) -> Grid | None:
        if index in self._tables:
            return self._tables[index]
        tensor = self._graph.tensors[index]
        if fb.type_name(tensor) != "FLOAT32":
            return None
        value = fb.constant(self._model, tensor)
        if value is None:
            return None
        return grid_of_range(self._mode, *finite_range(value))

    def _producer(self, index: int) -> str:
        for op in self._graph.operators:
            if index in fb.outputs(op):
                return fb.op_name(self._model, op)
        return "the caller"


def _same(op: schema.OperatorT, row: OperatorRow) -> list[int]:
    """Inputs that share the grid of an operator's outputs."""
    return [i for k, i in enumerate(fb.inputs(op)) if row.role(k) == "same"]
