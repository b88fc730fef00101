"""What the benchmark asks of peers, keeps, skips and shows."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from benchmarks.accuracy import run as accuracy_run
from benchmarks.accuracy.study import STUDIES
from benchmarks.comparison.peers import driver
from benchmarks.comparison.peers import msq
from benchmarks.comparison.peers import prepare
from benchmarks.comparison.peers import run
from benchmarks.comparison.peers import tables
from benchmarks.harness import peer_network
from benchmarks.harness import record


@pytest.fixture
def results_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "FOLDER", tmp_path / "out")
    monkeypatch.delenv(run.WORDS, raising=False)
    return tmp_path


def one_run(row, seed=0, accuracy=0.5, bits=4.0):
    return {
        "row": row,
        "seed": seed,
        "accuracy": accuracy,
        "weights": 100,
        "stored_bytes": 100 * bits / 8,
        "told_bytes": 100 * bits / 8,
        "uniform_bytes": 100 * bits / 8,
        "average_bits": bits,
        "compression": 32 / bits,
    }


def test_words_choose_modes_and_peers():
    everything = (list(run.MODES), list(run.PEERS.values()))
    assert run.asked("") == everything
    assert run.asked("cost accuracy") == everything
    assert run.asked("cost") == (["cost"], everything[1])
    assert run.asked("hgq2, tfmot") == (
        everything[0],
        [run.PEERS["tfmot"], run.PEERS["hgq2"]],
    )
    with pytest.raises(ValueError, match=r"Received: hqg2"):
        run.asked("cost hqg2")


def test_a_peer_without_its_environment_is_skipped(results_folder, monkeypatch):
    peer = run.Peer("absent", "absent", ("float",), ".venv-absent")
    monkeypatch.setattr(run, "PEERS", {"absent": peer})
    results = run.measure()
    reason = "there is no .venv-absent (make setup-peers)"
    assert results["peers"] == {"absent": {"skipped": reason}}


def test_only_rows_that_are_missing_are_run(results_folder, monkeypatch):
    peer = run.Peer("one", "one", ("float", "a", "b"))
    monkeypatch.setattr(run, "PEERS", {"one": peer})
    monkeypatch.setattr(run, "SEEDS", (0, 1))
    started = []

    def process(peer, mode, words, threads=None):
        started.append((mode, *words[1:]))
        if mode == "cost":
            return {"models": []}
        new = one_run(words[2], words[1]) | {"layers": []}
        return {"environment": {}, "run": new}

    monkeypatch.setattr(run, "_process", process)
    monkeypatch.setattr(run, "_run", lambda *_: None)
    before = {
        "budget": prepare.budget(),
        "peers": {"one": {"accuracy": {"runs": [one_run("a"), one_run("c")]}}},
    }
    record.write(run.NAME, before)
    monkeypatch.setenv(run.WORDS, "accuracy")
    results = run.measure()
    wanted = [(s, row) for s in (0, 1) for row in peer.rows]
    wanted.remove((0, "a"))
    assert started == [("accuracy", *pair) for pair in wanted]
    runs = results["peers"]["one"]["accuracy"]["runs"]
    assert [(r["row"], r["seed"]) for r in runs] == [
        *((row, s) for row in peer.rows for s in (0, 1)),
        ("c", 0),
    ]
    assert not any("layers" in r for r in runs)
    # All is recorded now; the cost is measured anew.
    started.clear()
    monkeypatch.delenv(run.WORDS)
    run.measure()
    assert [mode for mode, *_ in started] == ["cost"]


def test_runs_of_another_budget_are_dropped(results_folder):
    old = prepare.budget() | {"epochs": 1}
    entry = {"cost": {"models": []}, "accuracy": {"runs": [one_run("a")]}}
    record.write(run.NAME, {"budget": old, "peers": {"one": entry}})
    found = run.recorded(prepare.budget())
    assert found["budget"] == prepare.budget()
    assert found["peers"] == {"one": {"cost": {"models": []}}}


def test_tables_show_means_and_ratios():
    model = {"model": "resnet8", "rows": {}}
    for name, factor in (("float", 1), ("narrow", 3)):
        model["rows"][name] = {
            "step_ms": 10.0 * factor,
            "step_ratio": 1.25 * factor,
            "trainable": 7 * factor,
            "slots": 7 * factor,
        }
    runs = [
        one_run("float", 0, 0.5, 32.0),
        one_run("float", 1, 0.6, 32.0),
        one_run("narrow", 0, 0.4),
        one_run("narrow", 1, 0.6),
    ]
    runs[3] |= {"uniform_bytes": 100.0, "told_bytes": 80.0}
    results = {
        "budget": prepare.budget(),
        "peers": {
            "one": {"cost": {"models": [model]}, "accuracy": {"runs": runs}},
            "two": {"skipped": "because"},
        },
    }
    assert tables.cost_rows(results) == [
        ("one", "narrow", "resnet8", "30", "3.75x", "3.00x", "3.00x")
    ]
    _, narrow = map(tables.accuracy_cells, tables.summaries(results))
    assert narrow == (
        "one",
        "narrow",
        "2",
        "8.00x",
        "6.50x",
        "6.00x",
        "50.00",
        "40.00..60.00",
        "-5.00",
    )
    text = run.markdown({"results": results})
    assert "| 3.75x |" in text and "| 40.00..60.00 |" in text
    assert "- two: skipped, because" in text


@pytest.mark.slow
def test_the_batches_are_those_of_the_accuracy_benchmark():
    study = STUDIES["fashion_mnist_mini"]
    assert prepare.STUDY is study
    data = accuracy_run.load_data(study)
    ours = prepare._batches(data, seed=3)
    assert len(ours["images"]) == study.epochs * study.steps
    fitted = accuracy_run.datasets.Examples(
        data.train.images[: -study.held_out],
        data.train.labels[: -study.held_out],
    )
    theirs = accuracy_run.training_data(study, fitted, 3, 0)
    scale = np.float32(prepare.budget()["pixel_scale"])
    for n, (images, labels) in enumerate(theirs.take(3)):
        np.testing.assert_array_equal(ours["labels"][n], labels)
        np.testing.assert_array_equal(
            ours["images"][n].astype(np.float32) * scale, images
        )


def test_a_stale_folder_is_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "STUDY", STUDIES["fashion_mnist_mini"])
    old = prepare.budget() | {"epochs": 1}
    (tmp_path / "budget.json").write_text(json.dumps(old))
    (tmp_path / "base.npz").touch()
    kept = tmp_path / "batches-0.npz"
    kept.touch()
    prepare.forget_stale(tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    kept.touch()
    prepare.forget_stale(tmp_path)
    assert kept.exists()
    found = json.loads((tmp_path / "budget.json").read_text())
    assert found == prepare.budget()


@pytest.fixture
def small(monkeypatch):
    """A driver of uniform widths on two layers, and data for it."""
    build = functools.partial(
        peer_network.two_layers, input_shape=(28, 28, 1), classes=10
    )
    monkeypatch.setattr(driver, "MODELS", {"resnet8": build})

    class Small(msq.MSQ):
        cost_rows = ("uniform 4", "BSQ")

    rng = np.random.default_rng(0)

    def images(*shape):
        return rng.integers(0, 256, (*shape, 28, 28, 1)).astype(np.uint8)

    peer = Small()
    weights = {
        name: variable.numpy()
        for name, variable in peer_network.variables(
            peer.float_model(build, None)
        ).items()
    }
    budget = {"epochs": 2, "steps": 3, "learning_rate": 0.1, "pixel_scale": 1.0}
    arrays = {
        "images": images(6, 8),
        "labels": rng.integers(0, 10, (6, 8)),
        "test_images": images(20),
        "test_labels": rng.integers(0, 10, 20),
    }
    return peer, driver.Data(budget, arrays, weights)


@pytest.mark.slow
def test_accuracy_is_that_of_the_test_images(small):
    peer, data = small
    found = driver.accuracy(peer, "uniform 3", data, seed=5)
    assert found["row"] == "uniform 3" and found["seed"] == 5
    assert found["accuracy"] * 20 == pytest.approx(
        round(found["accuracy"] * 20)
    )
    assert found["weights"] == 36 + 40
    assert found["stored_bytes"] == 3 * 76 / 8
    plain = driver.accuracy(peer, driver.FLOAT, data, seed=5)
    assert plain["compression"] == 1.0
    assert {layer["name"] for layer in plain["layers"]} == {"conv", "logits"}
    # Trained: not what it started with, nor the quantized one.
    assert plain["loss"] != found["loss"]


@pytest.mark.slow
def test_cost_is_against_float_in_the_same_process(small):
    peer, _ = small
    found = driver.cost(peer, "resnet8", 3)
    rows = found["rows"]
    assert list(rows) == ["float", "uniform 4", "BSQ"]
    assert rows["float"]["step_ratio"] == 1.0
    count = 36 + 40 + 2 * 4 + 10
    assert rows["float"]["trainable"] == rows["float"]["slots"] == count
    assert rows["uniform 4"]["trainable"] == count
    # Sixteen planes and a scale in place of a kernel.
    assert rows["BSQ"]["trainable"] == count + 15 * 76 + 2
    assert rows["BSQ"]["slots"] == rows["BSQ"]["trainable"]


def test_cross_entropy_is_that_of_the_logits():
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]])) + 1e4
    labels = np.array([1, 0])
    wanted = -(np.log(0.75) + np.log(0.5)) / 2
    assert driver.cross_entropy(logits, labels) == pytest.approx(wanted)
