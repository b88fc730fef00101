"""A search for a tolerance inside of tf_keras's `fit`."""

import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.killing import Killed
from tests.tfmot.samples import compile_model
from tests.tfmot.samples import fit
from tests.tfmot.samples import msq
from tests.tfmot.samples import new_model
from tests.tfmot.samples import tf_keras


def accuracy(model, data):
    return model.evaluate(*data, verbose=0, return_dict=True)["accuracy"]


def model_with_adam(legacy):
    model = new_model()
    optimizers = tf_keras.optimizers
    adam = (optimizers.legacy if legacy else optimizers).Adam(0.01)
    model.compile(adam, model.loss, metrics=["accuracy"])
    return model


def callback(data, rule=None, **options):
    rule = {"max_drop": 20.0} | (rule or {})
    return msq.MSQCallback(
        msq_tf.ToleranceRule(**rule), data, hessian=False, **options
    )


@pytest.mark.slow
def test_a_tolerance_on_data_that_is_given(data):
    model = new_model()
    search = callback(data, held_out=data)
    float_accuracy = accuracy(compile_model(msq.bake(model)), data)
    fit(model, data, search)
    outcome = search.outcome
    # Baked are the 8 bits that it begins with; the float model is not.
    assert outcome.reference == pytest.approx(float_accuracy, abs=0.1)
    assert outcome.kept
    assert outcome.value == pytest.approx(accuracy(model, data))
    assert outcome.value >= outcome.reference - 0.2
    view = msq.ModelView(model)
    assert view.search.rule_state.done
    assert view.compression > 4.0


@pytest.mark.slow
def test_a_tolerance_on_the_logs_of_fit(data):
    model = new_model()
    search = callback(data, {"reference": 0.3})
    fit(model, data, search, validation_data=data)
    assert search.outcome.kept
    assert search.outcome.value == pytest.approx(accuracy(model, data))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_state_before_training_has_what_the_first_step_makes(data, legacy):
    model = model_with_adam(legacy)
    before = msq.ModelView(model).training_state()
    fit(model, data)
    after = msq.ModelView(model).training_state()
    assert [v.shape for v in after] == [v.shape for v in before]
    weights = model.trainable_variables
    assert len(before) >= 3 * len(weights)


def test_nothing_to_measure_on(data):
    with pytest.raises(ValueError, match=r"reference=.*Received: none"):
        fit(new_model(), data, callback(data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "epoch", "device"),
    [("search", 2, None), ("backup", 2, None), ("search", None, "min_size")],
)
def test_a_resumed_search_decides_as_the_uninterrupted_one(
    data, tmp_path, first, epoch, device
):
    class Kill(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, number, logs=None):
            if number == epoch:
                raise Killed

        def on_train_end(self, logs=None):
            # No epoch is left then.
            if epoch is None:
                raise Killed

    def train(folder, *kill):
        tf_keras.utils.set_random_seed(1)
        model = new_model()
        search = callback(
            data,
            {"device": device},
            held_out=data,
            directory=tmp_path / folder / "search",
        )
        backup = tf_keras.callbacks.BackupAndRestore(
            str(tmp_path / folder / "backup")
        )
        both = (search, backup) if first == "search" else (backup, search)
        try:
            fit(model, data, *kill, *both, shuffle=False)
        except Killed:
            return None
        return model, search.outcome

    assert train("killed", Kill()) is None
    resumed, outcome = train("killed")
    whole, expected = train("whole")
    assert outcome == expected
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("legacy", [False, True])
def test_means_of_squares_are_found(data, legacy):
    model = model_with_adam(legacy)
    fit(model, data)
    view = msq.ModelView(model)
    model.optimizer.iterations.assign(99)
    assert view.second_moments() == []
    model.optimizer.iterations.assign(100)
    found = view.second_moments()
    assert sorted(tuple(v.shape) for v in found) == sorted(
        tuple(w.shape) for w in model.trainable_variables
    )
    assert all(np.all(v.numpy() >= 0.0) for v in found)


def test_more_bits_keep_what_weights_compute(data):
    view = msq.ModelView(model_with_adam(False))
    view.set_bits(dict.fromkeys(view.paths, 2))
    fit(view.model, data)
    before = [record.values for record in view.quantized_weights()]
    latent = [kernel.numpy().copy() for kernel in view.kernels]
    view.search.bits.assign([8] * len(before))
    view.keep_values([2] * len(before))
    view.hold_scales()
    for old, kernel in zip(latent, view.kernels, strict=True):
        assert not np.array_equal(kernel.numpy(), old)
    for old, record in zip(before, view.quantized_weights(), strict=True):
        assert np.all(np.abs(record.values - old) <= 1e-3 * record.step)


@pytest.mark.slow
def test_replicas_keep_a_tolerance(data):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = new_model(activation_bits=None)
    search = callback(data, {"max_drop": 50.0}, held_out=data)
    fit(model, data, search, epochs=3)
    assert search.outcome.kept
