"""From the prepared float graph to the integer graph."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.integer import clamps
from tflite_export.integer import quantize_weights
from tflite_export.integer.accumulators import Use
from tflite_export.integer.assign_grids import Solution
from tflite_export.integer.grids import Grid
from tflite_export.integer.trained_grids import as_float32
from tflite_export.matching.match import Match
from tflite_export.matching.records import Written
from tflite_export.targets import CONTAINERS
from tflite_export.targets import Target
from tflite_export.targets.operator_rows import OperatorRow

Rows = list[OperatorRow | None]


class Quantizer:
    """Rewrites one model in place, but for operators without a row."""

    def __init__(
        self,
        model: schema.ModelT,
        rows: Rows,
        matches: Sequence[Match],
        solution: Solution,
        target: Target,
    ):
        self.notes: list[str] = []
        # Weights that training does not know as the codes that they become.
        self.rounded: set[int] = set()
        self._model = model
        self._graph = model.subgraphs[0]
        self._rows = rows
        self._matches = {
            m.constant.tensor: m for m in matches if m.constant.graph == 0
        }
        self._solution = solution
        self._target = target
        self._weights: dict[int, quantize_weights.IntegerWeight] = {}
        self._constants: dict[tuple[int, Grid], int] = {}
        self._copies: dict[tuple[int, Grid], int] = {}
        # Trained weights that operators read as if they were activations.
        self._tables: set[int] = set()

    def run(self, integer_io: bool) -> list[Written]:
        """Rewrites the model; returns one record per trained weight.

        With `integer_io` inputs and outputs are integers, too.
        """
        converted = [
            (position, op, row)
            for position, op in enumerate(self._graph.operators)
            if (row := self._rows[position]) is not None
        ]
        for _, op, row in converted:
            self._collect_weights(op, row)
        for position, op, row in converted:
            self._convert(position, op, row)
        for index, grid in self._solution.tensors.items():
            grid.write(self._graph.tensors[index])
        written = [
            self._write_weight(index, found)
            for index, found in self._weights.items()
        ]
        for index in sorted(self._tables):
            written.append(self._write_weight(index, self._table(index)))
        if not integer_io:
            self._float_ports()
        return [record for record in written if record is not None]

    def _collect_weights(self, op: schema.OperatorT, row: OperatorRow) -> None:
        for place, index in enumerate(fb.inputs(op)):
            if row.role(place) != "weight" or index in self._weights:
                continue
            value = as_float32(self._model, index)
            if value is None:
                raise ExportError(
                    f"No integer kernel of target '{self._target.name}' takes "
                    "a weight that is computed while it runs. Expected a "
                    f"constant. Received: the input {place} of {row.name}, "
                    f"tensor '{fb.name(self._graph.tensors[index])}'"
                )
            uses = self._uses(index)
            match = self._matches.get(index)
            if match is not None:
                self._weights[index] = quantize_weights.trained_weight(
                    match, uses, row.channel_axis, self._target
                )
                continue
            name = fb.name(self._graph.tensors[index])
            found = quantize_weights.float_weight(
                value, uses, row.channel_axis, self._target
            )
            if found is None:
                raise ExportError(
                    f"Target '{self._target.name}' has no evidence that "
                    f"{row.name} runs with INT8 weights. Expected an operator "
                    f"that does, or another target. Received: tensor '{name}'"
                )
            self._weights[index] = found
            if found.differs_from(value):
                self.rounded.add(index)
                self.notes.append(
                    f"weight '{name}' was not trained with MSQ: rounded to 8 "
                    "bits"
                )

    def _uses(self, index: int) -> list[Use]:
        return [
            self._use(position, op, row)
            for position, op in enumerate(self._graph.operators)
            if (row := self._rows[position]) is not None
            and index in fb.inputs(op)
        ]

    def _use(
        self, position: int, op: schema.OperatorT, row: OperatorRow
    ) -> Use:
        grid = self._input_grid(position, op, row)
        low, high = grid.limits
        bias = self._bias(op, row)
        return Use(
            op=row.name,
            input_scale=grid.scale,
            output_scale=self._solution.writes[position].scale,
            inputs=(low - grid.zero_point, high - grid.zero_point),
            output_span=high - low,
            bias=None if bias < 0 else as_float32(self._model, bias),
        )

    def _input_grid(
        self, position: int, op: schema.OperatorT, row: OperatorRow
    ) -> Grid:
        for place in range(len(fb.inputs(op))):
            if row.role(place) == "activation":
                return self._solution.reads[position, place]
        raise ExportError(
            f"{row.name} has weights but no activation. Expected one. "
            f"Received: {len(fb.inputs(op))} inputs, all constant"
        )

    def _bias(self, op: schema.OperatorT, row: OperatorRow) -> int:
        for place, index in enumerate(fb.inputs(op)):
            if row.role(place) == "bias":
                return index
        return -1

    def _convert(
        self, position: int, op: schema.OperatorT, row: OperatorRow
    ) -> None:
        container = ""
        for place, index in enumerate(fb.inputs(op)):
            role = row.role(place)
            if index < 0:
                continue
            if role == "weight":
                container = self._weights[index].container
            elif role == "bias":
                edit.set_input(op, place, self._integer_bias(position, op, row))
            elif (grid := self._solution.reads.get((position, place))) is None:
                continue
            elif index in self._solution.tensors:
                if self._solution.tensors[index] != grid:
                    edit.set_input(op, place, self._copy(op, index, grid))
            else:
                edit.set_input(op, place, self._constant(index, grid))
        self._outputs(position, op)
        if row.reads:
            self._requantize_bytes(op)
            return
        code = fb.op_code(self._model, op)
        version = row.version(self._target.mode, container) or 1
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        op.opcodeIndex = edit.op_code(
            self._model, builtin, max(code.version, version)
        )
        if hasattr(op.builtinOptions, "potScaleInt16"):
            op.builtinOptions.potScaleInt16 = False
        if position in self._solution.writes:
            clamps.drop(self._model, op, self._solution.writes[position])

    def _requantize_bytes(self, op: schema.OperatorT) -> None:
        """Makes the conversion of bytes to activations a QUANTIZE."""
        bytes_ = self._graph.tensors[fb.inputs(op)[0]]
        bytes_.quantization = edit.quantization(np.ones(1, np.float32))
        like = self._requantize(fb.inputs(op)[0], fb.outputs(op)[0])
        op.opcodeIndex = like.opcodeIndex
        op.builtinOptionsType = like.builtinOptionsType
        op.builtinOptions = like.builtinOptions

    def _outputs(self, position: int, op: schema.OperatorT) -> None:
        """Converts outputs that readers want on another grid."""
        grid = self._solution.writes.get(position)
        if grid is None:
            return
        outputs = fb.outputs(op)
        for place, index in enumerate(outputs):
            own = self._solution.tensors.get(index)
            if own is None or own == grid:
                continue
            raw = self._new(index, grid)
            outputs[place] = raw
            at = edit.before(self._graph, op) + 1
            self._graph.operators.insert(at, self._requantize(raw, index))
        op.outputs = np.array(outputs, np.int32)

    def _copy(self, op: schema.OperatorT, index: int, grid: Grid) -> int:
        """A tensor on another grid, made in front of its first reader."""
        key = (index, grid)
        if key not in self._copies:
            self._copies[key] = self._new(index, grid)
            self._graph.operators.insert(
                edit.before(self._graph, op),
                self._requantize(index, self._copies[key]),
            )
        return self._copies[key]

    def _new(self, like: int, grid: Grid) -> int:
        index = edit.new_tensor(
            self._graph, "FLOAT32", self._graph.tensors[like]
        )
        grid.write(self._graph.tensors[index])
        return index

    def _requantize(self, source: int, result: int) -> schema.OperatorT:
        return edit.conversion(
            self._model, "QUANTIZE", self._target.mode, source, result
        )

    def _constant(self, index: int, grid: Grid) -> int:
        key = (index, grid)
        if index in self._matches:
            self._tables.add(index)
            return index
        if key not in self._constants:
            value = as_float32(self._model, index)
            if value is None:
                return index
            new = edit.new_tensor(
                self._graph,
                "FLOAT32",
                self._graph.tensors[index],
                buffer=edit.new_buffer(self._model, grid.quantize(value)),
            )
            grid.write(self._graph.tensors[new])
            self._constants[key] = new
        return self._constants[key]

    def _integer_bias(
        self, position: int, op: schema.OperatorT, row: OperatorRow
    ) -> int:
        bias = self._bias(op, row)
        value = as_float32(self._model, bias)
        weight = next(
            i for k, i in enumerate(fb.inputs(op)) if row.role(k) == "weight"
        )
        if value is None:
            raise ExportError(
                f"No integer kernel of target '{self._target.name}' takes a "
                "bias that is computed while it runs. Expected a constant. "
                f"Received: that of {row.name}, tensor "
                f"'{fb.name(self._graph.tensors[bias])}'"
            )
        grid = self._input_grid(position, op, row)
        found = self._weights[weight]
        unit = np.float32(grid.scale)
        wide = self._target.mode == "int16"
        match = self._matches.get(weight)
        path = match.weight.path if match else row.name
        value = quantize_weights.fitting_bias(
            found, self._use(position, op, row)
        )
        units = quantize_weights.integer_bias(
            value, unit * found.steps, wide, path
        )
        index = edit.new_tensor(
            self._graph,
            "INT64" if wide else "INT32",
            self._graph.tensors[bias],
            buffer=edit.new_buffer(self._model, units),
        )
        self._graph.tensors[index].quantization = edit.quantization(
            unit * found.scale
        )
        return index

    def _table(self, index: int) -> quantize_weights.IntegerWeight:
        match = self._matches[index]
        return quantize_weights.IntegerWeight(
            match.codes, match.fit.scale[:1], None, "INT8"
        )

    def _write_weight(
        self, index: int, found: quantize_weights.IntegerWeight
    ) -> Written | None:
        data = packing.pack(found.codes, CONTAINERS[found.container])
        tensor = self._graph.tensors[index]
        tensor.type = getattr(schema.TensorType, found.container)
        tensor.quantization = edit.quantization(found.scale, axis=found.axis)
        tensor.buffer = edit.new_buffer(self._model, data)
        match = self._matches.get(index)
        if match is None:
            return None
        tensor.name = match.weight.path.encode()
        return Written(
            match=match,
            tensor=index,
            container=found.container,
            granularity=found.granularity,
            payload_bytes=data.size,
            ops=tuple(
                dict.fromkeys(
                    fb.op_name(self._model, op)
                    for op in fb.readers(self._graph, index)
                )
            ),
            channels=found.channels,
        )

    def _float_ports(self) -> None:
        """Puts QUANTIZE behind float inputs, DEQUANTIZE before outputs."""
        graph = self._graph
        renamed: Mapping[str, dict[int, int]] = {"inputs": {}, "outputs": {}}
        for kind, indices in (
            ("inputs", fb.inputs(graph)),
            ("outputs", fb.outputs(graph)),
        ):
            for index in indices:
                if index in self._solution.tensors:
                    port = edit.new_tensor(
                        graph, "FLOAT32", graph.tensors[index]
                    )
                    graph.tensors[port].name = graph.tensors[index].name
                    renamed[kind][index] = port
        for index, port in renamed["inputs"].items():
            graph.operators.insert(0, self._requantize(port, index))
        for index, port in renamed["outputs"].items():
            op = edit.conversion(
                self._model, "DEQUANTIZE", self._target.mode, index, port
            )
            graph.operators.append(op)
        graph.inputs = _renamed(fb.inputs(graph), renamed["inputs"])
        graph.outputs = _renamed(fb.outputs(graph), renamed["outputs"])
        for signature in self._model.signatureDefs or ():
            for kind in renamed:
                for entry in getattr(signature, kind):
                    entry.tensorIndex = renamed[kind].get(
                        entry.tensorIndex, entry.tensorIndex
                    )


def _renamed(indices: Sequence[int], names: Mapping[int, int]) -> np.ndarray:
    return np.array([names.get(i, i) for i in indices], np.int32)
