"""Small valid files that hold every table a TFLite file can hold."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import edit
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing

_T = schema.TensorType


def seeds() -> dict[str, bytes]:
    """Files by name, made by hand: no converter is needed."""
    return {
        "float": fb.dump(_dense("FLOAT32")),
        "packed": fb.dump(_dense("INT4")),
        "int8": fb.dump(_convolution()),
        "outside": _outside(),
        "graphs": fb.dump(_graphs()),
        "rare": fb.dump(_rare()),
    }


def new_model() -> schema.ModelT:
    model = schema.ModelT()
    model.version = 3
    model.description = b"made by hand"
    model.buffers = [schema.BufferT()]
    model.operatorCodes, model.subgraphs = [], []
    return model


def new_graph(model: schema.ModelT, name: str) -> schema.SubGraphT:
    graph = schema.SubGraphT()
    graph.name = name.encode()
    graph.tensors, graph.operators = [], []
    model.subgraphs.append(graph)
    return graph


def add_tensor(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    name: str,
    kind: str,
    shape: tuple[int, ...],
    data: np.ndarray | None = None,
    scale: tuple[float, ...] = (),
    axis: int = 0,
) -> int:
    buffer = 0 if data is None else edit.new_buffer(model, data)
    index = edit.new_tensor(graph, kind, shape=shape, buffer=buffer)
    tensor = graph.tensors[index]
    tensor.name = name.encode()
    if data is None and shape:
        tensor.shapeSignature = np.array((-1, *shape[1:]), np.int32)
    if scale:
        tensor.quantization = edit.quantization(np.array(scale), 0, axis)
    return index


def add_operator(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    name: str,
    inputs: list[int],
    outputs: list[int],
    options: str = "",
    version: int = 1,
) -> schema.OperatorT:
    op = edit.new_operator(model, name, version, inputs, outputs, options)
    graph.operators.append(op)
    return op


def set_ports(
    graph: schema.SubGraphT, inputs: list[int], outputs: list[int]
) -> None:
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array(outputs, np.int32)


def _sign(model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    for name in ("inputs", "outputs"):
        entries = []
        for index in getattr(graph, name):
            entry = schema.TensorMapT()
            entry.name = graph.tensors[index].name
            entry.tensorIndex = int(index)
            entries.append(entry)
        setattr(signature, name, entries)
    model.signatureDefs = [signature]


def _dense(kind: str) -> schema.ModelT:
    """A dense layer with its weight in float, or packed behind DEQUANTIZE."""
    model = new_model()
    graph = new_graph(model, "main")
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (3, 6))
    x = add_tensor(model, graph, "x", "FLOAT32", (1, 6))
    if kind == "FLOAT32":
        w = add_tensor(
            model, graph, "w", kind, (3, 6), codes.astype(np.float32)
        )
    else:
        packed = packing.pack(codes, 4)
        q = add_tensor(
            model, graph, "w", kind, (3, 6), packed, (0.1, 0.2, 0.5), 0
        )
        w = add_tensor(model, graph, "w32", "FLOAT32", (3, 6))
        add_operator(
            model, graph, "DEQUANTIZE", [q], [w], "DequantizeOptions", 6
        )
    b = add_tensor(model, graph, "b", "FLOAT32", (3,), np.ones(3, np.float32))
    y = add_tensor(model, graph, "y", "FLOAT32", (1, 3))
    add_operator(
        model, graph, "FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions"
    )
    set_ports(graph, [x], [y])
    _sign(model)
    return model


def _convolution() -> schema.ModelT:
    """Integers from end to end, with what restrictions of targets look at."""
    model = new_model()
    graph = new_graph(model, "main")
    rng = np.random.default_rng(0)
    x = add_tensor(model, graph, "x", "INT8", (1, 4, 4, 3), scale=(0.5,))
    w = add_tensor(
        model,
        graph,
        "w",
        "INT8",
        (2, 3, 3, 3),
        rng.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8),
        (0.1, 0.2),
    )
    bias = np.array([5, -5], np.int32)
    b = add_tensor(model, graph, "b", "INT32", (2,), bias, (0.05, 0.1))
    y = add_tensor(model, graph, "y", "INT8", (1, 4, 4, 2), scale=(2.0,))
    conv = add_operator(
        model, graph, "CONV_2D", [x, w, b], [y], "Conv2DOptions", 3
    )
    conv.builtinOptions.strideH = conv.builtinOptions.strideW = 1
    pads = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    p = add_tensor(model, graph, "pads", "INT32", (4, 2), pads)
    padded = add_tensor(
        model, graph, "padded", "INT8", (1, 6, 6, 2), scale=(2.0,)
    )
    add_operator(model, graph, "PAD", [y, p], [padded], "PadOptions")
    axes = add_tensor(
        model, graph, "axes", "INT32", (2,), np.array([1, 2], np.int32)
    )
    m = add_tensor(model, graph, "mean", "INT8", (1, 2), scale=(2.0,))
    add_operator(model, graph, "MEAN", [padded, axes], [m], "ReducerOptions")
    s = add_tensor(model, graph, "classes", "INT8", (1, 2), scale=(1 / 256,))
    graph.tensors[s].quantization.zeroPoint[:] = -128
    add_operator(model, graph, "SOFTMAX", [m], [s], "SoftmaxOptions")
    c = add_tensor(model, graph, "joined", "INT8", (2, 2), scale=(1 / 256,))
    graph.tensors[c].quantization.zeroPoint[:] = -128
    add_operator(
        model, graph, "CONCATENATION", [s, s], [c], "ConcatenationOptions"
    )
    f = add_tensor(model, graph, "out", "FLOAT32", (2, 2))
    add_operator(model, graph, "DEQUANTIZE", [c], [f], "DequantizeOptions", 2)
    set_ports(graph, [x], [f])
    return model


def _outside() -> bytes:
    """Constants behind the flatbuffer, as in files beyond 2 GB."""
    model = _dense("INT4")
    holders = [b for b in model.buffers if b.data is not None]
    kept = [bytes(np.asarray(b.data)) for b in holders]
    tail = b""
    # The offsets do not change the size of the flatbuffer in front of them.
    for start in (2, None):
        if start is None:
            start = len(fb.dump(model))
        tail = b""
        for buffer, data in zip(holders, kept, strict=True):
            buffer.data = None
            buffer.offset, buffer.size = start + len(tail), len(data)
            tail += data
    return fb.dump(model) + tail


def _graphs() -> schema.ModelT:
    """Graphs that run graphs."""
    model = new_model()
    graph = new_graph(model, "main")
    condition = add_tensor(model, graph, "condition", "BOOL", ())
    x = add_tensor(model, graph, "x", "FLOAT32", (2,))
    y = add_tensor(model, graph, "y", "FLOAT32", (2,))
    z = add_tensor(model, graph, "z", "FLOAT32", (2,))
    choice = add_operator(model, graph, "IF", [condition, x], [y], "IfOptions")
    choice.builtinOptions.thenSubgraphIndex = 1
    choice.builtinOptions.elseSubgraphIndex = 2
    loop = add_operator(model, graph, "WHILE", [y], [z], "WhileOptions")
    loop.builtinOptions.condSubgraphIndex = 3
    loop.builtinOptions.bodySubgraphIndex = 2
    set_ports(graph, [condition, x], [z])
    for number, name in enumerate(("NEG", "ABS"), 1):
        branch = new_graph(model, f"branch{number}")
        a = add_tensor(model, branch, "a", "FLOAT32", (2,))
        b = add_tensor(model, branch, "b", "FLOAT32", (2,))
        add_operator(model, branch, name, [a], [b], f"{name.title()}Options")
        set_ports(branch, [a], [b])
    asked = new_graph(model, "condition")
    a = add_tensor(model, asked, "a", "FLOAT32", (2,))
    never = add_tensor(
        model, asked, "never", "BOOL", (), np.zeros((), np.bool_)
    )
    set_ports(asked, [a], [never])
    _sign(model)
    return model


def _rare() -> schema.ModelT:
    """Strings, sparse and blockwise weights, variables, custom operators."""
    model = new_model()
    graph = new_graph(model, "main")
    text = b"".join(
        np.array(values, np.int32).tobytes() for values in ([2], [16, 19, 21])
    )
    words = np.frombuffer(text + b"yesno", np.uint8)
    s = add_tensor(model, graph, "words", "STRING", (2,), words)
    w = add_tensor(
        model, graph, "sparse", "FLOAT32", (2, 2), np.ones(2, np.float32)
    )
    graph.tensors[w].sparsity = _sparsity()
    block = add_tensor(
        model, graph, "blocks", "INT4", (2, 32), np.zeros(32, np.uint8)
    )
    scales = add_tensor(
        model, graph, "scales", "FLOAT16", (2, 1), np.ones(2, np.float16)
    )
    parameters = schema.QuantizationParametersT()
    parameters.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    parameters.details = schema.BlockwiseQuantizationT()
    parameters.details.scales, parameters.details.blockSize = scales, 32
    parameters.details.zeroPoints = -1
    graph.tensors[block].quantization = parameters
    state = add_tensor(model, graph, "state", "FLOAT32", (1, 2))
    graph.tensors[state].isVariable = True
    variant = schema.VariantSubTypeT()
    variant.shape, variant.hasRank = np.array([1, 2], np.int32), True
    v = add_tensor(model, graph, "lists", "VARIANT", ())
    graph.tensors[v].variantTensors = [variant]
    x = add_tensor(model, graph, "x", "FLOAT32", (1, 2))
    y = add_tensor(model, graph, "y", "FLOAT32", (1, 2))
    op = add_operator(
        model, graph, "CUSTOM", [x, w, -1, block, s, state], [y, v]
    )
    op.customOptions = np.frombuffer(b"options of its own", np.uint8)
    op.mutatingVariableInputs = np.array([0, 0, 0, 0, 0, 1], np.bool_)
    op.intermediates = np.array([state], np.int32)
    model.operatorCodes[op.opcodeIndex].customCode = b"Mine"
    result = add_tensor(model, graph, "z", "FLOAT32", (1, 2))
    composite = add_operator(model, graph, "STABLEHLO_COMPOSITE", [y], [result])
    options = schema.StableHLOCompositeOptionsT()
    options.name, options.decompositionSubgraphIndex = b"mine.op", 1
    options.compositeAttributes = np.frombuffer(b"{}", np.uint8)
    composite.builtinOptions2 = options
    composite.builtinOptions2Type = (
        schema.BuiltinOptions2.StableHLOCompositeOptions
    )
    set_ports(graph, [x], [result])
    inner = new_graph(model, "decomposition")
    a = add_tensor(model, inner, "a", "FLOAT32", (1, 2))
    set_ports(inner, [a], [a])
    entry = schema.MetadataT()
    entry.name = b"min_runtime_version"
    entry.buffer = edit.new_buffer(model, np.frombuffer(b"1.5.0", np.uint8))
    model.metadata = [entry]
    model.metadataBuffer = np.array([entry.buffer], np.int32)
    return model


def _sparsity() -> schema.SparsityParametersT:
    rows, columns = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.denseSize = 2
    columns.format = schema.DimensionType.SPARSE_CSR
    for name, values in (
        ("arraySegments", [0, 1, 2]),
        ("arrayIndices", [0, 1]),
    ):
        vector = schema.Uint8VectorT()
        vector.values = np.array(values, np.uint8)
        setattr(columns, f"{name}Type", schema.SparseIndexVector.Uint8Vector)
        setattr(columns, name, vector)
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.array([0, 1], np.int32)
    sparsity.dimMetadata = [rows, columns]
    return sparsity
