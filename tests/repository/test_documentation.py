"""What a newcomer copies runs, and what the README quotes was measured."""

import re
import runpy

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from benchmarks.__main__ import BENCHMARKS
from benchmarks.files import zoo
from benchmarks.harness import record
from msq_tf.keras3 import registry
from tests.msq_tf.samples import compile_model
from tests.msq_tf.samples import tiny_model
from tools import docs


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def run_blocks(page):
    """Runs the blocks of a page one after the other; returns their names."""
    names = {}
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec"), names)
    return names


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


@pytest.mark.slow
def test_the_page_on_files_runs(root, tmp_path, monkeypatch):
    *trainings, again = python_blocks(root / "docs/from-a-file.md")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "published.tflite").write_bytes(
        tflite_export.float_tflite(tiny_model())
    )
    rng = np.random.default_rng(0)
    names = {
        "x": rng.normal(size=(64, 8, 8, 1)).astype(np.float32),
        "y": rng.integers(0, 4, 64),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    for block in trainings:
        exec(compile(block, "from-a-file.md", "exec"), names)
        assert names["qmodel"].compression >= 8.0
    assert (tmp_path / "small.tflite").stat().st_size < (
        tmp_path / "published.tflite"
    ).stat().st_size
    config = msq_tf.MSQConfig(activation_bits=8)
    integers = msq_tf.quantize_model(tiny_model(), config)
    msq_tf.calibrate(integers, names["x"])
    tflite_export.export(
        integers,
        "published_int8.tflite",
        target="cpu_int8",
        representative_data=names["x"],
    )
    exec(compile(again, "from-a-file.md", "exec"), names)
    found = [
        names["qmodel"].quantized_weights(),
        integers.quantized_weights(),
    ]
    for own, wanted in zip(*found, strict=True):
        np.testing.assert_array_equal(
            own.codes.ravel(), wanted.codes.ravel(), own.path
        )


@pytest.mark.slow
def test_the_page_for_users_of_the_converter_runs(root, tmp_path, monkeypatch):
    converter, *blocks = python_blocks(root / "docs/from-tflite-converter.md")
    assert "TFLiteConverter" in converter
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {
        "model": tiny_model(),
        "x": rng.normal(size=(64, 8, 8, 1)).astype(np.float32),
        "y": rng.integers(0, 4, 64),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    for block in blocks:
        exec(compile(block, "from-tflite-converter.md", "exec"), names)
    sizes = {path.stem: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["int4"] <= sizes["int8"]
    assert set(sizes) == {"int8", "int4", "small", "fast"}


def test_the_custom_layer_page_runs(root, capsys):
    known = dict(registry._REGISTRY)
    names = {}
    try:
        for block in python_blocks(root / "docs" / "custom-layers.md"):
            exec(compile(block, "custom-layers.md", "exec"), names)
            out = capsys.readouterr().out
            assert "{'glu/gate': 8, 'glu/value': 8, 'dense" in out
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(known)


def test_the_answer_on_bits_runs(root):
    (block,) = python_blocks(root / "docs" / "questions.md")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="stem"),
            keras.layers.Dense(2, name="head"),
        ]
    )
    names = {"msq_tf": msq_tf, "model": model}
    exec(compile(block, "questions.md", "exec"), names)
    assert names["qmodel"].plan[0].min_bits == 8
    assert names["rule"].target_bytes == 50_000
    names["qmodel"].set_bits({"stem": 8, "head": 4})
    assert names["qmodel"].bits == {"stem": 8, "head": 4}


@pytest.mark.slow
def test_the_custom_loop_page_runs(root, capsys):
    (block,) = python_blocks(root / "docs" / "custom-loops.md")
    names = {}
    exec(compile(block, "custom-loops.md", "exec"), names)
    assert names["qmodel"].search.rule_state.done
    *_, last = capsys.readouterr().out.splitlines()
    assert last.endswith("x 1")


def test_the_quickstart_runs(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(root / "examples" / "quickstart.py"))
    assert names["qmodel"].compression >= 8.0
    assert (tmp_path / "quickstart.tflite").exists()
    capsys.readouterr()


@pytest.mark.slow
def test_the_zoo_example_runs(root, tmp_path, capsys):
    names = runpy.run_path(str(root / "examples" / "zoo_finetune.py"))
    path = tmp_path / "m.tflite"
    result = names["main"](
        [
            "--examples=512",
            "--pretraining=1",
            "--epochs=1",
            "--target=cpu_int8",
            f"--output={path}",
        ]
    )
    assert result["model"].compression >= 8.0
    assert not any(
        layer.trainable
        for layer in result["model"].base._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    assert 0.0 <= result["file"] <= 1.0
    assert path.stat().st_size > 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("page", "sections"),
    [pytest.param(page, s, id=page.name) for page, s in docs.pages().items()],
)
def test_figures_are_those_of_the_results(page, sections):
    assert docs.updated(page, sections) == page.read_text()


def test_a_section_without_its_marks_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- figures of x: written by tools/docs.py -->\nold\n"
        "<!-- end of figures -->\n"
    )
    assert "\nnew\n" in docs.updated(page, {"x": "new\n"})
    for name in ("", "y"):
        with pytest.raises(ValueError, match="page=page.md"):
            docs.updated(page, {name: "new\n"})


@pytest.mark.parametrize(
    "name", [p.stem for p in sorted(record.RESULTS.glob("*.json"))]
)
def test_results_have_a_benchmark_or_say_which_commit_had_it(name):
    content = record.load(name)
    assert (name in BENCHMARKS) != ("code" in content)
    if "code" in content:
        assert re.search(r" in commit [0-9a-f]{9,}$", content["code"])


def test_the_zoos_page_tells_what_is_missing():
    content = record.load("zoo")
    first, *_ = content["results"]["models"]
    first["exports"]["cpu_int8"] = {"outcome": "refused", "reason": "because"}
    content["results"]["models"] = [first]
    tables = zoo.markdown(content)
    assert f"- {first['name']}, `cpu_int8`, refused: because" in tables
    assert "not run yet: " in tables and "VGG16" in tables
    assert "Nothing is left out" not in tables


def test_links_between_documents_lead_somewhere(root):
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(
            r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()
        ):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_files_that_pages_name_are_there(root):
    """A file that moved takes its name on the pages along."""
    folders = {p.name for p in root.iterdir() if p.is_dir()}
    found = 0
    for page in [
        *(root / f"{name}.md" for name in ("README", "CONTRIBUTING")),
        *(root / "docs").rglob("*.md"),
    ]:
        for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)+)`", page.read_text()):
            if path.partition("/")[0] in folders - {"out"}:
                assert (root / path).exists(), f"{page.name}: {path}"
                found += 1
    assert found > 20


def test_what_pages_take_from_the_packages_is_there(root):
    packages = {"msq_tf": msq_tf, "tflite_export": tflite_export}
    found = set()
    for page in [root / "README.md", *(root / "docs").rglob("*.md")]:
        for block in python_blocks(page):
            for package, name in re.findall(
                r"\b(msq_tf|tflite_export)\.(\w+)", block
            ):
                assert hasattr(packages[package], name), f"{page.name}: {name}"
                found.add(name)
    assert {"quantize_model", "register_float", "run"} <= found


@pytest.mark.parametrize("word", ["TODO", "FIXME"])
def test_nothing_is_left_open_in_the_documents(root, word):
    for page in (root / "docs").rglob("*.md"):
        assert word not in page.read_text(), page.name
