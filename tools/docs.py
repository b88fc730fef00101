"""Writes the figures of the documentation from the results of real runs.

`python -m tools.docs` takes `out/demo`, where `make demo` left its results
(if it is not there, the figures of the last one stay), and
`benchmarks/results`; `--check` only compares. What a page says is up to the
benchmark; here it is only put between the page's marks.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from benchmarks.accuracy import ablations
from benchmarks.accuracy import accuracy
from benchmarks.accuracy import channels
from benchmarks.accuracy import figures
from benchmarks.accuracy import front
from benchmarks.accuracy import scales
from benchmarks.accuracy import start
from benchmarks.accuracy import tolerance
from benchmarks.accuracy.mlperf_tiny import run as mlperf_tiny
from benchmarks.comparison import figure
from benchmarks.comparison.peers import run as peers
from benchmarks.files import accelerators
from benchmarks.files import convolutions
from benchmarks.files import demo
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
from benchmarks.harness.markdown import kept
from benchmarks.harness.record import load
from benchmarks.reliability import crafted
from benchmarks.reliability import fuzz
from benchmarks.reliability import kills
from benchmarks.reliability import replicas
from benchmarks.reliability import workers
from benchmarks.training_cost import long_run
from benchmarks.training_cost import scaling
from benchmarks.training_cost import statistics
from benchmarks.training_cost import step
from tools import headlines

_ROOT = Path(__file__).resolve().parent.parent
_IMAGES = _ROOT / "docs" / "images"
# A page may have several sections, each with a name.
_SECTION = (
    "(<!-- figures{}: written by [^\\n]*-->\n).*?(<!-- end of figures -->\n)"
)


def draw() -> None:
    """Draws the pictures that come from benchmarks."""
    content = load("accuracy")
    figures.draw_accuracy(content, _IMAGES / "accuracy_for_bytes.png")
    figures.draw_bits(content, _IMAGES / "bits_and_sensitivity.png")
    figure.draw(
        load("peers"),
        load("time_to_target"),
        _IMAGES / "accuracy_of_methods.png",
    )


def pages() -> dict[Path, dict[str, str]]:
    """The figures of every page as Markdown, from the files that are kept.

    Returns:
        Sections by name, by page; a section without a name has the empty one.
    """
    readme = headlines.three(
        json.loads(demo.RESULTS.read_text()),
        load("cost"),
        kept(load("time_to_target"), "README"),
    )
    found = {
        "README.md": {"": readme},
        "docs/accuracy.md": {
            "": accuracy.markdown(load("accuracy")),
            "scales": scales.markdown(load("scales")),
            "methods": ablations.markdown(load("ablations")),
            "the start": start.markdown(load("start")),
        },
        "docs/algorithm.md": {"": kept(load("strength"))},
        "docs/channels.md": {"": channels.markdown(load("channels"))},
        "docs/distribution.md": {"": replicas.markdown(load("devices"))},
        "docs/files-and-targets.md": {
            "": targets.containers(load("targets")),
            "the zoo": zoo.packed(load("zoo")),
        },
        "docs/latency.md": {"": latency.markdown(load("latency"))},
        "docs/mlperf-tiny.md": {"": mlperf_tiny.markdown(load("mlperf_tiny"))},
        "docs/peers.md": {"": peers.markdown(load("peers"))},
        "docs/performance.md": {
            "": step.markdown(load("cost")),
            "time to target": kept(load("time_to_target")),
            "scaling": scaling.markdown(load("scaling")),
            "a profile": kept(load("step_profile")),
            "a large model": large.markdown(load("large")),
            "large transformers": large_hub.markdown(load("large_hub")),
            "a long run": long_run.markdown(load("long_run")),
            "statistics": statistics.markdown(load("statistics")),
            "exports": export_cost.markdown(load("export_cost")),
        },
        "docs/reliability.md": {
            "hostile files": fuzz.markdown(load("fuzz")),
            "crafted files": crafted.markdown(load("crafted")),
            "kills": kills.markdown(load("faults")),
            "workers": workers.markdown(load("workers")),
        },
        "docs/sensitivity.md": {"": kept(load("predictions"))},
        "docs/tolerance.md": {
            "": tolerance.markdown(load("tolerance")),
            "all sizes": front.markdown(load("front")),
        },
        "docs/targets/README.md": {
            "": targets.markdown(load("targets")),
            "one run": demo.markdown(json.loads(demo.RESULTS.read_text())),
        },
        "docs/targets/mcu.md": {
            "": convolutions.markdown(load("convolutions"))
        },
        "docs/targets/qualcomm_npu.md": {
            "": qualcomm.markdown(load("qualcomm"))
        },
        "docs/targets/ethos_u.md": {"": vela.markdown(load("vela"))},
        "docs/targets/gpu.md": {
            "files": accelerators.files(load("accelerators")),
            "layers": accelerators.layers(load("accelerators")),
            "faults": gpu_cells.faults(load("gpu_cells")),
            "weights": gpu_cells.markdown(load("gpu_cells")),
        },
        "docs/targets/web.md": {
            "": accelerators.browsers(load("accelerators"))
        },
        "docs/transformers.md": {
            "": transformers.markdown(load("transformers"))
        },
        "docs/zoo.md": {
            "": zoo.markdown(load("zoo")),
            "devices": zoo_devices.markdown(load("zoo_devices")),
            "kerashub": hub.markdown(load("hub")),
        },
    }
    return {_ROOT / name: sections for name, sections in found.items()}


def updated(page: Path, sections: dict[str, str]) -> str:
    """A page's text with its figures replaced.

    Args:
        page: The page.
        sections: Figures by the name of their section.

    Raises:
        ValueError: If a section's marks are not there, or more than once.
    """
    text = page.read_text()
    for name, section in sections.items():
        pattern = _SECTION.format(f" of {name}" if name else "")
        text, count = re.subn(
            pattern,
            lambda marks, section=section: marks[1] + section + marks[2],
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(
                "A section of figures stands on its page once. Received: "
                f"page={page.name}, section={name!r}, {count} times"
            )
    return text


def main(arguments: list[str]) -> int:
    """Collects and writes, or with `--check` compares.

    Returns:
        The exit status.
    """
    if arguments != ["--check"]:
        if demo.FOLDER.is_dir():
            demo.collect()
        draw()
    new = {page: updated(page, s) for page, s in pages().items()}
    stale = [page for page, text in new.items() if text != page.read_text()]
    if arguments == ["--check"]:
        if stale:
            names = ", ".join(str(page.relative_to(_ROOT)) for page in stale)
            print(f"Out of date: {names}. Run make readme")
        return int(bool(stale))
    for page in stale:
        page.write_text(new[page])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
