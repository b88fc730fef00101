"""How many samples a file is run on, at once and in all.

A verification keeps every tensor that a file computes, some as integers and as
floats, and simulates kernels in numpy. For a network of a thousand weights this
is little; for a long sequence a single sample can take a gigabyte and seconds.
So both numbers follow from the work of one sample. The work is counted from the
operators and not measured, so the same export does the same work on any
machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import interpreter

# Most samples of one run, where memory allows them.
MOST_AT_ONCE = 16
# Most samples for the reference kernels, and for operators one by one.
_REFERENCE, _OPERATORS = 8, 16
# Fewest samples for what applications get and for Keras, which are quick, and
# how much more of the usual work they may do.
_QUICK, _QUICK_SHARE = 16, 8.0
# Bytes of kept tensors in one run.
_ROOM = 1 << 27
# Bytes that Keras keeps of each value in a file: it holds what every layer
# gives to the end, of which a file fuses some three.
KERAS_BYTES = 12
# Products that a slow set of kernels, or a simulation, may compute in all.
_PRODUCTS = 6e9
# What one computed value costs beside its products, in products: rescaling it
# in numpy.
_PER_VALUE = 100


@dataclasses.dataclass(frozen=True)
class Effort:
    """The work that one sample takes in a file.

    Attributes:
        values: Elements of all tensors that are computed.
        products: Multiplications of weights or activations, about.
        batch: Samples that the file takes at once, where it insists.
    """

    values: int
    products: int
    batch: int = 1

    def at_once(self, bytes_per_value: int = 4) -> int:
        """Number of samples whose tensors may be kept together."""
        room = _ROOM // max(self.values * bytes_per_value, 1)
        return int(np.clip(room, 1, MOST_AT_ONCE))

    def quick(self, given: int) -> int:
        """Number of samples for a quick set of kernels, or for Keras.

        All that are `given` but where a sample takes billions of products.
        """
        return self.whole(self.samples(given, _QUICK, _QUICK_SHARE), given)

    def whole(self, count: int, given: int) -> int:
        """At least `count` samples in whole batches, where that many are given.

        A batch that is filled up with other samples than the model saw is
        another batch, and costs as much as a whole one.
        """
        return min(-(-count // self.batch) * self.batch, given)

    def samples(self, most: int, least: int = 2, share: float = 1.0) -> int:
        """Number of samples for a slow set of kernels or a simulation.

        From `least` to `most`, in a share of the usual work.
        """
        work = self.products + _PER_VALUE * self.values
        room = share * _PRODUCTS // max(work, 1)
        return int(np.clip(room, min(least, most), most))


def effort(data: bytes, samples: Sequence[np.ndarray]) -> Effort:
    """Counts what one sample takes in a file.

    The samples' shapes fill in what the file leaves open.
    """
    model = fb.read(data)
    graph = model.subgraphs[0]
    session = interpreter.Session(data, "builtin")
    rows = session.fixed_batch or 1
    shapes = session.shapes([array.shape[1:] for array in samples])
    # What follows from constants alone is the same for all samples.
    varies = set(fb.inputs(graph))
    values = products = 0
    for op in graph.operators:
        if not varies.intersection(fb.inputs(op)):
            continue
        varies.update(fb.outputs(op))
        values += sum(math.prod(shapes[i]) for i in fb.outputs(op))
        products += _products(fb.op_name(model, op), op, shapes)
    return Effort(-(-values // rows), -(-products // rows), rows)


def counts(data: bytes, inputs: Sequence[np.ndarray]) -> dict[str, int]:
    """Samples to run on each of `runtime.KERNELS`, and by `"operators"`."""
    given = len(inputs[0])
    one = effort(data, inputs)
    found = {
        "xnnpack": one.quick(given),
        "builtin": one.samples(given),
        # Loops without any optimization.
        "reference": one.samples(min(_REFERENCE, given), 1, 0.25),
        # All tensors are kept.
        "operators": one.samples(min(_OPERATORS, given)),
    }
    return {kind: one.whole(count, given) for kind, count in found.items()}


def _products(
    name: str, op: schema.OperatorT, shapes: Sequence[tuple[int, ...]]
) -> int:
    """Products of an operator: a dot product for each value it computes."""
    if name not in _REDUCED:
        return 0
    weight = shapes[fb.inputs(op)[1]]
    inner = math.prod(
        weight[k] for k in _REDUCED[name] if -len(weight) <= k < len(weight)
    )
    return math.prod(shapes[fb.outputs(op)[0]]) * inner


# Axes of the second input that are summed over.
_REDUCED = {
    "BATCH_MATMUL": (-2,),
    "CONV_2D": (1, 2, 3),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1,),
    "TRANSPOSE_CONV": (1, 2, 3),
}
