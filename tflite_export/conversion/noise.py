"""Models that draw random numbers in inference, such as the sampling of a VAE.

A file draws them, too: new ones at every run, as Keras does. Keras draws by
seeds for which TFLite has no operators, so other operators replace them when
the model is traced. For a comparison, both get the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer.operators import RANDOM

_NAME = "drawn_numbers_"
# The kinds that layers can be given numbers of.
_GIVEN = {
    "RANDOM_STANDARD_NORMAL": lambda rng, shape: rng.normal(size=shape),
    "RANDOM_UNIFORM": lambda rng, shape: rng.random(shape),
}
_Draw = Callable[[str, Any], Any]


@contextlib.contextmanager
def drawn() -> Iterator[None]:
    """A scope to trace layers in, with random numbers as TFLite has them."""
    count = 0

    def draw(kind: str, shape: Any) -> tf.Tensor:
        nonlocal count
        operation = getattr(tf.raw_ops, kind)
        count += 1
        return operation(
            shape=shape, dtype=tf.float32, name=f"{_NAME}{count - 1}"
        )

    with _exchanged(draw):
        yield


@contextlib.contextmanager
def given(numbers: Sequence[np.ndarray]) -> Iterator[None]:
    """A scope in which layers get numbers that were drawn before."""
    left = list(numbers)

    def draw(kind: str, shape: Any) -> tf.Tensor:
        return tf.reshape(tf.constant(left.pop(0), tf.float32), shape)

    if not left:
        yield
        return
    with _exchanged(draw):
        yield


@contextlib.contextmanager
def _exchanged(draw: _Draw) -> Iterator[None]:
    names = ("normal", "uniform", "stateless_normal", "stateless_uniform")
    originals = {name: getattr(tf.random, name) for name in names}
    for name, original in originals.items():
        make = _normal if name.endswith("normal") else _uniform
        setattr(tf.random, name, make(draw, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(tf.random, name, original)


def _normal(draw: _Draw, original: Callable[..., Any]) -> Callable[..., Any]:
    def normal(shape, *args, mean=0.0, stddev=1.0, dtype=tf.float32, **options):
        if args or tf.as_dtype(dtype) != tf.float32:
            return original(
                shape, *args, mean=mean, stddev=stddev, dtype=dtype, **options
            )
        return draw("RandomStandardNormal", shape) * stddev + mean

    return normal


def _uniform(draw: _Draw, original: Callable[..., Any]) -> Callable[..., Any]:
    def uniform(
        shape, *args, minval=0, maxval=None, dtype=tf.float32, **options
    ):
        if args or tf.as_dtype(dtype) != tf.float32:
            return original(
                shape,
                *args,
                minval=minval,
                maxval=maxval,
                dtype=dtype,
                **options,
            )
        top = 1.0 if maxval is None else maxval
        return draw("RandomUniform", shape) * (top - minval) + minval

    return uniform


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws of random numbers in a file, in the order of the model's calls.

    Attributes:
        tensors: The tensors of the main graph that hold them.
        kinds: The operators that draw.
        axes: Lengths of the tensors' axes but the first.
        places: For each, how many operators of the file draw before it.
    """

    tensors: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    axes: tuple[tuple[int, ...], ...] = ()
    places: tuple[int, ...] = ()

    def within(self, data: bytes) -> Draws:
        """The same draws in a file that was made of this one.

        Its tensors may have other places and names; its operators keep their
        order.
        """
        if not self.tensors:
            return self
        model = fb.read(data)
        found = [fb.outputs(op)[0] for _, op in _drawing(model)]
        return dataclasses.replace(
            self, tensors=tuple(found[place] for place in self.places)
        )

    def numbers(self, count: int) -> list[np.ndarray]:
        """Random numbers for some samples, always the same."""
        rng = np.random.default_rng(0)
        return [
            _GIVEN[kind](rng, (count, *axes)).astype(np.float32)
            for kind, axes in zip(self.kinds, self.axes, strict=True)
        ]

    def notes(self) -> list[str]:
        """A sentence for the report, where there are any."""
        if not self.tensors:
            return []
        return [
            f"the file draws random numbers in {len(self.tensors)} places, "
            "new ones at every run; it was compared with Keras on the same ones"
        ]

    def opened(self, data: bytes | mmap.mmap) -> bytes | mmap.mmap:
        """The file with further inputs in the place of what it draws."""
        if not self.tensors:
            return data
        model = fb.load(data)
        graph = model.subgraphs[0]
        graph.operators = [
            op
            for op in graph.operators
            if not set(fb.outputs(op)) & set(self.tensors)
        ]
        graph.inputs = np.array([*fb.inputs(graph), *self.tensors], np.int32)
        model.signatureDefs = None
        return fb.dump(model)


def find(data: Any) -> Draws:
    """Finds where a float file, with the converter's names, draws numbers.

    Raises:
        ExportError: If a loop does, or not a number a sample.
    """
    model = fb.read(data)
    found: dict[int, tuple[int, str, tuple[int, ...], int]] = {}
    for place, (number, op) in enumerate(_drawing(model)):
        kind = fb.op_name(model, op)
        (index,) = fb.outputs(op)
        tensor = model.subgraphs[number].tensors[index]
        name = re.search(rf"{_NAME}(\d+)", fb.name(tensor))
        axes = fb.shape(tensor)
        if (
            number
            or kind not in _GIVEN
            or name is None
            or not axes
            or int(name[1]) in found
        ):
            raise ExportError(
                "Random numbers are drawn in a loop, without a batch axis or "
                "from a distribution that is not uniform or normal: what the "
                "file computes can't be compared with Keras. Expected a model "
                "without the layer that draws them, whose numbers are an "
                f"input. Received: {kind} of shape {axes}"
            )
        found[int(name[1])] = (index, kind, axes[1:], place)
    ordered = [found[k] for k in sorted(found)]
    if not ordered:
        return Draws()
    return Draws(*(tuple(part) for part in zip(*ordered, strict=True)))


def _drawing(
    model: schema.ModelT,
) -> Iterator[tuple[int, schema.OperatorT]]:
    """The operators that draw, each with the number of its subgraph."""
    for number, graph in enumerate(model.subgraphs):
        for op in graph.operators:
            if fb.op_name(model, op) in RANDOM:
                yield number, op
