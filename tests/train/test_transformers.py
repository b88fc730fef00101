"""Vision transformers from quantize_model to files."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export
from train.models import swin
from train.models import vit

SHAPE = (16, 16, 3)
CLASSES = 4
BITS = (8, 4, 2, 3, 6, 5, 7)
VIT = vit.ViTConfig(
    patch=4, width=16, depth=1, heads=2, mlp_ratio=2, layer_scale=0.5
)
SWIN = swin.SwinConfig(
    patch=2, width=8, depths=(2, 1), heads=(2, 4), window=4, mlp_ratio=2
)


def as_if_trained(model):
    """Vectors, tokens and positions as a training leaves them."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        one = variable.name in ("gamma", "factor")
        if len(variable.shape) == 1 or variable.name in ("token", "position"):
            variable.assign(float(one) + rng.normal(0, 0.3, variable.shape))
    return model


def tiny_vit():
    keras.utils.set_random_seed(0)
    return as_if_trained(vit.vision_transformer(SHAPE, CLASSES, VIT))


def tiny_swin():
    keras.utils.set_random_seed(0)
    return as_if_trained(swin.swin_transformer(SHAPE, CLASSES, SWIN))


MODELS = pytest.mark.parametrize(
    "build", [tiny_vit, tiny_swin], ids=lambda f: f.__name__
)
# Windows make many operators.
SLOW_SWIN = pytest.mark.parametrize(
    "build",
    [tiny_vit, pytest.param(tiny_swin, marks=pytest.mark.slow)],
    ids=lambda f: f.__name__,
)


def images(count=16):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, *SHAPE)).astype(np.float32)
    return x, x[:, ::4, 0, 0].argmax(-1)


@pytest.mark.slow
def test_every_kernel_is_found_and_the_rest_has_its_reason():
    qmodel = msq_tf.quantize_model(tiny_vit())
    attention = [f"block1_attention/{x}" for x in ("query", "key", "value")]
    assert list(qmodel.bits) == [
        "patches",
        *attention,
        "block1_attention/attention_output",
        "block1_mlp1",
        "block1_mlp2",
        "logits",
        "distilled_logits",
    ]
    skipped = {w.path: w.reason for w in qmodel.skipped_weights()}
    assert set(skipped) == {"tokens/token", "tokens/position"}
    assert set(skipped.values()) == {vit.ADDED}
    qmodel = msq_tf.quantize_model(tiny_swin())
    names = ("attention/qkv", "attention/projection", "mlp1", "mlp2")
    blocks = [f"stage1_{block}_{name}" for block in "12" for name in names]
    last = [f"stage2_1_{name}" for name in names]
    assert list(qmodel.bits) == [
        *("patches", *blocks, "merge2/reduction", *last, "logits")
    ]
    skipped = {(w.path, w.attribute) for w in qmodel.skipped_weights()}
    assert skipped == {
        (f"stage{block}_attention", "position_bias")
        for block in ("1_1", "1_2", "2_1")
    }


@pytest.mark.first(1)
@MODELS
def test_the_report_says_that_products_have_no_weights(build):
    report = msq_tf.precision_report(msq_tf.quantize_model(build()))
    layers = {tiny_vit: "1 layer", tiny_swin: "3 layers"}[build]
    assert f"products of activations ({layers}) have no" in str(report)


@pytest.mark.slow
@SLOW_SWIN
def test_search_save_and_load(build, tmp_path):
    x, y = images()
    qmodel = msq_tf.quantize_model(build())
    qmodel.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rule = msq_tf.BudgetRule(target_compression=6.0)
    # The Hessian goes through softmax, GELU and layer normalization.
    callback = msq_tf.MSQCallback(
        rule, interval=1, ranking="hessian", max_probes=2
    )
    qmodel.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[callback])
    assert qmodel.compression >= 6.0
    assert np.isfinite(qmodel.search.trace.numpy()).all()
    assert (qmodel.search.trace.numpy() != 0).all()
    path = tmp_path / "m.keras"
    qmodel.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.bits == qmodel.bits
    np.testing.assert_array_equal(loaded(x), qmodel(x))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("build", "target"),
    [
        (tiny_vit, "cpu_float"),
        (tiny_vit, "min_size"),
        (tiny_vit, "cpu_int8"),
        (tiny_swin, "min_size"),
        pytest.param(tiny_swin, "cpu_float", marks=pytest.mark.slow),
        pytest.param(tiny_swin, "cpu_int8", marks=pytest.mark.slow),
    ],
)
def test_files(build, target, tmp_path):
    x, _ = images(8)
    qmodel = msq_tf.quantize_model(build())
    qmodel.set_bits(dict(zip(qmodel.bits, itertools.cycle(BITS), strict=False)))
    report = export(
        qmodel, tmp_path / "m", target=target, representative_data=x
    )
    assert {t.name for t in report.tensors} == set(qmodel.bits)
    assert all(check.ran for check in report.checks)
    # Dense layers on sequences are one operator, without shapes at run time.
    assert all(
        t.ops in (("CONV_2D",), ("FULLY_CONNECTED",)) for t in report.tensors
    )


def test_windows_are_those_of_the_image():
    """A shifted window sees what its neighbours hold, but not the far end."""
    keras.utils.set_random_seed(0)
    layer = swin.WindowAttention(heads=1, window=4, shift=2)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype("f")
    before = layer(x).numpy()
    x[0, 0, 0] += 1.0
    changed = np.abs(layer(x).numpy() - before)[0].max(-1) > 1e-6
    # The corner is a window of its own, of 2x2 tokens.
    assert changed[:2, :2].all() and changed.sum() == 4
    x[0, 3, 3] += 1.0
    changed = np.abs(layer(x).numpy() - before)[0].max(-1) > 1e-6
    assert changed[2:6, 2:6].all() and changed.sum() == 4 + 16


def test_position_bias_is_of_the_distance():
    layer = swin.WindowAttention(heads=1, window=3)
    layer.build((None, 3, 3, 2))
    layer.position_bias.assign(np.arange(25.0)[:, None])
    bias = layer._bias().numpy()[0, 0].reshape(3, 3, 3, 3)
    for row, column in itertools.product(range(3), repeat=2):
        # Row and column of the table, from -2 to 2.
        assert bias[row, column, 1, 1] == 5 * (row + 1) + column + 1
