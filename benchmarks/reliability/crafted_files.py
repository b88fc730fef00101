"""TFLite files that are small and ask for much work, made on purpose.

Each kind takes a number and returns a file that grows with it. A flatbuffer
may lead to one table or vector from many places, operators may read one
constant, and lists may name one tensor: what a reader does once for each of
these must not take time by the size of what they name.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.reliability import crafted_operators
from benchmarks.reliability.crafted_maker import File
from benchmarks.reliability.crafted_maker import offsets
from benchmarks.reliability.crafted_maker import table

_OP = schema.BuiltinOperator
_T = schema.TensorType
# Most bytes of a custom operator's name.
_LONGEST_NAME = 256


def readers(count: int) -> bytes:
    """Custom operators of long names, all of which read all constants."""
    file = File()
    held = file.buffer(np.zeros(4, np.float32))
    constants = [file.tensor(f"c{k}", Buffer=held) for k in range(count)]
    result = file.ints([file.tensor("y")])
    several = [
        file.ints(constants[first::16]) for first in range(min(16, count))
    ]
    for k in range(count):
        name = f"{k}".ljust(_LONGEST_NAME, "n")
        code = file.code(_OP.CUSTOM, name)
        file.operator(code, several[k % len(several)], result)
    file.graph()
    return file.done()


def chain(count: int) -> bytes:
    """Graphs each of which runs the next."""
    return _calling([k + 1] for k in range(count - 1))


def circle(count: int) -> bytes:
    """Graphs that run each other, with many operators."""
    return _calling([[1] * count, [0] * count], last=False)


def _calling(calls: Iterable[Sequence[int]], last: bool = True) -> bytes:
    """Graphs that run others.

    Args:
        calls: For each graph the ones that it runs.
        last: Whether a graph follows that runs none.
    """
    file = File()
    code, nothing = file.code(_OP.CALL), file.ints([])
    for called in [*calls, *[()] * last]:
        several = {
            number: table(file.builder, "CallOptions", Subgraph=number)
            for number in set(called)
        }
        for number in called:
            file.operator(
                code,
                nothing,
                nothing,
                BuiltinOptions=several[number],
                BuiltinOptionsType=schema.BuiltinOptions.CallOptions,
            )
        file.graph()
    return file.done()


def outputs(count: int) -> bytes:
    """One output listed many times."""
    file = File()
    x = file.tensor("a name of some length")
    file.graph([x], [x] * count)
    return file.done()


def names(count: int) -> bytes:
    """Tensors that share one long name, which nobody prints well."""
    file = File()
    called = file.builder.CreateString("\x1b" * count)
    held = file.buffer(np.zeros(4, np.float32))
    shape = file.ints((2, 2))
    for _ in range(8):
        file.tensors.append(
            table(
                file.builder,
                "Tensor",
                Name=called,
                Shape=shape,
                Buffer=held,
            )
        )
    file.graph([0], [1, 2, 3, 4])
    return file.done(Description=called)


def shape(count: int) -> bytes:
    """A tensor of many axes."""
    file = File()
    file.graph([file.tensor("x", [1] * count)])
    return file.done()


def open_axes(count: int) -> bytes:
    """A tensor of one axis that is said to have many open ones."""
    file = File()
    signature = file.ints([-1] * count)
    file.graph([file.tensor("x", (1,), ShapeSignature=signature)])
    return file.done()


def metadata(count: int) -> bytes:
    """One entry of metadata many times, and one buffer."""
    file = File()
    file.graph([file.tensor("x")])
    name = file.builder.CreateString("m" * 99)
    entry = table(file.builder, "Metadata", Name=name, Buffer=0)
    return file.done(
        Metadata=offsets(file.builder, [entry] * count),
        MetadataBuffer=file.ints([0] * count),
    )


def signatures(count: int) -> bytes:
    """Signatures that name one tensor many times."""
    file = File()
    file.graph([file.tensor("x")])
    name = file.builder.CreateString("s" * 99)
    entry = table(file.builder, "TensorMap", Name=name, TensorIndex=0)
    several = offsets(file.builder, [entry] * 10)
    signature = table(
        file.builder,
        "SignatureDef",
        Inputs=several,
        Outputs=several,
        SignatureKey=name,
    )
    padding = file.builder.CreateNumpyVector(np.zeros(20 * count, np.uint8))
    file.buffers.append(table(file.builder, "Buffer", Data=padding))
    return file.done(
        SignatureDefs=offsets(file.builder, [signature] * (count // 10))
    )


def scales(count: int) -> bytes:
    """Constants that share their buffer and their many scales."""
    file = File()
    held = file.buffer(np.ones(count, np.int8))
    scale = np.ones(count, np.float32)
    parameters = table(
        file.builder,
        "QuantizationParameters",
        Scale=file.builder.CreateNumpyVector(scale),
    )
    for _ in range(12):
        file.tensor(
            "w",
            (count, 1),
            Type=_T.INT8,
            Buffer=held,
            Quantization=parameters,
        )
    file.graph()
    return file.done()


def buffers(count: int) -> bytes:
    """Buffers of one range of bytes behind the flatbuffer, read as codes."""
    tail = np.arange(64 * count, dtype=np.uint8).tobytes()

    def add(file: File, k: int) -> None:
        shape = (len(tail), 1 if k % 2 else 4)
        kind = _T.INT8 if k % 2 else _T.INT2
        file.tensor("w", shape, Type=kind, Buffer=k + 1)

    return _with_tail(tail, min(60, count), add)


def strings(count: int) -> bytes:
    """Buffers of one range of bytes, read as strings."""
    tail = np.full(count + 2, 4 * (count + 2), np.int32)
    tail[0] = count

    def add(file: File, k: int) -> None:
        file.tensor("s", (1,), Type=_T.STRING, Buffer=k + 1)

    return _with_tail(tail.tobytes(), count, add)


def _with_tail(
    tail: bytes, count: int, add: Callable[[File, int], None]
) -> bytes:
    """A file whose buffers are all the same bytes behind the flatbuffer.

    Args:
        tail: The bytes.
        count: Number of buffers.
        add: Adds the tensor of a buffer to the file.
    """
    start = 0
    for _ in range(2):
        # The second time with the offset that the first one found.
        file = File()
        for k in range(count):
            file.buffers.append(
                table(file.builder, "Buffer", Offset=start or 2, Size=len(tail))
            )
            add(file, k)
        file.graph()
        body = file.done()
        start = len(body)
    return body + tail


def tensors(count: int) -> bytes:
    """One tensor many times, as often as tables may be shared."""
    file = File()
    held = file.buffer(np.zeros(4, np.float32))
    file.tensor("c", Buffer=held)
    padding = file.builder.CreateNumpyVector(np.zeros(4 * count, np.uint8))
    file.buffers.append(table(file.builder, "Buffer", Data=padding))
    file.tensors *= count
    file.graph()
    return file.done()


def codes(count: int) -> bytes:
    """One operator code many times, and an operator of each."""
    file = File()
    file.code(_OP.CUSTOM, "c" * _LONGEST_NAME)
    padding = file.builder.CreateNumpyVector(np.zeros(200 * count, np.uint8))
    file.buffers.append(table(file.builder, "Buffer", Data=padding))
    file.codes *= count
    nothing = file.ints([])
    for k in range(count):
        file.operator(k, nothing, nothing)
    file.graph()
    return file.done()


def operators(count: int) -> bytes:
    """Many operators that every target refuses, with a long name."""
    file = File()
    code = file.code(_OP.CUSTOM, "\x1b" * _LONGEST_NAME)
    x = file.ints([file.tensor("x" * 99, (9, 9, 9), Type=_T.FLOAT64)])
    for _ in range(count):
        file.operator(code, x, x)
    file.graph([0])
    return file.done()


def vtables(count: int) -> bytes:
    """Tables that share one vtable of the largest size, which names nothing."""
    # By hand: no builder writes a vtable that ends with zeros.
    length = min(8 * count, 1 << 15) & ~3
    file = File()
    x = file.tensor("x")
    padding = file.builder.CreateNumpyVector(np.zeros(9 * count, np.uint8))
    file.buffers.append(table(file.builder, "Buffer", Data=padding))
    file.tensors *= max(1, count // 2000)
    file.graph([x])
    data = bytearray(file.done())
    return bytes(_with_long_vtables(data, length))


def _with_long_vtables(data: bytearray, length: int) -> bytearray:
    """Gives the first tensor's table a long vtable in front of the file's end.

    The table stays where it is; its vtable is copied behind the rest.
    """
    model = schema.Model.GetRootAs(bytes(data), 0)
    position = model.Subgraphs(0).Tensors(0)._tab.Pos
    vtable = position - int.from_bytes(
        data[position : position + 4], "little", signed=True
    )
    old = int.from_bytes(data[vtable : vtable + 2], "little")
    data += bytes(-len(data) % 4)
    copied = len(data)
    data += data[vtable : vtable + old].ljust(length, b"\0")
    data[copied : copied + 2] = length.to_bytes(2, "little")
    data[position : position + 4] = (position - copied).to_bytes(
        4, "little", signed=True
    )
    return data


def blocks(count: int) -> bytes:
    """A sparse tensor with many blocks along one axis."""
    file = File()
    level = table(file.builder, "DimensionMetadata", DenseSize=1)
    sparsity = table(
        file.builder,
        "SparsityParameters",
        TraversalOrder=file.ints(np.arange(count + 1)[::-1]),
        BlockMap=file.ints([0] * count),
        DimMetadata=offsets(file.builder, [level] * (count + 1)),
    )
    file.graph([file.tensor("x", (1,), Sparsity=sparsity)])
    return file.done()


KINDS: dict[str, Callable[[int], bytes]] = {
    kind.__name__: kind
    for kind in (
        crafted_operators.axes,
        blocks,
        buffers,
        chain,
        circle,
        codes,
        crafted_operators.conversions,
        crafted_operators.grids,
        metadata,
        names,
        open_axes,
        operators,
        outputs,
        crafted_operators.paddings,
        readers,
        scales,
        shape,
        signatures,
        crafted_operators.split,
        crafted_operators.strides,
        strings,
        tensors,
        vtables,
        crafted_operators.wide,
    )
}
