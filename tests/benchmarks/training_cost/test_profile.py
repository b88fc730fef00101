"""What a profile is made into."""

from __future__ import annotations

import pytest

from benchmarks.harness import networks
from benchmarks.training_cost import methods
from benchmarks.training_cost import profile


def test_events_are_summed_by_type():
    found = profile.by_type(
        [
            ("model/a/Round:Round", 1.0),
            ("model/b/Round:Round", 2.0),
            ("model/conv:Conv2D", 4.0),
            ("ExecutorState::Process", 50.0),
            ("EagerLocalExecute: __inference_step", 50.0),
        ],
        steps=2,
    )
    assert found == {"Round": (1.5, 1.0), "Conv2D": (2.0, 0.5)}


@pytest.mark.slow
def test_a_real_profile_has_what_msq_adds(monkeypatch):
    small = networks.Network("small", (8, 8, 3), 2, blocks=1)
    monkeypatch.setitem(networks.NETWORKS, "small", small)
    monkeypatch.setattr(profile, "_NETWORKS", ("small",))
    monkeypatch.setattr(profile, "_TURNS", 1)
    results = profile.measure()
    network = results["networks"]["small"]
    # One rounding a weight in the forward pass, and none in float.
    assert "Round" not in network[methods.FLOAT]
    assert network[methods.FROZEN]["Round"]["nodes"] == 10
    assert network[methods.SEARCHING]["Round"]["nodes"] > 10
    assert profile.total(network[methods.FLOAT]) > 0
    for row in profile.rows(network):
        assert len(row) == len(profile.COLUMNS)
    profile.table(results)
