"""Files made to cost much more to read than they are large."""

from __future__ import annotations

import json
import os
import time
import tracemalloc

import numpy as np
import pytest

from benchmarks.reliability import crafted_files
from benchmarks.reliability import crafted_maker
from benchmarks.reliability import fuzz_seeds
from tests.tflite_export.changes import changed
from tflite_export import inspect_file
from tflite_export import run
from tflite_export.cli import main
from tflite_export.flatbuffer import check_model
from tflite_export.flatbuffer import model as fb
from tflite_export.inspect import compare
from tflite_export.inspect import inspect
from tflite_export.targets import lint

# The most that a file ten times as large may take, with room for what a
# machine does meanwhile; quadratic work takes a hundred times as long.
MOST = 25
# Characters that are printed.
MOST_TEXT = 4_000_000
# Targets whose rules look at constants, scales and ports.
TARGETS = ("edgetpu", "mcu")


def seconds(data):
    """Processor time of reading, judging and printing, and what came of it."""
    start = time.process_time()
    try:
        info = inspect.describe(data)
    except ValueError as error:
        return time.process_time() - start, str(error)
    text = [str(info)]
    model = fb.load(data)
    for target in TARGETS:
        text.append(lint.summary(target, lint.check_model(model, target)))
    return time.process_time() - start, "".join(text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", crafted_files.KINDS)
def test_ten_times_as_large_takes_ten_times_as_long(kind):
    make = crafted_files.KINDS[kind]
    small, large = make(150), make(1500)
    seconds(small)
    # What does not grow, such as a table of ten lines, is no growth.
    first = seconds(small)[0] + 0.02
    taken, text = seconds(large)
    assert taken / first < MOST
    assert len(text) < MOST_TEXT


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["readers", "operators", "outputs", "tensors"])
def test_memory_and_json_follow_the_size(kind):
    data = crafted_files.KINDS[kind](1000)
    tracemalloc.start()
    try:
        pieces = inspect.json_pieces(inspect.describe(data))
        text = sum(map(len, pieces))
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text < 100 * len(data) and memory < 400 * len(data)


def test_graphs_in_a_circle_of_many():
    with pytest.raises(ValueError, match="runs itself"):
        fb.load(crafted_files.circle(2000))


@pytest.mark.slow
def test_text_has_a_limit(tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(crafted_files.readers(400))
    info = inspect_file(path)
    assert len(info.tensors[0].ops) == 9
    assert info.tensors[0].ops[-1] == "and 17 more"
    assert "more characters" in str(info)
    path.write_bytes(crafted_files.outputs(5000))
    assert "and 4,000 more" in str(inspect_file(path))
    path.write_bytes(crafted_files.operators(3000))
    assert main(["inspect", str(path), "--target=edgetpu", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]["edgetpu"]
    assert len(found) == 1001
    assert found[-1]["rule"] == "more" and found[-1]["severe"]
    assert found[-1]["message"].startswith("and ")


@pytest.mark.parametrize("head", [bytes(8), b"\x1c\0\0\0TFL3"])
def test_a_file_of_holes_is_not_read(head, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    path.write_bytes(head)
    os.truncate(path, 1 << 43)
    reason = "fit into memory" if b"TFL3" in head else "Not a TFLite file"
    tracemalloc.start()
    try:
        for command in ("inspect", "compare"):
            paths = [str(path)] * (1 + (command == "compare"))
            assert main([command, *paths]) == 1
            assert reason in capsys.readouterr().err
        with pytest.raises(ValueError, match=reason):
            run(path, np.zeros(1))
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


def test_each_tensor_is_read_by_its_own_type():
    """Where several share a buffer, with as many elements."""
    file = crafted_maker.File()
    held = file.buffer(np.array([0b0111_0001], np.uint8))
    types = (schema_type("INT4"), schema_type("INT2"), schema_type("INT8"))
    for kind, shape in zip(types, ((1, 2), (1, 2), (1, 1)), strict=True):
        file.tensor("w", shape, Type=kind, Buffer=held)
    file.graph()
    info = inspect.describe(file.done())
    # 1 and 7; 1 and 0; 113.
    assert [(t.type, t.used_bits, t.distinct_codes) for t in info.tensors] == [
        ("INT4", 4, 2),
        ("INT2", 2, 2),
        ("INT8", 8, 1),
    ]


def schema_type(name):
    return getattr(crafted_files.schema.TensorType, name)


def test_codes_are_counted_as_they_are_unpacked():
    rng = np.random.default_rng(0)
    for bits in (2, 4, 8):
        for count in (1, 2, 3, 5, 97, 1000):
            low = -(1 << bits - 1)
            codes = rng.integers(low, -low, count).astype(np.int8)
            codes[codes == 0] = 1
            packed = inspect.packing.pack(codes, bits)
            np.testing.assert_array_equal(
                inspect._codes(packed, bits, count), np.unique(codes)
            )


@pytest.mark.parametrize(
    "change, reason",
    [
        ("order", "operator 0.0 reads .* before.*tensor 0.2"),
        ("never", "graph 0's outputs reads .* before.*tensor 0.3"),
        ("constant", "operator 0.0 reads .* before.*tensor 0.1"),
    ],
)
def test_what_is_read_before_it_is_written(change, reason, tmp_path):
    def change_it(model, graph):
        if change == "order":
            graph.operators.reverse()
        elif change == "never":
            graph.operators = []
        else:
            graph.tensors[1].buffer = 0

    name = "packed" if change == "order" else "float"
    data = changed(name, change_it)
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    inspect_file(path)
    with pytest.raises(ValueError, match=reason):
        run(data, np.zeros((1, 6), np.float32))
    with pytest.raises(ValueError, match=reason):
        compare.compare_files(path, path)


def test_sound_files_read_what_was_written():
    for name, data in fuzz_seeds.seeds().items():
        if name != "rare":
            check_model.check_written(fb.load(data))
