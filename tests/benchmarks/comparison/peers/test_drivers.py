"""Each driver in its own environment: what it trains, stores and computes.

`facts.py` trains two layers there, of 36 and 12 weights, and writes down what
came of it; here it is counted by hand.
"""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from benchmarks.comparison.peers import run

# Each starts a TensorFlow of its own.
pytestmark = pytest.mark.slow

# Kernels, a norm, a bias.
FLOAT = 36 + 12 + 2 * 4 + 3
SIZES = {"conv": 36, "logits": 12}
PUBLISHED = "as published"
BY_WEIGHT = "a width a weight, beta=1e-06"
BY_LAYER = "a width a layer, beta=1e-06"
# Rows with one width, by peer.
UNIFORM = {
    "msq": {"uniform 4": 4, "MSQ 8x": 8},
    "tfmot": {"8 bits": 8, "4 bits": 4},
    "qkeras-v3": {"4 bits": 4, "3 bits, scales of 2": 3, "2 bits": 2},
}
ROWS = UNIFORM | {"hgq2": (PUBLISHED, BY_WEIGHT, BY_LAYER)}


class Facts:
    """What `facts.py` wrote."""

    def __init__(self, peer, path):
        self.peer = peer
        with np.load(path) as file:
            self.arrays = dict(file)
        self.rows = json.loads(str(self.arrays.pop("facts")))

    def array(self, row, name):
        return self.arrays[f"{list(self.rows).index(row)}/{name}"]

    def layers(self, row):
        stored = self.rows[row]["stored"]["layers"]
        return {layer["name"]: layer for layer in stored}


@pytest.fixture(scope="module")
def facts_of(root, tmp_path_factory):
    """Facts by peer; skips where its environment is missing."""
    found = {}

    def of(name):
        peer = run.PEERS[name]
        if peer.missing():
            pytest.skip(peer.missing())
        if name not in found:
            path = tmp_path_factory.mktemp("facts") / f"{name}.npz"
            command = [
                peer.python,
                "-m",
                "tests.benchmarks.comparison.peers.facts",
            ]
            command += [peer.module, path, *ROWS[name]]
            done = subprocess.run(
                [str(word) for word in command],
                cwd=root,
                capture_output=True,
                text=True,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            assert done.returncode == 0, done.stderr
            found[name] = Facts(name, path)
        return found[name]

    return of


def on_grid(values, bits, axes):
    """Whether values are codes of n bits by one scale, whatever it is."""
    largest = np.abs(values).max(axes, keepdims=True)
    fits = largest == 0
    for top in range(1, 2 ** (bits - 1)):
        codes = values / np.where(largest > 0, largest, 1.0) * top
        far = np.abs(codes - np.round(codes)).max(axes, keepdims=True)
        fits |= far < 1e-4
    return fits.all()


@pytest.mark.parametrize("name", UNIFORM)
def test_one_width_adds_nothing_to_train(facts_of, name):
    for row in facts_of(name).rows.values():
        assert row["trainable"] == FLOAT
        assert row["slots"] == FLOAT


@pytest.mark.parametrize("name", UNIFORM)
def test_one_width_is_what_the_values_need(facts_of, name):
    facts = facts_of(name)
    for row, bits in UNIFORM[name].items():
        stored = facts.rows[row]["stored"]
        assert stored["stored_bytes"] == 48 * bits / 8
        assert stored["told_bytes"] == stored["stored_bytes"]
        assert stored["uniform_bytes"] == stored["stored_bytes"]
        assert stored["compression"] == 32 / bits
        for layer, size in SIZES.items():
            assert facts.layers(row)[layer]["elements"] == size
            values = facts.array(row, layer)
            assert values.any()
            # TFMOT has one scale for a dense layer.
            whole = name == "tfmot" and layer == "logits"
            axes = tuple(range(values.ndim - (not whole)))
            assert on_grid(values, bits, axes)
            assert bits == 2 or not on_grid(values, bits - 1, axes)


@pytest.mark.parametrize("name", ["msq", "qkeras-v3"])
def test_the_model_computes_with_the_values(facts_of, name):
    facts = facts_of(name)
    for row in UNIFORM[name]:
        np.testing.assert_allclose(
            facts.array(row, "outputs"),
            facts.array(row, "plain"),
            rtol=1e-5,
            atol=1e-6,
        )


def test_tfmot_quantizes_activations_too(facts_of):
    facts = facts_of("tfmot")
    for row in UNIFORM["tfmot"]:
        off = facts.array(row, "outputs") - facts.array(row, "plain")
        # Steps of 12 / 255 and nothing worse.
        assert 1e-3 < np.abs(off).max() < 0.2


def test_hgq2_trains_two_numbers_more_for_each_width(facts_of):
    rows = facts_of("hgq2").rows
    assert rows["float"]["trainable"] == FLOAT
    assert rows[BY_LAYER]["trainable"] == FLOAT + 2 * 2
    assert rows[BY_WEIGHT]["trainable"] == FLOAT + 2 * 48
    # One for every pixel, pooled channel and bias besides.
    published = FLOAT + 2 * 48 + 64 + 4 + 3
    assert rows[PUBLISHED]["trainable"] == published
    for row in rows.values():
        assert row["slots"] == row["trainable"]


@pytest.mark.parametrize("row", ROWS["hgq2"])
def test_hgq2_is_counted_by_its_widths(facts_of, row):
    facts = facts_of("hgq2")
    total = told = uniform = 0.0
    for layer, size in SIZES.items():
        magnitude = np.round(facts.array(row, f"{layer}/b"))
        integer = np.round(facts.array(row, f"{layer}/i"))
        values = facts.array(row, layer)
        assert magnitude.size == values.size == size
        # Multiples of one step below 2**i, and zero at no bits.
        codes = values * 2.0 ** (magnitude - integer)
        np.testing.assert_array_equal(codes, np.round(codes))
        assert (np.abs(codes) <= 2.0**magnitude - 1).all()
        widths = [int(b) + 1 if b else 0 for b in magnitude.ravel()]
        stored = facts.layers(row)[layer]
        assert stored["bits"] == sum(widths)
        assert stored["widest"] == max(widths)
        share = np.array([widths.count(w) / size for w in set(widths)])
        entropy = -(share * np.log2(share)).sum() * size
        assert stored["widths"] == pytest.approx(entropy, abs=1e-9)
        total += sum(widths)
        told += sum(widths) + entropy
        uniform += size * max(widths)
    sizes = facts.rows[row]["stored"]
    assert sizes["stored_bytes"] == total / 8
    assert sizes["told_bytes"] == pytest.approx(told / 8)
    assert sizes["uniform_bytes"] == uniform / 8
    assert (sizes["told_bytes"] > sizes["stored_bytes"]) == (row != BY_LAYER)


@pytest.mark.parametrize("row", [BY_WEIGHT, BY_LAYER])
def test_hgq2s_wide_activations_make_no_difference(facts_of, row):
    facts = facts_of("hgq2")
    np.testing.assert_allclose(
        facts.array(row, "outputs"), facts.array(row, "plain"), atol=1e-3
    )
    # It starts at the float model, but for eight bits.
    np.testing.assert_allclose(
        facts.array(row, "start"), facts.array("float", "start"), atol=1e-2
    )
