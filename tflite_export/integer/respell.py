"""Operators that a target lacks, written as others that it has.

Every form here computes the same numbers: codes are moved, or rounded once,
as the operator itself would round them. Where an operator takes a step in
between, the step gets a grid on which nothing is lost.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import copies
from tflite_export.integer import device_rules
from tflite_export.integer import indices
from tflite_export.integer import pieces
from tflite_export.integer import shrinking
from tflite_export.integer import transposed
from tflite_export.targets import Target

# What the integers that become activations can be.
_LIMITS = {"BOOL": (0.0, 1.0), "INT8": (-128.0, 127.0), "UINT8": (0.0, 255.0)}
# TFLite Micro joins up to ten tensors.
_MOST_JOINED = 8


@dataclasses.dataclass
class Respelled:
    """Facts on tensors that need neither training nor samples.

    Attributes:
        ranges: Ranges of tensors that hold all they can hold.
        parts: By tensor: another one, and what the scale of its grid is
            multiplied by to get this one's.
    """

    ranges: dict[int, tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )
    parts: dict[int, tuple[int, float]] = dataclasses.field(
        default_factory=dict
    )


def respell(
    model: schema.ModelT,
    target: Target,
    ends: Collection[int],
    kept: Collection[int] = (),
) -> Respelled:
    """Rewrites the operators of the main graph; tensors keep their indices.

    Args:
        model: The float model, changed in place.
        target: Where it shall run.
        ends: Tensors that have to stay: those with a trained grid.
        kept: `id` of operators to leave as they are.

    Returns:
        What is known of the tensors that came in between.
    """
    speller = _Speller(model, target)
    device_rules.follow(model, target)
    copies.resize(model, target, ends)
    speller.found.parts |= transposed.crop(model, target, kept)
    for op in list(model.subgraphs[0].operators):
        name = fb.op_name(model, op)
        rule = _RULES.get(name)
        if rule is None or id(op) in kept:
            continue
        # Positions, lengths and masks are computed as they are.
        if name in _ON_INTEGERS or speller.is_float(_out(op)):
            rule(speller, op)
    if speller.joins:
        copies.join_reshapes(model, ends)
    return speller.found


class _Speller:
    def __init__(self, model: schema.ModelT, target: Target):
        self.found = Respelled()
        self._model = model
        self._graph = model.subgraphs[0]
        self._target = target
        self.joins = False

    def is_float(self, index: int) -> bool:
        """Whether a tensor is to become an activation."""
        return fb.type_name(self._graph.tensors[index]) == "FLOAT32"

    def square(self, op: schema.OperatorT) -> None:
        """A product with itself."""
        source = fb.inputs(op)[0]
        self._replace(op, [self._op("MUL", [source, source], _out(op))])

    def negative(self, op: schema.OperatorT) -> None:
        """A product with -1: kernels negate int8 codes, not values."""
        if self._target.has("NEG"):
            return
        factors = [fb.inputs(op)[0], self._constant(-1)]
        self._replace(op, [self._op("MUL", factors, _out(op))])

    def total(self, op: schema.OperatorT) -> None:
        """A mean, on a grid as much finer as there are elements.

        Both round the same number; the product only renames the units.
        """
        source, axes = fb.inputs(op)[:2]
        shape = self._axes(source)
        over = fb.constant(self._model, self._graph.tensors[axes])
        if self._target.has("SUM") or over is None or not shape:
            return
        count = math.prod(shape[int(axis)] for axis in np.ravel(over))
        if count < 1 or any(shape[int(axis)] < 0 for axis in np.ravel(over)):
            return
        result = _out(op)
        mean = edit.new_tensor(
            self._graph, "FLOAT32", self._graph.tensors[result]
        )
        first = self._op("MEAN", [source, axes], mean, "ReducerOptions")
        first.builtinOptions.keepDims = op.builtinOptions.keepDims
        factor = self._constant(count)
        self.found.parts[mean] = (result, 1.0 / count)
        self._replace(op, [first, self._op("MUL", [mean, factor], result)])

    def multiply(self, op: schema.OperatorT) -> None:
        """A product of two activations, where no constant is the weight."""
        inputs = [*fb.inputs(op), -1][:3]
        options = op.builtinOptions
        tensors = self._graph.tensors
        if (
            not self._target.has("BATCH_MATMUL")
            or fb.raw_data(self._model, tensors[inputs[1]]) is not None
            or inputs[2] >= 0
            or options.fusedActivationFunction
            or len(self._axes(inputs[0])) != len(self._axes(_out(op)))
        ):
            return
        product = self._op(
            "BATCH_MATMUL", inputs[:2], _out(op), "BatchMatMulOptions"
        )
        product.builtinOptions.adjY = True
        self._replace(op, [product])

    def clip(self, op: schema.OperatorT) -> None:
        """The smaller of the upper end, then the larger of the lower."""
        name = fb.op_name(self._model, op)
        if self._target.has(name):
            return
        low = -1.0 if name == "RELU_N1_TO_1" else 0.0
        middle = self._new_like(_out(op))
        ends = [self._constant(end) for end in (1.0, low)]
        options = "MaximumMinimumOptions"
        self._replace(
            op,
            [
                self._op(
                    "MINIMUM", [fb.inputs(op)[0], ends[0]], middle, options
                ),
                self._op("MAXIMUM", [middle, ends[1]], _out(op), options),
            ],
        )

    def absolute(self, op: schema.OperatorT) -> None:
        """The larger of a number and its negative."""
        if self._target.has("ABS") or not self._target.has("MAXIMUM"):
            return
        source, opposite = fb.inputs(op)[0], self._new_like(_out(op))
        one = self._constant(-1)
        product = self._op("MUL", [source, one], opposite)
        options = "MaximumMinimumOptions"
        larger = self._op("MAXIMUM", [source, opposite], _out(op), options)
        self._replace(op, [product, larger])

    def leak(self, op: schema.OperatorT) -> None:
        """The larger of a number and its part, for parts below 1."""
        part = float(op.builtinOptions.alpha)
        if self._target.has("LEAKY_RELU") or not 0 <= part <= 1:
            return
        source, less = fb.inputs(op)[0], self._new_like(_out(op))
        factor = self._constant(part)
        options = "MaximumMinimumOptions"
        self._replace(
            op,
            [
                self._op("MUL", [source, factor], less),
                self._op("MAXIMUM", [source, less], _out(op), options),
            ],
        )

    def hard_swish(self, op: schema.OperatorT) -> None:
        """A product with a sixth of what is clamped to 0..6."""
        name = fb.op_name(self._model, op)
        if self._target.has(name) or self._target.float_regions:
            return
        source, result = fb.inputs(op)[0], _out(op)
        six, gate = self._new_like(result), self._new_like(result)
        shifted = self._op("ADD", [source, self._constant(3)], six)
        shifted.builtinOptions.fusedActivationFunction = (
            schema.ActivationFunctionType.RELU6
        )
        self.found.ranges[six] = (0.0, 6.0)
        self.found.ranges[gate] = (0.0, 1.0)
        part = self._constant(1 / 6)
        self._replace(
            op,
            [
                shifted,
                self._op("MUL", [six, part], gate),
                self._op("MUL", [source, gate], result),
            ],
        )

    def select(self, op: schema.OperatorT) -> None:
        """The newer operator, which broadcasts; here nothing does."""
        if self._target.float_regions:
            return
        shrunk = shrinking.soft(self._model, op, self._target)
        if shrunk is not None:
            whole, read = _out(op), fb.inputs(op)
            self._replace(op, shrunk[0])
            self.found.parts |= dict.fromkeys(shrunk[1], (whole, 1.0))
            edit.drop_unread(self._graph, read)
            return
        if indices.wrap(self._model, op, self._target):
            return
        shapes = {self._axes(index) for index in fb.inputs(op)}
        name = fb.op_name(self._model, op)
        if not self._target.has(name) and len(shapes) == 1:
            new = self._op(
                "SELECT_V2", fb.inputs(op), _out(op), "SelectV2Options"
            )
            self._replace(op, [new])

    def cast(self, op: schema.OperatorT) -> None:
        """Masks choose between 1 and 0; bytes hold what they hold."""
        source, result = fb.inputs(op)[0], _out(op)
        kind = fb.type_name(self._graph.tensors[source])
        to = fb.type_name(self._graph.tensors[result])
        if kind == "FLOAT32" and not self._target.float_regions:
            indices.take(self._model, op)
        if to != "FLOAT32" or kind not in _LIMITS:
            return
        self.found.ranges[result] = _LIMITS[kind]
        if kind == "BOOL" and self._target.has("SELECT_V2"):
            ends = [self._constant(end, (1,)) for end in (1.0, 0.0)]
            new = self._op(
                "SELECT_V2", [source, *ends], result, "SelectV2Options"
            )
            self._replace(op, [new])

    def gather(self, op: schema.OperatorT) -> None:
        """Constant positions in 32 bits, where devices read no others."""
        if not self._target.float_regions:
            indices.narrow(self._model, op)

    def space(self, op: schema.OperatorT) -> None:
        """Rows of blocks, cut out and joined."""
        self._pieces(op, pieces.space(self._model, op, self._target))

    def parts(self, op: schema.OperatorT) -> None:
        """Slices."""
        self._pieces(op, pieces.parts(self._model, op, self._target))

    def vectors(self, op: schema.OperatorT) -> None:
        """One vector at a time."""
        self._pieces(op, pieces.vectors(self._model, op, self._target))

    def _pieces(
        self, op: schema.OperatorT, new: list[schema.OperatorT] | None
    ) -> None:
        if new is not None:
            self._replace(op, new)

    def tile(self, op: schema.OperatorT) -> None:
        """Copies side by side: a row of the axes from the tiled one on."""
        name = fb.op_name(self._model, op)
        source, result = fb.inputs(op)[0], _out(op)
        if not self._target.has("CONCATENATION"):
            return
        before, after = self._axes(source), self._axes(result)
        before = (1,) * (len(after) - len(before)) + before
        if self._target.has(name) or min((*before, *after), default=0) < 1:
            return
        self.joins = True
        steps: list[schema.OperatorT] = []
        shape, index = list(before), source
        for axis, (old, new) in enumerate(zip(before, after, strict=True)):
            if new == old:
                continue
            rows = math.prod(shape[:axis])
            flat = self._reshape(steps, index, (rows, -1), shape)
            index = self._join(steps, flat, new // old)
            shape[axis] = new
        steps.append(edit.reshape(self._model, index, result))
        self._replace(op, steps)

    def _reshape(
        self,
        steps: list[schema.OperatorT],
        index: int,
        to: tuple[int, int],
        shape: list[int],
    ) -> int:
        whole = (to[0], math.prod(shape) // to[0])
        flat = edit.new_tensor(self._graph, "FLOAT32", shape=whole)
        steps.append(edit.reshape(self._model, index, flat))
        return flat

    def _join(
        self, steps: list[schema.OperatorT], index: int, count: int
    ) -> int:
        """As many copies of a matrix side by side."""
        parts = {1: index}
        rows, width = fb.shape(self._graph.tensors[index])

        def made(copies: int) -> int:
            if copies not in parts:
                most = max(
                    n for n in range(1, _MOST_JOINED + 1) if copies % n == 0
                )
                # A prime number of copies, one by one.
                pieces = (
                    [made(copies // most)] * most
                    if most > 1
                    else [made(copies - 1), index]
                )
                joined = edit.new_tensor(
                    self._graph, "FLOAT32", shape=(rows, width * copies)
                )
                op = self._op(
                    "CONCATENATION", pieces, joined, "ConcatenationOptions"
                )
                op.builtinOptions.axis = 1
                steps.append(op)
                parts[copies] = joined
            return parts[copies]

        return made(count)

    def _op(
        self, name: str, inputs: list[int], result: int, options: str = ""
    ) -> schema.OperatorT:
        options = options or f"{name.capitalize()}Options"
        return edit.new_operator(
            self._model, name, 1, inputs, [result], options
        )

    def _constant(self, number: float, shape: tuple[int, ...] = ()) -> int:
        value = np.full(shape, number, np.float32)
        return edit.new_constant(self._model, value)

    def _new_like(self, index: int) -> int:
        return edit.new_tensor(
            self._graph, "FLOAT32", self._graph.tensors[index]
        )

    def _axes(self, index: int) -> tuple[int, ...]:
        return fb.axes(self._graph.tensors[index])

    def _replace(
        self, op: schema.OperatorT, new: list[schema.OperatorT]
    ) -> None:
        at = edit.before(self._graph, op)
        self._graph.operators[at : at + 1] = new


def _out(op: schema.OperatorT) -> int:
    return fb.outputs(op)[0]


# Rules that ask themselves what an operator reads.
_ON_INTEGERS = ("CAST", "GATHER", "GATHER_ND", "SELECT", "SELECT_V2")
_RULES = {
    "ABS": _Speller.absolute,
    "BROADCAST_TO": _Speller.tile,
    "CAST": _Speller.cast,
    "DEPTH_TO_SPACE": _Speller.space,
    "FULLY_CONNECTED": _Speller.multiply,
    "GATHER": _Speller.gather,
    "GATHER_ND": _Speller.gather,
    "HARD_SWISH": _Speller.hard_swish,
    "LEAKY_RELU": _Speller.leak,
    "NEG": _Speller.negative,
    "RELU_0_TO_1": _Speller.clip,
    "RELU_N1_TO_1": _Speller.clip,
    "SELECT": _Speller.select,
    "SELECT_V2": _Speller.select,
    "SOFTMAX": _Speller.vectors,
    "SQUARE": _Speller.square,
    "SUM": _Speller.total,
    "TILE": _Speller.tile,
    "UNPACK": _Speller.parts,
}
