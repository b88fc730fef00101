"""Models that are too large, and what spares memory without changing files."""

from __future__ import annotations

import ctypes
import gc
import mmap

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from benchmarks.harness import memory
from tests.tflite_export.samples import quantized
from tflite_export import ExportError
from tflite_export import export
from tflite_export import files
from tflite_export import float_tflite
from tflite_export.conversion import converter
from tflite_export.conversion import float_file
from tflite_export.conversion import freezing
from tflite_export.conversion import frozen_graph
from tflite_export.conversion import sizes
from tflite_export.conversion import trained
from tflite_export.conversion.converter import Converter
from tflite_export.conversion.source import from_model
from tflite_export.flatbuffer import model as fb
from tflite_export.flatbuffer import packing
from tflite_export.matching.layouts import Arrangement
from tflite_export.verification import readback


def convolutional() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def test_weights_beyond_2_gib_are_refused_before_they_are_read(
    monkeypatch, tmp_path
):
    qmodel = quantized(convolutional())
    monkeypatch.setattr(sizes, "LARGEST", 20_000)
    reads = []
    monkeypatch.setattr(
        msq_tf.MSQModel,
        "quantized_weights",
        lambda self: reads.append(self) or [],
    )
    for write in (
        lambda: export(qmodel, tmp_path / "m.tflite"),
        lambda: float_tflite(qmodel),
        lambda: float_tflite(qmodel.base),
    ):
        with pytest.raises(ExportError, match="2 GiB.*Received: 25,128 bytes"):
            write()
    assert not reads and not list(tmp_path.iterdir())


def test_a_model_of_three_billion_bytes_is_refused_by_its_shapes():
    class Shape:
        shape = (750_000, 1_000)

    class Model:
        weights = (Shape(),)

    with pytest.raises(ExportError, match="3,000,000,000 bytes"):
        sizes.check_size(Model())
    Shape.shape = (500_000, 1_000)
    sizes.check_size(Model())


@pytest.mark.parametrize("plain", [False, True], ids=["codes", "floats"])
def test_the_converter_gets_the_same_graph(monkeypatch, plain):
    model = quantized(convolutional())
    source = from_model(model.base if plain else model)
    sparing = []

    def spied(self):
        sparing.append(original(self))
        return sparing[-1]

    original = frozen_graph.FrozenGraph.SerializeToString
    monkeypatch.setattr(frozen_graph.FrozenGraph, "SerializeToString", spied)
    traced, _ = float_file._trace(source)
    lean = Converter(traced).convert()
    assert len(sparing) == 1 and traced.function is None
    monkeypatch.setattr(converter, "freeze", lambda *_: None)
    traced, _ = float_file._trace(source)
    # Where constants lie behind the rest says nothing.
    whole = fb.dump(fb.load(Converter(traced).convert()))
    assert whole == fb.dump(fb.load(lean))
    assert len(sparing) == 1 and traced.function is not None


@pytest.mark.slow
def test_no_weight_outlives_the_conversion():
    source = from_model(quantized(convolutional()))
    float_file.to_float_file(source)
    gc.collect()
    kind = type(tf.constant(0.0))
    left = [
        thing.shape
        for thing in gc.get_objects()
        if isinstance(thing, kind) and thing.shape == (576, 10)
    ]
    assert not left


def test_a_loop_is_left_to_tensorflow(monkeypatch):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.LSTM(5)(inputs))
    graphs = []
    original = frozen_graph.FrozenGraph.__init__

    def spied(self, *args):
        original(self, *args)
        graphs.append(self)

    monkeypatch.setattr(frozen_graph.FrozenGraph, "__init__", spied)
    assert len(float_tflite(quantized(model))) > 0
    # Nothing in it is left out for a while.
    assert graphs and not any(graph.weights for graph in graphs)


@pytest.mark.slow
def test_another_tensorflow_freezes_in_its_own_way(monkeypatch):
    from tensorflow.python.framework import convert_to_constants

    source = from_model(quantized(convolutional()))
    wanted = float_file.to_float_file(source).data
    monkeypatch.delattr(convert_to_constants, "_replace_variables_by_constants")
    traced, _ = float_file._trace(source)
    assert freezing._without_variables(traced.function, []) is None
    monkeypatch.undo()
    monkeypatch.setattr(freezing, "_without_variables", lambda *_: None)
    assert float_file.to_float_file(source).data == wanted


@pytest.mark.slow
def test_trained_values_are_no_constants_of_the_code():
    model = quantized(convolutional())
    source = from_model(model)
    weights = model.quantized_weights()
    assert len(float_file.to_float_file(source).constants) == len(weights)
    assert float_file.to_float_file(source, weights).constants == ()


def test_a_spooled_file_reads_as_the_bytes(tmp_path):
    data = float_tflite(quantized(convolutional()))
    halves = [data[:5000], memoryview(data)[5000:]]
    assert files.spooled(halves, tmp_path) == data
    assert files.spooled(halves, tmp_path / "none", 1) == data
    mapped = files.spooled(halves, tmp_path, 1)
    assert isinstance(mapped, mmap.mmap) and not list(tmp_path.iterdir())
    model = fb.load(mapped)
    for _ in range(2):
        assert fb.dump(model) == fb.dump(fb.load(data))
        files.let_go(mapped)
    files.let_go(data)
    with pytest.raises(ValueError, match="Damaged"):
        fb.load(files.spooled([data[:-9000]], tmp_path, 1))


def test_spooled_codes_are_the_codes(monkeypatch, tmp_path):
    weights = quantized(convolutional()).quantized_weights()
    assert trained.spooled(weights, tmp_path) == weights
    monkeypatch.setattr(trained, "_SPOOLED", 1)
    assert trained.spooled(weights, None) == weights
    found = trained.spooled(weights, tmp_path)
    for weight, own in zip(weights, found, strict=True):
        assert isinstance(own.codes.base.base.obj, mmap.mmap)
        files.let_go(own.codes)
        np.testing.assert_array_equal(own.codes, weight.codes)
        np.testing.assert_array_equal(own.values, weight.values)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc"
)
def test_free_memory_is_given_back():
    """A small array behind many keeps glibc from giving them back itself."""
    # Arrays of 1 MB are in the heap once one of 8 MB was freed.
    del (first := [np.ones(1 << 20)])[:]
    many = [np.ones(1 << 17) for _ in range(100)]
    last = np.ones(1 << 17)
    before = memory.resident()
    many.clear()
    files.give_back()
    assert memory.resident() < before - 90
    assert last.all() and not first


def test_for_a_small_model_nothing_is_given_back(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("was asked"))
    files.give_back(1)


def test_the_size_of_a_file_that_is_not_made():
    model = fb.load(float_tflite(quantized(convolutional())))
    assert fb.size(model) == len(fb.dump(model))


def test_an_export_is_the_same_with_its_float_file_on_disk(
    monkeypatch, tmp_path
):
    model = quantized(convolutional())
    original, reports = files.spooled, []
    for least in (1 << 30, 1):
        monkeypatch.setattr(
            fb.files,
            "spooled",
            lambda pieces, folder, *_, n=least: original(pieces, folder, n),
        )
        monkeypatch.setattr(trained, "_SPOOLED", least)
        reports.append(export(model, tmp_path / "m.tflite"))
    assert reports[0] == reports[1]


def test_long_vectors_are_told_apart_by_more_than_their_ends():
    a = np.zeros(5000, np.uint8)
    b = a.copy()
    b[2500] = 1
    prints = [fb.fingerprint(x) for x in (a, b, a.copy(), a[::2], a[:9])]
    assert prints[0] == prints[2]
    assert len(set(prints)) == 4


def test_some_elements_of_an_arrangement():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 1, 4, 6))
    for arrangement in (
        Arrangement((3, 0, 1, 2)),
        Arrangement((1, 2, 0, 3), 1, 4),
    ):
        part = array[..., arrangement.start : arrangement.stop]
        laid_out = arrangement.apply(array, (part.size,))
        places = np.arange(0, part.size, 5)
        np.testing.assert_array_equal(
            arrangement.sample(array, places), laid_out[places]
        )


@pytest.mark.parametrize("bits", packing.CONTAINER_BITS)
def test_codes_are_read_back_in_blocks(monkeypatch, bits):
    monkeypatch.setattr(readback, "_BLOCK", 16)
    rng = np.random.default_rng(bits)
    limit = (1 << (bits - 1)) - 1
    codes = rng.integers(-limit, limit + 1, (7, 5))

    class Tensor:
        def Type(self):  # noqa: N802
            return {v: k for k, v in readback._BITS.items()}[bits]

        def ShapeLength(self):  # noqa: N802
            return 2

        def ShapeAsNumpy(self):  # noqa: N802
            return np.array(codes.shape)

        def Buffer(self):  # noqa: N802
            return 0

    class File:
        def Buffers(self, _):  # noqa: N802
            return self

        def DataLength(self):  # noqa: N802
            return len(self.DataAsNumpy())

        def DataAsNumpy(self):  # noqa: N802
            return packing.pack(codes, bits)

    read = readback._codes(File(), Tensor(), "layer")
    np.testing.assert_array_equal(read, codes)


def test_blocks_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(readback, "_BLOCK", 10)
    array = np.arange(42).reshape(7, 6)
    found = list(readback._blocks(array, np.ones((1, 6)), np.ones(1)))
    assert len(found) == 7
    np.testing.assert_array_equal(np.concatenate([f[0] for f in found]), array)
    assert all(f[2].shape == (1, 6) for f in found)
