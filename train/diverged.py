"""Ends a training that has diverged, with an explanation."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np


class StopAtNaN(keras.callbacks.Callback):
    """Ends training after an epoch whose loss and weights are no numbers.

    A mean over an epoch is NaN where a single step was, and under
    `mixed_float16` that step may have been skipped: then the weights are what
    they were, and training goes on. Two such epochs in a row are no chance.
    The flag is that of the phase's learning rate.
    """

    def __init__(self, phase: str, flag: str) -> None:
        super().__init__()
        self._phase = phase
        self._flag = flag
        self._before = False

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Looks at the loss, and where that is none, at the weights.

        Raises:
            ValueError: If training can't recover.
        """
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            self._before = False
            return
        wrong = [
            variable.path
            for variable in self.model.trainable_variables
            if not np.isfinite(variable.numpy()).all()
        ]
        if wrong or self._before:
            where = f"NaN in {wrong[0]}" if wrong else "finite weights"
            if len(wrong) > 1:
                where += f" and {len(wrong) - 1} more weights"
            raise ValueError(
                f"The {self._phase} training has diverged in epoch "
                f"{epoch + 1}. Expected a finite loss: lower "
                f"--{self._flag}, or look for NaN in the data. Received: "
                f"loss={loss}, {where}"
            )
        self._before = True
