"""What a file is worth on data with labels."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tflite_export import export
from tflite_export import run
from tflite_export.cli import main
from tflite_export.evaluation.scores import evaluate_file
from tflite_export.runtime import ports

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)


def trained(outputs, loss, y, metrics=(), x=X, inputs=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="x") if inputs is None else inputs
    qmodel = msq_tf.quantize_model(
        keras.Model(inputs, outputs(inputs)),
        msq_tf.MSQConfig(activation_bits=8),
    )
    qmodel.compile(keras.optimizers.Adam(1e-2), loss, metrics=list(metrics))
    qmodel.fit(x, y, epochs=10, verbose=0)
    return qmodel


@pytest.fixture(scope="module")
def classifier():
    return trained(
        lambda x: L.Dense(3, activation="softmax")(x),
        "sparse_categorical_crossentropy",
        Y,
        ["accuracy"],
    )


@pytest.fixture(scope="module")
def report(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "m.tflite"
    return export(classifier, path, target="cpu_int8", representative_data=X)


@pytest.mark.slow
def test_a_report_evaluates_as_the_model_does(classifier, report):
    found = report.evaluate(X, Y)
    wanted = classifier.evaluate(X, Y, verbose=0, return_dict=True)
    assert sorted(found) == ["accuracy", "loss"] == sorted(wanted)
    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=0.02)
    assert found["loss"] == pytest.approx(wanted["loss"], abs=0.05)
    assert found["accuracy"] > 0.8
    # It is no constant.
    assert report.evaluate(X, (Y + 1) % 3)["accuracy"] < 0.2


@pytest.mark.slow
def test_data_comes_in_all_forms(report):
    wanted = report.evaluate(X, Y)
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(70)
    for found in (
        report.evaluate(batches),
        report.evaluate({"x": X}, Y),
        report.evaluate(iter([(X[:7], Y[:7]), (X[7:], Y[7:])])),
        report.evaluate(X, Y, batch_size=7),
        report.evaluate(X, Y.tolist()),
    ):
        assert found == pytest.approx(wanted)


@pytest.mark.slow
def test_weights_of_samples(report):
    weight = (np.arange(300) < 50).astype(np.float32)
    found = report.evaluate(X, Y, sample_weight=weight)
    part = report.evaluate(X[:50], Y[:50])
    assert found["loss"] == pytest.approx(part["loss"] / 6, rel=1e-4)


@pytest.mark.slow
def test_a_file_with_integers_at_its_ends(classifier, report, tmp_path):
    path = tmp_path / "m.tflite"
    other = export(
        classifier,
        path,
        target="cpu_int8",
        representative_data=X,
        integer_io=True,
    )
    found = other.evaluate(X, Y)["accuracy"]
    assert found == pytest.approx(report.evaluate(X, Y)["accuracy"], abs=0.01)


@pytest.mark.slow
def test_logits_one_hot_targets_and_two_classes(tmp_path):
    one_hot = np.eye(3, dtype=np.float32)[Y]
    logits = trained(
        lambda x: L.Dense(3)(x),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        one_hot,
    )
    report = export(logits, tmp_path / "a.tflite")
    found = report.evaluate(X, one_hot)
    assert list(found) == ["loss", "accuracy"] and found["accuracy"] > 0.8
    binary = trained(
        lambda x: L.Dense(1, activation="sigmoid")(x),
        "binary_crossentropy",
        (X[:, 0] > 0).astype(np.float32),
    )
    report = export(binary, tmp_path / "b.tflite")
    found = report.evaluate(X, (X[:, 0] > 0).astype(np.float32))
    assert found["accuracy"] > 0.9


@pytest.mark.slow
def test_numbers_have_errors_and_no_accuracy(tmp_path):
    qmodel = trained(lambda x: L.Dense(2)(x), "mse", X[:, :2], ["mae"])
    report = export(qmodel, tmp_path / "m.tflite")
    assert list(report.evaluate(X, X[:, :2])) == ["loss", "mae"]
    report.measuring(None)
    found = report.evaluate(X, X[:, :2])
    assert list(found) == ["mean_absolute_error", "mean_squared_error"]
    wanted = qmodel.evaluate(X, X[:, :2], verbose=0, return_dict=True)
    assert found["mean_absolute_error"] == pytest.approx(
        wanted["mae"], rel=0.05
    )


@pytest.mark.slow
def test_several_outputs(tmp_path):
    y = {"a": Y, "b": X[:, :2]}
    qmodel = trained(
        lambda x: {
            "a": L.Dense(3, activation="softmax", name="a")(x),
            "b": L.Dense(2, name="b")(x),
        },
        {"a": "sparse_categorical_crossentropy", "b": "mse"},
        y,
    )
    report = export(qmodel, tmp_path / "m.tflite")
    found = report.evaluate(X, y)
    wanted = qmodel.evaluate(X, y, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=0.05)
    message = r"outputs \['a', 'b'\] as .*Received: 'c': int64 of shape"
    with pytest.raises(ValueError, match=message):
        report.evaluate(X, {"c": Y})


def own_loss(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)


class OwnLoss(keras.losses.Loss):
    def call(self, y, p):
        return own_loss(y, p)


def own_metric(y, p):
    return own_loss(y, p)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [own_loss, OwnLoss(), [own_loss]])
def test_a_loss_of_ones_own(loss, tmp_path):
    qmodel = trained(lambda x: L.Dense(3, activation="softmax")(x), loss, Y)
    path = tmp_path / "m.tflite"
    found = export(qmodel, path).evaluate(X, Y)
    wanted = np.mean(own_loss(Y, run(path, X)))
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
def test_targets_of_another_shape_than_the_outputs(tmp_path):
    """As of a mixture of densities: only its loss knows what they mean."""

    def likelihood(y, p):
        mean, scale = keras.ops.split(p, 2, axis=-1)
        return keras.ops.square((y - mean) * keras.ops.exp(-scale)) + scale

    qmodel = trained(lambda x: L.Dense(2)(x), likelihood, X[:, :1])
    path = tmp_path / "m.tflite"
    found = export(qmodel, path).evaluate(X, X[:, :1])
    wanted = np.mean(likelihood(X[:, :1], run(path, X)))
    assert found == {"loss": pytest.approx(wanted, rel=1e-5)}


@pytest.mark.slow
def test_a_metric_of_ones_own_is_left_out_with_a_word(tmp_path):
    qmodel = trained(
        lambda x: L.Dense(3, activation="softmax")(x),
        own_loss,
        Y,
        [own_metric],
    )
    report = export(qmodel, tmp_path / "m.tflite")
    with pytest.warns(UserWarning, match="register_keras_serializable"):
        assert report.evaluate(X, Y)["accuracy"] > 0.8


@pytest.mark.slow
def test_what_is_wrong_is_said(report):
    with pytest.raises(ValueError, match="as many targets as inputs"):
        report.evaluate(X, Y[:-1])
    with pytest.raises(ValueError, match="nothing to compare with"):
        report.evaluate(X)
    with pytest.raises(ValueError, match="batches of"):
        report.evaluate(tf.data.Dataset.from_tensor_slices(X).batch(4))
    assert "evaluat" not in report.to_json()


def test_the_command(report, tmp_path, capsys):
    data = tmp_path / "test.npz"
    np.savez(data, x=X, y=Y)
    arguments = ["evaluate", f"--model={report.path}", f"--data={data}"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    accuracy = float((_classes(report.path) == Y).mean())
    assert shown == f"300 samples\naccuracy: {accuracy:.4f}\n"
    assert main([*arguments, "--json", "--samples=20"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["accuracy"]


def _classes(path):
    import tflite_export

    return tflite_export.run(path, X).argmax(1)


@pytest.mark.first(1)
@pytest.mark.parametrize("factor", [255.0, 1 / 255.0])
def test_inputs_on_another_scale_get_a_word(report, factor):
    told = "as large as what the model was trained on|smaller than what the mod"
    with pytest.warns(UserWarning, match=f"'x' is on another .*({told})"):
        report.evaluate(factor * X, Y)
    # Batches, of which one alone would not tell.
    batches = [(X[:8], Y[:8]), (factor * X, Y)]
    if factor > 1.0:
        with pytest.warns(UserWarning, match="Received: -"):
            report.evaluate(batches)
    outlier = X.copy()
    outlier[0, 0] *= 1000.0
    report.evaluate(outlier, Y)
    report.evaluate(2 * X, Y)


def test_a_file_alone_knows_its_grid(report, tmp_path, capsys):
    np.savez(tmp_path / "test.npz", x=255.0 * X, y=Y)
    data = f"--data={tmp_path / 'test.npz'}"
    assert main(["evaluate", f"--model={report.path}", data, "--json"]) == 0
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)) == ["accuracy"]
    said = "msq-export: x for the input 'x' is on another scale"
    assert shown.err.startswith(said) and shown.err.count("\n") == 1


@pytest.mark.slow
def test_codes_of_a_file_are_on_no_scale(classifier, tmp_path):
    path = tmp_path / "m.tflite"
    integers = export(
        classifier,
        path,
        target="cpu_int8",
        representative_data=X,
        integer_io=True,
    )
    codes = ports.inputs(path.read_bytes())[0].quantize(X)
    assert integers.evaluate(codes, Y) == integers.evaluate(X, Y)
    with pytest.warns(UserWarning, match="another scale"):
        evaluate_file(path, 255.0 * X, Y)
    # Floats inside tell nothing.
    plain = export(classifier, path)
    evaluate_file(plain.path, 255.0 * X, Y)


@pytest.mark.slow
def test_the_command_on_a_data_set(root, tmp_path, capsys):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Flatten(),
            L.Dense(10, activation="softmax"),
        ]
    )
    path = tmp_path / "m.tflite"
    export(msq_tf.quantize_model(model), path)
    arguments = ["evaluate", f"--model={path}", "--data=fashion_mnist_mini"]
    assert main([*arguments, f"--data_dir={root / 'train' / 'data'}"]) == 0
    assert "accuracy: 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--model=m.tflite"),
        (["--model=m.tflite"], 2, "--data=cifar10:test"),
        (["m.tflite"], 2, "not 'm.tflite'"),
        (["--model=no.tflite", "--data=x.npz"], 1, "can't be read"),
    ],
)
def test_wrong_commands(arguments, code, message, capsys):
    assert main(["evaluate", *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_but_the_figures_is_printed(report, root, tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    command = [sys.executable, "-m", "tflite_export", "evaluate"]
    done = subprocess.run(
        [*command, f"--model={report.path}", f"--data={tmp_path / 'd.npz'}"],
        cwd=root,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("300 samples\naccuracy: ")


def test_data_without_targets(report, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=X)
    np.save(tmp_path / "x.npy", X)
    for name in ("x.npz", "x.npy"):
        data = f"--data={tmp_path / name}"
        assert main(["evaluate", f"--model={report.path}", data]) == 1
        assert "arrays x and y" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        pytest.param(Y + 1, "1 to 3.*outside the valid range", id="from one"),
        pytest.param(np.eye(3)[Y], r"shape \(300, 3\)", id="one-hot"),
    ],
)
def test_targets_that_the_loss_does_not_take(report, targets, message):
    with pytest.raises(ValueError, match=message) as caught:
        report.evaluate(X, targets)
    assert "classes from 0" in str(caught.value)
    assert "\n" not in str(caught.value)
