"""Time and memory of KerasHub's transformers of 30 and 100 million parameters.

    python -m benchmarks.files.large_hub PART MODEL RESULT

A BERT classifier and a GPT-2 with its logits, on short texts, so that weights
are what takes memory. Parts and phases are those of `large_run`; every part of
a model has a process of its own. An interrupted run goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.files import large
from benchmarks.files import large_run
from benchmarks.harness import child
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table

LENGTH, CLASSES = 16, 10
_FOLDER = Path("out", "large_hub")


def _sizes(words: int, width: int, depth: int) -> dict[str, int]:
    return {
        "vocabulary_size": words,
        "num_layers": depth,
        "num_heads": width // 16,
        "hidden_dim": width,
        "intermediate_dim": 4 * width,
        "max_sequence_length": LENGTH,
    }


def _bert(words: int, width: int, depth: int) -> keras.Model:
    import keras_hub

    backbone = keras_hub.models.BertBackbone(**_sizes(words, width, depth))
    return keras_hub.models.BertTextClassifier(
        backbone, num_classes=CLASSES, preprocessor=None
    )


def _gpt2(words: int, width: int, depth: int) -> keras.Model:
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(**_sizes(words, width, depth))
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


# A function, tokens, features and blocks.
MODELS: dict[str, tuple[Callable[..., keras.Model], int, int, int]] = {
    "BERT": (_bert, 30522, 384, 10),
    "GPT-2": (_gpt2, 20000, 768, 12),
}
_SMALL = (32, 32, 1)


def measure() -> dict[str, Any]:
    """Measures each part of each model.

    Returns:
        What each part took and the bounds of memory, by model; JSON values.
    """
    found = {}
    for name in MODELS:
        parts = {
            part: child.measured_once(
                _FOLDER, "benchmarks.files.large_hub", part, name
            )
            for part in large_run.PARTS
        }
        bounds = large.bounds(parts["float"], parts["msq"], parts["export"])
        found[name] = {**parts, "bounds": bounds}
    child.finished(_FOLDER)
    return found


def subject(name: str, *, small: bool = False) -> large_run.Subject:
    """What is measured of a model.

    Args:
        name: A key of `MODELS`.
        small: Whether it is a little one of the same kind.
    """
    function, *sizes = MODELS[name]
    words, width, depth = _SMALL if small else sizes

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        return function(words, width, depth)

    def batch(count: int) -> tuple[Any, np.ndarray]:
        rng = np.random.default_rng(0)
        shape = (count, LENGTH)
        x = {
            "token_ids": rng.integers(1, words, shape, np.int32),
            "padding_mask": np.ones(shape, np.int32),
        }
        if function is _gpt2:
            return x, rng.integers(1, words, shape)
        x["segment_ids"] = np.zeros(shape, np.int32)
        return x, rng.integers(0, CLASSES, count)

    return large_run.Subject(build, batch)


def markdown(content: dict[str, Any]) -> str:
    """The phases of each model, and their bounds."""
    results, environment = content["results"], content["environment"]
    phases = (
        "model",
        "process",
        "phase",
        "s",
        "processor s",
        "before, MiB",
        "peak, MiB",
        "after, MiB",
        "above",
    )
    rows = [
        (name, *row)
        for name, parts in results.items()
        for row in large.rows({**parts, "exports": [parts["export"]]})
    ]
    return page(
        f"`{environment['command']}`: KerasHub's models on batches of "
        f"{large_run.BATCH} texts of {LENGTH} tokens, SGD with momentum, "
        f"{environment['date']}, {environment['cores']} cores. Columns are "
        "those of the tables above.",
        table(phases, rows, left=3),
        [_sentence(name, parts) for name, parts in results.items()],
    )


def _sentence(name: str, parts: dict[str, Any]) -> str:
    msq, export, found = parts["msq"], parts["export"], parts["bounds"]
    return (
        f"- {name}, {msq['parameters'] / 1e6:.1f} million parameters, "
        f"{msq['float_mib']:,.0f} MiB: preparing adds {found['prepare']:.2f} "
        f"of the float weights, a step {found['step']:.2f} above a float step, "
        f"{found['first_steps']:.2f} while it is traced; a search of "
        f"{msq['decisions']} decisions on {msq['weights']} weights with "
        f"{msq['changes']} changes peaks {found['search']:.1f} above what was "
        f"resident; the export {found['export']:.1f}, "
        f"{found['export_converter']:.1f} inside of TensorFlow's converter. "
        f"`{export['target']}` has {export['file_bytes']:,} bytes, the float "
        f"file {export['float_file_bytes']:,}."
    )


def main(arguments: list[str]) -> int:
    """Measures a part, and writes what was found."""
    part, name, result = arguments
    function = large_run.PARTS[part]
    function(subject(name, small=True))
    child.write(result, {"part": part, **function(subject(name))})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
