"""Sites at which a runtime requantizes: the outputs that are fake-quantized.

A TFLite runtime holds one integer tensor after every operator *as the converter
fuses them*: a convolution with its bias, batch norm and ReLU is one operator.
So an output is quantized after the fused activation, after additions and
concatenations, and at the model's inputs, but not between a convolution and its
batch norm. An input with columns that no grid can hold has no site (`columns`).
Operators that only move numbers keep the scale of their input and have no range
of their own. If they compute averages, as a pooling does, the result is rounded
to that scale.

No runtime fuses some activations, such as a softmax, into the operator before
them. They read an integer tensor, so a layer with such an activation has a site
between its linear part and the activation. A separable convolution is two
operators, with a site between them. Attention has sites between its products
(`attention`). The outputs of softmax, sigmoid and tanh have the fixed scales of
their kernels. Inside the model they are rounded to these scales. At its end
they are not, as a loss may need the logits that Keras attaches to
probabilities.

`flow` says which tensor goes where.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msq_tf.core import saved
from msq_tf.core.config import check_choice
from msq_tf.keras3 import attention
from msq_tf.keras3 import columns
from msq_tf.keras3 import separable
from msq_tf.keras3.flow import Call
from msq_tf.keras3.flow import Trace
from msq_tf.keras3.moving import averages
from msq_tf.keras3.moving import is_moving

INPUT = -1

LINEAR: tuple[type, ...] = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
# They cut what they read to integers, whose values a grid would change.
_CUTTING = (keras.layers.Discretization, keras.layers.Embedding)
_FUSING = (keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply)
# Class names of operations without a public class: `a + b` in a functional
# model.
_FUSING_NAMES = {"Add", "Subtract", "Multiply"}
_ACTIVATIONS = (keras.layers.Activation, keras.layers.Softmax)
_FUSED_ACTIVATIONS = ("relu", "relu6")
_FIXED_ACTIVATIONS = ("softmax", "sigmoid", "tanh")
# Class names of operations: `keras.ops.tanh(x)` in a functional model.
_FIXED_NAMES = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Tanh": "tanh"}

# Operators of a converted graph that belong to a site have its position, and
# a line, behind this in their names.
SITE_NAME = "msq_site_"

# Where in a layer's call a site is.
OUTPUT = "output"
MIDDLE = "middle"
PREACTIVATION = "preactivation"
GATE = "gate"
READ = "read"
SCORES = attention.SCORES
PROBABILITIES = attention.PROBABILITIES
CONTEXT = attention.CONTEXT
_IN_ATTENTION = (
    *(SCORES, PROBABILITIES, CONTEXT),
    *(attention.PAIRS, attention.TANH, attention.WEIGHTED),
)


@dataclasses.dataclass(frozen=True)
class Site:
    """One place where activations are quantized.

    Attributes:
        path: Unique name: the layer's path; a later call of a shared layer
            has `#2`, `#3` appended. Inputs are `input`, `input#2`, ...
        layer: Position of the layer in the traversal order of the model, or
            `INPUT`.
        call: Which call of the layer, from 0; of an input, which one.
        place: `"output"`, or `"preactivation"` for what the activation
            function inside of the layer reads; `"gate"` for the sigmoid that
            a swish multiplies by; `"middle"` for what the second convolution
            of a separable one reads; `"scores"` for what the softmax of
            attention reads, behind its mask, and `"probabilities"` for what
            it gives inside of a layer; `"context"` for what attention's gate
            multiplies; `"pairs"`, `"tanh"` and `"weighted"` for what attention
            that adds computes before its scores; `"read"` for what a layer
            reads that no layer wrote.
        fixed: Name of the activation whose kernels give the site its range;
            empty where the range is trained.
        like: Position of an earlier site whose range this one shares; -1 for
            none.
    """

    path: str
    layer: int
    call: int
    place: str = OUTPUT
    fixed: str = ""
    like: int = -1

    def __post_init__(self) -> None:
        """Refuses what only a damaged or made-up file can say."""
        saved.check_text("path", self.path, empty=False)
        saved.check_integer("layer", self.layer, INPUT)
        saved.check_integer("call", self.call, 0)
        saved.check_integer("like", self.like, -1)
        places: tuple[str, ...] = (OUTPUT, MIDDLE, PREACTIVATION, GATE, READ)
        check_choice("place", self.place, (*places, *_IN_ATTENTION))
        check_choice("fixed", self.fixed, ("", *_FIXED_ACTIVATIONS))

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def find_sites(found: Trace, bits: int = 8) -> tuple[Site, ...]:
    """Finds where to quantize activations: in the order of execution."""
    sites: list[Site] = []
    # Position of the site whose grid a tensor has, by the tensor's `id`.
    grids: dict[int, int] = {}
    taken: set[str] = set()

    def add(tensor: Any, path: str, *arguments: Any, **named: Any) -> None:
        # A layer may be called `input`, too.
        numbers = itertools.count(1)
        free = path
        while free in taken:
            free = f"{path}_{next(numbers)}"
        taken.add(free)
        sites.append(Site(free, *arguments, **named))
        grids[id(tensor)] = len(sites) - 1

    def add_inside(
        call: Call, place: str, tensor: Any = None, **named: Any
    ) -> None:
        inner = _numbered(f"{found.paths[call.index]}/{place}", call.number)
        add(tensor, inner, call.index, call.number, place, **named)

    for i, tensor in enumerate(found.inputs):
        if (
            tensor.dtype.is_floating
            and not _is_cut(tensor, found)
            and not columns.narrow(tensor, found, bits)
        ):
            add(tensor, _numbered("input", i), INPUT, i)
    for call in found.calls:
        if not call.output.dtype.is_floating or found.is_position(call.output):
            continue
        path = _numbered(found.paths[call.index], call.number)
        place = call.index, call.number

        inside = functools.partial(add_inside, call)
        if _reads_between(call, found):
            like = grids.get(id(call.tensors[0]), -1)
            inside(READ, call.tensors[0], like=like)
        if attention.is_plain(call.layer):
            for part in attention.places_before_scores(call.layer):
                inside(part, fixed="tanh" if part == attention.TANH else "")
        if attention.has_scores(call, found):
            inside(SCORES)
        if attention.is_plain(call.layer):
            inside(PROBABILITIES, fixed="softmax")
        if separable.is_plain(call.layer):
            inside(MIDDLE)
        if call.activated == 1 and _has_own_operator(call.layer):
            inside(PREACTIVATION)
        if call.activated == 1 and _is_swish(call.layer):
            inside(GATE, fixed="sigmoid")
        fixed = _fixed(call.layer)
        if is_moving(call):
            like = grids.get(id(call.tensors[0]), -1)
            if like >= 0 and averages(call.layer):
                add(call.output, path, *place, like=like)
            elif like >= 0:
                grids[id(call.output)] = like
        elif fixed:
            if _is_read_inside(call, found):
                add(call.output, path, *place, fixed=fixed)
        elif _is_site(call, found):
            add(call.output, path, *place)
        if attention.is_gated(call.layer):
            inside(CONTEXT)
    return tuple(sites)


def grids_of(found: Trace, sites: Sequence[Site]) -> dict[int, int]:
    """Position of the site whose grid a tensor has, by the tensor's `id`."""
    named, reads = (positions(sites, place) for place in (OUTPUT, READ))
    grids = {
        id(tensor): named[INPUT, i]
        for i, tensor in enumerate(found.inputs)
        if (INPUT, i) in named
    }
    for call in found.calls:
        read = reads.get((call.index, call.number))
        if read is not None:
            grids[id(call.tensors[0])] = read
        own = named.get((call.index, call.number))
        if own is None and is_moving(call):
            own = grids.get(id(call.tensors[0]))
        if own is not None:
            grids[id(call.output)] = own
    return grids


def positions(sites: Sequence[Site], place: str) -> dict[tuple[int, int], int]:
    """Positions of the sites at one place of calls, by layer and call."""
    return {
        (site.layer, site.call): position
        for position, site in enumerate(sites)
        if site.place == place
    }


def _is_cut(tensor: Any, found: Trace) -> bool:
    """Whether an input is only read as integers, such as tokens."""
    readers = [call.layer for call in found.readers(tensor)]
    return bool(readers) and all(isinstance(x, _CUTTING) for x in readers)


def _numbered(path: str, number: int) -> str:
    return f"{path}#{number + 1}" if number else path


def _fixed(layer: Any) -> str:
    """The activation at a layer's end if its kernels have a fixed scale."""
    # What others do with their activation is not known: a recurrent layer
    # multiplies it.
    if not isinstance(layer, keras.layers.Layer):
        return _FIXED_NAMES.get(type(layer).__name__, "")
    if not isinstance(layer, (*LINEAR, *_ACTIVATIONS)):
        return ""
    name = _activation(layer)
    return name if name in _FIXED_ACTIVATIONS else ""


def _is_swish(layer: Any) -> bool:
    """Whether a layer ends in `x * sigmoid(x)`, for which there is no kernel.

    A sigmoid runs, and a product.
    """
    return layer.activation is keras.activations.silu


def _is_site(call: Call, found: Trace) -> bool:
    layer = call.layer
    if _activation(layer) is not None:
        return True
    follower = found.only_reader(call.output)
    if follower is None:
        return True
    fuses = _fuses(follower.layer)
    if isinstance(layer, LINEAR) and isinstance(
        follower.layer, keras.layers.BatchNormalization
    ):
        return False
    kinds = (*LINEAR, keras.layers.BatchNormalization, *_FUSING)
    fusing = isinstance(layer, kinds) or type(layer).__name__ in _FUSING_NAMES
    return not (fusing and fuses)


def _reads_between(call: Call, found: Trace) -> bool:
    """Whether a kernel's input is computed by what is no layer."""
    if not isinstance(call.layer, LINEAR) or not call.tensors:
        return False
    x = call.tensors[0]
    return x.dtype.is_floating and found.is_between(x)


def _is_read_inside(call: Call, found: Trace) -> bool:
    """Whether the model computes with an output that it does not return."""
    if found.is_multiplied(call.output):
        return True
    if found.ends(call.output):
        return False
    return any(
        not is_moving(reader) or _is_read_inside(reader, found)
        for reader in found.readers(call.output)
        # A dropout gives what it read.
        if reader.output is not call.output
    )


def _activation(layer: Any) -> str | None:
    """Name of what a layer applies last; `None` for nothing."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.RNN):
        return None  # a cell goes on behind its activation
    function = getattr(layer, "activation", None)
    if function is None:
        return None
    name = getattr(function, "__name__", type(function).__name__)
    return None if name == "linear" else name


def _fuses(layer: Any) -> bool:
    """Whether TFLite runs this activation inside the operator before it."""
    if isinstance(layer, keras.layers.ReLU):
        return (
            layer.max_value in (None, 6)
            and not layer.negative_slope
            and not layer.threshold
        )
    return (
        isinstance(layer, keras.layers.Activation)
        and _activation(layer) in _FUSED_ACTIVATIONS
    )


def _has_own_operator(layer: Any) -> bool:
    """Whether the activation inside of a layer is an operator by itself.

    It is none where TFLite runs it inside the operator before it. What it
    computes decides, not its name: it may be anyone's function.
    """
    if isinstance(layer, keras.layers.Activation):
        return False
    probe = np.linspace(-8.0, 8.0, 64, dtype=np.float32)[None]
    try:
        got = np.asarray(layer.activation(tf.constant(probe)))
    except Exception:  # noqa: BLE001 It may want another shape.
        return True
    fused = (probe, np.maximum(probe, 0.0), np.clip(probe, 0.0, 6.0))
    return not any(np.array_equal(got, wanted) for wanted in fused)
