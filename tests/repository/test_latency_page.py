"""The page on milliseconds and RAM has examples that run."""

import pytest

import msq_tf
from tests.repository.test_documentation import python_blocks


@pytest.mark.slow
def test_the_examples_run(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks(root / "docs/latency.md"):
        exec(compile(block, "latency.md", "exec"), names)
    assert (tmp_path / "mine.json").exists()
    kept = msq_tf.DeviceCosts.load(tmp_path / "board.json")
    assert kept == names["rule"].costs
