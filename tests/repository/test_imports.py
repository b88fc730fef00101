"""The dependency arrows of the design, and what a file may hold."""

from __future__ import annotations

import re

import pytest

from tools import imports

# Package -> packages of the project that it may import.
ARROWS = {
    "msq_tf": {"msq_tf"},
    "tflite_export": {"msq_tf", "tflite_export"},
    "train": {"msq_tf", "tflite_export", "train"},
    "tools": {"benchmarks", "tools"},
}
# Modules that know no Keras layer or model.
NO_MODEL = (
    "msq_tf/round_clamp.py",
    "msq_tf/budget.py",
    "msq_tf/threshold.py",
    "msq_tf/hessian.py",
)
MODELS = ("keras", "msq_tf.model", "msq_tf.overlay", "msq_tf.callbacks")
LEGACY = ("tf_keras", "tensorflow_model_optimization")


@pytest.mark.parametrize("package", ARROWS)
def test_dependencies_point_one_way(root, package):
    wrong = [
        f"{path} imports {module}"
        for path in imports.source_files(root)
        if path.parts[0] == package
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] in imports.PACKAGES
        and module.partition(".")[0] not in ARROWS[package]
    ]
    assert not wrong


def test_msq_tf_does_not_import_legacy_keras(root):
    wrong = [
        f"{path} imports {module}"
        for path in imports.source_files(root)
        if path.parts[:2] != ("msq_tf", "tfmot") and path.parts[0] == "msq_tf"
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] in LEGACY
    ]
    assert not wrong


@pytest.mark.parametrize("file", NO_MODEL)
def test_pure_modules_know_no_layer_and_no_model(root, file):
    path = root / file
    modules = imports.imported_modules(root, path.relative_to(root))
    assert not {m for m in modules if m in MODELS or m.startswith("keras.")}


def test_no_import_cycle_inside_a_package(root):
    graph = {
        path: {
            found
            for module in imports.imported_modules(root, path)
            if (found := imports.module_path(root, module)) not in (None, path)
        }
        for path in imports.source_files(root)
    }
    while graph:
        leaves = {path for path in graph if not graph[path] & graph.keys()}
        assert leaves, f"a cycle among {sorted(map(str, graph))}"
        for path in leaves:
            del graph[path]


def test_files_are_of_one_idea(root):
    long = {
        str(path): lines
        for path in imports.source_files(root)
        if (lines := len((root / path).read_text().splitlines())) > 400
    }
    assert not long


def test_no_file_names_a_path_of_one_machine(root):
    pattern = re.compile(r"(?<![\w.])/(?:work|root|home|tmp|Users)/\w")
    wrong = [
        str(path)
        for path in imports.source_files(root)
        if pattern.search((root / path).read_text())
    ]
    assert not wrong
