"""The page on milliseconds and RAM has examples that run."""

import pytest

import msq_tf
from tests.repository.test_documentation import run_blocks


@pytest.mark.slow
def test_the_examples_run(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(root / "docs/latency.md")
    assert (tmp_path / "mine.json").exists()
    kept = msq_tf.DeviceCosts.load(tmp_path / "board.json")
    assert kept == names["rule"].costs
