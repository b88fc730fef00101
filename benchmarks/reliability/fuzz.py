"""Hostile files, many: nothing but reasons, whatever the bytes.

Valid files of several kinds are damaged in six ways, decided by a seed and the
number of the case, and read in processes of their own. A second engine,
atheris, follows coverage where it is installed. Then some of the damaged files
that were sound are run: that is native code, and the reason why `compare` has
a process of its own.
"""

from __future__ import annotations

import collections
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import ran
from benchmarks.harness.markdown import table
from benchmarks.reliability import fuzz_cases
from benchmarks.reliability import fuzz_seeds
from benchmarks.reliability import fuzz_worker
from tflite_export import export
from tflite_export import float_tflite
from tflite_export.inspect import compare

# The whole of it takes 40 minutes.
CASES = int(os.environ.get("MSQ_TF_FUZZ_CASES", "100000"))
SEED = 0
_CHUNK = 10_000
_ATHERIS_RUNS = CASES
# Sound ones that the interpreter is given.
_RUNS = 300
_RUN_SECONDS = 20.0
# What the benchmark calls its ways of damaging, in words.
_DAMAGE = {
    "arbitrary": "random bytes",
    "flipped": "bits flipped",
    "cut": "cut, or with bytes removed or inserted",
    "spliced": "a piece of another file put in",
    "numbered": "offsets, lengths and scalars at their limits",
    "rebuilt": "rebuilt with odd values",
}


def measure() -> dict[str, Any]:
    """Reads all cases.

    Returns:
        Counts by outcome, JSON values.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = fuzz_seeds.seeds() | _exported(folder)
        for file, data in files.items():
            (folder / f"{file}.tflite").write_bytes(data)
        chunks = [
            _chunk(folder, first, min(_CHUNK, CASES - first))
            for first in range(0, CASES, _CHUNK)
        ]
        seconds = sum(chunk["seconds"] for chunk in chunks)
        return {
            "seed": SEED,
            "cases": CASES,
            "files": {file: len(data) for file, data in files.items()},
            "engines": _engines(chunks),
            "reasons": dict(_added(chunk["reasons"] for chunk in chunks)),
            "broken": [case for chunk in chunks for case in chunk["broken"]],
            "died": [case for chunk in chunks for case in chunk["died"]],
            "slowest_s": max(chunk["slowest_s"] for chunk in chunks),
            "growth_mib": max(chunk["growth_mib"] for chunk in chunks),
            "most_memory_gib": fuzz_worker.MOST_MEMORY / (1 << 30),
            "seconds": seconds,
            "cases_per_second": CASES / seconds,
            "atheris": _atheris(folder),
            "interpreter": _interpreter(folder, files),
        }


def _exported(folder: Path) -> dict[str, bytes]:
    """Files of the converter and of the exporter, from a small network."""
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    qmodel = msq_tf.quantize_model(model)
    qmodel.set_bits(dict.fromkeys(qmodel.bits, 4))
    images = np.random.default_rng(SEED).normal(size=(16, 6, 6, 2))
    files = {"converted": float_tflite(model)}
    for target in ("min_size", "cpu_int8"):
        path = folder / target
        export(qmodel, path, target=target, representative_data=images)
        files[target] = path.read_bytes()
    return files


def _chunk(folder: Path, first: int, count: int) -> dict[str, Any]:
    """Reads a range of cases; goes on behind one that ends the process."""
    end, died, parts = first + count, [], []
    while first < end:
        command = (
            sys.executable,
            "-m",
            "benchmarks.reliability.fuzz_worker",
            str(folder),
        )
        numbers = (str(SEED), str(first), str(end - first))
        start = time.perf_counter()
        done = subprocess.run(
            [*command, *numbers], capture_output=True, text=True, check=False
        )
        result = folder / f"{first}.json"
        if result.exists():
            parts.append(json.loads(result.read_text()))
            break
        now = folder / f"{first}.now"
        if not now.exists():
            raise RuntimeError(f"the worker does not start: {done.stderr}")
        case = int(now.read_text())
        died.append({"case": case, "status": done.returncode})
        parts.append({"seconds": time.perf_counter() - start})
        first = case + 1
    return {
        "counts": _added(part.get("counts", {}) for part in parts),
        "reasons": _added(part.get("reasons", {}) for part in parts),
        "broken": [case for part in parts for case in part.get("broken", ())],
        "died": died,
        "slowest_s": max(part.get("slowest_s", 0.0) for part in parts),
        "growth_mib": max(part.get("growth_mib", 0.0) for part in parts),
        "seconds": sum(part["seconds"] for part in parts),
    }


def _added(counts: Iterator[dict[str, int]]) -> collections.Counter[str]:
    total: collections.Counter[str] = collections.Counter()
    for part in counts:
        total.update(part)
    return total


def _engines(chunks: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    counts = _added(chunk["counts"] for chunk in chunks)
    return {
        engine.__name__: {
            found: counts[f"{engine.__name__} {found}"]
            for found in ("accepted", "refused", "broken")
        }
        for engine in fuzz_cases.ENGINES
    }


def _atheris(folder: Path) -> dict[str, Any]:
    """Runs the second engine, if it is there."""
    if importlib.util.find_spec("atheris") is None:
        return {"installed": False}
    corpus = folder / "corpus"
    corpus.mkdir()
    for file in folder.glob("*.tflite"):
        (corpus / file.stem).write_bytes(file.read_bytes())
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "benchmarks.reliability.fuzz_atheris",
                str(corpus),
            ),
            *(f"-runs={_ATHERIS_RUNS}", f"-seed={SEED + 1}"),
            *("-max_len=8192", "-timeout=60", "-rss_limit_mb=8192"),
            f"-artifact_prefix={folder}/",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    runs = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    last = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)[-1:]
    return {
        "installed": True,
        "version": importlib.metadata.version("atheris"),
        "seed": SEED + 1,
        "status": done.returncode,
        "runs": int(runs[1]) if runs else 0,
        "seconds": int(runs[2]) if runs else None,
        "coverage": [int(number) for number in last[0]] if last else [],
        "message": "" if runs else done.stderr[-500:],
    }


def _interpreter(folder: Path, files: dict[str, bytes]) -> dict[str, Any]:
    """Runs damaged files that are sound."""
    counts: collections.Counter[str] = collections.Counter()
    path, number = folder / "sound", 0
    start = time.perf_counter()
    original = compare._SECONDS, compare._MOST_SECONDS
    compare._SECONDS, compare._MOST_SECONDS = 0.0, _RUN_SECONDS
    try:
        while sum(counts.values()) < _RUNS:
            rng = random.Random(f"{SEED}/{number}")
            number += 1
            engine, _, data = fuzz_cases.case(rng, files)
            if data in files.values():
                continue
            if fuzz_worker.outcome(data)[0] == "accepted":
                path.write_bytes(data)
                counts[_run(path)] += 1
    finally:
        compare._SECONDS, compare._MOST_SECONDS = original
    return {
        "files": _RUNS,
        "outcomes": dict(sorted(counts.items())),
        "seconds": time.perf_counter() - start,
    }


def _run(path: Path) -> str:
    try:
        compare.compare_files(path, path)
    except ValueError as error:
        ended = re.search(r"ended by (SIG\w+)|did not end|status", str(error))
        return f"worker: {ended[0]}" if ended else "refused"
    return "ran"


def markdown(content: dict[str, Any]) -> str:
    """What came of the files."""
    environment, results = content["environment"], content["results"]
    facts = ran(environment, f"seed {results['seed']}")
    sizes = results["files"].values()
    reasons = sorted(results["reasons"].items(), key=lambda item: -item[1])
    return page(
        f"{facts}, LiteRT "
        f"{environment['versions']['ai-edge-litert']}: "
        f"{len(results['files'])} valid files of {min(sizes):,} to "
        f"{max(sizes):,} bytes, damaged {results['cases']:,} times, "
        f"{results['cases_per_second']:.0f} a second.",
        table(
            ("damage", "accepted", "refused with a reason", "anything else"),
            (
                (_DAMAGE[engine], *(f"{count:,}" for count in counts.values()))
                for engine, counts in results["engines"].items()
            ),
        ),
        f"Processes that died: {len(results['died'])}, under a limit of "
        f"{results['most_memory_gib']:.0f} GiB; memory grew by "
        f"{results['growth_mib']:.0f} MiB at most, and the slowest file took "
        f"{results['slowest_s']:.1f} s.",
        _atheris_line(results["atheris"]),
        _interpreter_line(results["interpreter"]),
        "Reasons of the refusals:",
        table(
            ("reason", "files"),
            ((name, f"{count:,}") for name, count in reasons),
        ),
    )


def _atheris_line(found: dict[str, Any]) -> str:
    if not found["installed"]:
        return "atheris was not installed."
    if found["status"]:
        return f"atheris {found['version']} stopped: {found['message']}"
    return (
        f"atheris {found['version']}, which follows coverage, read "
        f"{found['runs']:,} more files in {found['seconds']:,} s and found "
        "nothing."
    )


def _interpreter_line(found: dict[str, Any]) -> str:
    outcomes = ", ".join(
        f"{name} {count:,}" for name, count in found["outcomes"].items()
    )
    return (
        f"{found['files']:,} damaged files that were accepted went on to "
        f"`compare`, which runs them in a separate process: {outcomes}."
    )
