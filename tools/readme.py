"""Writes the documentation's figures from the results of real runs.

`python -m tools.readme` takes `out/demo`, where `make demo` left its results
(if it is not there, the figures of the last one stay), and
`benchmarks/results`; `--check` only compares.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from tools import accuracy_page
from tools import cost_page
from tools import devices_page
from tools import faults_page
from tools import fuzz_page
from tools import growth_page
from tools import headlines
from tools import large_page
from tools import markdown
from tools import methods_page
from tools import peers_page
from tools import strength_page
from tools import target_page
from tools import targets_page
from tools import transformers_page
from tools import workers_page
from tools import zoo_page

_ROOT = Path(__file__).resolve().parent.parent
_DEMO = _ROOT / "out" / "demo"
_RESULTS = _ROOT / "docs" / "results" / "demo.json"
_IMAGES = _ROOT / "docs" / "images"
_README = _ROOT / "README.md"
# A page may have several sections, each with a name.
_BEGIN = "<!-- figures{}: written by tools/readme.py -->\n"
_END = "<!-- end of figures -->\n"


def collect() -> None:
    """Keeps the demo's report, without its details, and its picture."""
    report = json.loads((_DEMO / "report.json").read_text())
    run = json.loads((_DEMO / "run.json").read_text())
    names = (
        "dataset",
        "test_examples",
        "float_accuracy",
        "msq_accuracy",
        "compression",
        "bits",
        "float_file",
        "files",
        "int8_bytes",
        "seconds",
    )
    kept = {name: report[name] for name in names}
    for file in (kept["float_file"], *kept["files"].values()):
        file["device"] = (file.pop("export") or {}).get("device", {})
    environment = record.environment("make demo")
    content = {"environment": environment, "run": run, "results": kept}
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(content, indent=2) + "\n")
    shutil.copyfile(_DEMO / "bits.png", _IMAGES / "bits.png")


def draw() -> None:
    """Draws the pictures that come from benchmarks."""
    accuracy = _of("accuracy")
    accuracy_page.draw_accuracy(accuracy, _IMAGES / "accuracy_for_bytes.png")
    accuracy_page.draw_bits(accuracy, _IMAGES / "bits_and_sensitivity.png")
    methods_page.draw(
        _of("peers"),
        _of("time_to_target"),
        _IMAGES / "accuracy_of_methods.png",
    )


def _of(benchmark: str) -> dict[str, Any]:
    """What a benchmark recorded."""
    return json.loads((record.RESULTS / f"{benchmark}.json").read_text())


def pages() -> dict[Path, dict[str, str]]:
    """The figures of every page as Markdown, from the files that are kept.

    Returns:
        Sections by name, by page; a section without a name has the empty one.
    """
    demo = json.loads(_RESULTS.read_text())
    cost, targets = _of("cost"), _of("targets")
    runs = targets["results"]["runs"]
    summary = target_page.summary(_of("time_to_target"))
    found = {
        "README.md": {"": headlines.three(demo, cost, summary)},
        "accuracy.md": {"": accuracy_page.accuracy_tables(_of("accuracy"))},
        "algorithm.md": {"": strength_page.table(_of("strength"))},
        "distribution.md": {"": devices_page.table(_of("devices"))},
        "files-and-targets.md": {
            "": targets_page.containers(targets),
            "the zoo": targets_page.packed(_of("zoo")),
        },
        "peers.md": {"": peers_page.peers_tables(_of("peers"))},
        "performance.md": {
            "": cost_page.tables(cost),
            "time to target": target_page.tables(_of("time_to_target"), cost),
            "scaling": growth_page.scaling(_of("scaling")),
            "a profile": growth_page.profile(_of("step_profile")),
            "a large model": large_page.large_section(_of("large")),
            "a long run": large_page.long_section(_of("long_run")),
        },
        "reliability.md": {
            "hostile files": fuzz_page.section(_of("fuzz")),
            "kills": faults_page.section(_of("faults")),
            "workers": workers_page.section(_of("workers")),
        },
        "sensitivity.md": {
            "": accuracy_page.prediction_table(_of("predictions"))
        },
        "targets/README.md": {
            "": targets_page.speeds(targets, runs),
            "one run": _demo(demo),
        },
        "targets/ethos_u.md": {"": targets_page.vela(_of("vela"))},
        "transformers.md": {"": transformers_page.table(_of("transformers"))},
        "zoo.md": {"": zoo_page.zoo_tables(_of("zoo"))},
    }
    return {
        (_README if name == "README.md" else _ROOT / "docs" / name): sections
        for name, sections in found.items()
    }


def _demo(demo: dict[str, Any]) -> str:
    results, run = demo["results"], demo["run"]
    environment = demo["environment"]
    small = results["files"]["min_size"]
    whole = results["float_file"]
    rows = [
        ("float, Keras", results["float_accuracy"], None, None),
        (
            f"MSQ, Keras, {run['activation_bits']}-bit activations",
            results["msq_accuracy"],
            None,
            None,
        ),
    ]
    for file in (whole, *results["files"].values()):
        score = file["score"]
        rows.append(
            (
                f"`{file['name']}`",
                score["accuracy"],
                score["agreement"],
                file["bytes"],
            )
        )
    ran = markdown.ran(
        environment,
        f"{run['model']} on {results['dataset']}",
        f"seed {run['seed']}",
    )
    lines = [
        f"{ran}, {sum(results['seconds'].values()):.0f} s: "
        f"{results['compression']:.2f}x by stored bits (sign counted), "
        f"`{small['name']}` {whole['bytes'] / small['bytes']:.1f}x smaller "
        "than the float file.",
        "",
        f"| | accuracy on {results['test_examples']:,} test images | agrees "
        "with Keras | bytes |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, accuracy, agreement, size in rows:
        agrees = "" if agreement is None else f"{agreement:.2%}"
        count = "" if size is None else f"{size:,}"
        lines.append(f"| {name} | {accuracy:.2%} | {agrees} | {count} |")
    if results["int8_bytes"]:
        lines.append(f"| int8 weights | | | {results['int8_bytes']:,} |")
    arena = results["files"]["mcu"]["device"]["arena_bytes"]
    npu = results["files"]["ethos_u"]["device"]["accelerators"]["ethos-u55-256"]
    lines += [
        "",
        f"On TFLite Micro its arena takes {arena:,} bytes. For an "
        "Ethos-U55-256 Vela encodes the weights in "
        f"{npu['encoded_bytes']:,} bytes and estimates "
        f"{npu['estimated_ms']:.2f} ms.",
        "",
        f"The float model trained {run['float_epochs']} epochs; MSQ "
        f"fine-tunes it for {run['epochs']} more, so part of its accuracy is "
        "longer training.",
        "",
    ]
    return "\n".join(lines)


def updated(page: Path) -> str:
    """A page's text with its figures replaced."""
    text = page.read_text()
    for name, figures in pages()[page].items():
        begin = _BEGIN.format(f" of {name}" if name else "")
        before, rest = text.split(begin)
        _, after = rest.split(_END, 1)
        text = before + begin + figures + _END + after
    return text


def main(arguments: list[str]) -> int:
    """Collects and writes, or with `--check` compares.

    Returns:
        The exit status.
    """
    if arguments == ["--check"]:
        stale = [str(p) for p in pages() if updated(p) != p.read_text()]
        if stale:
            print(f"Out of date: {', '.join(stale)}. Run make readme")
        return int(bool(stale))
    if _DEMO.is_dir():
        collect()
    draw()
    for page in pages():
        page.write_text(updated(page))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
