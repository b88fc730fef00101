"""What KerasHub's models compute, in layers of a few lines."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
from tests.tflite_export.integer import networks
from tflite_export import export
from tflite_export.flatbuffer import model as fb
from tflite_export.verification import arrangement
from tflite_export.verification import keras_agreement

L, ops = keras.layers, keras.ops


@keras.saving.register_keras_serializable(package="tests")
class Near(L.Layer):
    """Keeps what is near the last of the words that are no padding."""

    def call(self, x, ids):
        """Computes positions as integers, as a mask of a decoder does."""
        words = ops.cast(ops.not_equal(ids, 0), "int32")
        back = ops.negative(ops.sum(words, axis=1, keepdims=True))
        back = ops.maximum(back, -5)
        away = ops.square(ops.arange(1, 7)[None] + back)
        return x * ops.cast(away < 5, x.dtype)[..., None]


@keras.saving.register_keras_serializable(package="tests")
class Turned(L.Layer):
    """Turns pairs of numbers by angles of their positions."""

    def __init__(self, **named):
        super().__init__(**named)
        self.angles = Angles()

    def call(self, x):
        """Computes as a rotary embedding does."""
        angle = self.angles(ops.arange(x.shape[1]))
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        cos, sin = ops.cos(angle), ops.sin(angle)
        return ops.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@keras.saving.register_keras_serializable(package="tests")
class Angles(L.Layer):
    """One angle for each position and pair."""

    def build(self, shape):
        """Creates the frequencies."""
        self.frequency = self.add_weight(
            shape=(4,), initializer="ones", trainable=False
        )

    def call(self, positions):
        """Multiplies positions by frequencies."""
        return ops.cast(positions, "float32")[:, None] * self.frequency


@keras.saving.register_keras_serializable(package="tests")
class Alike(L.Layer):
    """Products of all pairs of two towers' vectors, as in CLIP."""

    def call(self, x, y):
        """Multiplies activations only."""
        return ops.matmul(x, ops.transpose(y))


@keras.saving.register_keras_serializable(package="tests")
class Scaled(L.Layer):
    """Has a product with a number between operators that stay in float."""

    def call(self, x):
        """Computes in float where training rounds the result only."""
        return ops.log(ops.exp(x) * 0.25 + 1.0)


@keras.saving.register_keras_serializable(package="tests")
class Beside(L.Layer):
    """Lays the mean of a picture beside each of its pixels."""

    def call(self, x, mean):
        """Interpolates one pixel."""
        wide = ops.image.resize(mean, (4, 4), interpolation="bilinear")
        return ops.concatenate([x, wide], -1)


def words(rng, count=16):
    ids = rng.integers(1, 20, (count, 6)).astype("int32")
    for row, kept in enumerate(rng.integers(2, 7, count)):
        ids[row, kept:] = 0
    return ids


def operators(path, name):
    """The operators of one kind, as types of what they read and write."""
    model = fb.load(path.read_bytes())
    graph = model.subgraphs[0]
    return [
        [
            fb.type_name(graph.tensors[index])
            for index in (*fb.inputs(op), *fb.outputs(op))
            if index >= 0
        ]
        for op in graph.operators
        if fb.op_name(model, op) == name
    ]


def trained(model, x):
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(model, msq_tf.MSQConfig(activation_bits=8))
    msq_tf.calibrate(qmodel, x)
    return qmodel


@pytest.mark.slow
def test_positions_stay_integers(tmp_path):
    inputs = keras.Input((6,), dtype="int32")
    x = Near()(
        L.Embedding(20, 8, embeddings_initializer="normal")(inputs), inputs
    )
    ids = words(np.random.default_rng(0))
    qmodel = trained(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))), ids)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=ids)
    assert [kinds[0] for kinds in operators(path, "SUM")] == ["INT32"]
    assert operators(path, "NEG") == [["INT32", "INT32"]]
    assert not operators(path, "MEAN")


def halves(ids, x):
    """The words that remain of as many when every other frame is left out."""
    count = ops.sum(ops.cast(ops.not_equal(ids, 0), "int32"), axis=1)
    frames = ops.floor((ops.cast(count, "float32") * 100.0 - 1.0) / 200.0) + 1.0
    kept = ops.cast(frames, "int32")
    shown = ops.less(ops.arange(6)[None], kept[:, None])
    return ops.where(shown[..., None], x, 0.0)


@pytest.mark.parametrize("bits", [8, None])
def test_lengths_are_exact(bits, tmp_path):
    """In 8 bits, a length of 600 would be off by one or two."""
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8, embeddings_initializer="normal")(inputs)
    x = L.Dense(3)(L.Flatten()(halves(inputs, x)))
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x), config)
    ids = words(np.random.default_rng(0))
    if bits:
        msq_tf.calibrate(qmodel, ids)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=ids)
    assert operators(path, "FLOOR") == [["FLOAT32", "FLOAT32"]]
    (cut,) = [
        kinds for kinds in operators(path, "CAST") if "FLOAT32" in kinds[:1]
    ]
    assert cut == ["FLOAT32", "INT32"]
    # Neither before nor behind it a number of 8 bits.
    grids = {kinds[-1] for kinds in operators(path, "QUANTIZE")}
    assert grids <= {"INT8"}
    for name in ("MUL", "SUB", "DIV"):
        assert all("INT8" not in kinds for kinds in operators(path, name))


def test_angles_have_no_grid(tmp_path):
    inputs = keras.Input((6, 8))
    x = L.Dense(3)(Turned()(L.Dense(8)(inputs)))
    model = keras.Model(inputs, x)
    data = networks.samples(model)
    qmodel = trained(model, data)
    assert not any("angles" in site.path for site in qmodel.activations.sites)
    export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data,
    )


def test_one_pixel_is_copied(monkeypatch, tmp_path):
    """A mean of a picture beside the picture, as DeepLab resizes it."""
    strict(monkeypatch)
    inputs = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 1, activation="relu")(inputs)
    mean = L.GlobalAveragePooling2D(keepdims=True)(x)
    mean = L.Conv2D(8, 1, activation="relu")(mean)
    x = L.Conv2D(3, 3)(Beside()(x, mean))
    model = keras.Model(inputs, x)
    data = networks.samples(model)
    report = export(
        trained(model, data),
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data,
    )
    notes = " ".join(report.notes)
    assert "differ from Keras, by a unit" in notes
    assert "can't be compared" not in notes


@pytest.mark.parametrize("batch_size", [None, 1])
def test_products_of_two_towers(batch_size, tmp_path):
    inputs = [keras.Input((6,), name=name) for name in ("image", "text")]
    x, y = (L.Dense(8)(each) for each in inputs)
    rng = np.random.default_rng(0)
    data = {
        name: rng.normal(size=(16, 6)).astype(np.float32)
        for name in ("image", "text")
    }
    qmodel = trained(keras.Model(inputs, Alike()(x, y)), list(data.values()))
    path = tmp_path / "m.tflite"
    report = export(
        qmodel,
        path,
        target="cpu_int8",
        representative_data=data,
        batch_size=batch_size,
    )
    assert operators(path, "BATCH_MATMUL") == [["INT8"] * 3]
    assert len(report.tensors) == 2


@pytest.mark.slow
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_tables_that_are_looked_up_and_multiplied(soft_cap, tmp_path):
    """A scale for each feature; a cap is folded into the product's weight."""
    inputs = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(
        20, 8, embeddings_initializer="normal", logit_soft_cap=soft_cap
    )
    outputs = table(L.Dense(8)(table(inputs)), reverse=True)
    ids = words(np.random.default_rng(0))
    qmodel = trained(keras.Model(inputs, outputs), ids)
    scales = qmodel.quantized_weights()[0].step
    assert len(np.unique(scales)) == 8
    for batch_size in (None, 1):
        path = tmp_path / "m.tflite"
        report = export(
            qmodel,
            path,
            target="cpu_int8",
            representative_data=ids,
            batch_size=batch_size,
        )
        assert {t.name for t in report.tensors} == set(qmodel.bits)


def strict(monkeypatch):
    """Has every export compare Keras and the file point by point."""
    monkeypatch.setattr(keras_agreement, "END_UNITS", {"int8": -1})


def test_points_behind_a_product_in_float(monkeypatch, tmp_path):
    strict(monkeypatch)
    x = inputs = keras.Input((6,))
    x = L.Dense(8)(Scaled()(L.Dense(8)(x)))
    model = keras.Model(inputs, L.Dense(3)(x))
    data = networks.samples(model)
    report = export(
        trained(model, data),
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data,
    )
    assert any("differ from Keras, by a unit" in n for n in report.notes)


def test_weights_that_training_does_not_round(monkeypatch, tmp_path):
    """What they give in 8 bits is not compared with what they give in float."""
    strict(monkeypatch)
    inputs = keras.Input((64,))
    x = L.Dense(32, name="kept", activation="relu")(inputs)
    model = keras.Model(inputs, L.Dense(3)(x))
    kept = {"kept": msq_tf.LayerConfig(skip=True)}
    config = msq_tf.MSQConfig(activation_bits=8, overrides=kept)
    keras.utils.set_random_seed(0)
    qmodel = msq_tf.quantize_model(model, config)
    data = networks.samples(model)
    msq_tf.calibrate(qmodel, data)
    report = export(
        qmodel,
        tmp_path / "m.tflite",
        target="cpu_int8",
        representative_data=data,
    )
    notes = " ".join(report.notes)
    assert "was not trained with MSQ: rounded to 8 bits" in notes
    assert "and 1 sites can't be compared" in notes


def test_windows_in_the_order_of_the_picture():
    """Windows of a picture lie in front, with the batch, as in Swin."""
    rng = np.random.default_rng(0)
    own = rng.integers(-128, 128, (2, 4, 4, 3))
    axes = np.array([0, 1, 3, 2, 4, 5])
    cut = own.reshape(2, 2, 2, 2, 2, 3)
    windows = cut.transpose(axes).reshape(8, 4, 3)
    moves = [
        ((1, 2, 2, 2, 2, 3), None),
        (cut.shape, axes),
        ((1, 4, 4, 3), None),
    ]
    got = arrangement.arranged(windows, own, moves)
    np.testing.assert_array_equal(got, own)


@keras.saving.register_keras_serializable(package="tests")
class Distances(L.Layer):
    """Adds what a dense layer makes of a table."""

    def build(self, shape):
        """Creates the table; fewer bits than 8 would hold it."""
        self.table = self.add_weight(shape=(6, 16), initializer="normal")
        self.dense = L.Dense(shape[-1])
        self.dense.build((6, 16))

    def call(self, x):
        """Multiplies the table, which no data changes."""
        return x + self.dense(ops.convert_to_tensor(self.table))


def test_no_weight_is_rounded_twice(tmp_path):
    """The converter may multiply the other way round, and move the kernel."""
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, L.Dense(3)(Distances()(inputs)))
    data = networks.samples(model)
    qmodel = trained(model, data)
    path = tmp_path / "m.tflite"
    export(qmodel, path, target="cpu_int8", representative_data=data)
    file = fb.load(path.read_bytes())
    graph = file.subgraphs[0]
    moved = {"DEQUANTIZE"}
    kept = set()
    for op in graph.operators:
        name = fb.op_name(file, op)
        reads = fb.inputs(op)
        weight = fb.raw_data(file, graph.tensors[reads[0]]) is not None
        if (name in moved and weight) or (
            name in ("TRANSPOSE", "RESHAPE") and reads[0] in kept
        ):
            kept.update(fb.outputs(op))
        assert name != "QUANTIZE" or reads[0] not in kept
    assert kept
