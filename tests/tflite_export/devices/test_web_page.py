"""The example page in a real browser: WebAssembly, and WebGPU."""

import base64
import contextlib
import functools
import http.server
import json
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
import tflite_export
from tests.tflite_export.looking.browser import PLAIN
from tests.tflite_export.looking.browser import WEBGPU
from tests.tflite_export.looking.browser import chromium
from tflite_export.devices import web
from tools import web_page

LABELS = ["coat", "shoe", "bag"]


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The page with a file of INT8, INT4 and INT2 weights, and its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(web.ENVIRONMENT, str(root / ".venv-web"))
        if web.folder() is None:
            pytest.skip("no .venv-web, or no Node; `make setup-web` makes it")
        folder = tmp_path_factory.mktemp("site")
        keras.utils.set_random_seed(0)
        inputs = keras.Input((12, 12, 1), name="image")
        x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
        x = keras.layers.Conv2D(16, 1, activation="relu")(x)
        x = keras.layers.Flatten()(x)
        x = keras.layers.Dense(16, activation="relu")(x)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        qmodel = msq_tf.quantize_model(
            model, msq_tf.MSQConfig(activation_bits=8)
        )
        qmodel.set_bits(dict(zip(qmodel.bits, (8, 4, 2, 4), strict=True)))
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 256, (8, 12, 12, 1), np.uint8)
        scale, _ = web_page.PIXELS["unit"]
        x = (pictures * scale).astype(np.float32)
        msq_tf.calibrate(qmodel, x)
        path = folder / "exported.tflite"
        tflite_export.export(qmodel, path, "web", x, verbose=False)
        web_page.make(path, folder, LABELS)
    return folder, pictures, x


def dropped(page, picture):
    """Drops a picture on the page, as a person does; the scores it shows."""
    data = base64.b64encode(tf.io.encode_png(picture).numpy()).decode()
    before = int(page.evaluate("document.body.dataset.runs"))
    transfer = page.evaluate_handle(
        """async (data) => {
          const answer = await fetch(`data:image/png;base64,${data}`);
          const file = new File([await answer.blob()], 'picture.png');
          const transfer = new DataTransfer();
          transfer.items.add(file);
          return transfer;
        }""",
        data,
    )
    page.dispatch_event("#picture", "drop", {"dataTransfer": transfer})
    page.wait_for_function(f"document.body.dataset.runs > {before}")
    assert page.inner_text("#error") == ""
    return np.array(json.loads(page.evaluate("document.body.dataset.scores")))


def opened(browser, address):
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_function("document.body.dataset.runs > 0")
    return page, errors


@pytest.mark.slow
def test_the_page_computes_what_the_file_computes_here(site):
    folder, pictures, x = site
    wanted = tflite_export.run(folder / "model.tflite", x)
    with chromium(PLAIN) as browser, served(folder) as address:
        page, errors = opened(browser, address)
        for picture, scores in zip(pictures[:4], wanted, strict=False):
            np.testing.assert_array_equal(dropped(page, picture), scores)
            assert page.inner_text("#class") == LABELS[int(scores.argmax())]
        size = (folder / "model.tflite").stat().st_size
        assert page.inner_text("#bytes") == f"{size:,}"
        assert float(page.inner_text("#time")) >= 0
        assert page.inner_text("#whole") == "all on the accelerator"
        assert not errors


@pytest.mark.slow
def test_a_drawing_is_classified(site):
    folder, _, _ = site
    with chromium(PLAIN) as browser, served(folder) as address:
        page, errors = opened(browser, address)
        black = page.evaluate("document.body.dataset.scores")
        box = page.locator("#picture").bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 220, steps=5)
        page.mouse.up()
        page.wait_for_function("document.body.dataset.runs > 1")
        assert page.evaluate("document.body.dataset.scores") != black
        assert page.inner_text("#class") in LABELS
        page.click("#clear")
        page.wait_for_function("document.body.dataset.runs > 2")
        assert page.evaluate("document.body.dataset.scores") == black
        assert not errors


@pytest.mark.slow
def test_webgpu_runs_all_of_the_file(site):
    folder, pictures, x = site
    data = (folder / "model.tflite").read_bytes()
    wanted = tflite_export.run(data, x)
    unit = web.ports.outputs(data)[0].scale
    with chromium(WEBGPU) as browser, served(folder) as address:
        page, errors = opened(browser, address)
        if page.locator("#accelerator option[disabled]").count():
            pytest.skip("this Chromium has no WebGPU")
        runs = page.evaluate("document.body.dataset.runs")
        page.select_option("#accelerator", "webgpu")
        page.wait_for_function(f"document.body.dataset.runs > {runs}")
        assert page.inner_text("#error") == ""
        assert page.inner_text("#whole") == "all on the accelerator"
        for picture, scores in zip(pictures[:4], wanted, strict=False):
            apart = np.abs(dropped(page, picture) - scores).max()
            assert apart < 1.01 * unit
        assert not errors


def test_the_documents_show_the_lines_that_the_page_runs(root):
    lines = (root / "examples" / "web" / "load.js").read_text()
    assert lines in (root / "docs" / "targets" / "web.md").read_text()
    assert len(lines.splitlines()) <= 22


def test_without_the_package_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(web.ENVIRONMENT, str(tmp_path / "nowhere"))
    assert web_page.main([str(tmp_path / "m"), str(tmp_path / "site")]) == 1
    assert "make setup-web" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
