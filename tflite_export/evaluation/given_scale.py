"""Whether data to evaluate on is on the scale that a file is right for.

If a file for pixels of 0..1 gets pixels of 0..255, its accuracy is that of
chance, and the file looks bad. The model of a file remembers the right scale;
without the model, the grids of the file's inputs show it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from tflite_export.data.data_scale import OTHER
from tflite_export.data.data_scale import DataScale
from tflite_export.data.data_scale import in_words
from tflite_export.runtime import ports


class GivenScale:
    """Compares batches of inputs with what a file is right for.

    Args:
        data: The file.
        names: Names of its inputs, in order, without those of states.
        trained: What inputs were in training, by name, where that is known.
    """

    def __init__(
        self,
        data: bytes,
        names: Sequence[str],
        trained: Mapping[str, DataScale] | None = None,
    ):
        self._names = names
        self._ports = ports.inputs(data)[: len(names)]
        self._trained = dict(trained or {})
        self._held = [
            _held(port) for port in ports.input_grids(data)[: len(names)]
        ]
        self._seen: list[DataScale | None] = [None] * len(names)
        self._batches = 0

    def look(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes note of a batch, one array per input."""
        self._batches += 1
        for i, port in enumerate(self._ports):
            array = arrays[i]
            # Integers of the file's own type are its codes already.
            codes = port.scale is not None and array.dtype == port.dtype
            if array.size and array.dtype.kind in "iuf" and not codes:
                here = DataScale.of_rows(array)
                self._seen[i] = _joined(self._seen[i], here, self._batches)

    def warn(self, stacklevel: int) -> None:
        """Warns of inputs that are on another scale."""
        for name, seen, held in zip(
            self._names, self._seen, self._held, strict=True
        ):
            trained = self._trained.get(name)
            right = trained or held
            if seen is None or right is None:
                continue
            times = seen.times(right)
            if 1.0 / OTHER <= times <= OTHER:
                continue
            what = (
                "what the model was trained on"
                if trained
                else "what the file holds"
            )
            warnings.warn(
                f"x for the input '{name}' is on another scale than the file "
                f"is right for: at least {in_words(times)} {what}, so "
                "that the figures say little about the file. Expected inputs "
                "as `fit` was given them, after all preprocessing, about "
                f"{right}. Received: {seen}",
                UserWarning,
                stacklevel=stacklevel + 1,
            )


def _joined(
    before: DataScale | None, batch: DataScale, count: int
) -> DataScale:
    if before is None:
        return batch
    return DataScale(
        min(before.low, batch.low),
        max(before.high, batch.high),
        before.magnitude + (batch.magnitude - before.magnitude) / count,
    )


def _held(port: ports.Port | None) -> DataScale | None:
    """What the integers of an input can hold.

    No magnitude is known of a grid. Its end stands for that, as no data that
    it holds has a larger one.
    """
    if port is None:
        return None
    info = np.iinfo(port.dtype)
    low, high = port.real(np.array([info.min, info.max])).tolist()
    return DataScale(low, high, max(abs(low), abs(high)))
