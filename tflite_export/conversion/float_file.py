"""From a Keras model to a float TFLite file."""

from __future__ import annotations

import dataclasses
import functools
import mmap
import os
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from msq_tf.core.quantized_weight import QuantizedWeight
from tflite_export.conversion import functions
from tflite_export.conversion import fuse_dense
from tflite_export.conversion import in_parts
from tflite_export.conversion import noise
from tflite_export.conversion import rounding
from tflite_export.conversion import seals
from tflite_export.conversion import states
from tflite_export.conversion import tensor_lists
from tflite_export.conversion.converter import Converter
from tflite_export.conversion.frozen_graph import FrozenGraph
from tflite_export.conversion.frozen_graph import Traced
from tflite_export.conversion.lowering import lowered
from tflite_export.conversion.sizes import check_size
from tflite_export.conversion.source import Source
from tflite_export.conversion.source import from_model
from tflite_export.conversion.trained import Trained
from tflite_export.conversion.trained import constants
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb

SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class FloatFile:
    """A float TFLite file and what is known about it.

    Attributes:
        data: The bytes.
        source: The model with the inputs the file really takes.
        constants: Float arrays of two or more axes that the model's own code
            writes into the graph: none of the trained values.
        notes: Sentences for the report.
        held: Quantized weights that tensors are known to hold, by subgraph
            and tensor.
        unread: Paths of quantized weights that inference never reads.
        graph: Function that returns the graph it was made of; `None` where
            that is not known.
    """

    data: bytes | mmap.mmap
    source: Source
    constants: tuple[np.ndarray, ...]
    notes: tuple[str, ...]
    held: Mapping[tuple[int, int], QuantizedWeight] = dataclasses.field(
        default_factory=dict
    )
    unread: tuple[str, ...] = ()
    graph: Callable[[], rounding.Graph] | None = None


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

    Raises:
        ExportError: If the converter refuses the model.
    """
    return Conversion(source, trained, folder).file()


class Conversion:
    """A model on its way to a float file, which may be made more than once.

    As of `to_float_file`; `floats` are values of its weights that stay float.

    Raises:
        ExportError: If the model is too large.
    """

    def __init__(
        self,
        source: Source,
        trained: Sequence[QuantizedWeight] = (),
        folder: str | os.PathLike[str] | None = None,
        floats: Iterable[np.ndarray] = (),
    ):
        self._notes: list[str] = []
        self._folder = folder
        check_size(source.base)
        self._trained, self._floats = trained, list(floats)
        while kept := self._convert(source):
            # What a state becomes may depend on further ones.
            source = self._with_states(kept)

    def _convert(self, source: Source) -> list[Any]:
        """Gets the model ready for the converter.

        Returns variables of calls before that results depend on.
        """
        traced, self._names = _trace(source)
        graph = traced.function.graph.as_graph_def()
        dynamic = any(spec.shape[0] is None for spec in source.specs)
        if tensor_lists.pack(graph) and dynamic:
            # Lists of tensors (recurrent layers) need a known element shape.
            source = _of_one(source)
            traced, self._names = _trace(source)
            graph = traced.function.graph.as_graph_def()
            self._notes.append(
                "batch size fixed to 1: the converter needs a static batch for "
                "the loop of a recurrent layer; unroll=True keeps it dynamic"
            )
        self._source = source
        traced.trained = Trained(self._trained, self._floats)
        self._constants = [
            array
            for array in constants(rounding.nodes(graph))
            if not traced.trained.find(array)
        ] + traced.trained.shorten(traced.captured)
        del graph
        self._traced = traced
        self._converter = Converter(traced)
        frozen = self._converter.frozen
        if frozen is None:
            return []
        self._constants += frozen.folded
        return frozen.kept_states()

    def _with_states(self, kept: Sequence[Any]) -> Source:
        """The source with variables as further inputs and outputs."""
        source = self._source
        if source.specs[0].shape[0] is None:
            source = _of_one(source)
            self._notes.append(
                "batch size fixed to 1: each call changes what the model "
                "keeps; another batch_size can be given"
            )
        known = [state.variable for state in self._source.states]
        if any(one is other for one in known for other in kept):
            raise ExportError(
                "A state that the model keeps from call to call is read past "
                "Keras, so that it can't become an input of the file. "
                "Expected a layer that reads its variable itself. Received: "
                f"{', '.join(variable.name for variable in kept)}"
            )
        own = keras.tree.flatten(source.structure)
        found = states.named(
            source.base,
            [*known, *kept],
            source.specs[0].shape[0],
            [spec.name for spec in own],
            self._names[: len(self._names) - len(known)],
        )
        return dataclasses.replace(source, states=found)

    def file(self, apart: Iterable[str] = ()) -> FloatFile:
        """Makes the float file.

        Nothing is folded into the quantized weights whose paths are `apart`.

        Raises:
            ExportError: If the converter refuses the model.
        """
        frozen = self._converter.frozen
        if frozen is not None:
            frozen.seal(apart)
        folder = self._folder
        model = in_parts.convert(
            self._converter, folder or tempfile.gettempdir()
        )
        fuse_dense.join(model)
        held = {} if frozen is None else seals.settle(model, frozen.seals)
        _sign(
            model,
            self._traced,
            [spec.name for spec in self._source.specs],
            self._names,
        )
        return FloatFile(
            fb.dump(model) if folder is None else fb.spool(model, folder),
            self._source,
            tuple(self._constants),
            tuple(self._notes),
            held,
            () if frozen is None else tuple(w.path for w in frozen.unread()),
            None
            if frozen is None
            else functools.partial(_graph, frozen, self._traced.inputs),
        )

    def computed(self) -> list[np.ndarray]:
        """Float arrays that the graph computes from its constants.

        None of them is made of a quantized weight.
        """
        frozen = self._converter.frozen
        return [] if frozen is None else frozen.computed()

    def changed(self) -> list[str]:
        """Paths of quantized weights that are computed with before use."""
        frozen = self._converter.frozen
        return [] if frozen is None else frozen.changed()


def _graph(frozen: FrozenGraph, inputs: Sequence[str]) -> rounding.Graph:
    return rounding.Graph(frozen.whole(), inputs, frozen.outputs)


def _of_one(source: Source) -> Source:
    """The source with batches of one sample."""
    own = source.model or source.base
    found = from_model(own, source.structure, batch_size=1)
    return dataclasses.replace(
        found, base=source.base, trained_ranges=source.trained_ranges
    )


def _trace(source: Source) -> tuple[Traced, list[str]]:
    traced, names = _traced(source, erf=False)
    if functions.has_lone_erf(traced.function.graph):
        traced, names = _traced(source, erf=True)
    return traced, names


def _traced(source: Source, erf: bool) -> tuple[Traced, list[str]]:
    names: list[str] = []

    def serve(*flat_inputs):
        names[:], outputs = source.call(flat_inputs, aside)
        # Identity keeps an output that is an input, or is given twice, apart.
        return [tf.identity(y) for y in outputs]

    traced = tf.function(serve, input_signature=source.specs, autograph=False)
    with (
        states.aside(source.base) as aside,
        source.scope(),
        lowered(erf),
        noise.drawn(),
    ):
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
            states={
                _name(inner): variable
                for outer, inner in function.graph.captures
                for variable in aside.updated.values()
                if outer is states.handle(variable)
            },
        ),
        names,
    )


def _name(tensor: tf.Tensor) -> str:
    return tensor.name.split(":")[0]


def _sign(
    model: schema.ModelT,
    traced: Traced,
    input_names: list[str],
    output_names: list[str],
) -> None:
    graph = model.subgraphs[0]
    inputs = _in_order(graph, fb.inputs(graph), traced.inputs)
    outputs = _in_order(graph, fb.outputs(graph), traced.outputs)
    # One tensor may be several outputs, and an input: it has the name of that,
    # or of the first.
    for indices, names in ((outputs, output_names), (inputs, input_names)):
        for index, name in reversed(list(zip(indices, names, strict=True))):
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
            "An input or output of the model is in no use. Expected a model "
            "that computes with all of its inputs. Received: the converter "
            f"kept {len(indices)} of {len(wanted)}, {', '.join(wanted)}"
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
    maps = [schema.TensorMapT() for _ in indices]
    for entry, index, name in zip(maps, indices, names, strict=True):
        entry.name, entry.tensorIndex = name.encode(), index
    return maps
