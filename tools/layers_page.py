"""Writes the table of layers: how each is spelled in the file of a target.

    python -m tools.layers_page          # docs/targets/layers.md
    python -m tools.layers_page --check  # compares only

Every cell is read off a file that was made for it. The files are not run here:
tests/tflite_export/test_coverage.py does that.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
from ai_edge_litert import schema_py_generated as schema

import msq_tf
from benchmarks.harness import layer_cases
from benchmarks.harness.markdown import table
from msq_tf.keras3 import target_checks
from msq_tf.rules import target_limits
from tflite_export import targets
from tflite_export.conversion import float_file
from tflite_export.conversion import source as sources
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.integer import build
from tflite_export.matching.explained import explained
from tflite_export.preparation import preconditions
from tflite_export.targets import lint

PAGE = Path("docs/targets/layers.md")
TARGETS = (
    *("cpu_int8", "web", "cpu_int16", "mcu", "ethos_u", "edgetpu"),
    "qualcomm_npu",
)
_ONLY = "runs on Ethos-U85 only"
_TITLE = "# Layers\n"
_TEXT = """
This page lists the operators that the exporter writes for each layer in a file
with integer activations. The models have `MSQConfig(activation_bits=8)` (16
for `cpu_int16`) and were trained without regard to a target.

- `float( ... )` encloses operators that compute in float, between a
  `DEQUANTIZE` and a `QUANTIZE` on the grids of training.
- `table` is a function of one number as its 256 results (`CAST`, `ADD`,
  `GATHER`).
- `-` means that the layer can't run there; `MSQConfig(targets=(...,))` or the
  export says why.
- The column `ethos_u` has what the exporter writes, and `U85:` where Vela
  compiles it for Ethos-U85 only. Some cells have `-` because not every
  accelerator runs them: comparisons, which the exporter also writes for U85,
  and an `Embedding`, which it writes with the option `allow_cpu`, as its
  `GATHER` stays on the CPU.
- `web` writes what `cpu_int8` writes, with a fixed batch size, but for what a
  GPU [computes wrong](gpu.md#wrong-numbers).
- The column `qualcomm_npu` has what its compiler takes whole; the tests of a
  machine with `make setup-qnn` compile and emulate every cell.

`cpu_float` and `min_size` run all of these layers in float. Weights have the
same codes in every file: a Dense of an Edge TPU is a convolution of one pixel;
a table with a scale per feature is one of codes, with a depthwise convolution
behind it; a table that also makes the scores stands in the file once.

Written by `python -m tools.layers_page`.

"""


def prepared(name: str, bits: int = 8) -> tuple[Any, list[Any]]:
    """A case, quantized, after one batch of training, and its samples."""
    keras.utils.set_random_seed(0)
    model = layer_cases.CASES[name]()
    x = layer_cases.samples(model)
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=bits)
    )
    qmodel(x if len(x) > 1 else x[0], training=True)
    return qmodel, x


def as_list(x: Any) -> list[Any]:
    """One array per input."""
    return list(x) if isinstance(x, list) else [x]


def cell(qmodel: Any, x: list[Any], name: str) -> str:
    """How a target's file spells the case; `-` where it can't hold it."""
    target = targets.load(name)
    try:
        # What compiles and is wrong on the emulated NPU, training refuses.
        if target.optional:
            target_checks.check_model(qmodel.base, (name,))
    except ValueError:
        return "-"
    try:
        model = fb.load(_built(qmodel, x, target))
    except ExportError:
        return "-"
    severe = lint.severe(lint.check_model(model, name))
    if any(_ONLY not in text for text in severe):
        return "-"
    return f"U85: {spelled(model)}" if severe else spelled(model)


def _built(qmodel: Any, x: list[Any], target: targets.Target) -> bytes:
    batch = target.options.get("batch_size")
    source = preconditions.with_ranges(
        qmodel,
        sources.from_model(qmodel, None, None, batch),
        target,
        measurable=True,
    )
    quantized = qmodel.quantized_weights()
    converted, matching = explained(
        float_file.Conversion(source, quantized),
        quantized,
        qmodel.skipped_weights(),
    )
    ports = bool(target.options.get("integer_io", False))
    return build.build(converted, matching, target, x, ports).data


def spelled(model: schema.ModelT) -> str:
    """A cell of the page: the operators of a file."""
    graph = model.subgraphs[0]
    needed = {fb.outputs(graph)[0]}
    words: list[str] = []
    for op in reversed(graph.operators):
        if not needed & set(fb.outputs(op)):
            continue
        needed.update(fb.inputs(op))
        words.append(_word(model, op))
    return " ".join(_shortened(words[::-1])) or "nothing"


def _word(model: schema.ModelT, op: schema.OperatorT) -> str:
    name = fb.op_name(model, op)
    graph = model.subgraphs[0]
    ports = {*fb.inputs(graph), *fb.outputs(graph)}
    floats = any(
        fb.type_name(graph.tensors[i]) == "FLOAT32"
        for i in (*fb.inputs(op), *fb.outputs(op))
        if i >= 0
    )
    if name in ("QUANTIZE", "DEQUANTIZE") and floats:
        at_port = ports & {*fb.inputs(op), *fb.outputs(op)}
        return "" if at_port else {"QUANTIZE": ")"}.get(name, "float(")
    return f"!{name}" if floats else name


def _shortened(words: list[str]) -> list[str]:
    """Repeated words once, float operators in one pair of brackets."""
    found: list[str] = []
    inside = False
    for word in words:
        if word in ("", "float(", ")"):
            continue
        if word.startswith("!") != inside:
            found.append("float(" if not inside else ")")
            inside = not inside
        found.append(word.removeprefix("!"))
    found += [")"] if inside else []
    text = " ".join(found).replace("CAST ADD GATHER", "table")
    short: list[str] = []
    for word in text.split():
        if not short or short[-1] != word:
            short.append(word)
    return [
        word if word in ("float(", ")", "table") else f"`{word}`"
        for word in short
    ]


def on_page(page: Path = PAGE) -> dict[str, dict[str, str]]:
    """The cells that the page has, by layer and target."""
    lines = [line for line in page.read_text().splitlines() if line[:1] == "|"]
    heads, _, *found = (
        [cell.strip() for cell in line[1:-1].split("|")] for line in lines
    )
    names = [head.strip("`") for head in heads[1:]]
    return {
        layer: dict(zip(names, cells, strict=True)) for layer, *cells in found
    }


def cells(name: str) -> dict[str, str]:
    """The cells of a case, by target."""
    models = {bits: prepared(name, bits) for bits in (8, 16)}
    found = {
        target: cell(
            *models[target_limits.TARGETS[target].activation_bits], target
        )
        for target in TARGETS
    }
    keras.backend.clear_session()
    return found


def main() -> None:
    """Writes the page, or compares it."""
    heads = ["layer", *(f"`{name}`" for name in TARGETS)]
    rows = [[name, *cells(name).values()] for name in layer_cases.CASES]
    lines = table(heads, rows, left=len(heads))
    text = _TITLE + _TEXT + "\n".join(lines) + "\n"
    if "--check" in sys.argv:
        if PAGE.read_text() != text:
            raise SystemExit(f"{PAGE} is not what the exporter does")
        return
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
