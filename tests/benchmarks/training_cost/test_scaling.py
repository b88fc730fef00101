"""How cost grows: the fits, and a point on a network small enough."""

from __future__ import annotations

import pytest

from benchmarks.harness import networks
from benchmarks.harness import timing
from benchmarks.training_cost import methods
from benchmarks.training_cost import scaling
from benchmarks.training_cost import step


def test_exponents_of_power_laws():
    sizes = [10.0, 20.0, 80.0]
    assert timing.exponent(sizes, sizes) == pytest.approx(1.0)
    assert timing.exponent(sizes, [s**2 for s in sizes]) == pytest.approx(2.0)
    assert timing.exponent(sizes, [5.0, 5.0, 5.0]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("sizes", "values"), [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 1.0])]
)
def test_no_exponent_without_two_sizes_or_of_zero(sizes, values):
    with pytest.raises(ValueError, match="Received: sizes"):
        timing.exponent(sizes, values)


@pytest.mark.slow
def test_networks_grow_as_they_say():
    counts = [n.build().count_params() for n in networks.WIDER.values()]
    for narrow, wide in zip(counts, counts[1:], strict=False):
        assert 3.5 < wide / narrow < 4.0
    layers = [
        sum("conv" in layer.name for layer in n.build().layers)
        for n in networks.DEEPER.values()
    ]
    assert layers == sorted(set(layers))


@pytest.mark.slow
def test_a_point(monkeypatch):
    small = networks.Network("small", (8, 8, 3), 2, blocks=1)
    monkeypatch.setattr(
        step, "memory", lambda *_: {"start_mib": 1.0, "step_mib": 3.0}
    )
    point = scaling._point(1, small, 2)
    assert set(point["methods"]) == set(scaling.METHODS)
    for name in scaling.METHODS:
        assert point["methods"][name]["step_ms"] > 0
        assert point["methods"][name]["step_mib"] == 2.0
    assert point["methods"][methods.FLOAT]["step_ratio"] == 1.0
    grown = [point, point | {"factor": 2, "parameters": 10**6}]
    results = {
        name: {"points": grown, "exponents": scaling.exponents(grown)}
        for name in scaling.ALONG
    }
    environment = {"command": "c", "date": "d", "cores": 1}
    results |= {"batch_size": 32, "rounds": 2}
    content = {"environment": environment, "results": results}
    lines = scaling.markdown(content).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    # Heads, marks, points and exponents, of two ways to grow.
    assert len(rows) == 2 * 5
    assert {len(row) for row in rows} == {10}
    assert float(rows[4][2]) == 0.0
