"""KerasHub's tasks keep their preprocessor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf

# Importing it is slow, and it is an extra: `pip install .[hub]`.
hub = pytest.importorskip(
    "keras_hub", reason="keras-hub is not installed (extra `hub`)"
)

WORDS = "the film was good bad very not plot a dull great".split()
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 24, 3))
CLASSES = np.arange(16) % 3
TEXTS = [
    f"the {noun} was {degree} {word}"
    for noun in ("film", "plot")
    for degree in ("very", "not")
    for word in ("good", "bad", "dull", "great")
]
SENSE = np.array([word in t for t in TEXTS for word in ["good"]], "int32")


def images():
    backbone = hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )
    return hub.models.ViTImageClassifier(
        backbone=backbone,
        num_classes=3,
        preprocessor=hub.models.ViTImageClassifierPreprocessor(
            hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 255)
        ),
    )


def texts():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    backbone = hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=12,
    )
    return hub.models.BertTextClassifier(
        backbone=backbone,
        num_classes=2,
        preprocessor=hub.models.BertTextClassifierPreprocessor(
            hub.models.BertTokenizer(vocabulary=vocabulary), sequence_length=12
        ),
    )


TASKS = {"images": (images, PIXELS, CLASSES), "texts": (texts, TEXTS, SENSE)}


@pytest.fixture(params=TASKS)
def task(request):
    build, x, y = TASKS[request.param]
    keras.utils.set_random_seed(0)
    return build(), x, y


@pytest.mark.slow
def test_raw_data_goes_through_the_preprocessor(task, tmp_path):
    base, x, y = task
    want = base.predict(x, verbose=0)
    qmodel = msq_tf.quantize_model(base)
    # At eight bits it is nearly the float model.
    np.testing.assert_allclose(qmodel.predict(x, verbose=0), want, atol=0.05)
    qmodel.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    search = msq_tf.MSQCallback(
        msq_tf.BudgetRule(target_compression=6.0),
        data=(x, y),
        interval=1,
        max_probes=2,
        verbose=0,
    )
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    # KerasHub makes a data set of everything, which Keras does not shuffle.
    history = qmodel.fit(
        data,
        validation_data=data,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[search],
    )
    assert qmodel.compression >= 6.0
    loss, accuracy = qmodel.evaluate(x, y, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert history.history["val_accuracy"][-1] == accuracy
    # The same by hand; pictures are resized by TensorFlow there, too.
    raw = tf.data.Dataset.from_tensor_slices(x).batch(len(x))
    (inputs,) = raw.map(base.preprocessor)
    np.testing.assert_allclose(
        qmodel(inputs), qmodel.predict(x, verbose=0), atol=1e-5
    )
    qmodel.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), qmodel.predict(x, verbose=0)
    )


@pytest.mark.slow
def test_without_a_preprocessor_data_is_as_the_model_takes_it():
    keras.utils.set_random_seed(0)
    base = images()
    inputs = base.preprocessor(PIXELS)
    base.preprocessor = None
    qmodel = msq_tf.quantize_model(base)
    np.testing.assert_allclose(
        qmodel.predict(inputs, verbose=0), qmodel(inputs), atol=1e-5
    )


@pytest.mark.slow
def test_kerashub_still_finds_its_tasks():
    base = images()
    msq_tf.quantize_model(base).predict(PIXELS, verbose=0)
    kinds = type(base).__subclasses__()
    assert all(kind.backbone_cls is None for kind in kinds)
