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


@pytest.fixture(scope="module")
def found(root):
    return build_files.targets(root)


@pytest.mark.slow
def test_no_build_file_is_left_over(root, generated):
    on_disk = {
        path.relative_to(root)
        for package in imports.PACKAGES
        for path in (root / package).rglob("BUILD")
    }
    assert on_disk == set(generated)


def test_every_source_file_is_in_one_target(root, found):
    listed = [p for t in found if t.rule != "pytest_test" for p in t.files]
    assert len(listed) == len(set(listed))
    tests = [p for t in found if t.rule == "pytest_test" for p in t.files]
    assert len(tests) == len(set(tests))
    assert all(path.name.startswith("test_") for path in tests)
    assert {*listed, *tests, build_files.TEST_RUNNER} == set(
        imports.source_files(root)
    )


def test_no_build_file_hides_files_from_a_pattern(generated):
    for path, text in generated.items():
        below = [p for p in generated if path.parent in p.parent.parents]
        assert not ("**" in text and below)


def test_rules_name_what_their_target_holds(root, generated, found):
    """Lists and patterns of a BUILD file give the files that were meant."""
    for target in found:
        text = generated[target.folder / "BUILD"]
        folder = root / target.folder
        if target.rule == "pytest_test":
            [node] = _tests(text)
        else:
            [node] = [
                _argument(node, "srcs")
                for node in _calls(text)
                if _name(node) == target.name
            ]
        assert _files(folder, node) == {root / path for path in target.files}


def test_dependencies_are_targets_and_no_circle(found):
    # That distributions are pinned, `targets` checks.
    graph = {
        target.label: {dep for dep in target.deps if dep[0] != "@"}
        for target in found
    }
    known = set(graph)
    while graph:
        leaves = {name for name in graph if not graph[name] & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            assert graph.pop(name) <= known


def test_what_is_written_brings_all_that_is_imported(generated, found):
    """Dependencies that a BUILD file leaves out come with those it names."""
    written = {}
    for path, text in generated.items():
        for node in _calls(text):
            deps = [
                ast.literal_eval(keyword.value)
                for keyword in node.keywords
                if keyword.arg == "deps"
            ]
            label = _absolute(f":{_name(node)}", path.parent)
            written[label] = {
                _absolute(dep, path.parent) for dep in sum(deps, [])
            }
    for target in found:
        brought, ahead = set(), [target.label]
        while ahead:
            new = written.get(ahead.pop(), set()) - brought
            brought |= new
            ahead += new
        assert target.deps <= brought


def _files(folder: pathlib.Path, node: ast.expr) -> set[pathlib.Path]:
    """Files that a list, a pattern or their sum stand for."""
    if isinstance(node, ast.BinOp):
        return _files(folder, node.left) | _files(folder, node.right)
    if isinstance(node, ast.List):
        return {folder / name for name in ast.literal_eval(node)}
    patterns = ast.literal_eval(node.args[0])
    found = {path for name in patterns for path in folder.glob(name)}
    for keyword in node.keywords:
        for pattern in ast.literal_eval(keyword.value):
            found -= set(folder.glob(pattern))
    return found


def _tests(text: str) -> list[ast.expr]:
    """What the tests of a BUILD file are made of."""
    return [
        node.value.generators[0].iter
        for node in ast.parse(text).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.ListComp)
    ]


def _calls(text: str) -> list[ast.Call]:
    """The rules of a BUILD file, whose syntax is that of Python."""
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and any(keyword.arg == "srcs" for keyword in node.keywords)
    ]


def _name(node: ast.Call) -> str:
    name = _argument(node, "name")
    # That of a test is computed from its file.
    return name.value if isinstance(name, ast.Constant) else "tests"


def _argument(node: ast.Call, name: str):
    return next(k.value for k in node.keywords if k.arg == name)


def _absolute(dep: str, folder: pathlib.Path) -> str:
    if dep == f":{folder.name}":
        return f"//{folder}"
    return f"//{folder}{dep}" if dep.startswith(":") else dep
