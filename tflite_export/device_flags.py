"""The command line's flags for options of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from tflite_export import quiet
from tflite_export import targets

# What a device step takes: its targets, and the flag for it.
_FLAGS = {
    "accelerators": (("ethos_u",), "accelerators"),
    "allow_cpu": (("ethos_u", "qualcomm_npu"), "allow_cpu"),
    "name": (("mcu",), "c_name"),
    "socs": (("qualcomm_npu",), "socs"),
}


def define(own: dict[str, Any]) -> None:
    """Defines the flags; `own` has the values and the module they are of."""
    flags.DEFINE_list(
        "accelerators",
        None,
        "ethos_u: accelerators to compile for, such as ethos-u55-128.",
        **own,
    )
    flags.DEFINE_boolean(
        "allow_cpu",
        None,
        "ethos_u, qualcomm_npu: whether operators may be left to the CPU.",
        **own,
    )
    flags.DEFINE_list(
        "socs",
        None,
        "qualcomm_npu: SoCs to compile for, such as SM8650.",
        **own,
    )
    flags.DEFINE_string(
        "c_name", None, "mcu: name of the C array and its files.", **own
    )


def options(target: str, values: flags.FlagValues) -> dict[str, Any]:
    """The options of a target that were given.

    Raises:
        ExportError: If its tools are not installed.
        ValueError: If there is no such target, or an option is wrong.
    """
    targets.load(target)
    found = {
        option: values[flag].value
        for option, (owners, flag) in _FLAGS.items()
        if target in owners and values[flag].value is not None
    }
    # TensorFlow takes seconds to load, and whoever only reads needs none.
    with quiet.start():
        from tflite_export import devices

    devices.check_options(target, found)
    devices.check_installed(target, found)
    return found


def check_owners(wanted: Sequence[str], values: flags.FlagValues) -> None:
    """Refuses flags of targets that are not asked for.

    Raises:
        ValueError: If there is one.
    """
    or_ = "' or '"
    for owners, flag in _FLAGS.values():
        if values[flag].value is not None and not {*owners} & {*wanted}:
            raise ValueError(
                f"--{flag} is for target '{or_.join(owners)}'. Expected "
                "it among the targets, or no such flag. Received: "
                f"--target={','.join(wanted)}"
            )
