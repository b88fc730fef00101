"""A search with kept models and backups, killed at a point of `killing`.

python -m tests.msq_tf.killed POINT FOLDER
"""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import msq_tf
from tests import killing
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model


def search(folder: pathlib.Path) -> msq_tf.MSQModel:
    """Trains, or goes on with what a kill left in the folder."""
    # Sums of several threads otherwise differ in the last bit.
    tf.config.experimental.enable_op_determinism()
    x = np.random.default_rng(1).normal(size=(128, 8, 8, 1))
    data = x.astype(np.float32), (x.mean((1, 2, 3)) > 0).astype(np.int32)
    qmodel = new_model()
    fit(
        qmodel,
        data,
        msq_tf.MSQCallback(budget(), interval=1),
        msq_tf.ParetoCheckpoint(folder / "kept", "val_loss"),
        keras.callbacks.BackupAndRestore(folder / "backup"),
        validation_data=data,
    )
    return qmodel


if __name__ == "__main__":
    killing.arm(sys.argv[1])
    search(pathlib.Path(sys.argv[2]))
