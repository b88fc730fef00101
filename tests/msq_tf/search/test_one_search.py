"""One search at a time on a model."""

import keras
import numpy as np
import pytest

import msq_tf
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model

EXPECTED = r"Two searches.*one MSQCallback.*Received: MSQCallback"


class Own(msq_tf.MSQCallback):
    """A user's own."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)


class Both(keras.callbacks.Callback):
    """Hands everything on to two others."""

    def __init__(self, *others):
        super().__init__()
        self.others = keras.callbacks.CallbackList(others)

    def set_model(self, model):
        super().set_model(model)
        self.others.set_model(model)

    def set_params(self, params):
        self.others.set_params(params)

    def on_train_begin(self, logs=None):
        self.others.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.others.on_epoch_begin(epoch, logs)


def search():
    return msq_tf.MSQCallback(budget())


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [search(), msq_tf.MSQCallback(budget(end=0.5))],
        lambda: [Own(budget()), search()],
        lambda: [search(), Both(Own(budget()))],
    ],
)
def test_two_are_refused_before_the_first_step(tiny_data, callbacks):
    qmodel = new_model()
    before = qmodel.get_weights()
    with pytest.raises(ValueError, match=EXPECTED):
        fit(qmodel, tiny_data, *callbacks())
    for old, new in zip(before, qmodel.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_list_of_callbacks_of_one_s_own(tiny_data):
    qmodel = new_model()
    callbacks = keras.callbacks.CallbackList(
        [search(), search()], model=qmodel, epochs=2, steps=4
    )
    qmodel.fit_inputs = msq_tf.keras3.callback.FitInputs.of(
        qmodel.fit, tiny_data, {}
    )
    callbacks.on_train_begin()
    with pytest.raises(ValueError, match=EXPECTED):
        callbacks.on_epoch_begin(0)


@pytest.mark.slow
def test_one_after_the_other_is_well(tiny_data):
    """Also after one that was broken off."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyboardInterrupt

    qmodel = new_model()
    first = search()
    with pytest.raises(KeyboardInterrupt):
        fit(qmodel, tiny_data, first, Stop())
    fit(qmodel, tiny_data, search())
    assert qmodel.compression >= 8.0
    fit(qmodel, tiny_data, first)
    # Another model is another matter.
    fit(new_model(), tiny_data, first)
