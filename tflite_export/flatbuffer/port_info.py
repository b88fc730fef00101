"""Inputs and outputs of any TFLite file, and which of them are states."""

from __future__ import annotations

import dataclasses
import functools

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import model as fb

# Behind the name of a state's input, for the output that belongs to it.
NEXT = "_next"


@dataclasses.dataclass(frozen=True, slots=True)
class PortInfo:
    """An input or output.

    Attributes:
        name: Its name; of a state, that of the signature.
        type: Its type.
        shape: Its shape, -1 where open.
        state: Of a state that the model keeps from call to call: the output
            that this input is given in the next call, or the input that this
            output is given to. `None` for any other.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    state: str | None = None


def port_info(tensor: schema.TensorT) -> PortInfo:
    """Facts that a tensor at a port states."""
    signature = tensor.shapeSignature
    shape = fb.shape(tensor)
    if signature is not None and len(signature) == len(shape):
        shape = tuple(int(d) for d in signature)
    return PortInfo(fb.name(tensor), fb.type_name(tensor), shape)


def ports(
    model: schema.ModelT,
) -> tuple[tuple[PortInfo, ...], tuple[PortInfo, ...]]:
    """Inputs and outputs of the main graph, with the states among them.

    An input is one where an output of a signature has its name with `NEXT`.
    """
    main = model.subgraphs[0]
    known = functools.cache(lambda index: port_info(main.tensors[index]))
    sides = fb.inputs(main), fb.outputs(main)
    found = [[known(index) for index in side] for side in sides]
    signatures = [s for s in model.signatureDefs or () if not s.subgraphIndex]
    for signature in signatures[:1]:
        taken, given = (
            {fb.text(entry.name): entry.tensorIndex for entry in side or ()}
            for side in (signature.inputs, signature.outputs)
        )
        for name in taken:
            both = name, name + NEXT
            if both[1] not in given:
                continue
            places = [
                _last(sides[0], taken[both[0]]),
                _last(sides[1], given[both[1]]),
            ]
            if min(places) < 0:
                continue
            for side, (own, place) in enumerate(zip(both, places, strict=True)):
                found[side][place] = dataclasses.replace(
                    found[side][place], name=own, state=both[1 - side]
                )
    return tuple(found[0]), tuple(found[1])


def _last(indices: list[int], index: int) -> int:
    """Where a tensor is among ports, -1 for nowhere.

    A state that is an output, too, is there twice, as a state behind.
    """
    places = [place for place, other in enumerate(indices) if other == index]
    return places[-1] if places else -1
