"""What the cost benchmark counts, on a network small enough for a test."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks.harness import networks
from benchmarks.training_cost import memory_run
from benchmarks.training_cost import methods
from benchmarks.training_cost import step

SMALL = networks.Network("resnet8", (8, 8, 1), 4, classes=3)


@pytest.fixture(scope="module")
def counted():
    found = {}
    for method in methods.METHODS:
        model = methods.build(method, SMALL.build())
        model.train_on_batch(*SMALL.batch())
        found[method] = methods.counts(model)
    return found


@pytest.mark.slow
def test_msq_trains_what_the_float_model_trains(counted):
    for method in (methods.SEARCHING, methods.FROZEN):
        for key in ("trainable", "gradients", "slots"):
            assert counted[method][key] == counted[methods.FLOAT][key]


@pytest.mark.slow
def test_bit_planes_take_sixteen_times_as_much(counted):
    base = SMALL.build()
    kernels = sum(
        math.prod(v.shape) for v in base.weights if "kernel" in v.path
    )
    plain = counted[methods.FLOAT]["trainable"]
    for method in (methods.BSQ, methods.CSQ):
        extra = counted[method]["trainable"] - (plain - kernels)
        # Two variables a bit, and a few scales and masks.
        assert 16 * kernels < extra < 16 * kernels + 200
        assert counted[method]["slots"] > 15 * kernels


def test_a_method_that_is_not_there():
    with pytest.raises(ValueError, match="Received: qat"):
        methods.build("qat", SMALL.build())


@pytest.mark.slow
def test_a_change_of_widths_retraces_nothing():
    change = step._change(SMALL, 100.0)
    assert change["retraces"] == 0
    assert change["in_steps"] == pytest.approx(change["ms"] / 100.0)


@pytest.mark.slow
def test_memory(monkeypatch, tmp_path):
    """Of this process, whose peak is at least what it held before."""
    monkeypatch.setitem(networks.ALL, "small", SMALL)
    result = tmp_path / "result.json"
    assert memory_run.main(["small", methods.FROZEN, str(result)]) == 0
    found = json.loads(result.read_text())
    assert 100 < found["step_mib"]
    assert 100 < found["traced_mib"]


def test_a_default_run_searches_for_a_fifth_of_its_steps():
    ratios = {methods.SEARCHING: 1.5, methods.FROZEN: 1.0}
    network = {"methods": {m: {"step_ratio": r} for m, r in ratios.items()}}
    assert step.of_a_run(network) == pytest.approx(1.1)
