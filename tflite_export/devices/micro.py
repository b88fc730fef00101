"""Running a file in the TFLite Micro interpreter."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.devices import command
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import ports
from tflite_export.runtime.flat_scores import FlatScores
from tflite_export.targets import Target
from tflite_export.verification import amplification
from tflite_export.verification import float_twin
from tflite_export.verification.per_operator import Recorded

_WORKER = Path(__file__).with_name("mcu_worker.py")
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_ALIGNMENT = 16
# Offsets in the arena are 32-bit.
_LARGEST_ARENA = (1 << 31) - 1
_TIMEOUT_SECONDS = 600
_NOISE = ("Traceback", "File ", "^", "[Recording", "main(")


@dataclasses.dataclass(frozen=True)
class MicroRun:
    """One run in the TFLite Micro interpreter.

    Attributes:
        outputs: One array per output, all samples.
        arena_bytes: What stayed allocated in the arena.
    """

    outputs: list[np.ndarray]
    arena_bytes: int


def is_installed() -> bool:
    """Whether the wheel `tflite-micro` is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def check_installed() -> None:
    """Raises an ExportError, with what to do, unless `is_installed`."""
    if not is_installed():
        # With it TensorFlow is loaded, which whoever reads files can spare.
        from msq_tf import extras

        raise ExportError(
            "The interpreter of TFLite Micro isn't installed, in which target "
            "'mcu' runs its files. Expected the package tflite-micro: "
            f"{extras.install('mcu')}. Received: none"
        )


def run(
    data: bytes, samples: Sequence[np.ndarray], arena_bytes: int | None = None
) -> MicroRun:
    """Runs samples through the TFLite Micro interpreter.

    It runs in a process of its own: a wrong arena ends the process. Float
    values are quantized where the file takes integers, and samples that fill
    no batch are dropped. Without a size the arena is generous.

    Raises:
        ExportError: If the interpreter isn't installed, or refuses the file;
            with its own words.
    """
    check_installed()
    arena = arena_bytes or _generous(data)
    with _Workspace(data, samples) as space:
        done = space.work("run", space.outputs, arena)
        total = _TOTAL.search(done.stderr)
        if done.returncode or total is None or not space.outputs.exists():
            _check_scores(data, samples)
            raise ExportError(
                "TFLite Micro can't run the file. Expected operators that its "
                "kernels take. Received: "
                f"{_reason(done.stderr, done.returncode)}"
            )
        with np.load(space.outputs) as loaded:
            outputs = [_flat(loaded[name]) for name in loaded.files]
    return MicroRun(outputs, int(total[1]))


def _check_scores(data: bytes, samples: Sequence[np.ndarray]) -> None:
    """Raises an ExportError if flat scores are why a run ended."""
    flat = FlatScores(data)
    fed = [
        _batches(port, array)
        for port, array in zip(ports.inputs(data), samples, strict=True)
    ]
    for batch in zip(*fed, strict=True):
        reason = flat.find(batch)
        if reason:
            raise ExportError(
                "The given inputs end TFLite Micro, and would end it on the "
                "device. Expected a model whose output are the scores, with "
                "the softmax in its loss (`from_logits=True`), or after more "
                f"training. Received: {reason}"
            )


def explain(
    data: bytes,
    samples: Sequence[np.ndarray],
    done: MicroRun,
    target: Target,
) -> str | None:
    """How single units inside explain a difference from LiteRT, if they do.

    The copy of the file that shows all of its tensors has to give what the
    file gave, bit for bit; each of its operators has to be within its own
    limit of the float arithmetic of what it read, see
    `verification.amplification`. The samples are all on which the difference
    was seen.
    """
    shown = float_twin.probe(data)
    probe = run(shown, samples)
    graph = fb.load(shown).subgraphs[0]
    if len(probe.outputs) != len(fb.outputs(graph)) or not all(
        map(np.array_equal, done.outputs, probe.outputs)
    ):
        return None
    fed = [
        _batches(port, array)
        for port, array in zip(ports.inputs(data), samples, strict=True)
    ]
    arrays = dict(zip(fb.inputs(graph), fed, strict=True))
    for index, array in zip(fb.outputs(graph), probe.outputs, strict=True):
        shape = fb.shape(graph.tensors[index])
        arrays[index] = array.reshape(len(fed[0]), *shape)
    compared = Recorded(data)
    tally = amplification.Tally()
    for batch in range(len(fed[0])):
        recorded = {index: array[batch] for index, array in arrays.items()}
        for found in compared(recorded):
            if found.units > target.operator_units(found.step.name):
                return None
            tally.add(found)
    return tally.explanation()


def smallest_arena(
    data: bytes, samples: Sequence[np.ndarray], allocated: int
) -> int:
    """Bytes of the smallest arena that runs the first batch, to 16.

    What stays allocated is a lower bound: while the interpreter sets up small
    models it needs more for a moment.

    Raises:
        ExportError: If none up to a generous one does.
    """
    with _Workspace(data, samples, most=1) as space:
        done = space.work("arena", allocated, _generous(data))
    if done.returncode:
        raise ExportError(
            "TFLite Micro ran the file once and no more. Expected the same "
            "with a smaller arena. Received: "
            f"{_reason(done.stderr, done.returncode)}"
        )
    return int(done.stdout)


class _Workspace:
    """A folder with a file and its inputs, for workers.

    Attributes:
        outputs: Where a worker leaves what the file computes.
    """

    def __init__(
        self,
        data: bytes,
        samples: Sequence[np.ndarray],
        most: int | None = None,
    ):
        ports_in = ports.inputs(data)
        batches = [
            _batches(port, array)[:most]
            for port, array in zip(ports_in, samples, strict=True)
        ]
        self._folder = tempfile.TemporaryDirectory()
        self._model = Path(self._folder.name, "model.tflite")
        self._inputs = Path(self._folder.name, "inputs.npz")
        self.outputs = Path(self._folder.name, "outputs.npz")
        self._model.write_bytes(data)
        count = np.int64(len(ports.outputs(data)))
        np.savez(self._inputs, count=count, **_named(batches))

    def __enter__(self) -> _Workspace:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def work(
        self, task: str, *arguments: Any
    ) -> subprocess.CompletedProcess[str]:
        """Starts a worker and waits for its end."""
        return command.run(
            "TFLite Micro",
            # -P: modules beside the worker must not shadow others.
            [
                *(sys.executable, "-P", str(_WORKER), task),
                *(str(self._model), str(self._inputs)),
                *map(str, arguments),
            ],
            _TIMEOUT_SECONDS,
        )


def _named(batches: Sequence[np.ndarray]) -> dict[str, Any]:
    return {f"input_{k:03}": array for k, array in enumerate(batches)}


def _batches(port: ports.Port, array: np.ndarray) -> np.ndarray:
    """Cuts samples into the batches that the file takes."""
    size = port.shape[0] if port.shape else 1
    count = len(array) // size
    if count == 0 or array.shape[1:] != port.shape[1:]:
        raise ValueError(
            f"Samples don't fit the input '{port.name}'. Expected shape "
            f"{port.shape} and at least {size} samples. Received: "
            f"shape={array.shape}"
        )
    cut = port.quantize(array[: count * size])
    return cut.reshape(count, *port.shape)


def _flat(array: np.ndarray) -> np.ndarray:
    # (batches, batch, ...) -> (samples, ...)
    return array.reshape(-1, *array.shape[2:]) if array.ndim > 1 else array


def _generous(data: bytes) -> int:
    """More than any plan of the arena can need."""
    model = fb.load(data)
    room = 1 << 20
    for graph in model.subgraphs:
        room += 1024 * (len(graph.tensors) + len(graph.operators or ()))
        for tensor in graph.tensors:
            if fb.raw_data(model, tensor) is None:
                # 8: the widest type. Kernels' scratch buffers are as large
                # as a feature map at most.
                room += 2 * 8 * math.prod(fb.shape(tensor))
            else:
                # Scales and zero points get copies, 16 bytes a channel.
                room += 64 * max(fb.shape(tensor), default=1)
    return min(room, _LARGEST_ARENA)


def _reason(stderr: str, code: int) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # The interpreter's own lines come before Python's traceback.
    own = [
        line
        for line in lines
        if not line.startswith(_NOISE) and "runtime.py" not in line
    ]
    words = " ".join(own[:3])
    if not words or code < 0:
        words += f" (ended by signal {-code})" if code < 0 else f" exit {code}"
    return words.strip()
