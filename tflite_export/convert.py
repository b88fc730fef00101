"""From a Keras model to a float TFLite file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from msq_tf.weights import QuantizedWeight
from tflite_export import dense
from tflite_export import flatbuffer as fb
from tflite_export import parts
from tflite_export.converter import Converter
from tflite_export.errors import ExportError
from tflite_export.freezing import Traced
from tflite_export.lowering import lowered
from tflite_export.source import Source
from tflite_export.source import from_model
from tflite_export.source import output_names

SIGNATURE = "serving_default"
# Offsets in a file are signed, of 32 bits, and so are the lengths in the graph
# that the converter reads. What is not weights takes some of that.
LARGEST = (1 << 31) - (1 << 24)


@dataclasses.dataclass(frozen=True)
class FloatFile:
    """A float TFLite file and what is known about it.

    Attributes:
        data: The bytes.
        source: The model with the inputs the file really takes.
        constants: Float arrays of two or more axes that the model's own code
            writes into the graph: none of the trained values.
        notes: Sentences for the report.
    """

    data: bytes | mmap.mmap
    source: Source
    constants: tuple[np.ndarray, ...]
    notes: tuple[str, ...]


def to_float_file(
    source: Source,
    trained: Sequence[QuantizedWeight] = (),
    folder: str | os.PathLike[str] | None = None,
) -> FloatFile:
    """Converts a model, with its weights as `source.scope()` shows them.

    Args:
        source: The model.
        trained: Its quantized weights, whose values are no constants of the
            model's code.
        folder: Where there is room for what takes much memory, the float file
            itself included. `None` for where temporary files are, the float
            file in memory.

    Returns:
        The float file, with a signature and readable input and output names.

    Raises:
        ExportError: If the converter refuses the model.
    """
    notes = []
    check_size(source.base)
    traced, names = _trace(source)
    graph = traced.function.graph.as_graph_def()
    dynamic = any(spec.shape[0] is None for spec in source.specs)
    if dynamic and any(n.op == "TensorListReserve" for n in _nodes(graph)):
        # Lists of tensors (recurrent layers) need a known element shape.
        source = dataclasses.replace(
            from_model(
                source.model or source.base, source.structure, batch_size=1
            ),
            trained_ranges=source.trained_ranges,
        )
        traced, names = _trace(source)
        graph = traced.function.graph.as_graph_def()
        notes.append(
            "batch size fixed to 1: the converter needs a static batch for "
            "the loop of a recurrent layer; unroll=True keeps it dynamic"
        )
    constants = _untrained(graph, traced, trained)
    del graph
    model = parts.convert(Converter(traced), folder or tempfile.gettempdir())
    dense.join(model)
    _sign(model, traced, [spec.name for spec in source.specs], names)
    data = fb.dump(model) if folder is None else fb.spool(model, folder)
    return FloatFile(data, source, constants, tuple(notes))


def check_size(base: Any) -> None:
    """Refuses a model that is too large for any file, before it takes memory.

    Args:
        base: The Keras model.

    Raises:
        ExportError: If its weights as floats don't fit into a file.
    """
    size = 4 * sum(math.prod(variable.shape) for variable in base.weights)
    if size > LARGEST:
        raise ExportError(
            f"The model's weights take {size:,} bytes as floats. A TFLite file "
            "and the graph that the converter reads hold less than 2 GiB, and "
            "every export begins with a float file. Expected at most "
            f"{LARGEST:,} bytes: export parts of the model as models of their "
            "own"
        )


def _trace(source: Source) -> tuple[Traced, list[str]]:
    names: list[str] = []

    def serve(*flat_inputs):
        outputs = source.call(flat_inputs)
        names[:] = output_names(source.base, outputs)
        # Identity keeps an output that is an input, or is given twice, apart.
        return [tf.identity(y) for y in keras.tree.flatten(outputs)]

    traced = tf.function(serve, input_signature=source.specs, autograph=False)
    with source.scope(), lowered():
        function = traced.get_concrete_function()
    return (
        Traced(
            function,
            [_name(tensor) for tensor in function.inputs[: len(source.specs)]],
            [_name(tensor) for tensor in function.outputs],
            {
                _name(inner): functools.partial(np.asarray, outer)
                for outer, inner in function.graph.captures
                # Not variables, and not what is so small that it is a constant
                # of the graph already.
                if outer.dtype != tf.resource and inner.op.type == "Placeholder"
            },
        ),
        names,
    )


def _name(tensor: tf.Tensor) -> str:
    return tensor.name.split(":")[0]


def _nodes(graph: tf.compat.v1.GraphDef) -> Iterator:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _constants(graph: tf.compat.v1.GraphDef) -> Iterator[np.ndarray]:
    for node in _nodes(graph):
        if node.op == "Const":
            proto = node.attr["value"].tensor
            rank = len(proto.tensor_shape.dim)
            if rank >= 2 and proto.dtype == tf.float32.as_datatype_enum:
                yield tf.make_ndarray(proto)


def _untrained(
    graph: tf.compat.v1.GraphDef,
    traced: Traced,
    trained: Sequence[QuantizedWeight],
) -> tuple[np.ndarray, ...]:
    """Float arrays of two or more axes in a graph that are no trained values.

    What the function captured of the trained weights, it has by their codes
    from here on, which take a quarter of the memory.
    """
    known = {_digest(weight.values): weight for weight in trained}
    found = [
        array for array in _constants(graph) if _digest(array) not in known
    ]
    for name, value in traced.captured.items():
        array = value()
        weight = known.get(_digest(array))
        if weight is not None:
            traced.captured[name] = functools.partial(_values, weight)
        elif array.dtype == np.float32 and array.ndim >= 2:
            found.append(array)
    return tuple(found)


def _values(weight: QuantizedWeight) -> np.ndarray:
    return weight.values


def _digest(array: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """Equal for arrays of one shape that hold the same numbers."""
    # Zeros have signs, which say nothing.
    plain = np.ascontiguousarray(array) + array.dtype.type(0)
    return array.shape, hashlib.sha256(plain.data).digest()


def _sign(
    model: schema.ModelT,
    traced: Traced,
    input_names: list[str],
    output_names: list[str],
) -> None:
    graph = model.subgraphs[0]
    inputs = _in_order(graph, fb.inputs(graph), traced.inputs)
    outputs = _in_order(graph, fb.outputs(graph), traced.outputs)
    for indices, names in ((inputs, input_names), (outputs, output_names)):
        for index, name in zip(indices, names, strict=True):
            graph.tensors[index].name = name.encode()
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array(outputs, np.int32)
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.subgraphIndex = 0
    signature.inputs = _tensor_maps(inputs, input_names)
    signature.outputs = _tensor_maps(outputs, output_names)
    model.signatureDefs = [signature]


def _in_order(
    graph: schema.SubGraphT,
    indices: list[int],
    wanted: Sequence[str],
) -> list[int]:
    """Tensor indices of a file in the order of the function's tensors."""
    if len(indices) != len(wanted):
        raise ExportError(
            f"The converter kept {len(indices)} of {len(wanted)} inputs or "
            "outputs: one of them isn't used"
        )
    found = {fb.name(graph.tensors[index]): index for index in indices}
    # Where the function gives one value twice, the second name is gone and
    # the place has to do.
    return [
        found.get(name, index)
        for name, index in zip(wanted, indices, strict=True)
    ]


def _tensor_maps(
    indices: list[int], names: list[str]
) -> list[schema.TensorMapT]:
    maps = []
    for index, name in zip(indices, names, strict=True):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        maps.append(entry)
    return maps
