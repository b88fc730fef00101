"""Runs files on the kernels of LiteRT; for a process on another core.

This file is started by its path and must not import the package: all that is
there are NumPy and LiteRT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

_KERNELS = {
    "xnnpack": litert.OpResolverType.AUTO,
    "builtin": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": litert.OpResolverType.BUILTIN_REF,
}


def main(inputs: str, outputs: str, *files: str) -> None:
    """Runs batches one after the other.

    Args:
        inputs: Path of an .npz: `{batch}_{input}`, inputs in the order of the
            files.
        outputs: Path of the .npz to write: `{kernels}_{batch}_{output}`.
        *files: `kernels=path` of each TFLite file.
    """
    with np.load(inputs) as arrays:
        count = len({name.partition("_")[0] for name in arrays.files})
        size = len(arrays.files) // count
        batches = [
            [arrays[f"{i}_{k}"] for k in range(size)] for i in range(count)
        ]
    found: dict[str, Any] = {}
    for file in files:
        kernels, _, path = file.partition("=")
        for i, results in enumerate(_run(path, kernels, batches)):
            for k, array in enumerate(results):
                found[f"{kernels}_{i}_{k}"] = array
    np.savez(outputs, **found)


def _run(
    path: str, kernels: str, batches: Sequence[Sequence[np.ndarray]]
) -> Iterator[list[np.ndarray]]:
    loaded = litert.Interpreter(
        path, experimental_op_resolver_type=_KERNELS[kernels]
    )
    for batch in batches:
        for detail, array in zip(
            loaded.get_input_details(), batch, strict=True
        ):
            if tuple(detail["shape"]) != array.shape:
                loaded.resize_tensor_input(detail["index"], array.shape)
        loaded.allocate_tensors()
        for detail, array in zip(
            loaded.get_input_details(), batch, strict=True
        ):
            loaded.set_tensor(detail["index"], array)
        loaded.invoke()
        yield [
            loaded.get_tensor(detail["index"])
            for detail in loaded.get_output_details()
        ]


if __name__ == "__main__":
    main(*sys.argv[1:])
