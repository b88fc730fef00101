"""BUILD files state the real import graph."""

from __future__ import annotations

import ast
import pathlib

import pytest

from tools import build_files
from tools import imports


@pytest.fixture(scope="module")
def generated(root):
    return build_files.build_files(root)


@pytest.mark.slow
def test_build_files_are_those_of_the_imports(root, generated):
    stale = [
        str(path)
        for path, text in generated.items()
        if not (root / path).exists() or (root / path).read_text() != text
    ]
    assert not stale, "run `make build-files`"


def test_no_build_file_is_left_over(root, generated):
    found = {
        path.relative_to(root)
        for package in imports.PACKAGES
        for path in (root / package).rglob("BUILD")
    }
    assert found == set(generated)


def test_every_source_file_is_in_one_target(root):
    listed = [path for t in build_files.targets(root) for path in t.files]
    assert len(listed) == len(set(listed))
    runner = pathlib.Path(build_files.TEST_RUNNER)
    assert {*listed, runner} == set(imports.source_files(root))


def test_rules_name_what_their_target_holds(root, generated):
    """Lists and patterns of a BUILD file give the files that were meant."""
    for target in build_files.targets(root):
        if target.rule == "pytest_test":
            continue
        [node] = [
            node
            for node in _calls(generated[target.folder / "BUILD"])
            if _argument(node, "name").value == target.name
        ]
        folder = root / target.folder
        sources = _argument(node, "srcs")
        if isinstance(sources, ast.List):
            found = {folder / name for name in ast.literal_eval(sources)}
        else:
            found = set(folder.glob("*.py"))
            for keyword in sources.keywords:
                for pattern in ast.literal_eval(keyword.value):
                    found -= set(folder.glob(pattern))
        assert found == {root / path for path in target.files}


def test_dependencies_are_targets_and_no_circle(root, generated):
    pinned = {
        line.partition("==")[0].replace("-", "_").replace(".", "_")
        for line in (root / "requirements.txt").read_text().splitlines()
        if "==" in line
    }
    targets = build_files.targets(root)
    labels = {path: t.label for t in targets for path in t.files}
    graph = {}
    for target in targets:
        deps = build_files.dependencies(root, target, labels)
        for dep in deps:
            if dep.startswith("@pip//"):
                assert dep.removeprefix("@pip//") in pinned
        graph[target.label] = {
            _absolute(dep, target.folder)
            for dep in deps
            if not dep.startswith("@")
        }
    known = set(graph)
    while graph:
        leaves = {name for name in graph if not graph[name] & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            assert graph.pop(name) <= known


def _calls(text: str) -> list[ast.Call]:
    """The rules of a BUILD file, whose syntax is that of Python."""
    return [
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and any(keyword.arg == "srcs" for keyword in node.value.keywords)
    ]


def _argument(node: ast.Call, name: str):
    return next(k.value for k in node.keywords if k.arg == name)


def _absolute(dep: str, folder: pathlib.Path) -> str:
    if dep == f":{folder.name}":
        return f"//{folder}"
    return f"//{folder}{dep}" if dep.startswith(":") else dep
