"""MLPerf Tiny in one table: float, int8, and files for four targets.

Every row is a process, and its record is written at once, so the benchmark goes
on where it was stopped. Inputs that were made stay in `out/mlperf_tiny`. What
is not at hand is skipped, with the reason.
"""

from __future__ import annotations

import subprocess
from typing import Any

import rich.console

from benchmarks.accuracy.mlperf_tiny import networks
from benchmarks.accuracy.mlperf_tiny import row as rows
from benchmarks.accuracy.mlperf_tiny import tables
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
            try:
                found = child.measured(_MODULE, network.name, row)
            except subprocess.CalledProcessError as error:
                # The table says that there is no such row.
                console.print(f"exit status {error.returncode}")
                continue
            record.write(NAME, content(_with(found)))
    return content(_with())


def kept(network: Network, row: str) -> dict[str, Any] | None:
    """The record of a row; `None` without one, or with one of another plan."""
    recorded = record.read(NAME) or {"networks": [], "rows": []}
    if network.plan() not in recorded["networks"]:
        return None
    for entry in recorded["rows"]:
        if (entry["network"], entry["row"]) == (network.name, row):
            return dict(entry)
    return None


def content(found: list[dict[str, Any]]) -> dict[str, Any]:
    """All there is of the plan."""
    return {
        "networks": [network.plan() for network in networks.NETWORKS],
        "accelerator": rows.ACCELERATOR,
        "planned": len(networks.NETWORKS) * len(rows.ROWS),
        "skipped": {
            network.name: network.missing()
            for network in networks.NETWORKS
            if network.missing()
        },
        "rows": found,
    }


def _with(more: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The records there are, in the order of the table, and one more."""
    found = []
    for network in networks.NETWORKS:
        for row in rows.ROWS:
            entry = kept(network, row)
            if more and (more["network"], more["row"]) == (network.name, row):
                entry = more
            if entry is not None:
                found.append(entry)
    return found
