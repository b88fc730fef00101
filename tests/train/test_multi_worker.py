"""Real workers on this machine: one search, one checkpoint, one file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import signal
import socket
import sys

import keras
import numpy as np
import pytest

from tests import launching
from tests.launching import PATIENCE
from tests.launching import launched
from tests.launching import outputs
from tests.train import worker
from train import pipeline
from train.distribution import rendezvous
from train.models import builders
from train.recipes import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE)]

RECIPE = Recipe(
    float_epochs=1,
    epochs=4,
    batch_size=48,
    float_learning_rate=0.05,
    learning_rate=0.02,
    shift=1,
    flip=True,
)


@pytest.fixture
def settings_of(tiny_settings, monkeypatch, tmp_path):
    monkeypatch.setitem(builders.BUILDERS, "even", worker.even)

    def make(name, **changes):
        return tiny_settings(
            output_dir=str(tmp_path / name),
            model="even",
            recipe=RECIPE,
            targets=("min_size",),
            target_compression=12.0,
            train_examples=240,
            resume=True,
            **changes,
        )

    return make


def flags_of(settings) -> list[str]:
    names = ("output_dir", "model")
    names += (
        "target_compression" if settings.max_drop is None else "max_drop",
    )
    names += ("train_examples", "test_examples")
    names += ("start_from",) if settings.start_from else ()
    recipe = ("float_epochs", "epochs", "batch_size", "shift")
    recipe += ("float_learning_rate", "learning_rate")
    return [
        "--resume",
        "--flip",
        "--targets=min_size",
        *(f"--{name}={getattr(settings, name)}" for name in names),
        *(f"--{name}={getattr(settings.recipe, name)}" for name in recipe),
    ]


def workers(count, settings, root, ends=None, timeout=900, shared=False):
    """Starts workers; `ends` maps some to the step before which they end."""
    commands = []
    for index in range(count):
        # Nothing in common with the chief but the network.
        apart = index and not shared
        folder = settings.output_dir + (f"-{index}" if apart else "")
        commands.append(
            [
                sys.executable,
                "-m",
                worker.__name__,
                str((ends or {}).get(index, 0)),
                *flags_of(dataclasses.replace(settings, output_dir=folder)),
                "--distribution=multi_worker",
                f"--worker_timeout={timeout}",
            ]
        )
    return launched(commands, root)


def fingerprints(texts) -> set[str]:
    """What the workers say that they hold."""
    found = [re.findall(r"^worker \d of \d: (.*)$", t, re.M) for t in texts]
    assert all(len(lines) == 1 for lines in found), "\n".join(texts)
    return {lines[0] for lines in found}


def folders(settings) -> list[str]:
    path = pathlib.Path(settings.output_dir)
    return [found.name for found in path.parent.glob(f"{path.name}*")]


def model_of(settings) -> keras.Model:
    return keras.models.load_model(
        pathlib.Path(settings.output_dir) / "model.keras"
    )


def test_two_workers_keep_a_promise_killed_or_not(settings_of, root):
    found = []
    for name, ends in (("killed", {0: 10, 1: 10}), ("whole", None)):
        settings = settings_of(name, max_drop=20.0)
        if ends is not None:
            with workers(2, settings, root, ends) as processes:
                outputs(processes)
        with workers(2, settings, root) as processes:
            texts = outputs(processes)
        assert [process.returncode for process in processes] == [0, 0], texts
        found.append(fingerprints(texts))
        report = pathlib.Path(settings.output_dir) / "report.json"
        check, *_ = json.loads(report.read_text())["checks"]
        assert check["name"] == "tolerance" and check["passed"]
        # The chief alone keeps weights to go back to.
        kept = pathlib.Path(settings.output_dir) / "checkpoints/tolerance"
        assert (kept / "tolerance.json").exists()
        assert not pathlib.Path(f"{settings.output_dir}-1").exists()
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_three_workers_train_what_one_device_trains(settings_of, console, root):
    settings = settings_of("three")
    with workers(3, settings, root) as processes:
        alone = pipeline.run(settings_of("alone"), console)
        texts = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0, 0], texts

    assert len(fingerprints(texts)) == 1
    assert folders(settings) == ["three"]
    folder = pathlib.Path(settings.output_dir)
    assert sorted(path.name for path in folder.rglob("*.tflite")) == [
        "float.tflite",
        "min_size.tflite",
    ]
    assert len(list(folder.glob("**/msq"))) == 1
    report = json.loads((folder / "report.json").read_text())
    assert report["bits"] == alone.bits
    assert len(set(alone.bits.values())) > 1
    three, one = model_of(settings), model_of(settings_of("alone"))
    assert [c[:4] for c in three.history_of_bits()] == [
        c[:4] for c in one.history_of_bits()
    ]
    for ours, theirs in zip(
        three.trainable_variables, one.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), atol=2e-5, err_msg=theirs.path
        )


def test_a_lost_worker_ends_the_others_and_all_resume(
    settings_of, root, tmp_path
):
    start = tmp_path / "start.keras"
    worker.even((28, 28, 1), 10, 1.0).save(start)
    whole, broken = (
        settings_of(name, start_from=str(start)) for name in ("whole", "broken")
    )
    with (
        workers(2, whole, root) as unbroken,
        # In the third of four epochs.
        workers(2, broken, root, ends={1: 12}) as processes,
    ):
        texts = outputs(processes)
        expected = outputs(unbroken)
    assert [process.returncode for process in unbroken] == [0, 0], expected
    assert [process.returncode for process in processes] == [
        2,
        -signal.SIGTERM,
    ], texts
    assert "error: Another worker stopped" in texts[0]
    assert "Traceback" not in texts[0]

    with workers(2, broken, root) as processes:
        texts = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    assert "Resuming msq training at epoch 3." in texts[0]
    assert fingerprints(texts) == fingerprints(expected)
    assert len(fingerprints(texts)) == 1
    assert folders(broken) == ["broken"]
    for name in ("history.jsonl", "min_size.tflite"):
        ours, theirs = (
            pathlib.Path(run.output_dir) / name for run in (broken, whole)
        )
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_nothing_grows_with_the_steps(settings_of, root, tmp_path):
    start = tmp_path / "start.keras"
    worker.even((28, 28, 1), 10, 1.0).save(start)
    settings = settings_of("long", start_from=str(start))
    recipe = dataclasses.replace(settings.recipe, epochs=25)
    with workers(
        2, dataclasses.replace(settings, recipe=recipe), root
    ) as processes:
        texts = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    for text in texts:
        found = dict(re.findall(r"^step (\d+): (\d+) threads$", text, re.M))
        # A thread for each of a step's exchanges would be hundreds.
        assert int(found["120"]) <= int(found["20"]) + 10, found


def test_a_worker_that_does_not_answer(settings_of, root, tmp_path):
    start = tmp_path / "start.keras"
    worker.even((28, 28, 1), 10, 1.0).save(start)
    settings = settings_of("silent", start_from=str(start))
    # Longer than anything else takes on a machine that is not alone.
    with workers(2, settings, root, ends={1: -8}, timeout=60) as processes:
        text, _ = processes[0].communicate(timeout=PATIENCE)
        assert processes[1].poll() is None
    assert processes[0].returncode == 2, text
    *_, last = text.splitlines()
    assert last.startswith(
        "error: Another worker did not answer within --worker_timeout=60 s."
    )
    assert "Traceback" not in text


def test_a_worker_that_never_comes(settings_of, root):
    with workers(2, settings_of("alone"), root, timeout=3) as processes:
        processes[1].kill()
        text, _ = processes[0].communicate(timeout=PATIENCE)
    assert processes[0].returncode == 2, text
    assert "Received: nothing from worker 1 (127.0.0.1:" in text


def last_lines(processes) -> list[str]:
    texts = outputs(processes)
    assert {process.returncode for process in processes} == {2}, texts
    for text in texts:
        assert "Traceback" not in text and "Thread 0x" not in text
    return [text.splitlines()[-1] for text in texts]


def test_a_workers_port_in_use_ends_all(settings_of, root, monkeypatch):
    places = launching.addresses(3)
    monkeypatch.setattr(launching, "addresses", lambda count: places)
    port = int(places[1].rpartition(":")[2])
    with (
        socket.create_server(("", port)),
        workers(3, settings_of("busy"), root, timeout=60) as processes,
    ):
        lines = last_lines(processes)
    for line in lines[:2]:
        assert line.startswith("error: Worker 1 cannot take its port.")
    # One that starts when the others have ended hears from nobody.
    late = "Received: nothing from worker"
    assert "whose own output says why" in lines[2] or late in lines[2]


def test_a_worker_that_is_gone_when_tensorflow_starts(
    settings_of, root, monkeypatch
):
    places = launching.addresses(2)
    monkeypatch.setattr(launching, "addresses", lambda count: places)
    settings = settings_of("gone")
    # It meets the chief as a worker does, and that is all.
    with workers(2, settings, root, timeout=45) as (chief, other):
        other.kill()
        rendezvous.meet(places, 1, PATIENCE)
        (line,) = last_lines([chief])
    assert line.startswith("error: The cluster did not come together.")
    assert "--worker_timeout=45 seconds more" in line


def test_workers_may_share_the_folder(settings_of, root, tmp_path):
    """The chief alone holds it, and writes."""
    start = tmp_path / "start.keras"
    worker.even((28, 28, 1), 10, 1.0).save(start)
    settings = settings_of("shared", start_from=str(start))
    with workers(2, settings, root, shared=True) as processes:
        texts = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    assert len(fingerprints(texts)) == 1
    folder = pathlib.Path(settings.output_dir)
    assert (folder / "report.json").exists()
    assert not (folder / "run.lock").exists()
    assert folders(settings) == ["shared"]
