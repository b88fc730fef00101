"""Files from anyone: accepted whole, or refused with a reason."""

from __future__ import annotations

import random
import struct
import tracemalloc

import flatbuffers
import hypothesis
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import strategies as st

from benchmarks.reliability import fuzz_cases
from benchmarks.reliability import fuzz_seeds
from tests.tflite_export.changes import changed
from tests.tflite_export.changes import ints
from tests.tflite_export.changes import put
from tests.tflite_export.devices.files import files
from tests.tflite_export.samples import dense_model
from tflite_export import export
from tflite_export.flatbuffer import check_bytes
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import schema_fields
from tflite_export.inspect import inspect

# With the other tests here more than 3,000.
CASES = 800
EXAMPLES = 200
hostile = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file of the exporter, packed, and what the converter wrote."""
    path = tmp_path_factory.mktemp("hostile") / "m.tflite"
    export(dense_model(), path, target="min_size")
    return {"min_size": path.read_bytes(), "converter": files()["int8"]}


@pytest.fixture(scope="module")
def valid(exported):
    return exported | fuzz_seeds.seeds()


def refused(data):
    """Reads; returns the reason if the file is refused."""
    try:
        fuzz_cases.read(data)
    except ValueError as error:
        assert type(error) is ValueError and str(error)
        return str(error)
    return None


def test_valid_files_are_read(valid):
    assert {
        name: refused(data) for name, data in valid.items()
    } == dict.fromkeys(valid)


@hostile
@hypothesis.given(data=st.binary(max_size=512), root=st.integers(0, 64))
def test_arbitrary_bytes(data, root):
    assert refused(data)
    assert refused(struct.pack("<I", root) + fb.FILE_IDENTIFIER + data)


@hostile
@hypothesis.given(
    name=st.sampled_from(sorted(fuzz_seeds.seeds())),
    rng=st.randoms(use_true_random=False),
)
def test_damaged_files(name, rng):
    engine = rng.choice(fuzz_cases.ENGINES)
    data = fuzz_seeds.seeds()[name]
    refused(engine(rng, data, data))


@pytest.mark.slow
def test_many_damaged_files(valid):
    outcomes = {True: 0, False: 0}
    for number in range(CASES):
        rng = random.Random(number)
        _, _, data = fuzz_cases.case(rng, valid)
        outcomes[refused(data) is None] += 1
    # Neither is everything refused nor is everything let through.
    assert min(outcomes.values()) > CASES // 50


@pytest.mark.parametrize("name", ["packed", "outside"])
def test_every_number_of_a_file_at_its_ends(name):
    data = fuzz_seeds.seeds()[name]
    places = fuzz_cases.places(data)
    assert len(places) > 150
    for at, size in places:
        for value in (0, (1 << 8 * size) - 1, (1 << (8 * size - 1)) - 1):
            damaged = bytearray(data)
            damaged[at : at + size] = value.to_bytes(size, "little")
            try:
                inspect.describe(bytes(damaged))
            except ValueError as error:
                assert "TFLite file" in str(error)


def test_every_cut_of_a_file():
    data = fuzz_seeds.seeds()["graphs"]
    for size in range(len(data)):
        with pytest.raises(ValueError, match="TFLite file"):
            fb.load(data[:size])


def table(builder, name, **fields):
    """Writes one table."""
    getattr(schema, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(schema, f"{name}Add{field}")(builder, value)
    return getattr(schema, f"{name}End")(builder)


def repeated(builder, offset, count):
    """A vector that leads to one table many times."""
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def bomb(graphs=1, tensors=1, buffers=1, name=0, data=0, ports=0):
    """A small file that claims to be large, by sharing what it holds.

    Args:
        graphs: How often the model holds its one graph.
        tensors: How often the graph holds its one tensor.
        buffers: How often the model holds its one buffer.
        name: Bytes of the tensor's name.
        data: Bytes of the buffer's data.
        ports: How often the tensor is an output.
    """
    builder = flatbuffers.Builder()
    held = builder.CreateByteVector(bytes(data))
    buffer = table(builder, "Buffer", Data=held)
    called = builder.CreateString("n" * name)
    shape = builder.CreateNumpyVector(np.array([1, data], np.int32))
    tensor = table(
        builder,
        "Tensor",
        Name=called,
        Shape=shape,
        Type=schema.TensorType.INT8,
    )
    outputs = builder.CreateNumpyVector(np.zeros(ports, np.int32))
    tensors = repeated(builder, tensor, tensors)
    graph = table(builder, "SubGraph", Tensors=tensors, Outputs=outputs)
    graphs = repeated(builder, graph, graphs)
    buffers = repeated(builder, buffer, buffers)
    model = table(builder, "Model", Subgraphs=graphs, Buffers=buffers)
    builder.Finish(model, file_identifier=fb.FILE_IDENTIFIER)
    return bytes(builder.Output())


def peak(data):
    """Reason for refusing a file, and memory it took to find it."""
    tracemalloc.start()
    try:
        return refused(data), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "claims, reason",
    [
        ({"graphs": 10_000, "tensors": 10_000}, "more tables are reached"),
        ({"tensors": 200, "data": 1 << 20}, "share the same bytes"),
        ({"tensors": 200, "name": 1 << 20}, "share the same bytes"),
        ({"buffers": 200, "data": 1 << 20}, "share the same bytes"),
        ({"ports": 200, "name": 1 << 20}, "share the same bytes"),
    ],
)
def test_a_small_file_does_not_stand_for_a_large_one(claims, reason):
    data = bomb(**claims)
    assert len(data) < 3 << 20
    found, memory = peak(data)
    assert reason in found
    assert memory < 200 * len(data)


def test_what_a_file_may_share():
    assert refused(bomb(graphs=2, tensors=4, name=64, data=64, ports=3)) is None


@pytest.mark.parametrize(
    "elements, kind", [((2**31 - 1,), "FLOAT32"), ((2**15, 2**15), "INT2")]
)
def test_memory_follows_the_file_and_not_what_it_says(elements, kind):
    model = fb.load(fuzz_seeds.seeds()["float"])
    for tensor in model.subgraphs[0].tensors:
        tensor.shape = np.array(elements, np.int32)
        tensor.type = getattr(schema.TensorType, kind)
        tensor.buffer = 0
    found, memory = peak(fb.dump(model))
    assert found is None and memory < 2**24


@pytest.mark.parametrize(
    "name, path, value, reason",
    [
        ("float", "tensors.0.shape", ints(-1, 6), "has the shape (-1, 6)"),
        ("float", "tensors.0.shape", ints(2**16, 2**16), "4294967296 elements"),
        ("float", "tensors.0.shape", ints(*[1] * 33), "has the shape (1, 1,"),
        ("float", "tensors.0.shapeSignature", ints(-2, 6), "signature (-2, 6)"),
        ("float", "tensors.1.shape", ints(3, 7), "takes 84 bytes, its buffer"),
        ("float", "tensors.1.buffer", 9, "no buffer 9 among 3"),
        ("float", "tensors.1.externalBuffer", 1, "is in another file"),
        ("float", "operators.0.opcodeIndex", 1, "no operator code 1 among 1"),
        ("float", "operators.0.inputs", ints(0, 1, -2), "no tensor -2"),
        ("float", "operators.0.outputs", ints(-1), "outputs: no tensor -1"),
        ("float", "operators.0.intermediates", ints(4), "no tensor 4 among 4"),
        ("float", "inputs", ints(-1), "graph 0's inputs: no tensor -1"),
        ("float", "outputs", ints(4), "graph 0's outputs: no tensor 4"),
        ("float", "model.subgraphs", [], "holds no graph"),
        ("float", "model.buffers", [], "holds no graph"),
        ("float", "model.metadataBuffer", ints(5), "metadata: no buffer 5"),
        ("float", "model.signatureDefs.0.subgraphIndex", 1, "no graph 1"),
        ("float", "model.signatureDefs.0.inputs.0.tensorIndex", 9, "no tensor"),
        (
            "float",
            "model.externalBuffers",
            [schema.ExternalBufferT()],
            "in other files",
        ),
        (
            "float",
            "model.operatorCodes.0.customCode",
            b"n" * 257,
            "a name of 257 bytes",
        ),
        (
            "packed",
            "tensors.1.quantization.scale",
            np.array([1, 2, np.nan], np.float32),
            "no finite numbers",
        ),
        (
            "packed",
            "tensors.1.quantization.zeroPoint",
            np.zeros(2, np.int64),
            "3 scales and 2 zero points",
        ),
        (
            "packed",
            "tensors.1.quantization.quantizedDimension",
            1,
            "along axis",
        ),
        ("packed", "tensors.1.quantization.quantizedDimension", -1, "axis -1"),
        (
            "graphs",
            "operators.0.builtinOptions.thenSubgraphIndex",
            0,
            "graph 0 runs itself",
        ),
        (
            "graphs",
            "operators.1.builtinOptions.bodySubgraphIndex",
            4,
            "no graph 4 among 4",
        ),
        ("rare", "tensors.0.shape", ints(3), "takes 3 strings"),
        ("rare", "tensors.1.sparsity.traversalOrder", ints(0, 2), "is sparse"),
        ("rare", "tensors.1.sparsity.blockMap", ints(2), "no axis 2"),
        ("rare", "tensors.1.sparsity.dimMetadata.0.denseSize", -1, "negative"),
        ("rare", "tensors.2.quantization.details.scales", 10, "no tensor 10"),
        (
            "rare",
            "model.buffers.1.data",
            np.frombuffer(np.array([2, 16, 99, 21, 0], "<i4"), np.uint8),
            "strings outside",
        ),
        (
            "rare",
            "model.buffers.1.data",
            np.frombuffer(np.array([2**30], "<i4"), np.uint8),
            "holds 1073741824 strings in 4 bytes",
        ),
        ("outside", "model.buffers.0.offset", 2, None),
    ],
)
def test_what_a_file_says_of_itself(name, path, value, reason):
    if reason is None:
        # Both ends: a range that is inside, and one that is not.
        data = fuzz_seeds.seeds()[name]
        assert refused(data) is None
        with pytest.raises(ValueError, match="a buffer ends at byte"):
            fb.load(data[:-1])
        return
    with pytest.raises(ValueError) as caught:
        fb.load(changed(name, put(path, value)))
    assert reason in str(caught.value)
    assert str(caught.value).startswith("Damaged TFLite file of ")


def test_graphs_that_run_each_other_in_a_circle():
    def change(model, graph):
        for caller, callee in ((1, 2), (2, 3), (3, 1)):
            op = schema.OperatorT()
            op.builtinOptionsType = schema.BuiltinOptions.CallOptions
            op.builtinOptions = schema.CallOptionsT()
            op.builtinOptions.subgraph = callee
            model.subgraphs[caller].operators.append(op)

    with pytest.raises(ValueError, match="runs itself"):
        fb.load(changed("graphs", change))


def test_a_field_that_a_newer_schema_adds_is_not_lost():
    data = fuzz_seeds.seeds()["float"]
    known = dict(schema_fields.fields("Model"))
    last = known.pop(max(slot for slot in known if slot <= 12))
    assert last.name == "Buffers"
    schema_fields.fields.cache_clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                check_bytes.schema_fields,
                "fields",
                lambda name: known if name == "Model" else {},
            )
            with pytest.raises(ValueError, match="does not know"):
                check_bytes.verify(data)
    finally:
        schema_fields.fields.cache_clear()


def test_a_schema_that_is_not_understood_is_said(monkeypatch):
    class Strange:
        def Field(self):  # noqa: N802
            self._tab.Offset(4)
            return self._tab.Get(flatbuffers.number_types.Int8Flags, 0) + (
                self._tab.Get(flatbuffers.number_types.Int8Flags, 1)
            )

    monkeypatch.setattr(schema, "Strange", Strange, raising=False)
    with pytest.raises(
        ValueError, match=r"Strange\.Field, read by get and get"
    ):
        schema_fields.fields("Strange")


def test_every_table_of_the_schema_is_known():
    tables = [
        name for name, value in vars(schema).items() if hasattr(value, "Init")
    ]
    assert len(tables) > 150
    for name in tables:
        attributes = vars(getattr(schema, f"{name}T")())
        found = {
            field.name.lower() for field in schema_fields.fields(name).values()
        }
        assert found == {attribute.lower() for attribute in attributes}
