"""How outputs of a model are compared with those of its teacher."""

import keras
import numpy as np
import pytest

import msq_tf
from msq_tf.sensitivity.divergence import output_divergence
from tests.msq_tf.keras3.test_distillation import X
from tests.msq_tf.keras3.test_distillation import cross
from tests.msq_tf.keras3.test_distillation import network

L = keras.layers


@pytest.mark.first(1)
@pytest.mark.parametrize("structure", [list, dict])
def test_several_outputs_are_compared_by_their_losses(structure):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = L.Dense(6, activation="relu")(inputs)
    heads = {
        "classes": L.Dense(3, name="classes")(x),
        "value": L.Dense(2, name="value")(x),
        "aside": L.Dense(2, name="aside", trainable=False)(x),
    }
    outputs = heads if structure is dict else list(heads.values())
    model = keras.Model(inputs, outputs)
    reference = keras.tree.map_structure(np.asarray, model(X))
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(start_bits=2))
    msq_tf.distill(qmodel, model)
    losses = {
        "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "value": keras.losses.MeanSquaredError(),
        "aside": None,
    }
    scales = {"classes": 1.0, "value": 3.0, "aside": 1.0}
    if structure is list:
        losses, scales = list(losses.values()), list(scales.values())
    qmodel.compile("sgd", losses, loss_weights=scales)
    found = qmodel.evaluate(X, verbose=0)
    ours = keras.tree.map_structure(np.asarray, qmodel(X, training=False))
    keys = ("classes", "value") if structure is dict else (0, 1)
    (p, q), (a, b) = ((reference[k], ours[k]) for k in keys)
    expected = cross(*(keras.ops.softmax(t) for t in (p, q)))
    expected += 3.0 * float(((a - b) ** 2).mean())
    assert found == pytest.approx(expected, rel=1e-4)
    history = qmodel.fit(X, verbose=0, batch_size=64).history
    assert history["msq_distillation"] == pytest.approx([expected], rel=1e-4)


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("activation", "outputs", "expected"),
    [
        ("softmax", "auto", "KL divergence of classes (probabilities)"),
        ("sigmoid", "auto", "KL divergence of yes and no (probabilities)"),
        (None, "auto", "squared error over the teacher's variance"),
        (None, "logits", "KL divergence of classes (logits)"),
        ("softmax", "values", "squared error over the teacher's variance"),
    ],
)
def test_what_was_chosen_is_told(activation, outputs, expected, caplog):
    model = network(activation=activation)
    qmodel = msq_tf.quantize_model(model)
    msq_tf.distill(qmodel, model, outputs=outputs)
    qmodel.compile("sgd")
    with caplog.at_level("INFO", "msq_tf"):
        loss = qmodel.evaluate(X, verbose=0)
    assert expected in caplog.text
    assert 0.0 < loss < 0.1


@pytest.mark.parametrize("values", [[3.0], [1000.0, 1000.0], [0.0, 0.0]])
def test_values_without_a_variance_do_not_blow_up(values):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, L.Dense(1, use_bias=False)(inputs))
    model.set_weights([np.ones((1, 1))])
    qmodel = msq_tf.quantize_model(model)
    teacher = keras.models.clone_model(model)
    teacher.set_weights([np.full((1, 1), 1.01)])
    msq_tf.distill(qmodel, teacher)
    qmodel.compile("sgd")
    x = np.array(values, np.float32)[:, None]
    assert 0.0 <= qmodel.evaluate(x, verbose=0) < 0.1


def test_classes_on_another_axis():
    x_in = np.random.default_rng(1).normal(size=(64, 8)).astype("float32")
    inputs = keras.Input((8,))
    keras.utils.set_random_seed(0)
    x = keras.layers.Reshape((3, 2))(keras.layers.Dense(6, name="head")(inputs))
    model = keras.Model(inputs, x)
    teacher = keras.models.clone_model(model)
    teacher.get_layer("head").kernel.assign(
        np.random.default_rng(0).normal(size=(8, 6))
    )
    qmodel = msq_tf.quantize_model(model)
    msq_tf.distill(qmodel, teacher)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, axis=1)
    qmodel.compile(keras.optimizers.SGD(0.0), loss)
    p, q = (
        keras.ops.softmax(m.predict(x_in, verbose=0), axis=1).numpy()
        for m in (teacher, qmodel)
    )
    log = qmodel.fit(x_in, p, batch_size=64, verbose=0).history
    expected = (p * np.log(p / q)).sum(1).mean()
    found = log["msq_distillation"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # The costs of a search are measured on that axis, too.
    divergence = output_divergence(qmodel.task_losses())
    logits = [m.predict(x_in, verbose=0) for m in (teacher, qmodel)]
    np.testing.assert_allclose(divergence(*logits), expected, rtol=1e-4)
