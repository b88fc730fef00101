"""KerasHub's vision transformers, built from configuration."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import msq_tf
from tflite_export import export

# Importing it is slow, and it is an extra: `pip install .[hub]`.
hub = pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

SIZE = {
    "image_shape": (16, 16, 3),
    "patch_size": 4,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
}
BLOCK = ("mha/query", "mha/key", "mha/value", "mha/attention_output")


def vit():
    return hub.models.ViTBackbone(mlp_dim=32, **SIZE)


def deit():
    return hub.models.DeiTBackbone(intermediate_dim=32, **SIZE)


def classifier(build):
    """A backbone under a head, with tokens as a training leaves them."""
    keras.utils.set_random_seed(0)
    backbone = build()
    rng = np.random.default_rng(0)
    for variable in backbone.weights:
        if "token" in variable.name or "position" in variable.path:
            variable.assign(rng.normal(0, 0.5, variable.shape))
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Dense(4, name="head")(backbone(inputs)[:, 0])
    return keras.Model(inputs, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("build", [vit, deit], ids=lambda f: f.__name__)
def test_from_search_to_files(build, tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 16, 16, 3)).astype("f")
    y = x[:, ::4, 0, 0].argmax(-1)
    qmodel = msq_tf.quantize_model(classifier(build))
    paths = [path.partition("/")[2] for path in qmodel.bits]
    for name in BLOCK:
        assert any(p.endswith(f"transformer_block_1/{name}") for p in paths)
    assert any("patch_embedding" in path for path in paths)
    assert "(1 layer) have no weights" in str(msq_tf.precision_report(qmodel))
    # Tokens, and DeiT's positions, are weights of layers of its own.
    assert all(
        "token" in w.path or "position" in w.path
        for w in qmodel.skipped_weights()
    )
    qmodel.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6.0), interval=1, max_probes=2
    )
    qmodel.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[search])
    assert qmodel.compression >= 6.0
    path = tmp_path / "m.keras"
    qmodel.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.bits == qmodel.bits
    np.testing.assert_array_equal(loaded(x), qmodel(x))
    bits = itertools.cycle((8, 4, 2, 3, 6, 5, 7))
    loaded.set_bits(dict(zip(loaded.bits, bits, strict=False)))
    for target in ("cpu_float", "min_size", "cpu_int8"):
        report = export(
            loaded, tmp_path / "m", target=target, representative_data=x
        )
        assert {t.name for t in report.tensors} == set(loaded.bits)
