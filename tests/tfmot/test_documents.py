"""What a newcomer copies runs."""

import re
import runpy

import numpy as np
import pytest

from tests.tfmot.samples import msq
from tests.tfmot.samples import tf_keras
from tflite_export import run


def blocks(path, *headings):
    """Python blocks of a page; of these headings only, where any is given."""
    pattern = r"(?:\*\*([\w ]+)\*\*[^\n]*\n\n)?```python\n(.*?)```"
    return [
        code
        for heading, code in re.findall(pattern, path.read_text(), re.DOTALL)
        if not headings or heading in headings
    ]


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["Keras 3", "tf_keras"])
def test_from_install_to_file(generation, root, tmp_path, monkeypatch, capsys):
    page = root / "docs" / "from-install-to-file.md"
    found = blocks(page, "Both", generation)
    assert len(found) == 8
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile("\n".join(found), page.name, "exec"), names)
    assert names["view"].compression >= 8.0
    got = run(tmp_path / "m.tflite", names["x"][:64])
    agree = got.argmax(-1) == names["qmodel"](names["x"][:64]).numpy().argmax(
        -1
    )
    assert np.mean(agree) > 0.95
    assert names["small"].file_bytes < names["report"].file_bytes
    capsys.readouterr()


@pytest.mark.slow
def test_the_page_on_tfmot(root, tmp_path, monkeypatch, capsys):
    page = root / "docs" / "tfmot.md"
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile("\n".join(blocks(page)), page.name, "exec"), names)
    assert "{'head': 4}" in capsys.readouterr().out
    assert (tmp_path / "m.tflite").exists()


@pytest.mark.slow
def test_the_example(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(root / "examples" / "tfmot_pipeline.py"))
    assert names["view"].compression >= 8.0
    assert isinstance(names["qat_model"], tf_keras.Model)
    assert msq.ModelView(names["loaded"]).bits == names["view"].bits
    assert "on trained ranges" in names["report"].activations
    assert (tmp_path / "tfmot_pipeline.tflite").exists()
    capsys.readouterr()
