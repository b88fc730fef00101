"""The notebooks run, and can be opened in Colab."""

from __future__ import annotations

import json
import tomllib

import nbclient
import nbformat
import pytest

NOTEBOOKS = ("first_hour", "reading_a_search")
COLAB = "https://colab.research.google.com/github/"


def ran(root, tmp_path, monkeypatch, name):
    """A notebook after it ran, beside nothing but a clone's `train`."""
    # The tests' own would keep the kernel from showing pictures.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    # This tree's packages, whatever is installed.
    monkeypatch.setenv("PYTHONPATH", str(root))
    folder = tmp_path / "examples"
    folder.mkdir()
    # A clone's train and its data, and nothing that stays behind.
    (tmp_path / "train").symlink_to(root / "train")
    notebook = nbformat.read(root / "examples" / f"{name}.ipynb", 4)
    nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    # A clone stays as it was, but for what git ignores.
    assert {p.name for p in tmp_path.iterdir()} == {"examples", "out", "train"}
    return notebook


def shown(notebook, kind):
    """What cells showed, of one MIME type."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def printed(notebook):
    return "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    )


@pytest.mark.slow
def test_the_first_hour_runs(root, tmp_path, monkeypatch):
    notebook = ran(root, tmp_path, monkeypatch, "first_hour")
    tables = shown(notebook, "text/html")
    for word in ("Precision by layer", "small.tflite", "fast.tflite"):
        assert any(word in table for table in tables), word
    assert shown(notebook, "image/png")
    *_, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    scores = dict(
        line.rsplit(None, 1) for line in last.outputs[0].text.splitlines()
    )
    values = [float(value.rstrip("%")) for value in scores.values()]
    assert len(values) == 4 and min(values) > 80
    # 79,120 weights, eight times smaller; 10% of 44 kB are not weights.
    size = (tmp_path / "out" / "small.tflite").stat().st_size
    assert size < 79_120 * 4 / 8 + 5_000


@pytest.mark.slow
def test_reading_a_search_runs(root, tmp_path, monkeypatch):
    notebook = ran(root, tmp_path, monkeypatch, "reading_a_search")
    tables = shown(notebook, "text/html")
    for word in ("Precision by layer", "Decisions"):
        assert any(word in table for table in tables), word
    assert shown(notebook, "image/png")
    text = printed(notebook)
    lines = " ".join(shown(notebook, "text/plain")).split()
    assert "target reached" in " ".join(lines)
    assert "predicted loss" in text and "epoch 3:" in text
    report = json.loads((tmp_path / "out" / "reading.json").read_text())
    assert report["average_bits"] <= 3.5
    assert len(report["changes"]) >= 6
    assert report["points"][-1]["value"] > 0.5
    assert "'logits': 6" in shown(notebook, "text/plain")[-1]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_open_in_colab(root, name):
    text = (root / "examples" / f"{name}.ipynb").read_text()
    notebook = nbformat.reads(text, 4)
    assert "colab" in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    setup = code[0].source
    assert '@param {type:"string"}' in setup
    # Installs where the package is missing, clones where the clone is.
    clone, install = setup.index("!git clone"), setup.index("%pip install")
    assert setup.index('Path("train").is_dir()') < clone < install
    assert setup.index('find_spec("msq_tf") is None') < install
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    address = project.get("urls", {}).get("Repository")
    if address is None:
        # A badge would lead nowhere.
        assert COLAB not in text
    else:
        place = address.removeprefix("https://github.com/")
        badge = f"{COLAB}{place}/blob/main/examples/{name}.ipynb"
        assert badge in notebook.cells[0].source


def test_every_notebook_is_tested(root):
    found = {path.stem for path in (root / "examples").glob("*.ipynb")}
    assert found == set(NOTEBOOKS)
