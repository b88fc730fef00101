"""The examples run, and a loop of one's own is as good as `fit`."""

import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from examples import custom_loop
from examples import dark_calibration
from tflite_export import export
from train.data import datasets

EPOCHS = 3


@pytest.mark.slow
def test_custom_layers_reach_a_file(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(root / "examples" / "custom_layer.py"))
    qmodel, report = names["qmodel"], names["report"]
    assert list(qmodel.bits) == [
        "patches",
        "glu/gates/0",
        "glu/gates/1",
        "glu/values/0",
        "glu/values/1",
        "logits",
    ]
    assert qmodel.compression >= 8.0
    assert min(qmodel.bits["glu/values/0"], qmodel.bits["glu/values/1"]) >= 3
    assert {tensor.name for tensor in report.tensors} == set(qmodel.bits)
    assert (tmp_path / "custom_layer.tflite").exists()
    capsys.readouterr()


@pytest.fixture(scope="module")
def examples():
    source = datasets.load(
        "fashion_mnist_mini", train_examples=400, test_examples=1
    )
    return source.train.images.astype("float32"), source.train.labels


def prepared(examples, config):
    """A tiny model, its data and its search; the same at every call."""
    keras.utils.set_random_seed(0)
    model = custom_loop.Classifier(width=4)
    model(examples[0][:1])
    data = tf.data.Dataset.from_tensor_slices(examples).batch(50)
    qmodel = msq_tf.quantize_model(
        model, config, example_inputs=examples[0][:1]
    )
    custom_loop.compile_for(qmodel, 1e-3, EPOCHS * len(data))
    rule = msq_tf.BudgetRule(target_compression=8, allowed_bits=range(2, 9))
    callback = msq_tf.MSQCallback(
        rule, data=examples, samples=100, batch_size=50, interval=2
    )
    return qmodel, data, callback


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_as_written")
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(msq_tf.MSQConfig(), id="weights"),
        pytest.param(
            msq_tf.MSQConfig(scale="learned", activation_bits=8),
            id="learned",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_loop_decides_and_trains_as_fit(config, examples, tmp_path, capsys):
    looped, data, callback = prepared(examples, config)
    step = custom_loop.train(looped, data, EPOCHS, callback)
    assert step.experimental_get_tracing_count() == 1
    assert "target reached, bits frozen" in capsys.readouterr().out

    fitted, data, callback = prepared(examples, config)
    fitted.fit(
        data, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[callback]
    )
    assert looped.compression >= 8.0
    assert len(looped.history_of_bits()) > 6
    assert [
        (change.step, change.path, change.new)
        for change in looped.history_of_bits()
    ] == [
        (change.step, change.path, change.new)
        for change in fitted.history_of_bits()
    ]
    for a, b in zip(looped.weights, fitted.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    looped.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.bits == looped.bits
    report = export(
        loaded,
        tmp_path / "m.tflite",
        target="cpu_int8" if config.activation_bits else "min_size",
        representative_data=examples[0][:16],
    )
    assert {tensor.name for tensor in report.tensors} == set(looped.bits)


@pytest.mark.slow
def test_the_page_tells_what_dark_photographs_did(tmp_path):
    pytest.importorskip("vl_convert", reason="the extra look is not installed")
    data = datasets.load(
        "fashion_mnist_mini", train_examples=512, test_examples=128
    )
    keras.utils.set_random_seed(0)
    model = dark_calibration.float_model(data, epochs=2)
    wrong, right, both = dark_calibration.look(model, data, tmp_path)
    first = wrong.page.sides[0].tensors[0]
    assert first.name == "image" and first.wrong and first.clipped > 0.2
    told = " ".join(wrong.page.sides[0].findings["tensors"])
    assert "the error begins here" in told and "too narrow" in told
    (side,) = right.page.sides
    assert side.tensors[0].clipped == 0.0
    assert not any(tensor.wrong for tensor in side.tensors)
    # The widths are the same; what changed is told.
    assert "all 10 layers that correspond are as wide" in str(both)
    assert (tmp_path / "wrong_and_right.html").exists()
