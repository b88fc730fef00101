"""The step of an export that belongs to one kind of device."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import targets
from tflite_export.devices import arm
from tflite_export.devices import compiled_model
from tflite_export.devices import edgetpu
from tflite_export.devices import ethos_u
from tflite_export.devices import gpu
from tflite_export.devices import mcu
from tflite_export.devices import micro
from tflite_export.devices import qualcomm
from tflite_export.devices import tosa_check
from tflite_export.devices import web
from tflite_export.devices.result import DeviceResult
from tflite_export.runtime import ports
from tflite_export.targets import vela_rules

_STEPS: dict[str, Callable[..., DeviceResult]] = {
    "edgetpu": edgetpu.finish,
    ethos_u.NAME: ethos_u.finish,
    "mcu": mcu.finish,
    "qualcomm_npu": qualcomm.finish,
    "web": web.finish,
}
# Runtimes of their own; LiteRT runs the files of all others.
_NOT_LITERT = ("edgetpu", ethos_u.NAME, "mcu")
# Where else a file can be verified, by the name that `export` takes.
VERIFIERS = {"arm": arm, "gpu": gpu, "web": web}


def check_verifiers(names: Sequence[str]) -> None:
    """Raises before any work if a file can't be verified there.

    Raises:
        ExportError: If something is not installed, with what to do.
        ValueError: If there is no such place.
    """
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and name in VERIFIERS for name in names
    ):
        raise ValueError(
            "`verify_on` must be a list or tuple of names of "
            f"{', '.join(VERIFIERS)}. Received: verify_on={names!r}"
        )
    for name in names:
        VERIFIERS[name].installed()


def check_options(target: str, options: Mapping[str, Any] | None) -> None:
    """Raises a ValueError for options that a device doesn't know.

    That is before any work. Targets without a device step take no option.
    """
    if options is None:
        return
    known = _options(target)
    if not isinstance(options, Mapping):
        raise ValueError(
            "`device_options` must be a dictionary of options, of the target "
            f"'{target}' some of {', '.join(known) or '(none)'}. Received: "
            f"device_options={options!r}"
        )
    unknown = sorted(map(str, set(options) - set(known)))
    if unknown:
        raise ValueError(
            f"Unknown options for the target '{target}'. Expected some of "
            f"{', '.join(known) or '(none)'}. Received: {', '.join(unknown)}"
        )
    if "accelerators" in options:
        ethos_u.check_accelerators(options["accelerators"])
    if options.get("socs") is not None:
        qualcomm.check_socs(options["socs"])
    if "name" in options:
        mcu.check_name(options["name"])
    if options.get("allow_cpu", False) not in (True, False):
        raise ValueError(
            "`allow_cpu` must be True or False. Received: "
            f"allow_cpu={options['allow_cpu']!r}"
        )


def check_installed(
    target: str, options: Mapping[str, Any] | None = None
) -> None:
    """Raises an ExportError, with what to install, before any work."""
    if target == "mcu":
        micro.check_installed()
    elif target == ethos_u.NAME:
        ethos_u.check_installed((options or {}).get("accelerators"))
    elif target == qualcomm.NAME:
        qualcomm.check_installed((options or {}).get("socs"))


def narrowed(
    target: targets.Target, options: Mapping[str, Any] | None
) -> targets.Target:
    """The target as the chosen devices have it, see `qualcomm.narrowed`."""
    if target.name == qualcomm.NAME:
        return qualcomm.narrowed(target, options)
    return target


def runs(target: str, message: str, options: Mapping[str, Any] | None) -> bool:
    """Tells whether the chosen devices run what others of a target don't.

    Args:
        target: Name of a target.
        message: What speaks against a file, as `lint` finds it.
        options: As in `export`.
    """
    if target != ethos_u.NAME or not message.endswith(vela_rules.ONLY_U85):
        return False
    chosen = (options or {}).get("accelerators") or ()
    return bool(chosen) and all(ethos_u.is_u85(name) for name in chosen)


def finish(
    target: str,
    data: bytes,
    stem: str,
    inputs: Sequence[np.ndarray],
    options: Mapping[str, Any] | None = None,
    max_units: int | None = None,
    verify_on: Sequence[str] = (),
) -> DeviceResult:
    """Runs the tools of a device over a file; writes nothing.

    Integer files also run on the TOSA reference model, where it is installed,
    and files for LiteRT in its `CompiledModel`.

    Args:
        target: Name of a target.
        data: The bytes of the file.
        stem: Name of the file without its ending, for those beside it.
        inputs: Samples to run, one array per input.
        options: `mcu`: `name` of the C array. `ethos_u`: `accelerators` to
            compile for, `allow_cpu` for operators left to the CPU.
            `qualcomm_npu`: `socs` to compile for, and `allow_cpu`.
        max_units: Largest difference of an output between runtimes that is
            accepted, `None` for the usual one.
        verify_on: Keys of `VERIFIERS`: where to run the file besides.

    Raises:
        ExportError: If a tool or a rule refuses the file.
        ValueError: If an option is wrong.
    """
    options = dict(options or {})
    check_options(target, options)
    policy = targets.load(target)
    result, figures = DeviceResult(), {}
    if policy.integer:
        step = _STEPS.get(target)
        if step is not None:
            if "max_units" in inspect.signature(step).parameters:
                options["max_units"] = max_units
            result = step(data, stem, inputs, **options)
        figures = {
            **result.figures,
            "tosa": tosa_check.verify(data, inputs, policy),
        }
    runtimes = {name: VERIFIERS[name].verify for name in verify_on}
    if target not in _NOT_LITERT:
        runtimes = {"compiled_model": compiled_model.verify, **runtimes}
    reason = ports.draws(data)
    for name, verify in runtimes.items():
        figures[name] = (
            {"skipped": reason} if reason else verify(data, inputs, policy)
        )
    return dataclasses.replace(result, figures=figures)


def _options(target: str) -> list[str]:
    step = _STEPS.get(target)
    if step is None:
        return []
    parameters = inspect.signature(step).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
