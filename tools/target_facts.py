"""Writes what training knows of export targets from the exporter's tables.

    python -m tools.target_facts          # msq_tf/rules/target_facts.json
    python -m tools.target_facts --check  # compares only

`msq_tf` imports nothing of the exporter, so it reads a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from msq_tf.rules import storage
from tflite_export import targets
from tflite_export.targets import Target

FILE = Path("msq_tf/rules/target_facts.json")
_BITS = {"int8": 8, "int16": 16}
_DENSE, _CONV = "FULLY_CONNECTED", "CONV_2D"
# Operators that weights of a kind may be read by; a kind has the containers
# that all of them take.
_OPERATORS = {
    storage.DENSE: (_DENSE,),
    storage.ONE_OUTPUT: (_DENSE,),
    storage.POINTWISE: (_CONV,),
    storage.STRIDED: (_CONV,),
    storage.CONV: (_CONV,),
    storage.DEPTHWISE: ("DEPTHWISE_CONV_2D",),
    storage.OTHER: (_DENSE, "TRANSPOSE_CONV"),
}
# Multiples of inputs that kernels for packed weights may want.
_MULTIPLES = (1, 2, 4)


def _widths(target: Target, kind: str) -> dict[str, int]:
    operators = _OPERATORS[kind]
    if target.pointwise_as_fully_connected and (
        kind == storage.POINTWISE or kind == storage.STRIDED and target.gpu
    ):
        operators = _OPERATORS[storage.DENSE]
    scales = "per_tensor" if kind == storage.ONE_OUTPUT else "per_channel"
    found = {}
    for container in reversed(target.containers):
        bits = targets.CONTAINERS[container]
        multiples = [
            multiple
            for multiple in _MULTIPLES
            if all(
                target.allows(op, container, scales, multiple)
                for op in operators
            )
        ]
        # 8 bits always have a place, if need be with one scale.
        if bits == 8:
            found[str(bits)] = 1
        elif multiples:
            found[str(bits)] = multiples[0]
    return found


def _socs(target: Target) -> dict[str, Any]:
    """What SoCs store, of a target that knows some."""
    socs = target.options.get("socs")
    if socs is None:
        return {}
    return {
        "socs": {
            name: [targets.CONTAINERS[kind] for kind in row["containers"]]
            for name, row in socs.items()
        },
        "default_socs": target.options["default_socs"],
        "narrow": [
            targets.CONTAINERS[kind]
            for kind in target.options.get("narrow_weights", {})
        ],
    }


def _ports(target: Target) -> dict[str, Any]:
    """Whether a target has no booleans at its ends, where that is known."""
    types = target.options.get("rules", {}).get("ports")
    return {} if types is None or "BOOL" in types else {"booleans": False}


def _accelerators(target: Target) -> dict[str, Any]:
    """What files are compiled for, of a target that knows some."""
    known = target.options.get("accelerators")
    return {} if known is None else {"accelerators": list(known)}


def text() -> str:
    """The file's text."""
    facts = {}
    for name in targets.names():
        target = targets.load(name)
        facts[name] = {
            "activation_bits": _BITS.get(target.mode),
            "float_regions": not target.integer or bool(target.float_regions),
            **_ports(target),
            **_socs(target),
            **_accelerators(target),
            "widths": {kind: _widths(target, kind) for kind in storage.KINDS},
        }
    return json.dumps(facts, indent=2) + "\n"


def main(arguments: list[str]) -> int:
    """Writes the file, or with `--check` returns 1 where it would change."""
    if "--check" not in arguments:
        FILE.write_text(text(), encoding="utf-8")
        return 0
    return int(FILE.read_text(encoding="utf-8") != text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
