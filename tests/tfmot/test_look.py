"""The page of a tf_keras model."""

import numpy as np
import pytest

import tflite_export
from msq_tf.page import charts
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model


@pytest.mark.slow
def test_a_page_every_epoch_and_of_the_file(data, monkeypatch, tmp_path):
    monkeypatch.setattr(charts, "javascript", lambda: "")
    monkeypatch.setattr(charts, "check_installed", lambda: None)
    page = tmp_path / "search.html"
    model = new_model()
    fit(model, data, msq.ReportCallback(page))
    assert '"sides":' in page.read_text()
    view = msq.ModelView(model)
    path = tmp_path / "m.tflite"
    x = np.asarray(data[0])[:16]
    tflite_export.export(view, path, target="cpu_int8", representative_data=x)
    (side,) = tflite_export.look(
        path, model=view, representative_data=x
    ).page.sides
    assert [layer.key for layer in side.layers] == list(view.paths)
    assert side.tensors and side.samples
