"""Roots of sums on microcontrollers, as distances in Siamese networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import ExportError
from tflite_export import export
from tflite_export import inspect_file
from tflite_export.devices import micro
from tflite_export.devices import tosa

L = keras.layers
OPS = keras.ops


@pytest.fixture(autouse=True)
def _without_arenas(monkeypatch):
    monkeypatch.setattr(micro, "smallest_arena", lambda data, x, most: most)


def rooted(apart):
    total = OPS.sum(OPS.square(apart), axis=1, keepdims=True)
    return OPS.sqrt(OPS.maximum(total, 1e-7))


class Euclidean(L.Layer):
    """The usual layer, which training sees from outside."""

    def call(self, pair):
        return rooted(pair[0] - pair[1])


DISTANCES = {
    "layer": lambda a, b: Euclidean()([a, b]),
    "operations": lambda a, b: rooted(a - b),
    "norm": lambda a, b: OPS.norm(a - b, axis=1, keepdims=True),
    "absolute": lambda a, b: OPS.absolute(a - b),
    "cosine": lambda a, b: L.Dot(1, normalize=True)([a, b]),
}


def siamese(distance, bits):
    """Two inputs, one tower, and whether the two are of one kind."""
    keras.utils.set_random_seed(0)
    tower = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(4, 3, activation="relu")]
        + [L.MaxPooling2D(2), L.Flatten(), L.Dense(6)]
    )
    a, b = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    apart = DISTANCES[distance](tower(a), tower(b))
    model = keras.Model([a, b], L.Dense(1, activation="sigmoid")(apart))
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, 8, 8, 1))
    first, second = rng.integers(0, 6, (2, 128))
    second[::2] = first[::2]
    noise = 0.2 * rng.normal(size=(2, 128, 8, 8, 1))
    x = [
        (kinds[chosen] + part).astype(np.float32)
        for chosen, part in zip((first, second), noise, strict=True)
    ]
    qmodel.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    same = (first == second).astype(np.float32)[:, None]
    qmodel.fit(x, same, epochs=3, verbose=0)
    return qmodel, [array[:48] for array in x]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, None])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_siamese_network(distance, bits, tmp_path):
    qmodel, x = siamese(distance, bits)
    path = tmp_path / "m"
    export(qmodel, path, "mcu", x)
    names = {name.split()[0] for name in inspect_file(path).ops}
    assert "SQRT" not in names
    assert ("GATHER" in names) == (distance not in ("absolute", "cosine"))


@pytest.mark.slow
def test_a_table_that_another_tool_reads_elsewhere(tmp_path, monkeypatch, root):
    """What TOSA's converter makes of a CAST is no single unit."""
    monkeypatch.chdir(root)
    if tosa.absent():
        pytest.skip(tosa.absent())
    qmodel, x = siamese("operations", 8)
    report = export(qmodel, tmp_path / "m", "mcu", x)
    assert min(report.device["tosa"]["units"].values()) <= 1
    monkeypatch.setattr(tosa.recast, "recast", lambda data: data)
    with pytest.raises(ExportError, match="TOSA reference model"):
        export(qmodel, tmp_path / "n", "mcu", x)
