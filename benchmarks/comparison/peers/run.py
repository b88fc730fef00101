"""Cost and accuracy of other trainers: TFMOT, HGQ2, qkeras-v3, and MSQ.

Every peer is a driver that runs in a process of its own, HGQ2 and qkeras-v3 in
environments of their own (`make setup-peers`); where one is missing, the peer
is skipped and the reason recorded. All fine-tune the same float weights on the
same batches with the same budget, see `benchmarks.comparison.peers.prepare`.

`MSQ_TF_PEERS` says what to do, as words: `cost`, `accuracy`, names of peers.
What it does not name stays as it is recorded; by default all is done. The cost
is measured anew each time. Accuracy rows that are recorded with the same
budget are not run again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import rich.console

from benchmarks.comparison.peers import prepare
from benchmarks.comparison.peers import tables
from benchmarks.harness import child
from benchmarks.harness import record
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table

NAME = "peers"
WORDS = "MSQ_TF_PEERS"
MODES = ("cost", "accuracy")
SEEDS = (0, 1, 2)
FOLDER = Path("out/peers")
# Timed steps of each form.
ROUNDS = {"resnet8": 60, "resnet20": 20}
_ROOT = Path(__file__).resolve().parent.parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Peer:
    """One driver and where it runs.

    Attributes:
        name: Key in the results.
        module: The driver, in `benchmarks.comparison.peers`.
        rows: What to fine-tune.
        folder: Its environment, `None` for that of this process.
    """

    name: str
    module: str
    rows: tuple[str, ...]
    folder: str | None = None

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        if self.folder is None:
            return Path(sys.executable)
        return _ROOT / self.folder / "bin" / "python"

    def missing(self) -> str:
        """Why it cannot run here; empty when it can."""
        if self.python.exists():
            return ""
        return f"there is no {self.folder} (make setup-peers)"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "msq",
            "msq",
            (
                "float",
                "uniform 8",
                "uniform 4",
                "uniform 3",
                "uniform 2",
                "MSQ 8x",
                "MSQ 12x",
            ),
        ),
        Peer("tfmot", "tfmot_qat", ("float", "8 bits", "4 bits")),
        Peer(
            "hgq2",
            "hgq2",
            (
                "float",
                "a width a weight, beta=1.3e-07",
                "a width a weight, beta=3.5e-07",
                "a width a weight, beta=1e-06",
                "a width a layer, beta=5e-09",
                "a width a layer, beta=3e-08",
                "a width a layer, beta=4.5e-08",
            ),
            ".venv-hgq2",
        ),
        Peer(
            "qkeras-v3",
            "qkeras_v3",
            (
                "float",
                "8 bits",
                "4 bits",
                "4 bits, scales of 2",
                "3 bits",
                "3 bits, scales of 2",
                "2 bits",
                "2 bits, scales of 2",
            ),
            ".venv-qkeras",
        ),
    )
}


def measure() -> dict[str, Any]:
    """Runs what `MSQ_TF_PEERS` names, a process for each peer and mode.

    The results are written after every process, so that a kill loses one.

    Returns:
        The budget, and for every peer its `cost`, its `accuracy` runs, or why
        it was `skipped`; JSON values.
    """
    modes, peers = asked(os.environ.get(WORDS, ""))
    results = recorded(prepare.budget())
    console = rich.console.Console()
    for peer in peers:
        entry = results["peers"].setdefault(peer.name, {})
        reason = peer.missing()
        if reason:
            console.print(f"{peer.name} is skipped: {reason}.")
            if not entry:
                entry["skipped"] = reason
            continue
        entry.pop("skipped", None)
        if "cost" in modes:
            words = [f"{model}={rounds}" for model, rounds in ROUNDS.items()]
            entry["cost"] = _process(peer, "cost", words)
            record.write(NAME, results)
    if "accuracy" in modes:
        for seed in SEEDS:
            here = [peer for peer in peers if not peer.missing()]
            _accuracy(here, seed, results, console)
    return results


def asked(words: str) -> tuple[list[str], list[Peer]]:
    """What `MSQ_TF_PEERS` asks for.

    Args:
        words: Modes and names of peers; neither means all of that kind.

    Returns:
        Modes, and peers in their order.

    Raises:
        ValueError: If a word is neither.
    """
    given = words.replace(",", " ").split()
    unknown = sorted(set(given) - set(MODES) - set(PEERS))
    if unknown:
        raise ValueError(
            f"{WORDS} has an unknown word. Expected {', '.join(MODES)}, "
            f"{', '.join(PEERS)}. Received: {', '.join(unknown)}"
        )
    modes = [mode for mode in MODES if mode in given] or list(MODES)
    names = [name for name in PEERS if name in given] or list(PEERS)
    return modes, [PEERS[name] for name in names]


def recorded(budget: dict[str, Any]) -> dict[str, Any]:
    """The results so far, without runs that had another budget."""
    results: dict[str, Any] = {"budget": budget, "peers": {}}
    found = record.read(NAME)
    if found:
        results["peers"] = found["peers"]
        if found["budget"] != budget:
            for entry in results["peers"].values():
                entry.pop("accuracy", None)
    return results


def _accuracy(
    peers: list[Peer],
    seed: int,
    results: dict[str, Any],
    console: rich.console.Console,
) -> None:
    """Runs the rows of one seed that are not recorded yet."""
    todo = []
    for peer in peers:
        found = results["peers"][peer.name].setdefault("accuracy", {"runs": []})
        done = {r["row"] for r in found["runs"] if r["seed"] == seed}
        todo += [(peer, row, found) for row in peer.rows if row not in done]
    if todo:
        _run(
            [
                sys.executable,
                "-m",
                "benchmarks.comparison.peers.prepare",
                FOLDER,
                seed,
            ],
            FOLDER / "prepare.log",
            child.ONE_THREAD,
        )
    for peer, row, found in todo:
        new = _process(peer, "accuracy", [FOLDER, seed, row], child.ONE_THREAD)
        found["environment"] = new["environment"]
        # What a layer takes is in the sizes.
        del new["run"]["layers"]
        found["runs"].append(new["run"])
        order = {name: i for i, name in enumerate(peer.rows)}
        # What a former list of rows left stays, at the end.
        found["runs"].sort(
            key=lambda r: (order.get(r["row"], len(order)), r["seed"])
        )
        record.write(NAME, results)
        console.print(
            f"{peer.name}: {row}, seed {seed}: "
            f"{100 * new['run']['accuracy']:.2f} % at "
            f"{new['run']['compression']:.2f}x"
        )


def _process(
    peer: Peer,
    mode: str,
    words: list[Any],
    threads: dict[str, str] | None = None,
) -> dict[str, Any]:
    result = FOLDER / f"{peer.module}-{mode}.json"
    module = f"benchmarks.comparison.peers.{peer.module}"
    _run(
        [peer.python, "-m", module, mode, result, *words],
        result.with_suffix(".log"),
        threads,
    )
    return json.loads(result.read_text())


def _run(
    command: list[Any], log: Path, variables: dict[str, str] | None
) -> None:
    """Runs a command from the root of the repository, output into a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        subprocess.run(
            [str(word) for word in command],
            check=True,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"KERAS_BACKEND": "tensorflow"}
            | (variables or {}),
        )


def markdown(content: dict[str, Any]) -> str:
    """Versions, cost and accuracy of every peer, and what was skipped."""
    results, budget = content["results"], content["results"]["budget"]
    return page(
        *_cost(tables.cost_rows(results)),
        f"**Accuracy** on {budget['dataset']}: the same float ResNet-8, then "
        f"every row {budget['epochs']} x {budget['steps']} steps of "
        f"{budget['batch_size']}, SGD with momentum 0.9, cosine from "
        f"{budget['learning_rate']:g}, flips and shifts of up to "
        f"{budget['shift']} pixel.",
        table(
            tables.ACCURACY_COLUMNS,
            map(tables.accuracy_cells, tables.summaries(results)),
            left=2,
        ),
        "Run with:",
        [
            *(
                _ran(name, mode, results["peers"][name][mode])
                for name in PEERS
                for mode in MODES
                if "environment" in results["peers"].get(name, {}).get(mode, {})
            ),
            *(
                f"- {name}: skipped, {entry['skipped']}"
                for name, entry in results["peers"].items()
                if "skipped" in entry
            ),
        ],
    )


def _cost(rows: list[tuple[str, ...]]) -> list[Any]:
    if not rows:
        return [
            "The cost of a step is not among what was measured last; "
            f"`{WORDS}=cost` measures it."
        ]
    return [
        "**Cost** of a training step at batch 128 on 28 x 28 images, SGD with "
        "momentum: medians of interleaved steps in one process, beside a float "
        "model in the same Keras. `python -m benchmarks peers`.",
        table(tables.COST_COLUMNS, rows, left=3),
    ]


def _ran(name: str, mode: str, entry: dict[str, Any]) -> str:
    environment = entry["environment"]
    versions = ", ".join(
        f"{package} {version}"
        for package, version in environment["versions"].items()
    )
    rounds = "; ".join(
        f"{model['model']}: {model['rounds']} rounds"
        for model in entry.get("models", [])
    )
    return (
        f"- {name}, {mode}, {environment['date']}, {environment['cores']} "
        f"cores: Python {environment['python']}, {versions}"
        + (f"; {rounds}" if rounds else "")
    )
