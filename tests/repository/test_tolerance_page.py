"""The page on tolerances has examples that run."""

import pytest

import msq_tf
from tests.repository.test_documentation import run_blocks


@pytest.mark.slow
def test_the_examples_run(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(root / "docs/tolerance.md")
    assert isinstance(names["small"], msq_tf.MSQModel)
    assert (tmp_path / "front.png").exists()
