"""Layers that export targets can't run, named before the training.

One trained model goes to every target, and the exporter writes layers in
another way if a target needs that. This table has only layers that the kernels
of a target can't compute, by class. A test exports these layers and compares
the table with what the exporter refuses. Types of activations are those of the
exporter's tables, see `target_facts`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from msq_tf import extras
from msq_tf.rules import layer_settings
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
_NO_OPERATION = "it has no such operator; compute it outside of the model"
# Operations between layers, by the names of Keras' classes.
_NO_OPERATIONS = dict.fromkeys(("Cumsum", "TopK"), _NO_OPERATION)
_NO_ERF = "it has no error function; use gelu or tanh"
_ON_ETHOS_U = {
    **_DEVICE,
    **_NO_OPERATIONS,
    **dict.fromkeys(
        (
            *("Ceil", "Cos", "Floor", "Norm", "Power", "Round", "Sign", "Sin"),
            *("Argmin", "Logsumexp", "OneHot", "Sqrt", "Std"),
        ),
        _NO_OPERATION,
    ),
}
_ON_U85 = (
    "of the Ethos-U only U85 has its operators: export with "
    "device_options={'accelerators': ['ethos-u85-256']}"
)
_ON_ITS_CPU = (
    "Vela leaves the search for rows to the CPU: export with "
    "device_options={'allow_cpu': True}"
)
_ETHOS_U_NARROW = {
    "Argmax": _ON_U85,
    "Erf": _ON_U85,
    "Embedding": _ON_ITS_CPU,
    "Take": _ON_ITS_CPU,
    "Greater": _ON_U85,
    "GreaterEqual": _ON_U85,
    "Less": _ON_U85,
    "LessEqual": _ON_U85,
    "TrueDivide": _ON_U85,
    "Divide": _ON_U85,
    "Where": _ON_U85,
}
_ETHOS_U_ACTIVATIONS = dict.fromkeys(
    ("gelu", "log_softmax", "squareplus"), _NO_KERNEL
)
_U85_ACTIVATIONS = dict.fromkeys(("hard_shrink", "selu", "softsign"), _ON_U85)
_ON_EDGE_TPU = {
    **_ON_ETHOS_U,
    **dict.fromkeys(
        (
            *("Argmax", "Divide", "Exp", "Flip", "Greater", "GreaterEqual"),
            *("Less", "LessEqual", "Log", "Take", "TrueDivide", "Where"),
        ),
        _NO_OPERATION,
    ),
    "Erf": _NO_ERF,
    "ExtractPatches": "it can't exchange axes of whole images",
    "Matmul": _NO_PRODUCT,
    "AdditiveAttention": _NO_PRODUCT,
    "Attention": _NO_PRODUCT,
    "Dot": _NO_PRODUCT,
    "ELU": _NO_KERNEL,
    "Embedding": _NO_LOOKUP,
    "GroupedQueryAttention": _NO_PRODUCT,
    "MultiHeadAttention": _NO_PRODUCT,
}
_ON_QUALCOMM_NPU = {
    **_DEVICE,
    **_NO_OPERATIONS,
    **dict.fromkeys(
        (
            *("Ceil", "Cos", "Exp", "Floor", "Logsumexp", "OneHot", "Power"),
            *("Round", "Sign", "Sin"),
        ),
        _NO_OPERATION,
    ),
    "Erf": _NO_ERF,
}
_QUALCOMM_NPU_ACTIVATIONS = dict.fromkeys(
    (
        *("celu", "exponential", "log_sigmoid", "log_softmax", "mish", "selu"),
        *("softplus", "sparse_plus"),
    ),
    "its compiler has no exponential function; use relu, gelu or silu",
)
_AXES = (
    "it computes with three axes beside the batch's, so a sequence of images "
    "can't run"
)
_DILATION = "its convolutions have the same dilation along both axes"
_THRESHOLD = "it can't compare; use a ReLU without a threshold"
_REFLECT = "it pads with zeros only"
_DEPTH = "it reduces channels in multiples of four only"
_POWERS = "it blends images by powers of two only; use nearest up-sampling"
_WINDOW = "it averages at most 8 pixels a side with padding; pad before it"
# No file has it, whatever runs the file.
_DILATED = (
    layer_settings.dilated_transposed,
    "TFLite has no transposed convolution with dilations",
)


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
        settings: Reasons by what is asked of a layer.
        narrow: What to do, by the name of a layer's class, where only a part
            of the devices runs it, or an option is needed.
        narrow_activations: The same by the name of an activation function.
        narrow_settings: The same by what is asked of a layer.
    """

    activation_bits: int | None = None
    layers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    activations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    float_regions: bool = True
    extra: str = ""
    settings: Sequence[tuple[Callable[[Any], bool], str]] = ()
    narrow: Mapping[str, str] = dataclasses.field(default_factory=dict)
    narrow_activations: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )
    narrow_settings: Sequence[tuple[Callable[[Any], bool], str]] = ()


# What is said of a target beyond the exporter's tables.
_OWN: dict[str, dict[str, Any]] = {
    "mcu": {
        "layers": {
            **_DEVICE,
            **_NO_OPERATIONS,
            "Cropping3D": "it slices four axes at most",
            "OneHot": _NO_OPERATION,
        },
        "extra": "mcu",
    },
    "ethos_u": {
        "layers": _ON_ETHOS_U,
        "activations": _ETHOS_U_ACTIVATIONS,
        "extra": "ethos",
        "narrow": _ETHOS_U_NARROW,
        "narrow_activations": _U85_ACTIVATIONS,
        "settings": (
            (layer_settings.other_than_powers, _POWERS),
            (layer_settings.wide_average, _WINDOW),
        ),
        "narrow_settings": tuple(
            (setting, _ON_U85)
            for setting in (
                layer_settings.has_threshold,
                layer_settings.long_strides,
                layer_settings.other_than_doubled,
                layer_settings.unusual_transposed,
            )
        ),
    },
    "qualcomm_npu": {
        "layers": _ON_QUALCOMM_NPU,
        "activations": _QUALCOMM_NPU_ACTIVATIONS,
        "settings": (
            (
                layer_settings.deep,
                "it computes wrong numbers on five axes (255 units off)",
            ),
        ),
    },
    "edgetpu": {
        "layers": _ON_EDGE_TPU,
        "activations": _EDGE_TPU_ACTIVATIONS,
        "settings": (
            (layer_settings.uneven_dilation, _DILATION),
            (layer_settings.four_long_axes, _AXES),
            (layer_settings.has_threshold, _THRESHOLD),
            (layer_settings.reflects, _REFLECT),
            (layer_settings.odd_depth, _DEPTH),
        ),
    },
}
TARGETS = {
    name: Limits(
        activation_bits=fact.activation_bits,
        float_regions=fact.float_regions,
        **{
            **_OWN.get(name, {}),
            "settings": (_DILATED, *_OWN.get(name, {}).get("settings", ())),
        },
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


def check_booleans(ends: Sequence[str], names: Sequence[str]) -> None:
    """Raises a ValueError for boolean inputs or outputs that a target lacks.

    Args:
        ends: Words for each input and output of booleans.
        names: Names of targets.
    """
    lacking = [name for name in names if not FACTS[name].booleans]
    if ends and lacking:
        raise ValueError(
            "The model has booleans at its ends, which files for the targets "
            f"{lacking} can't have. Expected another type there, as of "
            "keras.ops.cast(x, 'int32'), or `targets` without these. "
            f"Received: {', '.join(ends)}"
        )


def _against(layer: Any, limits: Limits, kinds: Any) -> str | None:
    for ancestor in type(layer).__mro__:
        if ancestor.__name__ in limits.layers:
            return limits.layers[ancestor.__name__]
    unrolled = getattr(layer, "unroll", False)
    loops = isinstance(layer, kinds.RNN) and not unrolled
    if loops and not limits.float_regions:
        return _LOOP
    for applies, reason in limits.settings:
        if applies(layer):
            return reason
    for name in _activations(layer):
        if name in limits.activations:
            return limits.activations[name]
    return None


def _activations(layer: Any) -> list[str]:
    """Names of the functions that a layer activates with, or that it is."""
    functions = [
        getattr(layer, attribute, None)
        for attribute in ("activation", "recurrent_activation")
    ]
    named = [str(getattr(f, "__name__", "")) for f in functions]
    # An operation of Keras, as `keras.ops.softplus` makes one, has its class.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
    return [*(text.removesuffix("_v2") for text in named), name]


def narrow(
    layers: Sequence[tuple[str, Any]], names: Sequence[str]
) -> list[str]:
    """Lists what exports need for layers that not all devices of a target run.

    Args:
        layers: Paths and layers of a model.
        names: Names of targets.

    Returns:
        One sentence a layer and target.
    """
    found = []
    for name in names:
        limits = TARGETS[name]
        for path, layer in layers:
            texts = [
                limits.narrow[ancestor.__name__]
                for ancestor in type(layer).__mro__
                if ancestor.__name__ in limits.narrow
            ]
            texts += [
                text
                for applies, text in limits.narrow_settings
                if applies(layer)
            ]
            texts += [
                limits.narrow_activations[function]
                for function in _activations(layer)
                if function in limits.narrow_activations
            ]
            if texts:
                found.append(
                    f"'{path}' ({type(layer).__name__}) on '{name}': {texts[0]}"
                )
    return found
