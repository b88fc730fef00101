"""The methods of the ablations: what each does to a training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from benchmarks.accuracy import ablations
from benchmarks.accuracy import methods
from benchmarks.accuracy.study import ABLATIONS
from tests.msq_tf.samples import tiny_model

STEPS = 12


def trained(name, optimizer="sgd"):
    keras.utils.set_random_seed(1)
    qmodel = msq_tf.quantize_model(tiny_model(), msq_tf.MSQConfig(start_bits=2))
    method = methods.METHODS[name](qmodel, STEPS)
    made = keras.optimizers.get(optimizer)
    made.learning_rate = 0.05
    if method.factors:
        made = methods.with_factors(made, qmodel)
    qmodel.compile(made, "mse")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8 * STEPS, *qmodel.input_shape[1:]))
    y = generator.normal(size=(8 * STEPS, *qmodel.output_shape[1:]))
    history = qmodel.fit(
        x, y, batch_size=8, shuffle=False, verbose=0,
        callbacks=list(method.callbacks),
    )  # fmt: skip
    return qmodel, method, history.history["loss"][0]


def weights(qmodel):
    return np.concatenate([k.numpy().ravel() for k in qmodel.kernels])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, "sgd") for name in sorted(set(methods.METHODS) - {""})),
        ("transition rate", "adam"),
    ],
)
def test_every_method_trains_and_changes_the_training(name, optimizer):
    plain, _, _ = trained("", optimizer)
    qmodel, _, loss = trained(name, optimizer)
    assert np.isfinite(loss)
    if name != "freezing":  # nothing oscillates that often in a few steps
        assert not np.array_equal(weights(qmodel), weights(plain))


def test_a_weight_that_goes_to_and_fro_is_frozen():
    qmodel = msq_tf.quantize_model(tiny_model(), msq_tf.MSQConfig(start_bits=2))
    qmodel.compile("sgd", "mse")
    freezing = methods.Freezing(STEPS)
    freezing.set_model(qmodel)
    freezing.on_train_begin()
    kernel = qmodel.kernels[0]
    start = kernel.numpy()
    first_channel = np.abs(qmodel.quantized_values()[0])[..., 0]
    step = float(first_channel.max())
    for n in range(12):
        moved = start.copy()
        moved.flat[0] = (0.4 if n % 2 else 0.6) * step
        kernel.assign(moved)
        freezing.after(tf.constant(1.0))
    frozen = [f.numpy() for f in freezing._frozen]
    assert frozen[0].flat[0] == 1 and sum(f.sum() for f in frozen) == 1
    kernel.assign(start + 1.0)
    freezing.after(tf.constant(1.0))
    assert 0 < kernel.numpy().flat[0] < step


def test_gradients_shrink_with_the_bits():
    qmodel = msq_tf.quantize_model(tiny_model(), msq_tf.MSQConfig())
    path, *others = qmodel.paths
    qmodel.set_bits({path: 2, **dict.fromkeys(others, 8)})
    factors = list(methods.width_factors(qmodel).values())
    assert factors[0] == pytest.approx((1 / 127) ** 0.5)
    assert factors[1:] == [1.0] * len(others)


def test_rows_differ_from_the_plain_one_in_one_thing():
    names = [row.name for row in ABLATIONS.rows]
    assert len(set(names)) == len(names)
    assert {row.method for row in ABLATIONS.rows} == set(methods.METHODS)
    runs = [
        {
            "row": {"name": f"{name}, SGD"},
            "seed": seed,
            "accuracy": accuracy + seed / 100,
            "reestimated": accuracy,
            "compression": 12.8,
        }
        for name, accuracy in (
            ("float", 0.9),
            ("MSQ 12.8x", 0.8),
            ("MSQ 12.8x, learned scale", 0.82),
            ("ThresholdRule", 0.7),
        )
        for seed in (0, 1)
    ]
    cells = {row[0]: row[1:] for row in ablations.rows(runs)}
    assert cells["float"] == ("SGD", "2", "12.80x", "90.50", "", "")
    assert cells["MSQ 12.8x, learned scale"][4] == "+2.00 ± 0.00"
    assert cells["ThresholdRule"][4:] == ("-10.00 ± 0.00", "-0.50 ± 0.50")
