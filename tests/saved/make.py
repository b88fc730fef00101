"""Files of searches that stopped on their way, for later versions to load.

    python -m tests.saved.make keras3   # needs Keras 3
    python -m tests.saved.make tfmot    # needs tf_keras and TFMOT

Committed files are never made again, as those of users are not. A format that
changes gets files of its own, under a name of its own, beside them.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).parent
# A search of four epochs is stopped after the second.
STOP, EPOCHS, BATCH = 2, 4, 32


def zoo_data():
    """Images, tokens and classes for `zoo_model`."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 12, 12, 4)).astype(np.float32)
    tokens = rng.integers(0, 11, (64, 5)).astype(np.int32)
    return [images, tokens], rng.integers(0, 3, 64)


def tiny_data():
    """Images of which quadrant is brightest, for `tiny_model`."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 8, 8, 1)).astype(np.float32)
    quadrants = x.reshape(64, 2, 4, 2, 4).mean((2, 4)).reshape(64, 4)
    return x, quadrants.argmax(-1)


def search(msq, data):
    """The callback of a search, whichever Keras."""
    import msq_tf

    rule = msq_tf.BudgetRule(target_compression=10.0, allowed_bits=range(2, 9))
    return msq.MSQCallback(rule, data, interval=1)


def fit(keras, model, data, callback, begin=0, end=EPOCHS):
    """Trains for some of the epochs of the search, with either Keras."""

    def stop(epoch, logs):
        model.stop_training = epoch + 1 >= end

    x, y = data
    model.fit(
        x,
        y,
        initial_epoch=begin,
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[callback, keras.callbacks.LambdaCallback(on_epoch_end=stop)],
    )


def write(name, model, view, outputs):
    """Writes a model, its weights, and what both have to give again."""
    model.save(FOLDER / f"{name}.keras")
    model.save_weights(FOLDER / f"{name}.weights.h5")
    weights = view.quantized_weights()
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        outputs=outputs,
        **{f"codes {w.path}": w.codes for w in weights},
        **{f"bits {w.path}": w.bits for w in weights},
    )


def keras3():
    """A model of every kind of layer, and one with learned scales."""
    import keras

    import msq_tf
    from tests.msq_tf.samples import tiny_model
    from tests.msq_tf.samples import zoo_model

    for name, make, data, optimizer, config in (
        ("zoo", zoo_model, zoo_data(), keras.optimizers.Adam(1e-3), {}),
        (
            "learned",
            tiny_model,
            tiny_data(),
            keras.optimizers.SGD(0.05, momentum=0.9),
            {
                "scale": "learned",
                "granularity": msq_tf.PerTensor(),
                "activation_ranges": "learned",
            },
        ),
    ):
        keras.utils.set_random_seed(0)
        config = msq_tf.MSQConfig(activation_bits=8, **config)
        qmodel = msq_tf.quantize_model(make(), config)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        qmodel.compile(optimizer, loss, metrics=["accuracy"])
        fit(keras, qmodel, data, search(msq_tf, data), end=STOP)
        outputs = qmodel.predict(data[0], verbose=0)
        write(f"keras3_{name}", qmodel, qmodel, outputs)


def tfmot():
    """A model of TFMOT's wrappers."""
    from tests.tfmot import samples

    data = tiny_data()
    model = samples.new_model()
    fit(samples.tf_keras, model, data, search(samples.msq, data), end=STOP)
    view = samples.msq.ModelView(model)
    outputs = model.predict(data[0], verbose=0)
    write("tfmot_tiny", model, view, outputs)


if __name__ == "__main__":
    {"keras3": keras3, "tfmot": tfmot}[sys.argv[1]]()
