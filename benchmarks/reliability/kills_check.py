"""What a run's folder holds: whole files, and those of another run."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from train.folder.lock import LOCK

_TEMPORARY = re.compile(r"partial-.*|\..*\.tmp")
_WEIGHTS = "model.weights.h5"
# What a run measures anew whenever it ends.
_CLOCKS = ("seconds",)


def temporary(folder: Path) -> list[str]:
    """Names of the files that a kill left behind."""
    return sorted(
        path.name
        for path in folder.rglob("*")
        if _TEMPORARY.fullmatch(path.name)
    )


def torn(folder: Path, reference: Path) -> list[str]:
    """Finds files that bear the name of a whole one and are not.

    Args:
        folder: Of a run that was killed.
        reference: Of the same run, never killed.

    Returns:
        What is wrong, a line for each file. A `.tflite` has to be there
        whole, byte by byte as the reference's, or not at all.
    """
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        # Who was at work when it was killed: no result.
        if _TEMPORARY.fullmatch(path.name) or path.name == LOCK:
            continue
        try:
            _read(path, reference / path.relative_to(folder))
        except Exception as error:
            # Whatever a damaged file makes of its reader.
            found.append(f"{path.name}: {type(error).__name__}: {error}")
    return found


def epochs(folder: Path, phase: str) -> int:
    """Epochs of a phase that the last checkpoint has behind it."""
    names = (folder / "checkpoints" / phase).glob("epoch-*.weights.h5")
    return max((int(p.name[6:10]) for p in names), default=0)


def equal(folder: Path, reference: Path) -> dict[str, bool]:
    """Compares what two runs ended with.

    Returns:
        Whether bits, history, weights (with the state of optimizer and
        search), files and report are the same, bit for bit.
    """
    ours, theirs = report(folder), report(reference)
    names = [path.name for path in reference.glob("*.tflite")]
    names += ["bits.png", "run.json"]
    return {
        "bits": ours["bits"] == theirs["bits"],
        "history": _same(folder, reference, "history.jsonl"),
        "weights": _same_arrays(
            arrays(folder / "model.keras"), arrays(reference / "model.keras")
        ),
        "files": all(_same(folder, reference, name) for name in names),
        # As text: what is not a number equals itself there.
        "report": json.dumps(ours) == json.dumps(theirs),
    }


def report(folder: Path) -> dict[str, Any]:
    """A run's report without what depends on its place and on the clock."""
    text = (folder / "report.json").read_text()
    found = json.loads(text.replace(json.dumps(f"{folder}/")[1:-1], ""))
    return {name: value for name, value in found.items() if name not in _CLOCKS}


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.keras` or `.weights.h5` file by their names."""
    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read(_WEIGHTS))
    found: dict[str, np.ndarray] = {}
    with h5py.File(source, "r") as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item[()]

        file.visititems(visit)
    return found


def _read(path: Path, other: Path) -> None:
    """Raises if a file is not whole."""
    if path.suffix == ".h5":
        if not arrays(path):
            raise ValueError("there are no arrays in it")
    elif path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            json.loads(archive.read("config.json"))
        if bad or not arrays(path):
            raise ValueError(f"damaged: {bad}")
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        # A line is appended; one without its end is not read.
        lines = path.read_text().splitlines(keepends=True)
        expected = other.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if whole != expected[: len(whole)] or len(lines) > len(whole) + 1:
            raise ValueError("its rows are not those of the reference")
    elif path.read_bytes() != other.read_bytes():
        raise ValueError("its bytes are not those of the reference")


def _same(folder: Path, reference: Path, name: str) -> bool:
    return (folder / name).read_bytes() == (reference / name).read_bytes()


def _same_arrays(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> bool:
    return ours.keys() == theirs.keys() and all(
        array.dtype == theirs[name].dtype
        and array.tobytes() == theirs[name].tobytes()
        for name, array in ours.items()
    )
