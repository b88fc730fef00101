"""Figures of a device as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich.table

from tflite_export.text_tables import table

_COLUMNS = {
    "encoded_bytes": "weights",
    "bits_per_weight": "bits each",
    "sram_bytes": "SRAM",
    "dram_bytes": "DRAM",
    "flash_bytes": "flash",
    "estimated_ms": "ms",
    "compiled_bytes": "file",
}
_ON_SOCS = {
    "context_bytes": "context",
    "read_bytes": "read",
    "compiled_bytes": "file",
    "max_units": "units",
}
_OWN_TABLES = ("accelerators", "socs")


def tables(figures: dict[str, Any]) -> list[rich.table.Table]:
    """Tables of `DeviceResult.figures`; none where there are no figures."""
    found = []
    accelerators = figures.get("accelerators")
    if accelerators:
        rows = table(
            "Vela: bytes of encoded weights, memory and file; estimated time",
            ["accelerator"],
            list(_COLUMNS.values()),
            ["on the CPU"],
        )
        for name, values in accelerators.items():
            cells = [_cell(values[key]) for key in _COLUMNS]
            rows.add_row(name, *cells, _cell(values["cpu_operators"]))
        found.append(rows)
    socs = figures.get("socs")
    if socs:
        rows = table(
            "Qualcomm NPU: bytes of what it runs, of what an inference reads "
            "from memory, and of the file; units from LiteRT's kernels",
            ["SoC"],
            list(_ON_SOCS.values()),
            ["on the CPU"],
        )
        for name, values in socs.items():
            cells = [_cell(values[key]) for key in _ON_SOCS]
            rows.add_row(name, *cells, _cell(values["cpu_operators"]))
        found.append(rows)
    rest = {k: v for k, v in figures.items() if k not in _OWN_TABLES}
    if rest:
        rows = table("device", ["what", "figure"])
        for name, value in _flat(rest):
            rows.add_row(name.replace("_", " "), _cell(value))
        found.append(rows)
    return found


def _flat(figures: dict[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{head}{name}: ")
        else:
            yield f"{head}{name}", value


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
