"""`python -m benchmarks [name ...]`: runs benchmarks and records them."""

from __future__ import annotations

import sys

import rich.console

from benchmarks import accuracy
from benchmarks import cost
from benchmarks import crafted
from benchmarks import devices
from benchmarks import export_cost
from benchmarks import faults
from benchmarks import faults_workers
from benchmarks import fuzz
from benchmarks import large
from benchmarks import long_run
from benchmarks import predictions
from benchmarks import record
from benchmarks import remedies
from benchmarks import scaling
from benchmarks import sizes
from benchmarks import statistics_cost
from benchmarks import step_profile
from benchmarks import strength
from benchmarks import targets
from benchmarks import time_to_target
from benchmarks import transformers
from benchmarks import vela
from benchmarks import zoo
from benchmarks.peers import run as peers

# `make bench` runs the first; the others take longer.
BENCHMARKS = {
    "cost": cost,
    "accuracy": accuracy,
    "crafted": crafted,
    "devices": devices,
    "export_cost": export_cost,
    "faults": faults,
    "fuzz": fuzz,
    "large": large,
    "long_run": long_run,
    "peers": peers,
    "predictions": predictions,
    "remedies": remedies,
    "scaling": scaling,
    "sizes": sizes,
    "statistics": statistics_cost,
    "step_profile": step_profile,
    "strength": strength,
    "targets": targets,
    "time_to_target": time_to_target,
    "transformers": transformers,
    "vela": vela,
    "workers": faults_workers,
    "zoo": zoo,
}


def main(names: list[str]) -> int:
    """Runs the named benchmarks, by default the first.

    Returns:
        The exit status.
    """
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(
            f"There is no such benchmark. Expected {', '.join(BENCHMARKS)}. "
            f"Received: {', '.join(unknown)}",
            file=sys.stderr,
        )
        return 2
    console = rich.console.Console()
    for name in names or [next(iter(BENCHMARKS))]:
        results = BENCHMARKS[name].measure()
        console.print(BENCHMARKS[name].table(results))
        console.print(f"written to {record.write(name, results).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
