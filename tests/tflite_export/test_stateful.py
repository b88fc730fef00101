"""States that a model keeps from call to call are ports of its file."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tflite_export import export
from tflite_export.runtime import interpreter
from tflite_export.runtime import ports

L = keras.layers
STEPS = 6


def recurrent(layer, batch=2):
    inputs = keras.Input((4, 5), batch_size=batch)
    return keras.Model(inputs, L.Dense(2, name="head")(layer(inputs)))


def both_ways():
    gru = L.GRU(3, stateful=True, unroll=True, name="gru")
    return L.Bidirectional(gru, name="bidirectional")


LAYERS = {
    "simple": lambda: L.SimpleRNN(4, stateful=True, unroll=True, name="rnn"),
    "lstm": lambda: L.LSTM(4, stateful=True, unroll=True, name="rnn"),
    "lstm_loop": lambda: L.LSTM(4, stateful=True, name="rnn"),
    "gru": lambda: L.GRU(4, stateful=True, unroll=True, name="rnn"),
    "both_ways": both_ways,
}


class Counting(L.Layer):
    """Adds how often it was called."""

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="calls"
        )

    def call(self, x):
        self.calls.assign_add(1.0)
        return x + 0.1 * self.calls


def sequence(batch=2):
    rng = np.random.default_rng(0)
    shape = (STEPS, batch, 4, 5)
    return rng.normal(size=shape).astype(np.float32)


def step_by_step(path, report, x):
    """Outputs of a file whose states are given back, in its own integers."""
    data = path.read_bytes()
    session = interpreter.Session(data, "builtin")
    takes, gives = ports.inputs(data), ports.outputs(data)
    # The signature knows all names; tensors may be several ports at once.
    places = session.output_names
    names = list(session.input_names)
    first = {state.input: state.initial for state in report.states}
    after = {state.input: state.output for state in report.states}
    fed = [
        port.quantize(
            np.broadcast_to(np.float32(first[name]), port.shape).copy()
        )
        if name in first
        else None
        for name, port in zip(names, takes, strict=True)
    ]
    found = []
    for own in x:
        results = session(
            [
                port.quantize(own) if value is None else value
                for port, value in zip(takes, fed, strict=True)
            ]
        )
        found.append(gives[0].real(results[0]))
        fed = [
            results[places[after[name]]].copy() if name in after else None
            for name in names
        ]
    return np.stack(found), gives[0].scale


@pytest.mark.first(1)
@pytest.mark.parametrize("name", LAYERS)
def test_floats_step_by_step(name, tmp_path):
    model = recurrent(LAYERS[name]())
    qmodel = quantized(model)
    x = sequence()
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, representative_data=x[0])
    assert report.states and "given output" in str(report)
    assert {s.layer.split("/")[0] for s in report.states} <= {
        "rnn",
        "bidirectional",
    }
    for state in model.non_trainable_variables:
        # As it was: an export calls a copy of the states.
        assert not np.any(np.asarray(state)) or state.dtype != "float32"
    wanted = np.stack([qmodel(own) for own in x])
    assert np.abs(wanted[1:] - wanted[:1]).max() > 0.01
    got, _ = step_by_step(path, report, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_int8", "mcu"])
@pytest.mark.parametrize("trained", [True, False])
def test_integers_step_by_step(target, trained, tmp_path):
    """The bytes that come out for a state go in again as they are."""
    keras.utils.set_random_seed(0)
    x = sequence(1)
    model = recurrent(LAYERS["gru"](), 1)
    qmodel = msq_tf.quantize_model(
        model, msq_tf.MSQConfig(activation_bits=8 if trained else None)
    )
    qmodel.compile(keras.optimizers.SGD(1e-3), "mse")
    for own in [*x] * 20:
        # Ranges are moving averages.
        qmodel.train_on_batch(own, np.zeros((1, 2)))
    for layer in model.layers:
        getattr(layer, "reset_states", lambda: None)()
    path = tmp_path / "m.tflite"
    report = export(
        qmodel,
        path,
        target,
        representative_data=np.concatenate(x),
        integer_io=True,
    )
    for state in report.states:
        assert state.input_grid == state.output_grid is not None
    got, unit = step_by_step(path, report, x)
    with qmodel.integer_scope() if trained else qmodel.quantized_scope():
        wanted = np.stack([np.asarray(model(own)) for own in x])
    # A unit of the state comes back, multiplied by its weights, at each step;
    # training does not round inside of the layer, as the file does.
    steps = slice(0, 1) if trained else slice(None)
    assert np.abs(got - wanted)[steps].max() <= 8 * unit


@pytest.mark.slow
def test_a_counter_that_outputs_depend_on(tmp_path):
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(3), Counting(), L.Dense(2)]
    )
    qmodel = quantized(model)
    x = np.random.default_rng(0).normal(size=(STEPS, 1, 5)).astype(np.float32)
    before = float(model.layers[1].calls.numpy())
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, representative_data=x[0])
    (state,) = report.states
    assert state.initial == before == float(model.layers[1].calls.numpy())
    wanted = np.stack([qmodel(own) for own in x])
    got, _ = step_by_step(path, report, x)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_another_batch_than_that_of_the_states_is_refused(tmp_path):
    qmodel = quantized(recurrent(LAYERS["gru"]()))
    with pytest.raises(ValueError, match="states of 2 samples.*Received"):
        export(qmodel, tmp_path / "m.tflite", batch_size=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, 12])
def test_a_batch_that_no_number_of_samples_is_a_multiple_of(batch, tmp_path):
    """Kernels that run a part of the samples run whole batches."""
    qmodel = quantized(recurrent(LAYERS["lstm_loop"](), batch))
    x = np.concatenate(sequence(batch))
    report = export(qmodel, tmp_path / "m.tflite", representative_data=x)
    assert {check.samples for check in report.checks} == {6 * batch, 9, 12} - (
        {9} if batch == 12 else {12}
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
def test_a_report_evaluates_with_states(target, tmp_path):
    inputs = keras.Input((4, 5), batch_size=3, name="x")
    model = keras.Model(
        {"x": inputs}, L.Dense(2)(LAYERS["lstm_loop"]()(inputs))
    )
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile("sgd", "mse", metrics=["mae"])
    x = 3 * np.concatenate(sequence(3))
    y = np.ones((len(x), 2), np.float32)
    report = export(qmodel, tmp_path / "m.tflite", target, {"x": x})
    found = report.evaluate({"x": x}, y)
    wanted = qmodel.evaluate({"x": x}, y, 3, verbose=0, return_dict=True)
    assert set(found) == {"loss", "mae"}
    for name, value in found.items():
        assert value == pytest.approx(
            wanted[name], rel=1e-4 if target == "min_size" else 0.02
        )
    # States go on from batch to batch.
    first = report.evaluate({"x": x[3:]}, y[3:])
    assert first["loss"] != pytest.approx(found["loss"], rel=1e-3)
    batches = iter([({"x": x[:3]}, y[:3]), ({"x": x[3:]}, y[3:])])
    assert report.evaluate(batches) == pytest.approx(found)
