"""`python -m benchmarks [name ...]`: runs benchmarks and records them."""

from __future__ import annotations

import sys

import rich.console
import rich.markdown

from benchmarks.accuracy import ablations
from benchmarks.accuracy import accuracy
from benchmarks.accuracy import channels
from benchmarks.accuracy import front
from benchmarks.accuracy import resnet20
from benchmarks.accuracy import scales
from benchmarks.accuracy import start
from benchmarks.accuracy import tolerance
from benchmarks.accuracy.mlperf_tiny import run as mlperf_tiny
from benchmarks.comparison.peers import run as peers
from benchmarks.files import accelerators
from benchmarks.files import convolutions
from benchmarks.files import export_cost
from benchmarks.files import gpu_cells
from benchmarks.files import hub
from benchmarks.files import large
from benchmarks.files import large_hub
from benchmarks.files import latency
from benchmarks.files import qualcomm
from benchmarks.files import targets
from benchmarks.files import transformers
from benchmarks.files import vela
from benchmarks.files import zoo
from benchmarks.files import zoo_devices
from benchmarks.harness import record
from benchmarks.reliability import crafted
from benchmarks.reliability import fuzz
from benchmarks.reliability import kills
from benchmarks.reliability import replicas
from benchmarks.reliability import workers
from benchmarks.training_cost import long_run
from benchmarks.training_cost import scaling
from benchmarks.training_cost import statistics
from benchmarks.training_cost import step

# Each has `measure()`, whose results are recorded, and `markdown(content)`, the
# page's section from the record. `make bench` runs the first; others take long.
BENCHMARKS = {
    "cost": step,
    "ablations": ablations,
    "accelerators": accelerators,
    "convolutions": convolutions,
    "accuracy": accuracy,
    "channels": channels,
    "crafted": crafted,
    "devices": replicas,
    "export_cost": export_cost,
    "faults": kills,
    "front": front,
    "fuzz": fuzz,
    "gpu_cells": gpu_cells,
    "hub": hub,
    "large": large,
    "large_hub": large_hub,
    "latency": latency,
    "long_run": long_run,
    "mlperf_tiny": mlperf_tiny,
    "peers": peers,
    "qualcomm": qualcomm,
    "resnet20": resnet20,
    "scales": scales,
    "scaling": scaling,
    "start": start,
    "statistics": statistics,
    "targets": targets,
    "tolerance": tolerance,
    "transformers": transformers,
    "vela": vela,
    "workers": workers,
    "zoo": zoo,
    "zoo_devices": zoo_devices,
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
        path = record.write(name, BENCHMARKS[name].measure())
        text = BENCHMARKS[name].markdown(record.load(name))
        console.print(rich.markdown.Markdown(text))
        console.print(f"written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
