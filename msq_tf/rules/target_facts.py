"""Facts on export targets that searches and configurations need, as data.

`target_facts.json` is written from the tables of `tflite_export/targets`, which
this package does not import, by `python -m tools.target_facts`. A test compares
them.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TargetFacts:
    """Facts on one target.

    Attributes:
        activation_bits: Bits of integer activations; `None` for floats.
        float_regions: Whether parts of a file may compute in float.
        widths: By kind of weight as in `storage.KINDS`, the bits of its
            containers, widest first, and the multiple of inputs that kernels
            take them for.
        socs: Bits of the containers by the name of a SoC, where these differ.
        default_socs: The SoCs that files are for if none is named.
        narrow: Widths that not all weights of a kind may have.
        booleans: Whether inputs and outputs may be booleans.
        accelerators: The accelerators that files are compiled for.
    """

    activation_bits: int | None
    float_regions: bool
    widths: Mapping[str, Mapping[int, int]]
    socs: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=dict
    )
    default_socs: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    narrow: tuple[int, ...] = ()
    booleans: bool = True


def _read() -> dict[str, TargetFacts]:
    file = importlib.resources.files("msq_tf.rules") / "target_facts.json"
    return {
        name: TargetFacts(
            facts["activation_bits"],
            facts["float_regions"],
            {
                kind: {int(bits): multiple for bits, multiple in row.items()}
                for kind, row in facts["widths"].items()
            },
            {soc: tuple(bits) for soc, bits in facts.get("socs", {}).items()},
            tuple(facts.get("default_socs", ())),
            tuple(facts.get("accelerators", ())),
            tuple(facts.get("narrow", ())),
            facts.get("booleans", True),
        )
        for name, facts in json.loads(file.read_text("utf-8")).items()
    }


FACTS = _read()
