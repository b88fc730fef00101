"""What a newcomer copies runs, and what the README quotes was measured."""

import re
import runpy

import keras
import numpy as np
import pytest

from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import tiny_model
from tools import readme


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_readmes_example_runs(root, tmp_path, monkeypatch, capsys):
    (block,) = python_blocks(root / "README.md")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    model = compile_model(tiny_model())
    names = {
        "model": model,
        "x": rng.normal(size=(64, 8, 8, 1)).astype(np.float32),
        "y": rng.integers(0, 4, 64),
        "optimizer": "adam",
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    exec(compile(block, "README.md", "exec"), names)
    assert names["qmodel"].compression >= 8.0
    assert (tmp_path / "m.tflite").stat().st_size > 0
    assert "target reached" in " ".join(capsys.readouterr().out.split())


def test_the_custom_layer_page_runs(root, capsys):
    (block,) = python_blocks(root / "docs" / "custom-layers.md")
    exec(compile(block, "custom-layers.md", "exec"), {})
    assert "{'glu/gate': 8, 'glu/value': 8, 'dense" in capsys.readouterr().out


def test_the_quickstart_runs(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(root / "examples" / "quickstart.py"))
    assert names["qmodel"].compression >= 8.0
    assert (tmp_path / "quickstart.tflite").exists()
    capsys.readouterr()


@pytest.mark.parametrize("page", readme.pages(), ids=lambda page: page.name)
def test_figures_are_those_of_the_results(page):
    assert readme.updated(page) == page.read_text()


def test_links_between_documents_lead_somewhere(root):
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(
            r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()
        ):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("word", ["TODO", "FIXME"])
def test_nothing_is_left_open_in_the_documents(root, word):
    for page in (root / "docs").rglob("*.md"):
        assert word not in page.read_text(), page.name
