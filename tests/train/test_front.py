"""Runs that leave models of several sizes."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

import msq_tf
from tests.killing import Killed
from tests.train.conftest import RECIPE
from tests.train.conftest import parsed
from train import front
from train import phases
from train import pipeline
from train import recipes
from train.data import datasets

pytestmark = pytest.mark.usefixtures("restored_flags")


def test_stages_take_two_and_a_half_times_the_epochs():
    settings = parsed("--stages=5", "--target_compression=16")
    one = recipes.RECIPES["fashion_mnist_mini"].epochs
    assert settings.recipe.epochs == 15 == 2.5 * one
    assert parsed("--stages=4").recipe.epochs == 15
    assert parsed("--stages=4", "--epochs=7").recipe.epochs == 7
    rule = phases.rule(settings)
    assert rule.target_compression == 16.0
    assert rule.stages == (1, 1, 2, 4, 7)
    assert settings.identity()["stages"] == 5
    assert settings.holds_out


@hypothesis.given(st.integers(1, 12), st.integers(0, 60))
def test_smaller_sizes_get_more_whole_epochs(stages, more):
    found = front.shares(stages + more, stages)
    assert sum(found) == stages + more
    assert list(found) == sorted(found) and found[0] >= 1
    assert len(found) == stages
    # Twice as many for the next size, but for whole epochs and one for each.
    if not more:
        assert set(found) == {1}
    whole = 2**stages - 1
    for place, epochs in enumerate(found):
        assert epochs <= max(1, math.ceil(sum(found) * 2**place / whole))
    assert front.shares(whole, stages) == tuple(2**n for n in range(stages))


def test_a_run_without_stages_is_what_it_was():
    assert "stages" not in parsed().identity()
    assert not phases.rule(parsed()).has_stages
    assert not parsed().holds_out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=0"], "Received: stages=0"),
        (["--stages=5", "--epochs=3"], "stages=5, epochs=3"),
        (["--stages=2", "--rule=threshold"], "rule=threshold"),
        (["--stages=2", "--max_drop=1"], "max_drop=1"),
        (["--stages=2", "--distribution=mirrored"], "distribution=mirrored"),
        (
            ["--stages=2", "--target_ram=9", "--target_device=mcu"],
            "target_compression=None",
        ),
    ],
)
def test_flags_that_cannot_be_carried_out_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


@pytest.mark.slow
def test_a_run_leaves_files_of_all_sizes(
    tiny_settings, console, monkeypatch, tmp_path
):
    settings = tiny_settings(
        stages=2,
        target_compression=12.0,
        recipe=dataclasses.replace(RECIPE, epochs=6),
        targets=("min_size", "cpu_int8"),
    )
    results = pipeline.run(settings, console)
    folder = pathlib.Path(settings.output_dir)
    kept = msq_tf.pareto_front(folder / "checkpoints" / "front")
    assert len(kept) == len(results.front) >= 1
    held_out = datasets.with_held_out(
        datasets.load("fashion_mnist_mini", train_examples=160)
    ).held_out
    for model, entry in zip(results.front, kept, strict=True):
        assert model.bits == entry.bits and model.epoch == entry.epoch
        right = model.held_out_accuracy * len(held_out)
        assert right == pytest.approx(round(right), abs=1e-4)
        for target, file in model.files.items():
            assert file.name == f"front/{entry.packed_bytes}-{target}.tflite"
            assert (folder / file.name).stat().st_size == file.bytes
            written = [tensor["bits"] for tensor in file.export["tensors"]]
            assert sorted(written) == sorted(model.bits.values())
    assert (folder / "front.png").stat().st_size > 1000
    assert "no other beats" in console.file.getvalue()
    report = json.loads((folder / "report.json").read_text())
    assert len(report["front"]) == len(kept)

    # Killed after half of the epochs, and resumed.
    again = dataclasses.replace(settings, output_dir=str(tmp_path / "again"))
    before = msq_tf.ParetoCheckpoint.on_epoch_end

    def killed(self, epoch, logs=None):
        before(self, epoch, logs)
        if epoch == 3:
            raise Killed

    monkeypatch.setattr(msq_tf.ParetoCheckpoint, "on_epoch_end", killed)
    with pytest.raises(Killed):
        pipeline.run(again, console)
    monkeypatch.setattr(msq_tf.ParetoCheckpoint, "on_epoch_end", before)
    resumed = pipeline.run(dataclasses.replace(again, resume=True), console)
    assert [m.bits for m in resumed.front] == [m.bits for m in results.front]
    for one, other in zip(results.front, resumed.front, strict=True):
        name = one.files["min_size"].name
        assert other.files["min_size"].name == name
        content = (folder / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()

    # Another run in its place takes nothing of it along.
    mine = folder / "front" / "notes.txt"
    mine.write_text("mine")
    pipeline.run(tiny_settings(targets=("min_size",), overwrite=True), console)
    assert [p.name for p in (folder / "front").iterdir()] == ["notes.txt"]
    assert not (folder / "front.png").exists()
