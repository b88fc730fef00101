"""No module that is shipped runs what it reads."""

from __future__ import annotations

import ast
import functools

import pytest

from tools import imports

SHIPPED = ("msq_tf", "tflite_export", "train")
ALL = (*SHIPPED, "benchmarks", "examples", "tools")
MODULES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle"}
MODULES |= {"pickletools", "shelve"}
CALLS = {"__import__", "compile", "eval", "exec"}


@functools.cache
def every_call(root):
    return [
        (path, node, ast.unparse(node.func))
        for path in imports.source_files(root)
        if path.parts[0] in ALL
        for node in ast.walk(ast.parse((root / path).read_bytes()))
        if isinstance(node, ast.Call)
    ]


def calls(root, packages):
    """(file, call, dotted name) of every call."""
    return [
        found for found in every_call(root) if found[0].parts[0] in packages
    ]


def keyword(node, name):
    """Source of a keyword's value, `None` where it isn't given."""
    found = [k.value for k in node.keywords if k.arg == name]
    return ast.unparse(found[0]) if found else None


def test_nothing_is_unpickled(root):
    wrong = []
    for path in imports.source_files(root):
        if path.parts[0] not in ALL:
            continue
        for node in ast.walk(ast.parse((root / path).read_bytes())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            wrong += [
                f"{path}:{node.lineno} imports {name}"
                for name in names
                if name.partition(".")[0] in MODULES
            ]
    assert not wrong


def test_arrays_are_read_without_pickle(root):
    wrong = [
        f"{path}:{node.lineno}"
        for path, node, name in calls(root, ALL)
        if name in ("np.load", "numpy.load")
        and keyword(node, "allow_pickle") not in (None, "False")
    ]
    assert not wrong


def test_no_text_becomes_code(root):
    wrong = [
        f"{path}:{node.lineno} {name}"
        for path, node, name in calls(root, ALL)
        if name in CALLS or keyword(node, "shell") == "True"
    ]
    wrong += [
        f"{path}:{node.lineno} {name}"
        for path, node, name in calls(root, ALL)
        if name in ("os.system", "os.popen", "subprocess.getoutput")
    ]
    assert not wrong


def test_models_are_loaded_in_safe_mode(root):
    loads = [
        (path, node)
        for path, node, name in calls(root, ALL)
        if name.rpartition(".")[2] == "load_model" and "models" in name
    ]
    shipped = [(path, node) for path, node in loads if path.parts[0] in SHIPPED]
    assert shipped
    for path, node in loads:
        assert keyword(node, "safe_mode") in (None, "True"), path
    for path, node in shipped:
        # Said where it counts, not left to a default.
        given = keyword(node, "safe_mode") == "True"
        assert given or keyword(node, None) == "options", path


def test_nothing_turns_safe_mode_off(root):
    wrong = [
        f"{path}:{node.lineno} {name}"
        for path, node, name in calls(root, ALL)
        if "unsafe_deserialization" in name
        or keyword(node, "safe_mode") == "False"
    ]
    assert not wrong


def test_no_lambda_is_put_into_a_model(root):
    """A configuration with one could not be loaded in safe mode."""
    wrong = [
        f"{path}:{node.lineno}"
        for path, node, name in calls(root, ALL)
        if name.endswith("layers.Lambda")
    ]
    assert not wrong


@pytest.mark.parametrize("word", ["trusted", "gate", "compare", "safe_mode"])
def test_the_trust_model_is_written_down(root, word):
    assert word in (root / "SECURITY.md").read_text()
