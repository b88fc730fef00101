"""Qualcomm's NPU: compiling a file ahead of time, and emulating it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import targets
from tflite_export.devices import beside
from tflite_export.devices import qualcomm_tools
from tflite_export.devices.result import DeviceResult
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import float_twin

NAME = "qualcomm_npu"
# The NPU rounds once, and in other places than the kernels of CPUs.
_UNITS = 2
# What one operator may differ by; depthwise convolutions differed by 2.
_OPERATOR_UNITS = 2
_SAMPLES = 8
# Operators that the compiler fuses with a HARD_SWISH behind them.
_FUSED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def known_socs() -> dict[str, dict[str, Any]]:
    """Facts by the name of a SoC: `architecture` and `containers`."""
    table: dict[str, dict[str, Any]] = targets.load(NAME).options["socs"]
    return table


def check_socs(names: Sequence[str]) -> None:
    """Raises a ValueError for SoCs that nothing is known of."""
    known = list(known_socs())
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and name in known for name in names
    ):
        raise ValueError(
            "Unknown SoCs. Expected a list of some of "
            f"{', '.join(known)}. Received: socs={names!r}"
        )


def _chosen(socs: Sequence[str] | None) -> list[str]:
    if socs is None:
        return list(targets.load(NAME).options["default_socs"])
    check_socs(socs)
    return list(dict.fromkeys(socs))


def check_installed(socs: Sequence[str] | None = None) -> None:
    """Raises an ExportError, with what to do, if the compiler is missing.

    Without any SoC it isn't needed.
    """
    if _chosen(socs):
        qualcomm_tools.installed()


def narrowed(target: Target, options: Mapping[str, Any] | None) -> Target:
    """The target with the weight types that all chosen SoCs store as they are.

    A type that a SoC widens makes what it runs larger, not smaller.
    """
    known = known_socs()
    names = _chosen((options or {}).get("socs")) or _chosen(None)
    rows = [known[name] for name in names]
    kept = tuple(
        kind
        for kind in target.containers
        if all(kind in row["containers"] for row in rows)
    )
    cells = tuple(cell for cell in target.cells if cell.weights in kept)
    return dataclasses.replace(target, containers=kept, cells=cells)


def finish(
    data: bytes,
    stem: str,
    inputs: Sequence[np.ndarray],
    max_units: int | None = None,
    *,
    socs: Sequence[str] | None = None,
    allow_cpu: bool = False,
) -> DeviceResult:
    """Compiles an int8 file for SoCs and runs the emulated NPU.

    Args:
        data: The bytes of the file.
        stem: Start of the names of the compiled files.
        inputs: Samples, one array per input.
        max_units: Largest difference of an output from LiteRT that is
            accepted; `None` for 2, or more where single units inside explain
            it.
        socs: Which to compile for; those of the target's table if `None`,
            none if empty.
        allow_cpu: Whether operators may be left to the CPU.

    Raises:
        ExportError: If the compiler isn't installed, fails, or leaves
            operators to the CPU, or the emulated NPU computes something else
            than LiteRT.
    """
    rows: dict[str, Any] = {}
    files, notes = {}, []
    chosen = _chosen(socs)
    run = _Comparison(data, inputs, max_units)
    for soc in chosen:
        compiled = qualcomm_tools.compile_file(data, soc)
        if compiled.left and not allow_cpu:
            raise ExportError(
                f"Qualcomm's compiler leaves operators to the CPU for {soc}. "
                "Expected none, or the option allow_cpu=True. Received: "
                f"{len(compiled.left)} of them, {'; '.join(compiled.left)}"
            )
        rows[soc] = {
            "architecture": known_socs()[soc]["architecture"],
            "context_bytes": compiled.context_bytes,
            "read_bytes": compiled.read_bytes,
            "compiled_bytes": len(compiled.data),
            "npu_operators": compiled.operators - len(compiled.left),
            "cpu_operators": list(compiled.left),
        }
        if compiled.left or compiled.parts != 1:
            rows[soc]["max_units"] = None
            notes.append(
                f"not emulated for {soc}: a part of the file runs on the CPU"
            )
        else:
            rows[soc]["max_units"], why = run.units(compiled.data, soc)
            if why is not None:
                notes.append(
                    f"on the emulated NPU ({soc}) the output is up to "
                    f"{rows[soc]['max_units']:g} units from that of LiteRT's "
                    f"kernels instead of {_UNITS}: {why}"
                )
        files[f"{stem}_{soc}.tflite"] = compiled.data
    if not chosen:
        notes.append("nothing was compiled: no SoC was named")
    return DeviceResult({"socs": rows} if rows else {}, files, tuple(notes))


class _Comparison:
    """Compares what compiled files compute with LiteRT's kernels."""

    def __init__(
        self,
        data: bytes,
        inputs: Sequence[np.ndarray],
        max_units: int | None,
    ):
        self._data = data
        self._inputs = inputs
        self._explains = max_units is None
        self._most = _UNITS if max_units is None else max_units
        self._wanted: list[list[np.ndarray]] = []
        self._batches: list[list[np.ndarray]] = []

    def units(self, compiled: bytes, soc: str) -> tuple[float, str | None]:
        """The largest difference of an output, in units of its grid.

        Where it is beyond the limit and accepted, also why.

        Raises:
            ExportError: If it is beyond the limit.
        """
        if not self._batches:
            self._run()
        outputs = ports.outputs(self._data)
        got = qualcomm_tools.emulate(compiled, self._batches)
        worst = max(
            ports.units(outputs, ours, theirs)
            for ours, theirs in zip(got, self._wanted, strict=True)
        )
        if worst <= self._most:
            return worst, None
        why = self._explained(got, soc) if self._explains else None
        if why is None:
            raise ExportError(
                f"The emulated NPU ({soc}) computes something else than "
                f"LiteRT's kernels. Expected outputs within {self._most} units "
                "of theirs (argument max_units), or without max_units more "
                f"where single units inside explain it. Received: {worst:g}"
            )
        return worst, why

    def _explained(
        self, got: Sequence[Sequence[np.ndarray]], soc: str
    ) -> str | None:
        """How single units inside explain a difference, if they do.

        A copy of the file that shows its tensors is compiled, too. It has to
        give what the file gave, bit for bit; each of its operators has to be
        near the float arithmetic of what it read on the NPU. What the compiler
        fuses is not shown: it would be computed in another way then.
        """
        shown = float_twin.probe(self._data, _fused(self._data))
        compiled = qualcomm_tools.compile_file(shown, soc)
        if compiled.left or compiled.parts != 1:
            return None
        inside = qualcomm_tools.emulate(compiled.data, self._batches)
        # What is shown comes after the outputs.
        if not all(
            np.array_equal(a, b)
            for ours, outputs in zip(got, inside, strict=True)
            for a, b in zip(ours, outputs, strict=False)
        ):
            return None
        return beside.operators(
            *(self._data, shown, self._batches, inside),
            lambda _: _OPERATOR_UNITS,
            f"the emulated NPU ({soc})",
        ).explanation()

    def _run(self) -> None:
        _, self._batches, self._wanted = beside.here(
            self._data, self._inputs, _SAMPLES
        )


def _fused(data: bytes) -> set[int]:
    """Tensors that are never rounded, as the compiler fuses what reads them.

    It makes one operator of a convolution or a dense layer and the HARD_SWISH
    that alone reads its result (QAIRT 2.51, emulated).
    """
    model = fb.read(data)
    graph = model.subgraphs[0]
    readers: dict[int, list[str]] = {}
    for op in graph.operators:
        for index in fb.inputs(op):
            readers.setdefault(index, []).append(fb.op_name(model, op))
    return {
        index
        for op in graph.operators
        if fb.op_name(model, op) in _FUSED
        for index in fb.outputs(op)
        if readers.get(index) == ["HARD_SWISH"]
        and index not in fb.outputs(graph)
    }
