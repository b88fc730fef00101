"""A long run: does it leak, retrace or slow down?

A small network trains for thousands of steps, and a width changes every few
of them, down and back up, by the callback and the statistics of any search. A
float model of the same network takes a step now and then in between, in the
same process, so that a machine that slows down is not taken for a run that
does.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import sys
import time
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from benchmarks.harness import child
from benchmarks.harness import memory
from benchmarks.harness.markdown import page
from benchmarks.harness.markdown import table
from benchmarks.harness.networks import compiled
from msq_tf.rules.records import Change
from msq_tf.rules.records import Decision
from msq_tf.rules.records import LayerStats
from msq_tf.rules.records import RuleState
from msq_tf.rules.records import SearchStats
from msq_tf.rules.rule import Rule

STEPS, EVERY, WINDOW = 10_000, 20, 1_000
_WIDE, _NARROW = 8, 4
# Of the steps, before memory and time count; all has been traced by then.
_WARMUP = 0.1
# The float model steps once for so many steps, memory is read as often.
_FLOAT_EVERY, _MEMORY_EVERY = 5, 50
_SAMPLES, _BATCH, _SHAPE, _CLASSES = 512, 32, (16, 16, 3), 10


@dataclasses.dataclass(frozen=True)
class Pendulum(Rule):
    """Narrows one weight after the other, gives the bits back, and so on.

    No search does that: it comes to an end. This one takes a decision at every
    interval for as long as the run is, on all the statistics of a search.
    """

    def widths(self, layer: LayerStats) -> tuple[int, ...]:
        return tuple(range(layer.bits - 1, layer.min_bits - 1, -1))

    def due(
        self, progress: float, average_bits: float, state: RuleState
    ) -> bool:
        # At the end the rest of the way is gone at once; there is no end here.
        del average_bits, state
        return progress < self.end

    def decide(
        self, stats: SearchStats, state: RuleState
    ) -> tuple[Decision, RuleState]:
        turn, index = divmod(int(state.decisions), len(stats.layers))
        layer = stats.layers[index]
        new = _NARROW if turn % 2 == 0 else _WIDE
        change = Change(layer.path, layer.bits, new, "the pendulum")
        # Pulled in every other decision, so that both branches run.
        pulled = {} if index % 2 else {layer.path: 1}
        after = state._replace(
            decisions=state.decisions + 1.0, last_step=float(stats.step)
        )
        return Decision((change,), pulled), after


class CountTraces(keras.layers.Layer):
    """Hands its input on, and counts how often Python comes by."""

    calls = 0

    def call(self, inputs: Any) -> Any:
        type(self).calls += 1
        return inputs


class Watch(keras.callbacks.Callback):
    """Times steps, and now and then the float model's, and reads memory.

    Stands before the search, so that decisions are not in the steps' time.
    """

    def __init__(self, plain: keras.Model, batch: Any):
        super().__init__()
        self._plain, self._batch = plain, batch
        self._start = (0.0, 0.0)
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.plain_seconds: list[float] = []
        self.resident: list[tuple[int, float]] = []
        self.traces: list[int] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._start = (time.perf_counter(), time.process_time())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start[0])
        self.cpu.append(time.process_time() - self._start[1])
        step = len(self.seconds)
        if step % _FLOAT_EVERY == 0:
            start = time.perf_counter()
            self._plain.train_on_batch(*self._batch)
            self.plain_seconds.append(time.perf_counter() - start)
        if step % _MEMORY_EVERY == 0:
            gc.collect()
            self.resident.append((step, memory.resident()))
            self.traces.append(CountTraces.calls)


def run(steps: int = STEPS, every: int = EVERY) -> dict[str, Any]:
    """Trains in this process.

    Args:
        steps: Training steps; a tenth of them is warm-up.
        every: Steps between decisions.

    Returns:
        What was decided, traces, memory along the run and step times at its
        start and end; JSON values.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_SAMPLES, *_SHAPE)).astype(np.float32)
    y = rng.integers(0, _CLASSES, _SAMPLES)
    batch = tf.constant(x[:_BATCH]), tf.constant(y[:_BATCH])
    qmodel = compiled(msq_tf.quantize_model(_network()))
    watch = Watch(compiled(_network()), batch)
    CountTraces.calls = 0
    search = msq_tf.MSQCallback(
        Pendulum(target_bits=2.0, end=1.0),
        data=(x, y),
        samples=64,
        batch_size=32,
        interval=every,
        verbose=0,
    )
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(_BATCH)
    with warnings.catch_warnings():
        # Which is what it is for.
        warnings.filterwarnings("ignore", message="The search ended at")
        qmodel.fit(
            data,
            epochs=10,
            steps_per_epoch=steps // 10,
            shuffle=False,
            verbose=0,
            callbacks=[watch, search],
        )
    decisions = int(qmodel.search.rule_state.decisions)
    return {
        "steps": len(watch.seconds),
        "every": every,
        "decisions": decisions,
        "weights": len(qmodel.paths),
        "kept_changes": len(qmodel.history_of_bits()),
        **_traces(watch),
        "memory": _memory(watch.resident),
        "time": _times(watch),
    }


def _network() -> keras.Model:
    inputs = keras.Input(_SHAPE)
    x = CountTraces(name="traces")(inputs)
    for i, filters in enumerate((16, 16, 32, 32)):
        x = keras.layers.Conv2D(
            filters, 3, strides=1 + i % 2, padding="same", name=f"conv{i}"
        )(x)
        x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(_CLASSES, name="logits")(x))


def _traces(watch: Watch) -> dict[str, int]:
    """Times that Python built a graph, after the warm-up and at the end."""
    start = watch.traces[int(_WARMUP * len(watch.traces))]
    return {"traces_at_start": start, "traces_at_end": watch.traces[-1]}


def _memory(samples: list[tuple[int, float]]) -> dict[str, Any]:
    """MiB along the run, and how fast they grow after the warm-up."""
    kept = np.array(samples[int(_WARMUP * len(samples)) :])
    slope = np.polyfit(kept[:, 0], kept[:, 1], 1)[0]
    half = kept[len(kept) // 2 :]
    late = np.polyfit(half[:, 0], half[:, 1], 1)[0]
    return {
        "start_mib": round(float(kept[0, 1]), 1),
        "end_mib": round(float(kept[-1, 1]), 1),
        "mib_per_1000_steps": round(1000 * float(slope), 3),
        "mib_per_1000_steps_in_second_half": round(1000 * float(late), 3),
        "samples": [[s, round(mib, 1)] for s, mib in samples][::5],
    }


def _times(watch: Watch) -> dict[str, Any]:
    """Medians of the first steps after the warm-up, and of the last."""
    found: dict[str, Any] = {}
    for name, values in (
        ("step_ms", watch.seconds),
        ("step_cpu_ms", watch.cpu),
        ("float_step_ms", watch.plain_seconds),
    ):
        first = int(_WARMUP * len(values))
        window = max(1, int(len(values) * WINDOW / STEPS))
        start = statistics.median(values[first : first + window])
        end = statistics.median(values[-window:])
        found[name] = {
            "start": round(1e3 * start, 3),
            "end": round(1e3 * end, 3),
            "end_of_start": round(end / start, 4),
        }
    found["end_of_start_against_float"] = round(
        found["step_ms"]["end_of_start"]
        / found["float_step_ms"]["end_of_start"],
        4,
    )
    return found


def measure(steps: int = STEPS) -> dict[str, Any]:
    """`run` in a process of its own.

    Args:
        steps: Training steps.
    """
    return child.measured("benchmarks.training_cost.long_run", steps)


def rows(results: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value at the start and at the end, and the change, as text."""
    held, times = results["memory"], results["time"]
    start, end = results["traces_at_start"], results["traces_at_end"]
    found = [
        (
            "resident memory",
            f"{held['start_mib']:,.0f} MiB",
            f"{held['end_mib']:,.0f} MiB",
            f"{held['mib_per_1000_steps']:+.2f} MiB per 1,000 steps",
        ),
        ("traces", str(start), str(end), f"{end - start:+d}"),
    ]
    for name, key in (
        ("step", "step_ms"),
        ("step, processor time", "step_cpu_ms"),
        ("step of the float model", "float_step_ms"),
    ):
        row = times[key]
        found.append(
            (
                name,
                f"{row['start']:.2f} ms",
                f"{row['end']:.2f} ms",
                f"{row['end_of_start'] - 1:+.1%}",
            )
        )
    return found


def markdown(content: dict[str, Any]) -> str:
    """What a run held and took at its start and its end."""
    results, environment = content["results"], content["environment"]
    return page(
        f"`{environment['command']}`: {results['steps']:,} steps of a network "
        f"of {results['weights']} weights, a decision every "
        f"{results['every']}, {results['decisions']} in all, seed 0, "
        f"{environment['date']}, {environment['cores']} cores; medians of "
        f"{WINDOW:,} steps after a warm-up of as many, and of the last ones; "
        "the float model steps in between:",
        table(("", "start", "end", "change"), rows(results)),
    )


def main(arguments: list[str]) -> int:
    """Runs, and writes what was found."""
    steps, result = arguments
    found = run(int(steps))
    child.write(result, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
