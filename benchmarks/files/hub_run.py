"""Takes one of KerasHub's models through every step, in a process of its own.

    python -m benchmarks.files.hub_run MODEL RESULT

`RESULT` is written anew after every step, so that whoever waits for the
process knows how far it came. A step that fails leaves its reason, and the
next is tried.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import msq_tf
from benchmarks.files import hub_models
from benchmarks.files.hub_rows import Row
from benchmarks.files.zoo_run import BITS
from benchmarks.files.zoo_run import TARGETS
from benchmarks.files.zoo_run import Clock
from benchmarks.files.zoo_run import coverage
from benchmarks.files.zoo_run import exported
from benchmarks.harness import child
from benchmarks.harness import memory

_SAMPLES = 8
_BATCH = 8
# Kinds whose tasks give logits of tokens.
_SPEAKING = (
    *("language model", "sequence to sequence", "audio"),
    "image and text",
)
# Fewer bits than these are not needed for it.
_COMPRESSION = 6.0
# A line of a traceback, which names files of one machine.
_FRAME = re.compile(r'\s*File "[^"]*", line \d+, in \S+')


def run(row: Row, result: Path, targets: tuple[str, ...] = TARGETS) -> None:
    """Fills `result` step by step.

    Args:
        row: Which model.
        result: A JSON file.
        targets: Those to export for.
    """
    entry: dict[str, Any] = {
        "name": row.name,
        "family": row.family,
        "kind": row.kind,
        "model": (row.task or row.backbone).of,
    }

    def note(**facts: Any) -> None:
        entry.update(facts)
        child.write(result, entry)

    model = hub_models.build(row)
    inputs = hub_models.inputs(row, _SAMPLES, seed=2)
    expected = model(inputs)
    note(
        parameters=model.count_params(),
        built={"peak_mib": int(memory.peak())},
    )
    clock = Clock()
    qmodel = msq_tf.quantize_model(model)
    outputs = qmodel(inputs)
    note(
        prepare=clock.read(),
        coverage=coverage(model, qmodel),
        difference=difference(expected, outputs),
    )
    widths = itertools.cycle(BITS)
    qmodel.set_bits({path: next(widths) for path in qmodel.paths})
    note(average_bits=round(qmodel.average_bits, 3), exports={})
    for target in targets:
        entry["exports"][target] = exported(qmodel, target, inputs)
        note()
    note(saved=step(lambda: save(qmodel, inputs)))
    note(fit=step(lambda: fit(row)))
    note(done=True)


def difference(wanted: Any, got: Any) -> float:
    """Largest difference of all outputs, each of the range of `wanted`."""
    largest = 0.0
    for whole, other in zip(
        keras.tree.flatten(wanted), keras.tree.flatten(got), strict=True
    ):
        values = np.asarray(whole, np.float64)
        if not values.size:
            continue
        off = np.abs(np.asarray(other, np.float64) - values)
        spread = np.ptp(values) or 1.0
        largest = max(largest, float(off.max() / spread))
    return largest


def step(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a step found, or why it failed, and what it took."""
    clock = Clock()
    try:
        facts: dict[str, Any] = {"outcome": "works", **action()}
    except Exception as error:  # the table says so
        facts = {
            "outcome": "failed",
            "reason": f"{type(error).__name__}: {_FRAME.sub('', str(error))}",
        }
    return facts | clock.read()


def save(qmodel: msq_tf.MSQModel, inputs: Any) -> dict[str, Any]:
    """Saves and loads, and compares bits and outputs.

    Raises:
        ValueError: If they are not those of before.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.keras")
        qmodel.save(path)
        try:
            loaded = keras.models.load_model(path)
        except ValueError as error:
            qmodel.base.save(path)
            try:
                keras.models.load_model(path)
            except ValueError as own:
                raise ValueError(
                    f"KerasHub does not load its own file either: {own}"
                ) from error
            raise
        size = path.stat().st_size
    if loaded.bits != qmodel.bits:
        raise ValueError("other bits after loading")
    if not alike(qmodel(inputs), loaded(inputs)):
        again = reloaded(qmodel.base)
        if not alike(qmodel.base(inputs), again(inputs)):
            raise ValueError(
                "KerasHub's own model has other outputs after loading, too"
            )
        raise ValueError("other outputs after loading")
    return {"bytes": size}


def alike(wanted: Any, got: Any) -> bool:
    """Whether all outputs are the same to the bit."""
    pairs = zip(
        keras.tree.flatten(wanted), keras.tree.flatten(got), strict=True
    )
    return all(np.array_equal(*map(np.asarray, pair)) for pair in pairs)


def reloaded(model: keras.Model) -> keras.Model:
    """A model after saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.keras")
        model.save(path)
        return keras.models.load_model(path)


def fit(row: Row) -> dict[str, Any]:
    """Trains for two epochs, with a search.

    What computes logits learns their classes or tokens, two towers which
    picture belongs to which text, and everything else, output by output, what
    it computed with other weights.

    Raises:
        ValueError: If the search did not reach its budget.
    """
    base = hub_models.build(row, task=row.kind != "detection")
    inputs = hub_models.inputs(row, 2 * _BATCH, seed=3)
    loss, targets = goals(row, base(inputs))
    qmodel = msq_tf.quantize_model(base)
    # A task of KerasHub would choose metrics, which a loss of ours may not fit.
    qmodel.compile(keras.optimizers.Adam(1e-3), loss, metrics=[])
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=_COMPRESSION),
        interval=1,
        max_probes=2,
        verbose=0,
    )
    history = qmodel.fit(
        inputs,
        targets,
        epochs=2,
        batch_size=_BATCH,
        # Of two towers a target is the place in the batch.
        shuffle=False,
        verbose=0,
        callbacks=[search],
    )
    if not np.isfinite(history.history["loss"]).all():
        raise ValueError("the loss is not finite")
    if qmodel.compression < _COMPRESSION:
        raise ValueError(f"compression {qmodel.compression:.2f}")
    return {"compression": round(qmodel.compression, 2)}


def goals(row: Row, outputs: Any) -> tuple[Any, Any]:
    """A loss for each output and what it has to be, in their structure."""
    towers = row.kind == "image and text" and not (row.task or row.classes)
    if towers or row.classes or row.task and row.kind in _SPEAKING:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def target(logits: Any) -> np.ndarray:
            if towers:
                return np.arange(len(logits)) % _BATCH
            return np.argmax(np.asarray(logits), axis=-1)

    else:
        loss, target = "mse", np.asarray
    return (
        keras.tree.map_structure(lambda output: loss, outputs),
        keras.tree.map_structure(target, outputs),
    )


def main(arguments: list[str]) -> int:
    """Runs the model that the command line names."""
    name, result = arguments
    run(hub_models.row(name), Path(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
