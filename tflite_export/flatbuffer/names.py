"""Gives every tensor of a file a name: short, unique, by layers where it pays.

Some readers of files refuse tensors without a name (OpenVINO, tf2onnx), and
viewers group tensors by the slashes in their names. The converter's own names
take a fifth of a small file.

A trained weight is called as its layer is, inputs and outputs as in the
signature. Every other tensor has a number: `#12`, or `block1/conv1/#12` where
the names of all layers take less than `SHARE` of the file.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb

# Names of layers may take this share of a file's bytes.
SHARE = 0.005
# What a name takes beside its letters: offset, length, end, alignment.
_OVERHEAD = 11
_NUMBERED = re.compile(r"(?:.*/)?#\d+(?:\.\d+)?")
# Keras counts the calls of a layer in the scopes of its operations.
_CALL = re.compile(r"_\d+$")


def own(tensor: schema.TensorT) -> str:
    """Name of a tensor, empty where it only has a number."""
    name = fb.name(tensor)
    return "" if _NUMBERED.fullmatch(name) else name


def give(model: schema.ModelT, kept: Collection[tuple[int, int]]) -> None:
    """Names the tensors of a model in place.

    Args:
        model: A file whose names are the converter's.
        kept: Subgraph and index of tensors that have their name already;
            inputs and outputs of the first subgraph have it, too.
    """
    named = {(n, i) for n, i in kept}
    main = model.subgraphs[0]
    named |= {(0, i) for i in (*fb.inputs(main), *fb.outputs(main))}
    places = [
        (number, index)
        for number, graph in enumerate(model.subgraphs)
        for index in range(len(graph.tensors))
    ]
    # Files without signatures go by the names of inputs and outputs, so these
    # come before weights of the same name; inputs first, as states are inputs
    # and outputs of one name.
    order = {(0, i): 0 for i in fb.outputs(main)}
    order |= {(0, i): -1 for i in fb.inputs(main)}
    public = sorted(named, key=lambda place: (order.get(place, 1), place))
    taken: set[str] = set()
    for place in public:
        _set(model, place, _unique(fb.name(_tensor(model, place)), taken))
    rest = [place for place in places if place not in named]
    layers = _layers(model, set(kept))
    size = sum(
        len(buffer.data) for buffer in model.buffers if buffer.data is not None
    )
    names = {p: _numbered(p, layers.get(p, "")) for p in rest}
    bytes_ = sum(len(name.encode()) + _OVERHEAD for name in names.values())
    if bytes_ > SHARE * size:
        names = {place: _numbered(place, "") for place in rest}
    for place, name in names.items():
        _set(model, place, _unique(name, taken))


def renumber(model: schema.ModelT) -> None:
    """Gives numbered tensors the number that they have in this model.

    For files that were joined: each had a graph 0.
    """
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            if not own(tensor):
                layer = fb.name(tensor).rpartition("#")[0].rstrip("/")
                tensor.name = _numbered((number, index), layer).encode()


def _tensor(model: schema.ModelT, place: tuple[int, int]) -> schema.TensorT:
    return model.subgraphs[place[0]].tensors[place[1]]


def _set(model: schema.ModelT, place: tuple[int, int], name: str) -> None:
    _tensor(model, place).name = name.encode()


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}:{count}"
    taken.add(found)
    return found


def _numbered(place: tuple[int, int], layer: str) -> str:
    graph, index = place
    number = f"#{graph}.{index}" if graph else f"#{index}"
    return f"{layer}/{number}" if layer else number


def _layers(
    model: schema.ModelT, kept: set[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """The layer of each tensor, where one is known.

    What an operator writes that reads a weight belongs to the weight's layer.
    Else the converter's name has the scopes in which the operation was made.
    """
    found: dict[tuple[int, int], str] = {}
    counted = _calls_are_counted(model, kept)
    for number, graph in enumerate(model.subgraphs):
        weights = _weights(model, number, kept)
        for op in graph.operators or ():
            read = [weights[i] for i in fb.inputs(op) if i in weights]
            outputs = fb.outputs(op)
            if read and fb.op_name(model, op) == "DEQUANTIZE":
                weights[outputs[0]] = read[0]
            for index in outputs:
                scope = _scope(fb.name(graph.tensors[index]), counted)
                found[number, index] = read[0] if read else scope
            # Biases, shapes and the like belong to who reads them.
            for index in fb.inputs(op):
                if index < 0 or not outputs:
                    continue
                if fb.raw_data(model, graph.tensors[index]) is not None:
                    found.setdefault((number, index), found[number, outputs[0]])
    return found


def _weights(
    model: schema.ModelT, number: int, kept: set[tuple[int, int]]
) -> dict[int, str]:
    """Names of a subgraph's weights, by the tensor's index."""
    return {i: fb.name(_tensor(model, (n, i))) for n, i in kept if n == number}


def _scope(name: str, counted: bool) -> str:
    """`a/b` of `model/a_1/b_1/op;...`, the scopes within the model."""
    scopes = name.partition(";")[0].split("/")[1:-1]
    if counted:
        scopes = [_CALL.sub("", scope) for scope in scopes]
    return "/".join(scopes)


def _calls_are_counted(
    model: schema.ModelT, kept: set[tuple[int, int]]
) -> bool:
    """Whether scopes are names of layers with the number of a call.

    Told by the operators that read weights, whose layers are known.
    """
    votes: collections.Counter[bool] = collections.Counter()
    for number, graph in enumerate(model.subgraphs):
        weights = _weights(model, number, kept)
        for op in graph.operators or ():
            for layer in (weights[i] for i in fb.inputs(op) if i in weights):
                for index in fb.outputs(op):
                    written = fb.name(graph.tensors[index])
                    parts = written.replace(";", "/").split("/")
                    votes[layer.rpartition("/")[2] not in parts] += 1
    return votes[True] >= votes[False]
