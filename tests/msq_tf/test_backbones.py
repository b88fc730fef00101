"""A backbone under a new head: frozen, then fine-tuned with MSQ."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf

L = keras.layers


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 3, 64)


@pytest.fixture
def backbone():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    for name in ("first", "second"):
        x = L.Conv2D(8, 3, padding="same", use_bias=False, name=name)(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.5)(x))
    return keras.Model(inputs, x, name="backbone")


def with_head(backbone, **options):
    inputs = keras.Input((8, 8, 3))
    x = backbone(L.Rescaling(0.5)(inputs), **options)
    x = L.Dropout(0.1)(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def fit(model, data, callbacks=()):
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        *data, batch_size=16, epochs=2, verbose=0, callbacks=list(callbacks)
    )


def search():
    return msq_tf.MSQCallback(msq_tf.BudgetRule(target_compression=8))


def kernels(backbone):
    return [
        layer.kernel.numpy()
        for layer in backbone.layers
        if isinstance(layer, L.Conv2D)
    ]


def statistics(backbone):
    return [
        variable.numpy()
        for variable in backbone.variables
        if "moving" in variable.path
    ]


def same(before, after):
    return [np.array_equal(x, y) for x, y in zip(before, after, strict=True)]


@pytest.mark.slow
def test_the_two_phases(backbone, data):
    backbone.trainable = False
    model = with_head(backbone)
    before = kernels(backbone)
    fit(model, data)
    assert all(same(before, kernels(backbone)))

    backbone.trainable = True
    for layer in backbone.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    kept = statistics(backbone)
    qmodel = msq_tf.quantize_model(model)
    assert list(qmodel.bits) == ["backbone/first", "backbone/second", "head"]
    fit(qmodel, data, [search()])
    assert qmodel.compression >= 8
    assert not any(same(before, kernels(backbone)))
    assert all(same(kept, statistics(backbone)))


@pytest.mark.slow
def test_a_frozen_backbone_is_quantized_too(backbone, data):
    """Its bits go, its weights stay; unfreezing needs `compile` only."""
    backbone.trainable = False
    qmodel = msq_tf.quantize_model(with_head(backbone))
    assert [v.path for v in qmodel.trainable_variables] == [
        "head/kernel",
        "head/bias",
    ]
    before, kept = kernels(backbone), statistics(backbone)
    fit(qmodel, data, [search()])
    assert qmodel.compression >= 8
    assert qmodel.bits["backbone/second"] < 8
    assert all(same(before, kernels(backbone)))
    assert all(same(kept, statistics(backbone)))

    found = dict(qmodel.bits)
    backbone.trainable = True
    fit(qmodel, data)
    assert qmodel.bits == found
    assert not any(same(before, kernels(backbone)))
    assert not any(same(kept, statistics(backbone)))


@pytest.mark.first(1)
@pytest.mark.parametrize("wrap", [lambda m: m, msq_tf.quantize_model])
def test_training_false_holds_as_little_as_in_keras(backbone, data, wrap):
    """Keras 3.15 passes `training=True` on to nested calls regardless."""
    model = wrap(with_head(backbone, training=False))
    before = statistics(backbone)
    fit(model, data)
    assert not any(same(before, statistics(backbone)))
