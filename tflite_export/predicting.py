"""device_costs: milliseconds and RAM of a model, by widths of its weights.

And what its weights are stored in: all of it from files that are made for the
question.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from msq_tf import distribute
from msq_tf.arguments import check_flag
from msq_tf.arguments import check_number
from msq_tf.arguments import check_path
from msq_tf.core.quantized_network import QuantizedNetwork
from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.rules.device_costs import DeviceCosts
from tflite_export import devices
from tflite_export import steps
from tflite_export import target_file
from tflite_export import targets
from tflite_export.costs import cpu
from tflite_export.costs import ethos_u
from tflite_export.costs import mcu
from tflite_export.flatbuffer import model as flat
from tflite_export.matching.match import Match
from tflite_export.preparation import opening
from tflite_export.target_file import Built
from tflite_export.targets import CONTAINERS

# Samples to measure ranges on, which no cost depends on.
_SAMPLES = 8

# Bytes of an operator code in a file, of its place in their list, and of what
# aligns the data behind them.
_OPERATOR_CODE = 24


def device_costs(
    model: QuantizedNetwork,
    device: str,
    *,
    latency_table: str | os.PathLike[str] | None = None,
    measure: bool = False,
    macs_per_ms: float | None = None,
    representative_data: Any = None,
    input_signature: Any = None,
    batch_size: int | None = None,
) -> DeviceCosts:
    """Predicts what a model takes on a device, at every width of its weights.

    It may be untrained: for each width, the file that `export` would write is
    made, and the tools of the device tell what its operators take.

    - `"ethos_u:<accelerator>"`: milliseconds and SRAM by Vela's estimate.
    - `"cpu_int8"`, `"min_size"`, `"cpu_float"`: milliseconds on one thread,
      from a table of measured operators.
    - `"mcu"`: the arena of TFLite Micro, measured, and milliseconds by the
      number of operations, for a speed that you give.

    Args:
        model: A model of `msq_tf.quantize_model`. It stays as it is.
        device: Name of the device.
        latency_table: A table of `make latency-table`, or of an earlier call
            with `measure`; `None` for the one that comes with the package,
            whose processor and date `DeviceCosts.source` names.
        measure: Whether to measure operators on this machine that the table
            lacks, and write them to `latency_table` if it is given.
        macs_per_ms: Multiplications with additions in a millisecond, of the
            microcontroller: those of a network by its measured time.
        representative_data: As in `export`; random inputs if `None`.
        input_signature: As in `export`.
        batch_size: As in `export`, but 1 if `None`; latencies are those of a
            call.

    Returns:
        A `DeviceCosts`, for `msq_tf.BudgetRule(costs=...)`.

    Raises:
        ExportError: If the device can't run the model, or its tools are not
            installed.
        ValueError: If there is no such device, or nothing to predict it with.

    Example:
    ```python
    costs = tflite_export.device_costs(qmodel, "ethos_u:ethos-u55-128")
    print(costs.latency_at(qmodel.bits), "ms")
    costs.save("ethos-u55-128.json")
    ```
    """
    if not isinstance(model, QuantizedNetwork):
        raise ValueError(
            "Expected a model of msq_tf.quantize_model, or the ModelView of a "
            f"tf_keras model. Received: model={model!r}"
        )
    target, _, part = str(device).partition(":")
    known = (*ethos_u.NAMES, *cpu.NAMES, "mcu")
    if device not in known:
        raise ValueError(
            "Nothing predicts what a model takes there. Expected one of "
            f"{list(known)}. Received: device={device!r}"
        )
    check_path("latency_table", latency_table, optional=True)
    check_flag("measure", measure)
    check_number("macs_per_ms", macs_per_ms, 1, optional=True)
    if (latency_table is not None or measure) and device not in cpu.NAMES:
        raise ValueError(
            "`latency_table` and `measure` are for processors. Expected "
            f"device={list(cpu.NAMES)}. Received: device={device!r}"
        )
    if macs_per_ms is not None and device != "mcu":
        raise ValueError(
            "`macs_per_ms` is for device='mcu'. Received: "
            f"device={device!r}, macs_per_ms={macs_per_ms:g}"
        )
    if batch_size is None and model.fixed_batch_size is None:
        batch_size = 1
    with files_of(
        model, target, representative_data, input_signature, batch_size
    ) as files:
        if device in cpu.NAMES:
            return cpu.costs(files, device, model.paths, latency_table, measure)
        if device == "mcu":
            return mcu.costs(files, model.paths, macs_per_ms)
        return ethos_u.costs(files, device, part, model.paths)


def stored_bits(
    model: QuantizedNetwork, device: str, representative_data: Any = None
) -> dict[str, tuple[int, ...]]:
    """Finds the containers that a target has for each weight.

    Which one a weight gets may depend on what is around it: the files that
    `export` would write with all weights at 2 bits, and at 4, tell.

    Args:
        model: A model of `msq_tf.quantize_model`, which may be untrained.
        device: Name of a target, for Qualcomm's NPU with a SoC behind it, such
            as `"qualcomm_npu:SM8650"`.
        representative_data: As in `export`.

    Returns:
        By path, the stored bits from the widest to the narrowest.

    Raises:
        ExportError: If the target can't run the model.
        ValueError: If there is no such target.
    """
    name, _, soc = device.partition(":")
    target = targets.load(name)
    if soc:
        target = devices.narrowed(target, {"socs": [soc]})
    found: dict[str, set[int]] = {path: {8} for path in model.paths}
    with files_of(model, name, representative_data) as files:
        files.target = target
        for width in (4, 2):
            built = files.all_at(width)
            widest: dict[str, int] = {}
            for record in built.written:
                path = record.match.weight.path
                bits = CONTAINERS[record.container]
                widest[path] = max(bits, widest.get(path, 0))
            for path, bits in widest.items():
                found[path].add(bits)
    return {path: tuple(sorted(b, reverse=True)) for path, b in found.items()}


def file_overhead(
    model: QuantizedNetwork, device: str, representative_data: Any = None
) -> float:
    """Counts the bytes of a model's file besides the codes of its weights.

    Those of operators, tensors, scales and biases; not those of weights that
    stay float. Biases that are zero, or equal, before training count, too.

    Args:
        model: A model of `msq_tf.quantize_model`, which may be untrained.
        device: Name of a target whose files are TFLite files.
        representative_data: As in `export`.

    Returns:
        Bytes, the most of files at 8, 4 and 2 bits, which hardly differ, and
        those of the operator codes that a file of several widths needs besides.

    Raises:
        ExportError: If the target can't run the model.
        ValueError: If there is no such target.
    """
    kinds: set[tuple[object, ...]] = set()
    rest = 0
    data = representative_data
    with _as_trained(model), files_of(model, device, data) as files:
        for width in (8, 4, 2):
            built = files.all_at(width)
            file = flat.read(built.data)
            own = {_kind(code) for code in file.operatorCodes}
            rest = max(rest, _besides(built, file) - _OPERATOR_CODE * len(own))
            kinds |= own
    found = rest + _OPERATOR_CODE * len(kinds)
    return float(found - 4 * model.float_size)


@contextlib.contextmanager
def _as_trained(model: QuantizedNetwork) -> Iterator[None]:
    """While open, no two offsets or factors are equal, nor all 0 or all 1.

    A file leaves out what does nothing, and has equal constants once.
    """
    held: Any = getattr(model, "model", model)  # that of a `ModelView`
    fresh = [
        variable
        for variable in held.trainable_variables
        if _is_fresh(variable.numpy())
    ]
    rng = np.random.default_rng(0)
    with distribute.values_kept(fresh):
        for variable in fresh:
            moves = rng.uniform(1e-3, 2e-3, variable.shape)
            variable.assign(variable.numpy() + moves)
        yield


def _is_fresh(value: np.ndarray) -> bool:
    """Whether all elements are those of an initializer, 0 or 1."""
    # Of an LSTM's biases, those of the forget gates are 1.
    return bool(np.all((value == 0) | (value == 1)))


def _kind(code: Any) -> tuple[object, ...]:
    return code.builtinCode, code.customCode, code.version


def _besides(built: Built, file: Any) -> int:
    codes = {
        (record.match.constant.graph, record.tensor) for record in built.written
    }
    seen: set[int] = set()
    found = len(built.data)
    for number, graph in enumerate(file.subgraphs):
        for place, tensor in enumerate(graph.tensors):
            data = flat.raw_data(file, tensor)
            if data is None or tensor.buffer in seen:
                continue
            if (number, place) in codes:
                found -= data.nbytes
                seen.add(tensor.buffer)
    return found


@contextlib.contextmanager
def files_of(
    model: QuantizedNetwork,
    target: str,
    representative_data: Any = None,
    input_signature: Any = None,
    batch_size: int | None = None,
) -> Iterator[WidthFiles]:
    """Converts a model once, for files of it at any widths.

    Args:
        model: A quantized model, trained or not; it stays as it is.
        target: Name of an export target.
        representative_data: As in `export`.
        input_signature: As in `export`.
        batch_size: As in `export`.

    Raises:
        ExportError: If the model can't be converted.
    """
    known: Any = model
    begun = opening.opened(
        known,
        targets.load(target),
        representative_data,
        input_signature,
        batch_size,
        _SAMPLES,
        trained=False,
    )
    # Constants of a large model may lie there, as long as they are needed.
    with tempfile.TemporaryDirectory() as folder:
        yield WidthFiles(model, target, steps.convert(known, begun, folder))


class WidthFiles:
    """Files of one model at any widths.

    For other widths the codes alone are replaced, and their scales by the ratio
    of the steps. What the numbers are is only nearly right then, which changes
    no cost: operators, types and shapes are those of an export, and so are the
    codes.
    """

    def __init__(self, model: QuantizedNetwork, target: str, job: steps.Job):
        self._model = model
        self.target = targets.load(target)
        self._matching = job.matching
        self._plan: Any = job.plan(
            self.target, target_file.Limits(), calibrates=True
        )
        self.inputs = job.inputs

    def all_at(self, width: int) -> Built:
        """The file with all weights at one width."""
        return self.at(dict.fromkeys(self._model.paths, width))

    def at(self, widths: Mapping[str, int]) -> Built:
        """The file with weights at some widths, by path.

        Raises:
            ExportError: If the target can't run a part of the model.
        """
        model = self._model
        weights = model.weights_at([widths[path] for path in model.paths])
        named = dict(zip(model.paths, weights, strict=True))
        matching = self._matching
        changed = dataclasses.replace(
            matching,
            matches=tuple(_changed(m, named) for m in matching.matches),
        )
        plan = dataclasses.replace(self._plan, matching=changed)
        built: Built = plan.build(self.target)
        return built


def _changed(match: Match, weights: Mapping[str, QuantizedWeight]) -> Match:
    weight = weights[match.weight.path]
    ratio = np.median(weight.step) / np.median(match.weight.step)
    scale = (match.fit.scale * ratio).astype(np.float32)
    return dataclasses.replace(
        match,
        weight=weight,
        fit=dataclasses.replace(match.fit, scale=scale),
        twins=tuple(_changed(twin, weights) for twin in match.twins),
    )
