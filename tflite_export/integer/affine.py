"""Factors and summands of channels as one operator.

A batch normalization that can't be folded into an operator before it is a
product and a sum; so are a rescaling and a normalization of inputs. Two
operators would round in between, to a grid that training does not have, and
small factors would vanish on one grid for the factors of all channels. A
depthwise convolution of one pixel rounds once, as training does: the factor of
each channel is a code of 127 with a separate scale, and the summand is a bias.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import reshaping
from tflite_export.integer.calibrate import finite_range
from tflite_export.integer.grids import Grid
from tflite_export.integer.grids import grid_of_range
from tflite_export.integer.trained_grids import as_float32
from tflite_export.targets import Target

_NAMES = ("MUL", "DIV", "ADD", "SUB")
# Units of a normalized input that one unit of the input may be.
_COARSEST = 16.0
_NO_ACTIVATION = schema.ActivationFunctionType.NONE


@dataclasses.dataclass
class Chain:
    """Operators behind each other that give `x * factor + summand`.

    Attributes:
        source: The tensor that the first one reads.
        factor: One number a channel.
        summand: One number a channel.
        operators: In order.
    """

    source: int
    factor: np.ndarray
    summand: np.ndarray
    operators: list[schema.OperatorT]

    @property
    def result(self) -> int:
        """The tensor that the last one writes."""
        return fb.outputs(self.operators[-1])[0]

    def behind(self, other: Chain) -> Chain:
        """This one on what another one gives."""
        return Chain(
            other.source,
            other.factor * self.factor,
            other.summand * self.factor + self.summand,
            [*other.operators, *self.operators],
        )


def find(
    model: schema.ModelT,
    trained: Collection[int],
    kept: Collection[int] = (),
) -> list[Chain]:
    """Finds what a depthwise convolution computes better.

    Tensors with a trained grid have to stay; `kept` are the `id`s of operators
    to leave as they are.
    """
    graph = model.subgraphs[0]
    chains: dict[int, Chain] = {}
    for op in graph.operators:
        own = None if id(op) in kept else _one(model, op)
        if own is None:
            continue
        before = chains.get(own.source)
        if (
            before is not None
            and own.source not in trained
            and _is_read_once(graph, own.source)
            and _activation(before.operators[-1]) == _NO_ACTIVATION
        ):
            del chains[own.source]
            own = own.behind(before)
        chains[own.result] = own
    return [
        chain
        for chain in chains.values()
        # A factor of all channels is a code at a scale of its own as it is.
        if len(chain.operators) > 1
        or (np.ptp(chain.factor) and not chain.summand.any())
    ]


def join(
    model: schema.ModelT,
    target: Target,
    chains: Sequence[Chain],
    trained: Mapping[int, Grid],
    samples: Sequence[np.ndarray] | None,
) -> None:
    """Makes depthwise convolutions; tensors keep their indices.

    Nothing changes where the target has none.

    Raises:
        ExportError: If a target needs an input on one grid that leaves nothing
            to be normalized.
    """
    if not target.allows("DEPTHWISE_CONV_2D", "INT8", "per_channel"):
        return
    for chain in chains:
        _check(model, target, chain, trained, samples)
        _write(model, _capped(chain, trained))


def apart(
    model: schema.ModelT,
    target: Target,
    chains: Sequence[Chain],
    trained: Mapping[int, Grid],
    samples: Sequence[np.ndarray] | None,
) -> list[schema.OperatorT]:
    """Operators that have to normalize an input before it has a grid."""
    return [
        op
        for chain in chains
        if _unit(model, target, chain, trained, samples)[1] > _COARSEST
        for op in chain.operators
    ]


def _check(
    model: schema.ModelT,
    target: Target,
    chain: Chain,
    trained: Mapping[int, Grid],
    samples: Sequence[np.ndarray] | None,
) -> None:
    unit, units, column = _unit(model, target, chain, trained, samples)
    if units <= _COARSEST:
        return
    name = fb.name(model.subgraphs[0].tensors[chain.source])
    raise ExportError(
        f"Target '{target.name}' has no float operators, and one grid for all "
        f"columns of the input '{name}' can't hold what the model normalizes. "
        "Expected inputs that are normalized before the model (quantize and "
        "train the layers behind the normalization), or an export to a CPU, "
        "which normalizes in float. Received: columns of which the unit of "
        f"all, {unit:.3g}, is {units:.3g} units of the normalized column "
        f"{column}; {_COARSEST:g} can be"
    )


def _unit(
    model: schema.ModelT,
    target: Target,
    chain: Chain,
    trained: Mapping[int, Grid],
    samples: Sequence[np.ndarray] | None,
) -> tuple[float, float, int]:
    """The unit of an input without a trained grid, in units behind a chain.

    The unit, its number of units in the worst column, and which that is; zeros
    where there is none.
    """
    inputs = fb.inputs(model.subgraphs[0])
    if samples is None or chain.source in trained or chain.source not in inputs:
        return 0.0, 0.0, 0
    values = samples[inputs.index(chain.source)].astype(np.float64)
    unit = grid_of_range(target.mode, *finite_range(values)).scale
    result = trained.get(chain.result)
    if result is None:
        normal = values * chain.factor + chain.summand
        result = grid_of_range(target.mode, *finite_range(normal))
    units = unit * np.abs(chain.factor) / result.scale
    # Zeros are zeros on any grid.
    units[~values.reshape(-1, len(units)).any(axis=0)] = 0.0
    return unit, float(units.max()), int(units.argmax())


def _capped(chain: Chain, trained: Mapping[int, Grid]) -> Chain:
    """The same with the least factors that give the same codes.

    That of a column which was always zero is as large as a layer's epsilon is
    small, and no kernel would take a grid beside it: all but zero is beyond
    the ends of the range already where a unit of the input is all of it.
    """
    source, result = trained.get(chain.source), trained.get(chain.result)
    if source is None or result is None:
        return chain
    low, high = result.limits
    most = (high - low + 1) * result.scale / source.scale
    factor = np.where(
        chain.summand == 0, np.clip(chain.factor, -most, most), chain.factor
    )
    return dataclasses.replace(chain, factor=factor)


def _one(model: schema.ModelT, op: schema.OperatorT) -> Chain | None:
    """An operator with a constant along the last axis; else `None`."""
    name = fb.op_name(model, op)
    if name not in _NAMES:
        return None
    graph = model.subgraphs[0]
    constants = [as_float32(model, i) for i in fb.inputs(op)]
    known = [place for place, x in enumerate(constants) if x is not None]
    result = graph.tensors[fb.outputs(op)[0]]
    axes = fb.axes(result)
    if len(known) != 1 or fb.type_name(result) != "FLOAT32":
        return None
    place = known[0]
    source = fb.inputs(op)[1 - place]
    value = constants[place]
    if (
        value is None
        or len(axes) < 2
        or min(axes[1:]) < 1
        or fb.axes(graph.tensors[source]) != axes
        or value.size not in (1, axes[-1])
        or value.shape[-1:] not in ((), (value.size,))
        or (name == "DIV" and (place == 0 or not value.all()))
    ):
        return None
    flat = np.broadcast_to(value.astype(np.float64).ravel(), axes[-1])
    one, zero = np.ones(axes[-1]), np.zeros(axes[-1])
    parts = {
        "MUL": (flat, zero),
        "DIV": (1.0 / np.where(flat, flat, 1.0), zero),
        "ADD": (one, flat),
        "SUB": (one, -flat) if place else (-one, flat),
    }
    return Chain(source, *parts[name], [op])


def _activation(op: schema.OperatorT) -> int:
    return int(op.builtinOptions.fusedActivationFunction)


def _is_read_once(graph: schema.SubGraphT, index: int) -> bool:
    reads = sum(fb.inputs(op).count(index) for op in graph.operators)
    return reads == 1 and index not in fb.outputs(graph)


def _write(model: schema.ModelT, chain: Chain) -> None:
    graph = model.subgraphs[0]
    last = chain.operators[-1]
    source, result = chain.source, chain.result
    axes, count = fb.axes(graph.tensors[result]), len(chain.factor)
    pixels = (axes[0], math.prod(axes[1:-1]), 1, count)
    flat = len(axes) != 4
    factors = chain.factor.astype(np.float32).reshape(1, 1, 1, count)
    weight = edit.new_constant(model, factors)
    name = fb.name(graph.tensors[result])
    graph.tensors[weight].name = f"{name}_factors".encode()
    bias = edit.new_constant(model, chain.summand.astype(np.float32))
    reads = reshaping.new_tensor(graph, pixels) if flat else source
    writes = reshaping.new_tensor(graph, pixels) if flat else result
    convolution = reshaping.depthwise(model, [reads, weight, bias], writes)
    options = convolution.builtinOptions
    options.fusedActivationFunction = _activation(last)
    new = [convolution]
    if flat:
        new.insert(0, edit.reshape(model, source, reads))
        new.append(edit.reshape(model, writes, result))
    at = edit.before(graph, last)
    graph.operators[at : at + 1] = new
    for op in chain.operators[:-1]:
        del graph.operators[edit.before(graph, op)]
