"""Refusals say what is wrong, what was expected and what was received."""

from __future__ import annotations

import ast
from pathlib import PurePath

import pytest

from tools import imports

PACKAGES = ("msq_tf", "tflite_export")
RECEIVED = "Received"
# Places whose words are no whole message, and why.
DAMAGED = "a reason behind `Damaged TFLite file. Expected .... Received: `"
TABLES = "of the project's own tables, which no user writes"
PASSED_ON = "another message, with the file's name before it"
REASON = "a reason behind a message that has the words"
EXCEPTIONS = {
    "tflite_export/flatbuffer/check_model.py": DAMAGED,
    "tflite_export/flatbuffer/check_bytes.py": DAMAGED,
    "tflite_export/flatbuffer/model.py:_outside": DAMAGED,
    "tflite_export/targets/operator_rows.py": TABLES,
    "tflite_export/targets/catalog.py:_check": TABLES,
    "tflite_export/targets/catalog.py:parse": TABLES,
    "tflite_export/files.py:_check_head": PASSED_ON,
    "tflite_export/inspect/inspect.py:inspect_file": PASSED_ON,
    "tflite_export/looking/command.py:run": PASSED_ON,
    "tflite_export/looking/side.py:of_file": PASSED_ON,
    "tflite_export/runtime/sandbox.py:run": PASSED_ON,
    "tflite_export/data/dataset_samples.py:_check_archive": REASON,
    "msq_tf/keras3/pareto_front.py:read_index": REASON,
    "msq_tf/keras3/pareto_front.py:_entry": REASON,
    "msq_tf/search/kept_states.py:load": REASON,
    "msq_tf/search/kept_states.py:read_journal": REASON,
    "msq_tf/rules/rule.py:average_target": "excluded when the rule is made",
}
KINDS = ("ValueError", "ExportError", "Unmatched", "NotWrittenError")


def raises(tree):
    """Calls of errors, each with the name of the function around it."""

    def visit(node, function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = node.exc.func
            if getattr(name, "id", getattr(name, "attr", "")) in KINDS:
                yield function, node.exc
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(tree, "")


def definitions(tree):
    """Source of what a file defines, by name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.unparse(node)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            found[ast.unparse(node.targets[0])] = ast.unparse(node)
    return found


def words(call, own, everywhere):
    """Text of a message, and that of what it is made of."""
    parts = [ast.unparse(call)]
    for node in ast.walk(call):
        if isinstance(node, ast.Name):
            parts.append(own.get(node.id, ""))
        elif isinstance(node, ast.Attribute):
            parts.append(own.get(node.attr, ""))
            module = ast.unparse(node.value)
            parts.append(everywhere.get(module, {}).get(node.attr, ""))
    return " ".join(parts)


@pytest.fixture(scope="module")
def trees(root):
    return {
        path: ast.parse((root / path).read_text())
        for path in imports.source_files(root)
        if path.parts[0] in PACKAGES
    }


@pytest.fixture(scope="module")
def refusals(trees):
    """Every place with a refusal, and its words."""
    known = {path: definitions(tree) for path, tree in trees.items()}
    by_name = {PurePath(path).stem: found for path, found in known.items()}
    return [
        (path, function, words(call, known[path], by_name))
        for path, tree in trees.items()
        for function, call in raises(tree)
    ]


def excepted(path, function):
    """The exception that covers a place, or nothing."""
    for name in (str(path), f"{path}:{function}"):
        if name in EXCEPTIONS:
            return name
    return None


def test_every_refusal_says_what_it_received(refusals):
    assert len(refusals) > 300
    wrong = [
        f"{path}:{function}: {text[:120]}"
        for path, function, text in refusals
        if RECEIVED not in text and not excepted(path, function)
    ]
    assert not wrong


def test_no_exception_is_out_of_date(refusals):
    needed = {
        excepted(path, function)
        for path, function, text in refusals
        if RECEIVED not in text
    }
    assert needed == set(EXCEPTIONS)
