"""Operators in the forms that the rules of a device take.

A target names restrictions of its operators, see `targets.restrictions`. Where
an operator breaks one, and others compute the same from the same codes, these
are written in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import vela_forms
from tflite_export.targets import Target

_Steps = list[schema.OperatorT] | None


def follow(model: schema.ModelT, target: Target) -> None:
    """Rewrites operators of the main graph that break a rule of the target.

    Args:
        model: The float model, changed in place; tensors keep their indices.
        target: Where it shall run.
    """
    rules = target.options.get("rules", {}).get("operators", {})
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        for name in rules.get(fb.op_name(model, op), ()):
            form = _FORMS.get(name)
            steps = None if form is None else form(model, op)
            if steps is not None:
                at = edit.before(graph, op)
                graph.operators[at : at + 1] = steps


def _same_dilation(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """One dilation along both axes, where a kernel has one pixel on one."""
    options = op.builtinOptions
    height, width = fb.shape(_tensor(model, fb.inputs(op)[1]))[1:3]
    if options.dilationHFactor != options.dilationWFactor:
        if height == 1:
            options.dilationHFactor = options.dilationWFactor
        elif width == 1:
            options.dilationWFactor = options.dilationHFactor
    return None


def _pack_not_batch(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """Rows side by side instead of one below the other."""
    sources, result = fb.inputs(op), fb.outputs(op)[0]
    shapes = {fb.axes(_tensor(model, index)) for index in sources}
    if (
        op.builtinOptions.axis
        or len(shapes) > 1
        or min(min(shapes), default=1) < 1
    ):
        return None
    count = math.prod(min(shapes))
    steps, rows = [], []
    for index in sources:
        rows.append(_new(model, (1, count)))
        steps.append(edit.reshape(model, index, rows[-1]))
    joined = _new(model, (1, count * len(rows)))
    beside = edit.new_operator(
        model, "CONCATENATION", 1, rows, [joined], "ConcatenationOptions"
    )
    beside.builtinOptions.axis = 1
    return [*steps, beside, edit.reshape(model, joined, result)]


def _alpha_along_depth(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """What is above zero, and the slopes times what is below."""
    source, slopes = fb.inputs(op)[:2]
    value = fb.constant(model, _tensor(model, slopes))
    if value is None or not any(n > 1 for n in value.shape[:-1]):
        return None
    result, axes = fb.outputs(op)[0], fb.axes(_tensor(model, source))
    whole = value.reshape((1,) * (len(axes) - value.ndim) + value.shape)
    factors = edit.new_constant(model, whole.astype(np.float32))
    below = _new(model, axes)
    options = "MaximumMinimumOptions"
    if (value >= 0).all() and (value <= 1).all():
        return [
            edit.new_operator(
                model, "MUL", 1, [source, factors], [below], "MulOptions"
            ),
            edit.new_operator(
                model, "MAXIMUM", 1, [source, below], [result], options
            ),
        ]
    zero = edit.new_constant(model, np.zeros((), np.float32))
    above, negative = _new(model, axes), _new(model, axes)
    return [
        edit.new_operator(
            model, "MAXIMUM", 1, [source, zero], [above], options
        ),
        edit.new_operator(
            model, "MINIMUM", 1, [source, zero], [negative], options
        ),
        edit.new_operator(
            model, "MUL", 1, [negative, factors], [below], "MulOptions"
        ),
        edit.new_operator(
            model, "ADD", 1, [above, below], [result], "AddOptions"
        ),
    ]


def _four_axes(model: schema.ModelT, op: schema.OperatorT) -> _Steps:
    """Slices of rows, where the axes behind are read as they are."""
    source, result = fb.inputs(op)[0], fb.outputs(op)[0]
    shape = fb.axes(_tensor(model, source))
    options = op.builtinOptions
    bounds = [
        fb.constant(model, _tensor(model, index))
        for index in fb.inputs(op)[1:4]
    ]
    if (
        len(shape) < 5
        or min(shape) < 1
        or any(b is None or b.size != len(shape) for b in bounds)
        or options.ellipsisMask
        or options.newAxisMask
    ):
        return None
    begin, end, strides = (np.asarray(b) for b in bounds if b is not None)
    whole = [
        _is_whole(k, shape[k], begin, end, strides, options)
        for k in range(len(shape))
    ]
    kept = len(shape)
    while kept and whole[kept - 1]:
        kept -= 1
    if not 0 < kept < 4:
        return None
    flat = _new(model, (*shape[:kept], math.prod(shape[kept:])))
    cut = fb.axes(_tensor(model, result))
    gone = sum(bool(options.shrinkAxisMask & 1 << k) for k in range(kept))
    rows = _new(model, (*cut[: kept - gone], math.prod(shape[kept:])))
    places = [
        edit.new_constant(model, np.append(b[:kept], last).astype(np.int32))
        for b, last in (
            (begin, 0),
            (end, math.prod(shape[kept:])),
            (strides, 1),
        )
    ]
    new = edit.new_operator(
        model,
        "STRIDED_SLICE",
        1,
        [flat, *places],
        [rows],
        "StridedSliceOptions",
    )
    low = (1 << kept) - 1
    new.builtinOptions.beginMask = options.beginMask & low
    new.builtinOptions.endMask = options.endMask & low
    new.builtinOptions.shrinkAxisMask = options.shrinkAxisMask & low
    return [
        edit.reshape(model, source, flat),
        new,
        edit.reshape(model, rows, result),
    ]


def _is_whole(
    axis: int,
    length: int,
    begin: np.ndarray,
    end: np.ndarray,
    strides: np.ndarray,
    options: schema.StridedSliceOptionsT,
) -> bool:
    """Whether a slice has all of an axis, in its order."""
    bit = 1 << axis
    starts = bool(options.beginMask & bit) or begin[axis] == 0
    ends = bool(options.endMask & bit) or end[axis] >= length
    shrinks = bool(options.shrinkAxisMask & bit)
    return starts and ends and strides[axis] == 1 and not shrinks


def _tensor(model: schema.ModelT, index: int) -> schema.TensorT:
    return model.subgraphs[0].tensors[index]


def _new(model: schema.ModelT, axes: tuple[int, ...]) -> int:
    return edit.new_tensor(model.subgraphs[0], "FLOAT32", shape=axes)


_FORMS: dict[str, Callable[[schema.ModelT, schema.OperatorT], _Steps]] = {
    "alpha_along_depth": _alpha_along_depth,
    "four_axes": _four_axes,
    "pack_not_batch": _pack_not_batch,
    "same_dilation": _same_dilation,
    "vela_mean": vela_forms.mean,
    "vela_reverse": vela_forms.backwards,
    "vela_slice": vela_forms.every_channel,
    "vela_strides": vela_forms.padded,
}
