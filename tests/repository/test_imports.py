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
    "tools": {"benchmarks", "msq_tf", "tflite_export", "tools"},
}
# A package's rooms and single modules, the lowest first: each imports only what
# stands before it.
FLOORS = {
    "msq_tf": (
        *("arguments", "atomic_files", "bit_widths", "extras", "distribute"),
        *("weight_layout", "rules", "quantizers", "core", "sensitivity"),
        *("page", "reports", "search", "keras3", "tfmot"),
    ),
    "tflite_export": (
        *("errors", "text_tables", "differences", "files", "output_files"),
        "progress",
        *("flatbuffer", "importing", "targets", "runtime", "latency", "quiet"),
        "data",
        "conversion",
        *("matching", "integer", "verification", "inspect", "evaluation"),
        "preparation",
        *("target_file", "devices", "costs", "reports", "generation", "steps"),
        *(
            "predicting",
            "exporting",
            "generating",
            "dry_run",
            "looking",
            "device_flags",
        ),
        *("cli", "__main__"),
    ),
    "train": (
        *("errors", "recipes", "settings", "streams", "progress", "data"),
        *("folder", "models", "distribution", "context", "targets"),
        *("diverged", "fitting", "scores", "results", "page", "front"),
        *("phases", "pipeline"),
        *("flags", "__main__"),
    ),
    "benchmarks": (
        *("harness", "baselines", "accuracy", "comparison", "files"),
        *("training_cost", "reliability", "__main__"),
    ),
}
# Rooms of `tflite_export` that only read files.
READERS = ("flatbuffer", "targets", "runtime", "inspect")
# What both front ends share: of no Keras, of neither generation.
CORE = (
    "msq_tf/search/callback.py",
    "msq_tf/core/quantized_network.py",
    "msq_tf/sensitivity/statistics.py",
    "msq_tf/rules/budget.py",
    "msq_tf/rules/threshold.py",
    "msq_tf/sensitivity/hessian.py",
    "msq_tf/reports/precision_report.py",
)
# Of these, what a front end calls; rules and reports are given to it, or it to
# them.
SHARED = (
    "msq_tf/search/callback.py",
    "msq_tf/core/quantized_network.py",
    "msq_tf/sensitivity/statistics.py",
    "msq_tf/sensitivity/hessian.py",
)
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


def closure(root, file):
    """A file of `msq_tf` and all that it imports of the package."""
    seen, todo = set(), [root.joinpath(file).relative_to(root)]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports.imported_modules(root, path):
            found = imports.module_path(root, module)
            if found is not None and found.name != "__init__.py":
                todo.append(found)
    return seen


@pytest.mark.parametrize("file", CORE)
def test_the_core_knows_no_keras(root, file):
    wrong = [
        f"{path} imports {module}"
        for path in closure(root, file)
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] in ("keras", *LEGACY)
    ]
    assert not wrong


def test_both_front_ends_are_thin(root):
    """Neither decides, measures or rounds: the core does."""
    assert set(SHARED) < set(CORE)
    core = set().union(*(closure(root, file) for file in SHARED))
    for front in ("msq_tf/keras3/callback.py", "msq_tf/tfmot/callback.py"):
        assert core <= closure(root, front)
        assert len((root / front).read_text().splitlines()) < 80


def room(path):
    """The floor that a file stands on."""
    return path.parts[1].removesuffix(".py")


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_stand_on_floors(root, package):
    floors = FLOORS[package]
    files = [
        path
        for path in imports.source_files(root)
        if path.parts[0] == package and path.parts[1] != "__init__.py"
    ]
    assert {room(path) for path in files} == set(floors)
    wrong = []
    for path in files:
        for module in imports.imported_modules(root, path):
            found = imports.module_path(root, module)
            if found is None or found.parts[0] != package:
                continue
            if found.parts[1] == "__init__.py":
                wrong.append(f"{path} imports the package that it is part of")
            elif floors.index(room(found)) > floors.index(room(path)):
                wrong.append(f"{path} imports {module}, which is above it")
    assert not wrong


def test_only_the_front_ends_know_a_keras(root):
    wrong = [
        f"{path} imports {module}"
        for path in imports.source_files(root)
        if path.parts[0] == "msq_tf"
        and room(path) not in ("__init__", "keras3", "tfmot")
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] in ("keras", *LEGACY)
    ]
    assert not wrong


def test_rules_are_without_tensorflow(root):
    files = [
        path
        for path in imports.source_files(root)
        if path.parts[:2] == ("msq_tf", "rules")
    ]
    assert files
    wrong = [
        f"{path} imports {module}"
        for file in files
        for path in closure(root, file)
        for module in imports.imported_modules(root, path)
        if module.partition(".")[0] == "tensorflow"
    ]
    assert not wrong


@pytest.mark.parametrize("package", READERS)
def test_what_reads_files_does_not_wait_for_tensorflow(root, package):
    """Nothing at module level loads it, at any depth."""
    todo = [
        path
        for path in imports.source_files(root)
        if path.parts[:2] == ("tflite_export", package)
    ]
    assert todo
    seen: set = set()
    wrong = []
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports.imported_modules(root, path, inside=False):
            if module.partition(".")[0] in ("tensorflow", "keras", "msq_tf"):
                wrong.append(f"{path} imports {module}")
            found = imports.module_path(root, module)
            if found is not None:
                todo.append(found)
    assert not wrong


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
