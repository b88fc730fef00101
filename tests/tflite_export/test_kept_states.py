"""States of a user's own layers, their grids, and what they begin with."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.samples import quantized
from tests.tflite_export.test_stateful import step_by_step
from tflite_export import ExportError
from tflite_export import export
from tflite_export import float_tflite
from tflite_export import inspect_file
from tflite_export.runtime import interpreter

L = keras.layers


def weight(layer, shape, initializer="zeros", **options):
    return layer.add_weight(
        shape=shape, initializer=initializer, trainable=False, **options
    )


class Counter(L.Layer):
    """Divides by the number of calls; another counter is read by nobody."""

    def build(self, shape):
        self.calls = weight(self, (), dtype="int32")
        self.unread = weight(self, ())

    def call(self, x):
        self.calls.assign_add(1)
        self.unread.assign_add(1.0)
        return x / keras.ops.cast(self.calls, "float32")


class Centered(L.Layer):
    """Subtracts a running mean, which begins with ones."""

    def build(self, shape):
        self.mean = weight(self, (shape[-1],), "ones")

    def call(self, x):
        mean = keras.ops.mean(x, axis=0)
        self.mean.assign(0.5 * self.mean + 0.5 * mean)
        return x - self.mean


class Delay(L.Layer):
    """Gives what the call before was given."""

    def build(self, shape):
        self.last = weight(self, shape)

    def call(self, x):
        before = self.last + 0.0
        self.last.assign(x)
        return before


class Chain(L.Layer):
    """Gives a state that follows another one."""

    def build(self, shape):
        self.first = weight(self, (1, 4))
        self.second = weight(self, (1, 4))

    def call(self, x):
        result = x + self.second
        self.second.assign(self.first + 0.0)
        self.first.assign(x)
        return result


class Ranges(L.Layer):
    """A state with one range where it is given and one where it is kept."""

    def build(self, shape):
        self.wide, self.last = L.Activation("linear"), L.Activation("linear")
        self.kept = weight(self, (1, 4))

    def call(self, x):
        before = self.last(self.kept + 0.0)
        self.kept.assign(self.wide(4.0 * x))
        return before


class PastKeras(L.Layer):
    """Reads its state where no scope of Keras sees it."""

    def build(self, shape):
        self.calls = weight(self, ())
        self.raw = self.calls.value

    def call(self, x):
        result = x + self.raw.read_value()
        self.calls.assign(self.calls + 1.0)
        return result


def own(layer, batch_size=None):
    inputs = keras.Input((5,), batch_size=batch_size)
    body, head = L.Dense(4, name="body"), L.Dense(3, name="head")
    return keras.Sequential([inputs, body, layer, head])


def recurrent(layer, batch_size=1):
    return keras.Sequential(
        [keras.Input((4, 5), batch_size=batch_size), layer, L.Dense(2)]
    )


MODELS = {
    "counter": (lambda: own(Counter(name="counter")), ["counter_calls"]),
    "centered": (lambda: own(Centered(name="centered")), ["centered_mean"]),
    "delay": (lambda: own(Delay(name="delay"), 2), ["delay_last"]),
    "chain": (
        lambda: own(Chain(name="chain"), 1),
        ["chain_first", "chain_second"],
    ),
    "stacked": (
        lambda: recurrent(
            L.RNN(
                [L.LSTMCell(3), L.GRUCell(4)],
                stateful=True,
                unroll=True,
                name="stack",
            )
        ),
        ["stack_state_0", "stack_state_1", "stack_state_2"],
    ),
    # The state is the output, too.
    "bare": (
        lambda: keras.Sequential(
            [
                keras.Input((4, 5), batch_size=1),
                L.SimpleRNN(4, stateful=True, unroll=True, name="bare"),
            ]
        ),
        ["bare_state_0"],
    ),
}


def data(base, count=20):
    shape = (count, *base.inputs[0].shape[1:])
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def check_steps(qmodel, path, near, **options):
    """Exports, and compares file and model call by call."""
    base, x = qmodel.base, data(qmodel.base)
    before = [np.array(v.value) for v in base.variables]
    report = export(qmodel, path, representative_data=x, **options)
    for variable, old in zip(base.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value, old)
    size = base.inputs[0].shape[0] or 1
    calls = x.reshape(-1, size, *x.shape[1:])
    trained = getattr(qmodel, "activations", None) is not None
    scope = qmodel.integer_scope if trained else qmodel.quantized_scope
    with scope():
        wanted = np.stack([np.array(base(own)) for own in calls])
    got, _ = step_by_step(path, report, calls)
    assert np.abs(got - wanted).max() <= near * np.ptp(wanted)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_file_called_step_by_step_computes_what_keras_does(name, tmp_path):
    build, names = MODELS[name]
    path = tmp_path / "m.tflite"
    if name == "bare":
        qmodel = quantized(build())
        report = export(qmodel, path)
    else:
        report = check_steps(quantized(build()), path, 1e-5)
    assert [state.input for state in report.states] == names
    (note,) = (n for n in report.notes if "from call to call" in n)
    session = interpreter.Session(path.read_bytes(), "builtin")
    for state in report.states:
        assert {state.input} < set(session.input_names)
        assert {state.output} < set(session.output_names)
        assert f"'{state.input}'" in note and f"'{state.output}'" in note
    assert json.loads(report.to_json())["states"][0]["input"] == names[0]
    # A file says so itself.
    info = inspect_file(path)
    kept = [(port.name, port.state) for port in info.inputs if port.state]
    assert kept == [(state.input, state.output) for state in report.states]
    assert [port.state for port in info.outputs if port.state] == names
    assert f"becomes '{names[0]}'" in str(info)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu_int8", "cpu_int16", "mcu"])
def test_integer_files_too(target, tmp_path):
    qmodel = quantized(MODELS["delay"][0]())
    near = 0.001 if target == "cpu_int16" else 0.02
    check_steps(qmodel, tmp_path / "m.tflite", near, target=target)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["centered", "bare"])
def test_both_ports_have_the_grid_of_the_output(name, tmp_path):
    qmodel = quantized(MODELS[name][0]())
    if name == "centered":
        qmodel.base.get_layer(name).mean.assign(np.full(4, 9.0))
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data(qmodel.base),
        integer_io=True,
    )
    for state in report.states:
        scale, zero = state.output_grid
        assert state.input_grid == (scale, zero)
        # What it begins with is on it, though no output was that large.
        code = round(state.initial / scale) + zero
        assert f"(code {code})" in str(state) and -128 <= code <= 127


@pytest.mark.slow
def test_a_counter_in_an_integer_file(tmp_path):
    qmodel = quantized(MODELS["counter"][0]())
    report = check_steps(
        qmodel,
        tmp_path / "m.tflite",
        0.02,
        target="cpu_int8",
        integer_io=True,
    )
    assert report.states[0].initial == 0
    assert report.states[0].input_grid is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delay", "counter"])
def test_a_state_on_a_trained_grid_is_checked_strictly(name, tmp_path):
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(MODELS[name][0](), config)
    msq_tf.calibrate(qmodel, data(qmodel.base, 32))
    # Of a small range, which has few units.
    report = check_steps(
        qmodel, tmp_path / "m.tflite", 0.05, target="cpu_int8", integer_io=True
    )
    assert not any("not in Keras" in note for note in report.notes)


@pytest.mark.slow
def test_an_input_with_a_range_of_its_own_takes_the_outputs_bytes(tmp_path):
    config = msq_tf.MSQConfig(activation_bits=8)
    qmodel = msq_tf.quantize_model(own(Ranges(name="ranges"), 1), config)
    msq_tf.calibrate(qmodel, data(qmodel.base, 32))
    report = check_steps(
        qmodel, tmp_path / "m.tflite", 0.02, target="cpu_int8", integer_io=True
    )
    (state,) = report.states
    assert state.input_grid == state.output_grid is not None


@pytest.mark.slow
def test_sites_that_the_converter_moves_behind_a_transpose(tmp_path):
    """A recurrent layer puts time before the batch, where both count."""
    config = msq_tf.MSQConfig(activation_bits=8)
    layer = L.LSTM(4, stateful=True, unroll=True, name="lstm")
    qmodel = msq_tf.quantize_model(recurrent(layer, 2), config)
    x = data(qmodel.base, 32)
    msq_tf.calibrate(qmodel, x)
    path = tmp_path / "m.tflite"
    report = export(qmodel, path, "cpu_int8", representative_data=x)
    assert len(report.states) == 2


@pytest.mark.slow
def test_what_states_begin_with(tmp_path):
    qmodel = quantized(MODELS["centered"][0]())
    mean = np.arange(4, dtype=np.float32)
    qmodel.base.get_layer("centered").mean.assign(mean)
    report = export(qmodel, tmp_path / "m.tflite")
    assert report.states[0].initial == [mean.tolist()]
    qmodel = quantized(MODELS["bare"][0]())
    (state,) = qmodel.base.get_layer("bare").states
    state.assign(np.ones((1, 4)))
    # As after reset_state().
    report = export(qmodel, tmp_path / "m.tflite")
    assert report.states[0].initial == 0.0


@pytest.mark.slow
def test_few_samples_make_several_calls(tmp_path):
    qmodel = quantized(MODELS["delay"][0]())
    path, one = tmp_path / "m.tflite", data(qmodel.base, 1)
    report = export(qmodel, path, "cpu_int8", representative_data=one)
    assert report.checks[0].samples == 8


@pytest.mark.first(1)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_state_of_a_call_has_a_batch_axis(batch_size, tmp_path):
    """Three do not divide the samples of the slow kernels."""
    qmodel = quantized(MODELS["counter"][0]())
    report = export(qmodel, tmp_path / "m.tflite", batch_size=batch_size)
    assert report.states[0].shape == (batch_size or 1,)
    fixed = any("batch size fixed to 1" in note for note in report.notes)
    assert fixed == (batch_size is None)


def test_a_state_that_is_an_input_already_stays_as_it_is(tmp_path):
    inputs = keras.Input((4, 5)), keras.Input((4,), name="state")
    gru = L.GRU(4, unroll=True, return_state=True, name="gru")
    outputs = gru(inputs[0], initial_state=inputs[1])
    report = export(
        quantized(keras.Model(inputs, outputs)), tmp_path / "m.tflite"
    )
    assert report.states == ()
    assert not any("from call to call" in note for note in report.notes)


@pytest.mark.slow
def test_plain_float_files_have_them():
    session = interpreter.Session(float_tflite(MODELS["bare"][0]()), "builtin")
    assert "bare_state_0" in session.input_names
    assert {"output", "bare_state_0_next"} == set(session.output_names)


@pytest.mark.slow
def test_a_state_that_can_be_no_input_is_refused(tmp_path):
    qmodel = quantized(own(PastKeras()))
    with pytest.raises(ExportError, match="read past Keras.*Received: "):
        export(qmodel, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
