"""Searches whose own data have no labels, with a teacher and without one."""

from __future__ import annotations

import numpy as np
import pytest

import msq_tf
from tests.msq_tf.keras3.test_distillation import LOSS
from tests.msq_tf.keras3.test_distillation import X
from tests.msq_tf.keras3.test_distillation import Y
from tests.msq_tf.keras3.test_distillation import network
from tests.msq_tf.keras3.test_distillation import prepared
from tests.msq_tf.keras3.test_distillation import search


@pytest.mark.slow
def test_statistics_of_a_generator_take_inputs_alone():
    qmodel = prepared(bits=8)
    qmodel.compile("adam", LOSS)
    batches = ((X, Y) for _ in range(5))
    qmodel.fit(
        batches,
        steps_per_epoch=4,
        shuffle=False,
        verbose=0,
        callbacks=[search(data=X)],
    )
    assert qmodel.compression >= 8


@pytest.mark.slow
def test_inputs_alone_that_are_not_finite_are_told():
    qmodel = prepared(bits=8)
    qmodel.compile("adam")
    broken = X.copy()
    broken[5, 2] = np.nan
    with pytest.warns(UserWarning, match=r"`x` is not finite.*x\[5\]"):
        qmodel.fit(X, verbose=0, callbacks=[search(data=broken, samples=4)])


def test_without_a_teacher_statistics_of_a_loss_need_its_targets():
    qmodel = msq_tf.quantize_model(network())
    qmodel.compile("adam", LOSS)
    for data in (X, (X, None)):
        with pytest.raises(ValueError, match="compares with.*inputs alone"):
            qmodel.fit(X, Y, verbose=0, callbacks=[search(data=data)])
