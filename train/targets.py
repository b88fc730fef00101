"""The export targets that `--targets` names."""

from __future__ import annotations

import tflite_export
from tflite_export import devices
from train.settings import Settings

ALL = ("all",)


def chosen(settings: Settings) -> tuple[str, ...]:
    """Returns the targets to write files for; `all` resolved.

    Targets whose tools are an environment of their own have to be named.

    Raises:
        ValueError: If there is no such target, or none.
    """
    names = settings.targets
    if names == ALL:
        modes = {"weight_only", f"int{settings.activation_bits}"}
        return tuple(
            name
            for name in tflite_export.targets.names()
            if not tflite_export.targets.load(name).optional
            and (
                settings.activation_bits is None
                or tflite_export.targets.load(name).mode in modes
            )
        )
    known = tflite_export.targets.names()
    if not names or set(names) - set(known):
        raise ValueError(
            "There is no such export target. Expected some of "
            f"{', '.join(known)}, or `all` alone. Received: "
            f"targets={','.join(names)}"
        )
    return names


def check_installed(settings: Settings) -> None:
    """Refuses targets, and places to verify, whose tools are not there.

    Raises:
        ValueError: With what to install.
    """
    devices.check_verifiers(settings.verify_on)
    for name in chosen(settings):
        try:
            devices.check_installed(name)
        except tflite_export.ExportError as error:
            raise ValueError(
                f"{error}. Or leave the target out. Received: "
                f"targets={','.join(settings.targets)}"
            ) from error


def is_integer(target: str) -> bool:
    """Returns whether a target has integer activations."""
    return tflite_export.targets.load(target).integer
