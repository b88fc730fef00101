"""Layers that export targets can't run, named before the training.

One trained model goes to every target, and the exporter writes layers in
another way if a target needs that. This table has only layers that the kernels
of a target can't compute, by class. A test exports these layers and compares
the table with what the exporter refuses. Types of activations are those of the
exporter's tables, see `target_facts`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf import extras
from msq_tf.rules.target_facts import FACTS

_NORM = "a variance needs float operators; use BatchNormalization"
_LOOP = "loops run in float; build it with unroll=True"
_3D = "it has no 3-D convolutions"
_NO_LOOKUP = "it can't look rows of a table up"
_NO_PRODUCT = "it can't multiply two activations as matrices"
_NO_KERNEL = "it has no such operator; use relu, relu6, sigmoid or tanh"

_DEVICE = {
    "Conv3D": _3D,
    "Conv3DTranspose": _3D,
    "GroupNormalization": _NORM,
    "LayerNormalization": _NORM,
    "RMSNormalization": _NORM,
}
_ON_EDGE_TPU = {
    **_DEVICE,
    "AdditiveAttention": _NO_PRODUCT,
    "Attention": _NO_PRODUCT,
    "Dot": _NO_PRODUCT,
    "ELU": _NO_KERNEL,
    "Embedding": _NO_LOOKUP,
    "GroupedQueryAttention": _NO_PRODUCT,
    "MultiHeadAttention": _NO_PRODUCT,
}
_EDGE_TPU_ACTIVATIONS = dict.fromkeys(
    (
        *("celu", "elu", "exponential", "gelu", "hard_shrink"),
        *("log_sigmoid", "log_softmax", "mish", "selu", "softplus"),
        *("softsign", "sparse_plus", "squareplus"),
    ),
    _NO_KERNEL,
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one target.

    Attributes:
        activation_bits: What activations have to be trained with if they are
            quantized; `None` for any.
        layers: Reasons by the name of a layer's class.
        activations: Reasons by the name of an activation function.
        float_regions: Whether parts of a file may compute in float, which loops
            of recurrent layers do.
        extra: What an export needs to be installed, one of
            `extras.MODULES`; empty for nothing.
    """

    activation_bits: int | None = None
    layers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    activations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    float_regions: bool = True
    extra: str = ""


# What is said of a target beyond the exporter's tables.
_OWN: dict[str, dict[str, Any]] = {
    "mcu": {"layers": _DEVICE, "extra": "mcu"},
    "ethos_u": {"layers": _DEVICE, "extra": "ethos"},
    "edgetpu": {
        "layers": _ON_EDGE_TPU,
        "activations": _EDGE_TPU_ACTIVATIONS,
    },
}
TARGETS = {
    name: Limits(
        activation_bits=fact.activation_bits,
        float_regions=fact.float_regions,
        **_OWN.get(name, {}),
    )
    for name, fact in FACTS.items()
}


def check_names(names: Any) -> None:
    """Raises a ValueError, with the known ones, for what names no targets."""
    several = isinstance(names, Iterable) and not isinstance(names, str)
    if not several or not all(
        isinstance(name, str) and name in TARGETS for name in names
    ):
        raise ValueError(
            "`targets` is a tuple of names of export targets. Expected some "
            f"of {sorted(TARGETS)}. Received: targets={names!r}"
        )


def not_installed(names: Iterable[str]) -> list[str]:
    """Tools that exports need and this machine lacks, a sentence a target."""
    return [
        f"target '{name}' needs {' and '.join(lacking)}: "
        f"{extras.install(extra)}"
        for name in dict.fromkeys(names)
        if (extra := TARGETS[name].extra) and (lacking := extras.missing(extra))
    ]


def check_bits(names: Sequence[str], bits: int | None) -> None:
    """Raises a ValueError for a width of activations that no target stores."""
    for name in names:
        wanted = TARGETS[name].activation_bits
        if None not in (wanted, bits) and bits != wanted:
            raise ValueError(
                f"`targets` has '{name}', which stores activations of "
                f"{wanted} bits. Expected activation_bits={wanted}, or None "
                "to measure ranges at export, or other targets. Received: "
                f"activation_bits={bits}, targets={tuple(names)!r}"
            )


def check_layers(
    layers: Sequence[tuple[str, Any]], names: Sequence[str], kinds: Any
) -> None:
    """Raises a ValueError for layers that can't run on the named targets.

    Args:
        layers: Paths and layers of a model.
        names: Names of targets.
        kinds: The `layers` module of the Keras that they are of.
    """
    found = [
        f"'{path}' ({type(layer).__name__}) on '{name}': {reason}"
        for name in names
        for path, layer in layers
        if (reason := _against(layer, TARGETS[name], kinds)) is not None
    ]
    if found:
        raise ValueError(
            "The model has layers that can't run where `targets` says. "
            "Expected other layers, or `targets` without these. Received: "
            f"{'; '.join(found)}"
        )


def _against(layer: Any, limits: Limits, kinds: Any) -> str | None:
    for ancestor in type(layer).__mro__:
        if ancestor.__name__ in limits.layers:
            return limits.layers[ancestor.__name__]
    unrolled = getattr(layer, "unroll", False)
    loops = isinstance(layer, kinds.RNN) and not unrolled
    if loops and not limits.float_regions:
        return _LOOP
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", None)
    return limits.activations.get(name) if name else None
