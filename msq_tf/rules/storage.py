"""How export targets store weights: what a search needs to promise bytes.

A width pays only if a container for it exists: `min_size` stores 3-bit codes
in 4 bits. Containers are those of the exporter's tables, see `target_facts`;
what a file has besides codes was measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf.bit_widths import MAX_BITS
from msq_tf.bit_widths import MIN_BITS
from msq_tf.rules.records import LayerStats
from msq_tf.rules.target_facts import FACTS
from msq_tf.weight_layout import Layout

DENSE = "dense"  # a matrix product
ONE_OUTPUT = "one_output"  # the same, of one column: one scale in any file
POINTWISE = "pointwise"  # a convolution that is such a product per pixel
STRIDED = "strided_pointwise"  # the same of some pixels alone
CONV = "conv"
DEPTHWISE = "depthwise"
OTHER = "other"
KINDS = (DENSE, ONE_OUTPUT, POINTWISE, STRIDED, CONV, DEPTHWISE, OTHER)

# What a packed file stores codes in, and so the widths that make it smaller.
CONTAINERS = (8, 4, 2)

# Weights from which on what a file has besides codes hardly counts.
_LARGE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Device:
    """Bytes that a target stores.

    Attributes:
        name: Name of the export target.
        widths: By kind of weight, the stored bits, widest first, and the
            multiple of inputs that kernels take them for.
        channel_bytes: Bytes of an output channel: scale, zero point, bias.
        layer_bytes: Bytes of a weight's operators and tensors.
        base_bytes: Bytes of an otherwise empty file.
        by_weight: Whether some weights have fewer widths than others of their
            kind, by what surrounds them.
        one_scale: Whether matrices with one scale have widths of their own.
        own_format: Whether what the device runs is no TFLite file.
    """

    name: str
    widths: Mapping[str, Mapping[int, int]]
    channel_bytes: float
    layer_bytes: float
    base_bytes: float
    by_weight: bool = False
    one_scale: bool = False
    own_format: bool = False

    def containers(self, layer: LayerStats) -> tuple[int, ...]:
        """Stored bits that a weight may have, widest first."""
        return layer.containers or tuple(
            bits
            for bits, multiple in self.widths[layer.kind].items()
            if layer.inputs % multiple == 0
        )

    def known_by_file(self, layer: LayerStats) -> bool:
        """Whether only a file tells the stored bits that a weight may have.

        One scale becomes several where a batch normalization is folded in.
        """
        one_scale = self.one_scale and layer.one_scale
        return self.by_weight or (one_scale and layer.kind == DENSE)

    def wants_one_scale(self, layer: LayerStats) -> bool:
        """Whether a weight may have more widths with one scale."""
        return self.one_scale and layer.kind == DENSE and not layer.one_scale

    def stored(self, layer: LayerStats, bits: int) -> int:
        """Bits a code of `bits` takes: the narrowest container it fits."""
        return min(width for width in self.containers(layer) if width >= bits)

    def counts_bytes_of(self, size: int) -> bool:
        """Whether only a file of so many weights tells its bytes.

        Of a large one nearly all are codes; an estimate is near enough.
        """
        return self.base_bytes > 0.0 and not self.own_format and size < _LARGE

    def overhead(self, layers: Sequence[LayerStats]) -> float:
        """Bytes of a file besides its codes; an estimate."""
        channels = sum(layer.channels for layer in layers)
        return (
            self.base_bytes
            + self.layer_bytes * len(layers)
            + self.channel_bytes * channels
        )


# Of what Qualcomm's NPU runs (benchmarks/results/qualcomm.json): bytes of a
# channel, of a layer, and of an empty context.
_CONTEXT = (24.5, 1024.0, 51934.0)


def _on_socs() -> list[Device]:
    """Qualcomm's NPU: by itself what every SoC stores that it is for.

    Others have more widths, or none below 8 bits.
    """
    facts = FACTS["qualcomm_npu"]
    found = []
    for soc, containers in facts.socs.items():
        widths = {
            kind: {w: n for w, n in bits.items() if w in containers}
            for kind, bits in facts.widths.items()
        }
        by_weight = bool(set(facts.narrow).intersection(containers))
        if max(map(len, widths.values())) > 1:
            name = f"qualcomm_npu:{soc}"
            found.append(
                Device(name, widths, *_CONTEXT, by_weight, own_format=True)
            )
    usual = [facts.socs[soc] for soc in facts.default_socs]
    widths = {
        kind: {w: n for w, n in bits.items() if all(w in k for k in usual)}
        for kind, bits in facts.widths.items()
    }
    return [
        Device("qualcomm_npu", widths, *_CONTEXT, own_format=True),
        *found,
    ]


# Vela stores n-bit codes in about n bits, without containers.
_ANY = dict.fromkeys(KINDS, dict.fromkeys(range(MAX_BITS, MIN_BITS - 1, -1), 1))
# Bytes besides codes were fitted to exported files of ResNet-8, ResNet-20 and
# MobileNetV2 (benchmarks/results/sizes.json).
DEVICES = {
    device.name: device
    for device in (
        Device("min_size", FACTS["min_size"].widths, 11.54, 182.0, 2182.0),
        Device("cpu_int8", FACTS["cpu_int8"].widths, 15.42, 196.0, 2333.0),
        # Files of cpu_int8, but for strides of 1x1 convolutions.
        Device("web", FACTS["web"].widths, 15.42, 196.0, 2333.0),
        Device(
            "mcu", FACTS["mcu"].widths, 15.43, 191.0, 2232.0, one_scale=True
        ),
        # Bytes are those of the encoded weights.
        Device("ethos_u", _ANY, 0.0, 0.0, 0.0),
        *(
            Device(f"ethos_u:{name}", _ANY, 0.0, 0.0, 0.0)
            for name in FACTS["ethos_u"].accelerators
        ),
        *_on_socs(),
    )
}


def device(name: str) -> Device:
    """Looks a device up.

    Raises:
        ValueError: If no width below 8 bits pays there, or it is unknown.
    """
    if not isinstance(name, str) or name not in DEVICES:
        raise ValueError(
            "`device` must name a target whose files get smaller with the "
            f"bits. Expected one of {sorted(DEVICES)}. Received: "
            f"device={name!r}"
        )
    return DEVICES[name]


def kind_of(
    layer: Any, layout: Layout, shape: Sequence[int], channels: int
) -> str:
    """Kind of a weight of a Keras layer, as far as containers depend on it."""
    if layout in (Layout.DENSE, Layout.EINSUM):
        return DENSE if channels > 1 else ONE_OUTPUT
    if layout == Layout.DEPTHWISE:
        return DEPTHWISE
    if layout != Layout.CONV:
        return OTHER
    pointwise = math.prod(shape[:-2]) == 1 and getattr(layer, "groups", 1) == 1
    if not pointwise or channels == 1:
        return CONV
    strides = set(getattr(layer, "strides", (1,)))
    return POINTWISE if strides == {1} else STRIDED
