"""The networks of the drivers are those of the project."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from benchmarks.harness import peer_network
from train.models import builders

PLAIN = peer_network.PlainLayers(keras)


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "blocks"), [("resnet8", 1), ("resnet20", 3)])
def test_the_same_weights_give_the_same_outputs(name, blocks):
    ours = builders.build(name, (16, 16, 1), 5)
    theirs = peer_network.resnet(PLAIN, (16, 16, 1), 5, blocks)
    assert theirs.name == name
    weights = {k: v.numpy() for k, v in peer_network.variables(ours).items()}
    assert len(weights) == len(ours.weights)
    peer_network.load(theirs, weights)
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 1))
    np.testing.assert_allclose(
        theirs.predict(x, verbose=0), ours.predict(x, verbose=0), rtol=1e-6
    )


def test_weights_of_another_network_are_refused():
    small = peer_network.two_layers(PLAIN)
    large = peer_network.resnet(PLAIN)
    weights = {k: v.numpy() for k, v in peer_network.variables(small).items()}
    with pytest.raises(ValueError, match=r"Received: \['conv/kernel'"):
        peer_network.load(large, weights)


def test_two_layers_can_be_counted_by_hand():
    build = functools.partial(peer_network.two_layers, classes=3)
    shapes = {
        name: tuple(variable.shape)
        for name, variable in peer_network.variables(build(PLAIN)).items()
    }
    assert shapes["conv/kernel"] == (3, 3, 1, 4)
    assert shapes["logits/kernel"] == (4, 3)
