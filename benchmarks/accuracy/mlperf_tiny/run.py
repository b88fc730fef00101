"""MLPerf Tiny in one table: float, int8, and files for four targets.

Every row is a process. What a process before this one did stays in
`out/mlperf_tiny`, and the results are written after every row, so the benchmark
goes on where it was stopped. What is not at hand is skipped, with the reason.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import rich.console

from benchmarks.accuracy.mlperf_tiny import networks
from benchmarks.accuracy.mlperf_tiny import row as rows
from benchmarks.accuracy.mlperf_tiny import tables
from benchmarks.accuracy.mlperf_tiny.inputs import FOLDER
from benchmarks.accuracy.mlperf_tiny.networks import Network
from benchmarks.harness import child
from benchmarks.harness import record

NAME = "mlperf_tiny"
_MODULE = "benchmarks.accuracy.mlperf_tiny.row"

markdown = tables.markdown


def measure() -> dict[str, Any]:
    """Runs the rows that are missing, those of all networks in turn.

    Returns:
        What was planned, a record of each row, and what was skipped; JSON
        values.
    """
    console = rich.console.Console()
    for row in rows.ROWS:
        for network in networks.NETWORKS:
            if network.missing() or kept(network, row) is not None:
                continue
            console.print(f"{network.name}, {row} ...")
            target = path(network, row)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                found = child.measured(_MODULE, network.name, row)
            except subprocess.CalledProcessError as error:
                # The table says that there is no such row.
                console.print(f"exit status {error.returncode}")
                continue
            child.write(target, found)
            record.write(NAME, content())
    return content()


def path(network: Network, row: str) -> Path:
    """Where the record of a row is kept."""
    name = network.name.replace(" ", "_")
    return FOLDER / "rows" / f"{name}-{row}.json"


def kept(network: Network, row: str) -> dict[str, Any] | None:
    """What there is of a row; `None` without, or with another plan."""
    file = path(network, row)
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found if found["plan"] == network.plan() else None


def content() -> dict[str, Any]:
    """All there is of the plan."""
    found = [
        kept(network, row) for network in networks.NETWORKS for row in rows.ROWS
    ]
    return {
        "networks": [network.plan() for network in networks.NETWORKS],
        "accelerator": rows.ACCELERATOR,
        "planned": len(networks.NETWORKS) * len(rows.ROWS),
        "skipped": {
            network.name: network.missing()
            for network in networks.NETWORKS
            if network.missing()
        },
        "rows": [
            {key: value for key, value in entry.items() if key != "plan"}
            for entry in found
            if entry is not None
        ],
    }
