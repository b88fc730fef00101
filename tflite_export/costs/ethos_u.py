"""Ethos-U: what Vela estimates of files at every width."""

from __future__ import annotations

from collections.abc import Sequence

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.device_costs import DeviceCosts
from tflite_export.costs.files import Files
from tflite_export.costs.files import readers
from tflite_export.devices import ethos_u

NAMES = tuple(f"ethos_u:{name}" for name in ethos_u.known_accelerators())


def costs(
    files: Files, device: str, accelerator: str, paths: Sequence[str]
) -> DeviceCosts:
    """Compiles one file a width, and sums what Vela says by weight.

    Raises:
        ExportError: As `ethos_u.operator_costs`.
    """
    latency: dict[str, dict[int, float]] = {path: {} for path in paths}
    ram: dict[str, dict[int, float]] = {path: {} for path in paths}
    rest_latency = rest_ram = 0.0
    version = ""
    for width in range(MAX_BITS, MIN_BITS - 1, -1):
        built = files.at(dict.fromkeys(paths, width))
        found, version = ethos_u.operator_costs(built.data, accelerator)
        reads = readers(built)
        for path in paths:
            own = [
                cost
                for place, cost in found.items()
                if reads.get(place) == path
            ]
            latency[path][width] = sum(cost.milliseconds for cost in own)
            ram[path][width] = max((c.ram_bytes for c in own), default=0.0)
        others = [c for place, c in found.items() if place not in reads]
        # Weights do not change it but for where they lie meanwhile.
        rest_latency = max(
            rest_latency, sum(cost.milliseconds for cost in others)
        )
        rest_ram = max([rest_ram, *(cost.ram_bytes for cost in others)])
    return DeviceCosts(
        device=device,
        source=f"the estimate of Vela {version}",
        latency=latency,
        rest_latency=rest_latency,
        ram=ram,
        rest_ram=rest_ram,
    )
