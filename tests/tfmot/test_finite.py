"""Samples that are not finite are named before the training."""

import numpy as np
import pytest

from tests.tfmot.samples import budget
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import tf_keras


def test_a_sample_that_is_not_finite_is_named(data):
    x, y = data
    x = x.copy()
    x[101, 0, 0, 0] = np.nan

    class Begun(tf_keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise InterruptedError

    search = msq.MSQCallback(budget(), data=(x, y), samples=4, verbose=0)
    with (
        pytest.warns(UserWarning, match=r"Received: x\[101\]"),
        pytest.raises(InterruptedError),
    ):
        fit(new_model(), (x, y), search, Begun())
