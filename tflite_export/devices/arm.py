"""ARM's kernels, on cores that are emulated.

Phones are ARM, and LiteRT has kernels of its own for them. XNNPACK and the
reference kernels compute there what they compute on x86, to the bit; the
builtin ones round otherwise, by a unit an operator. QEMU runs LiteRT's wheel
for ARM, so it is those kernels that are run, each with the instructions that
the core has: `smlal` on Cortex-A53, `sdot` on A76, `smmla` on `max`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.devices import beside
from tflite_export.devices import command
from tflite_export.errors import ExportError
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports
from tflite_export.targets import Target
from tflite_export.verification import float_twin

# By what QEMU calls them. QEMU 7.2 computes SVE wrongly.
CORES = {
    "cortex-a53": "cortex-a53",
    "cortex-a76": "cortex-a76",
    "max": "max,sve=off",
}
# Where `make setup-arm` makes it, and how to say otherwise.
ENVIRONMENT = "MSQ_TF_ARM_DIR"
_DEFAULT = Path(".venv-arm")
_WORKER = Path(__file__).with_name("arm_worker.py")
_SAMPLES = 4
_TIMEOUT_SECONDS = 600


def folder() -> Path | None:
    """Folder of the emulated machine, `None` where there is none."""
    named = Path(os.environ.get(ENVIRONMENT) or _DEFAULT)
    return named.absolute() if (named / "site").is_dir() else None


def installed() -> Path:
    """Folder of the emulated machine.

    Raises:
        ExportError: If there is none, with what to do.
    """
    found = folder()
    if found is None:
        raise ExportError(
            "There is no emulated ARM machine to verify on. Expected "
            "`make setup-arm` in a clone of the project, and "
            f"{ENVIRONMENT}=its folder `.venv-arm` elsewhere. Received: none"
        )
    return found


def run(
    files: Mapping[str, bytes],
    batches: Sequence[Sequence[np.ndarray]],
    core: str,
) -> dict[str, list[list[np.ndarray]]]:
    """Runs batches on an emulated core.

    Args:
        files: The bytes of a file for each set of kernels, `"xnnpack"`,
            `"builtin"` or `"reference"`.
        batches: Arrays as the files take them, in the order of their inputs.
        core: A key of `CORES`.

    Returns:
        By kernels the outputs of each batch, in the order of the file.

    Raises:
        ExportError: If there is no emulated machine, or it fails; with its
            own words.
    """
    machine = installed()
    with tempfile.TemporaryDirectory() as temporary:
        inputs, outputs = Path(temporary, "in.npz"), Path(temporary, "out.npz")
        for kernels, data in files.items():
            Path(temporary, kernels).write_bytes(data)
        arrays: dict[str, Any] = {
            f"{i}_{k}": array
            for i, batch in enumerate(batches)
            for k, array in enumerate(batch)
        }
        np.savez(inputs, **arrays)
        done = command.run(
            f"LiteRT on {core}",
            [
                str(machine / "host" / "usr" / "bin" / "qemu-aarch64-static"),
                *("-cpu", CORES[core], "-L", str(machine / core)),
                *("-E", f"PYTHONPATH={machine / 'site'}"),
                str(machine / "root" / "usr" / "bin" / "python3.11"),
                *("-P", str(_WORKER), str(inputs), str(outputs)),
                *(f"{kernels}={Path(temporary, kernels)}" for kernels in files),
            ],
            _TIMEOUT_SECONDS,
        )
        if done.returncode or not outputs.exists():
            last = done.stderr.strip().splitlines()[-1:]
            raise ExportError(
                f"LiteRT can't run the file on {core}. Expected operators "
                "that its kernels for ARM have. Received: "
                f"{''.join(last) or f'exit code {done.returncode}'}"
            )
        with np.load(outputs) as loaded:
            found: dict[str, list[list[np.ndarray]]] = {}
            for kernels in files:
                size = sum(
                    name.startswith(f"{kernels}_0_") for name in loaded.files
                )
                found[kernels] = [
                    [loaded[f"{kernels}_{i}_{k}"] for k in range(size)]
                    for i in range(len(batches))
                ]
            return found


def verify(
    data: bytes, samples: Sequence[np.ndarray], target: Target
) -> dict[str, Any]:
    """Compares ARM's kernels with those of this machine.

    Integer files are compared operator by operator, too: each is given what
    the kernels before it computed on that core, and may differ from float
    arithmetic by its own limit.

    Args:
        data: The bytes of a file.
        samples: Inputs, one float array per input.
        target: Where the file shall run.

    Returns:
        By core and kernels the largest difference of an output, in units of
        its grid, or for float activations relative to its range; with the
        reason where it is accepted though it is large. JSON values.

    Raises:
        ExportError: If an operator or an output differs by more.
        ValueError: If there are fewer samples than a batch takes.
    """
    few = ports.whole_batches(data, samples, _SAMPLES)
    session = interpreter.Session(data, "xnnpack")
    batches = list(interpreter.chunks(ports.quantized(data, few), 1, session))
    wanted = {}
    for kernels in interpreter.KERNELS:
        try:
            own = interpreter.Session(data, kernels)
            wanted[kernels] = [own(batch) for batch in batches]
        except RuntimeError:
            # Not every set of kernels holds every operator.
            continue
    shown = float_twin.probe(data) if target.integer else data
    # A delegate computes otherwise where it has to show all.
    files = {k: data if k == "xnnpack" else shown for k in wanted}
    figures: dict[str, Any] = {"samples": len(few[0])}
    for core in CORES:
        for kernels, got in run(files, batches, core).items():
            name = f"{core} {kernels}"
            where = f"ARM ({name})"
            if not target.integer:
                figures[name] = beside.relative(got, wanted[kernels], where)
                continue
            why = None
            if files[kernels] is shown:
                tally = beside.operators(
                    *(data, shown, batches, got, target.operator_units, where),
                    arm=kernels == "builtin",
                )
                why = tally.explanation()
                if tally.coarse:
                    figures["rounds coarsely"] = tally.coarse
            figures[name] = beside.units(
                data, got, wanted[kernels], target, where, why
            )
    return figures
