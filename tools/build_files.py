"""Writes the BUILD files from the imports of the source files.

    python -m tools.build_files          # write
    python -m tools.build_files --check  # exit 1 where a file would change

Every source file is one target: `__init__.py` carries the name of its folder,
`__main__.py` is the binary `main`, `test_*.py` is a test. The output has the
form that buildifier gives it.
"""

from __future__ import annotations

import pathlib
import sys

from tools import imports

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Top-level module -> target in the hub of pip packages.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "ai_edge_litert": "ai_edge_litert",
    "flatbuffers": "flatbuffers",
    "h5py": "h5py",
    "hypothesis": "hypothesis",
    "keras": "keras",
    "matplotlib": "matplotlib",
    "nbclient": "nbclient",
    "nbformat": "nbformat",
    "numpy": "numpy",
    "pytest": "pytest",
    "rich": "rich",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "tensorflow_datasets",
    "yaml": "pyyaml",
    "tensorflow_model_optimization": "tensorflow_model_optimization",
    "tf_keras": "tf_keras",
    "tflite_micro": "tflite_micro",
}

# Modules of peers, which are in environments of their own (`make setup-peers`).
ELSEWHERE = ("hgq", "qkeras")

# What a target needs that no import shows.
EXTRA_DEPS = {
    # An undeclared dependency of tensorflow-datasets.
    "train/data/datasets.py": ["@pip//importlib_resources"],
    # The kernel that runs the notebook.
    "tests/examples/test_examples.py": ["@pip//ipykernel"],
    # Started as commands.
    "benchmarks/reliability/fuzz.py": [
        "//benchmarks:fuzz_atheris",
        "//benchmarks:fuzz_worker",
    ],
    "tflite_export/inspect/compare.py": ["//tflite_export:side_by_side"],
    "tflite_export/devices/ethos_u.py": ["@pip//ethos_u_vela"],
    "tflite_export/devices/micro.py": [
        "//tflite_export/devices:micro_worker",
    ],
}
DATA = {
    "msq_tf/__init__.py": '["py.typed"]',
    "tflite_export/__init__.py": '["py.typed"]',
    "tflite_export/targets/catalog.py": 'glob(["targets/*.json"])',
    "train/data/datasets.py": 'glob(["data/**"])',
}
# Tests that read the tree itself do not run in a sandbox that hides it.
LOCAL_TESTS = "tests/repository"
PUBLIC = ("msq_tf", "tflite_export")
TEST_RUNNER = "tests/run_pytest.py"


def label(path: pathlib.Path) -> str:
    """Returns the absolute label of the target that holds `path`."""
    folder = "/".join(path.parts[:-1])
    name = _name(path)
    short = name == path.parts[-2]
    return f"//{folder}" if short else f"//{folder}:{name}"


def dependencies(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    """Returns the labels that the target of `path` depends on, sorted.

    Importing `a.b` from outside `a` runs `a/__init__.py` too, so that is a
    dependency. Inside `a` it would be a cycle.

    Args:
        root: Root of the repository.
        path: A source file, relative to `root`.

    Returns:
        Labels, relative ones (`:name`) for the same folder, in the order
        that buildifier gives them.

    Raises:
        ValueError: If an imported module belongs to no known distribution.
    """
    deps = set(EXTRA_DEPS.get(path.as_posix(), []))
    for module in imports.imported_modules(root, path):
        top = module.partition(".")[0]
        if top in imports.PACKAGES:
            deps.update(
                _relative(label(found), path)
                for found in _project_files(root, path, module)
                if found != path
            )
        elif top in DISTRIBUTIONS:
            deps.add(f"@pip//{DISTRIBUTIONS[top]}")
        elif top not in ELSEWHERE:
            raise ValueError(
                "A source file imports a module of no known distribution. "
                "Expected an entry in `DISTRIBUTIONS` and a line in "
                f"requirements.txt. Received: {module} in {path}"
            )
    return sorted(deps, key=_buildifier_order)


def build_file(root: pathlib.Path, folder: pathlib.Path) -> str:
    """Returns the text of the BUILD file of one folder."""
    files = [
        path for path in imports.source_files(root) if path.parent == folder
    ]
    rules: set[str] = set()
    targets = []
    for path in files:
        if path.as_posix() == TEST_RUNNER:
            continue
        rule, text = _target(root, path)
        rules.add(rule)
        targets.append(text)
    loads = [
        f'load("@rules_python//python:{rule}.bzl", "{rule}")\n'
        for rule in sorted(rules - {"pytest_test"})
    ]
    if "pytest_test" in rules:
        loads.append('load("//tools:pytest_test.bzl", "pytest_test")\n')
    visibility = (
        "//visibility:public"
        if folder.parts[0] in PUBLIC
        else "//:__subpackages__"
    )
    head = "".join(loads)
    head += f'\npackage(default_visibility = ["{visibility}"])\n'
    if folder / "run_pytest.py" == pathlib.Path(TEST_RUNNER):
        head += '\nexports_files(["run_pytest.py"])\n'
    return head + "".join("\n" + text for text in targets)


def build_files(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """Returns the text of every generated BUILD file, by relative path."""
    folders = {path.parent for path in imports.source_files(root)}
    return {
        folder / "BUILD": build_file(root, folder) for folder in sorted(folders)
    }


def main(argv: list[str]) -> int:
    """Writes the BUILD files, or with `--check` only compares them."""
    stale = []
    for path, text in build_files().items():
        file = ROOT / path
        if not file.exists() or file.read_text() != text:
            stale.append(path)
            if "--check" not in argv:
                file.write_text(text)
    if stale and "--check" in argv:
        print("BUILD files differ from the imports; run `make build-files`:")
        print("\n".join(f"  {path}" for path in stale))
        return 1
    return 0


def _name(path: pathlib.Path) -> str:
    return {"__init__": path.parts[-2], "__main__": "main"}.get(
        path.stem, path.stem
    )


def _project_files(
    root: pathlib.Path, path: pathlib.Path, module: str
) -> list[pathlib.Path]:
    own = imports.module_path(root, module)
    if own is None:
        raise ValueError(
            "A source file imports a project module that does not exist. "
            f"Received: {module} in {path}"
        )
    found = [own]
    top = pathlib.Path(module.partition(".")[0])
    if path.parts[0] != top.name and (root / top / "__init__.py").exists():
        found.append(top / "__init__.py")
    return found


def _relative(absolute: str, path: pathlib.Path) -> str:
    folder = "//" + "/".join(path.parts[:-1])
    if absolute == folder:
        return ":" + path.parts[-2]
    if absolute.startswith(folder + ":"):
        return absolute.removeprefix(folder)
    return absolute


def _buildifier_order(dep: str) -> tuple[int, list[str]]:
    phase = next(
        number
        for number, prefix in enumerate((":", "//", "@", ""))
        if dep.startswith(prefix)
    )
    return phase, dep.replace(":", ".").split(".")


def _target(root: pathlib.Path, path: pathlib.Path) -> tuple[str, str]:
    deps = dependencies(root, path)
    rows = [("name", f'"{_name(path)}"')]
    if path.name == "__main__.py":
        rule = "py_binary"
    elif path.name.startswith("test_"):
        rule = "pytest_test"
        deps = sorted({*deps, *_conftests(root, path)}, key=_buildifier_order)
    else:
        rule = "py_library"
    rows.append(("srcs", f'["{path.name}"]'))
    if path.as_posix() in DATA:
        rows.append(("data", DATA[path.as_posix()]))
    if path.name == "__main__.py":
        rows.append(("main", f'"{path.name}"'))
    if rule == "pytest_test" and path.parent.as_posix() == LOCAL_TESTS:
        rows.append(("tags", '["local"]'))
    if len(deps) == 1:
        rows.append(("deps", f'["{deps[0]}"]'))
    elif deps:
        lines = "".join(f'        "{dep}",\n' for dep in deps)
        rows.append(("deps", f"[\n{lines}    ]"))
    body = "".join(f"    {key} = {value},\n" for key, value in rows)
    return rule, f"{rule}(\n{body})\n"


def _conftests(root: pathlib.Path, path: pathlib.Path) -> list[str]:
    """Labels of the `conftest.py` files that pytest loads for a test."""
    files = [folder / "conftest.py" for folder in path.parents]
    return [
        _relative(label(file), path) for file in files if (root / file).exists()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
