"""Representative data as functions, as for `TFLiteConverter`, and folders."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tflite_export import export
from tflite_export.cli import main

L = keras.layers


def images(count=24, scale=1.0):
    rng = np.random.default_rng(0)
    return (scale * rng.uniform(size=(count, 8, 6, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def qmodel():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), name="image")
    x = L.Flatten()(L.Conv2D(4, 3, activation="relu")(image))
    qmodel = msq_tf.quantize_model(keras.Model(image, L.Dense(2)(x)))
    qmodel.compile(keras.optimizers.SGD(1e-9), "mse")
    qmodel.fit(images(), np.zeros((24, 2)), verbose=0)
    return qmodel


def written(qmodel, path, data, **options):
    report = export(
        qmodel, path, target="cpu_int8", representative_data=data, **options
    )
    return path.read_bytes(), report


def arrays():
    for row in images():
        yield row[None]


def lists():
    for row in images():
        yield [row[None]]


def dicts():
    for row in images():
        yield {"image": row[None]}


def pairs():
    yield from ((row[None], np.zeros(1)) for row in images())


class Callable:
    def __call__(self):
        return lists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        arrays,
        lists,
        dicts,
        pairs,
        lambda: images(),
        Callable(),
        tf.lite.RepresentativeDataset(lists),
        lambda: tf.data.Dataset.from_tensor_slices(images()).batch(5),
    ],
)
def test_functions_are_data(qmodel, function, tmp_path):
    wanted, _ = written(qmodel, tmp_path / "a.tflite", images())
    # Twice: a function begins anew.
    for _ in range(2):
        found, report = written(qmodel, tmp_path / "b.tflite", function)
        assert found == wanted and report.inputs == "given"


@pytest.mark.slow
def test_functions_for_several_inputs(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], L.Dense(2)(L.Concatenate()([a, b])))
    qmodel = msq_tf.quantize_model(model)
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    wanted, _ = written(qmodel, tmp_path / "a.tflite", [x[:, :3], x[:, 3:]])
    for function in (
        lambda: ([row[None, :3], row[None, 3:]] for row in x),
        lambda: ({"b": row[None, 3:], "a": row[None, :3]} for row in x),
    ):
        assert written(qmodel, tmp_path / "b.tflite", function)[0] == wanted


@pytest.mark.slow
def test_functions_that_are_none(qmodel, tmp_path):
    for wrong, message in (
        (lambda x: x, "without arguments"),
        (lambda: iter(()), "no sample"),
        (lambda: None, "returned nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            written(qmodel, tmp_path / "m.tflite", wrong)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes and kinds, in folders of classes."""
    for number, (name, write) in enumerate(
        (
            ("cats/a.png", tf.io.encode_png),
            ("cats/b.jpg", tf.io.encode_jpeg),
            ("dogs/c.png", tf.io.encode_png),
            ("dogs/deep/d.png", tf.io.encode_png),
        )
    ):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (9 + number, 12, 3)).astype(np.uint8)
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write(pixels).numpy())
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_folder_of_images(folder, kind, tmp_path):
    image = keras.Input((8, 6, 3), name="image")
    x = L.Flatten()(L.Rescaling(1 / 255.0)(image))
    qmodel = msq_tf.quantize_model(keras.Model(image, L.Dense(2)(x)))
    _, report = written(qmodel, tmp_path / "m.tflite", kind(folder))
    (note,) = [note for note in report.notes if "resized" in note]
    assert "4 images" in note and "8 x 6" in note and "nothing else" in note
    assert report.inputs == "given"


@pytest.mark.slow
def test_a_model_of_bytes(folder, tmp_path):
    image = keras.Input((8, 6, 3), dtype="uint8", name="image")
    x = L.Flatten()(L.Rescaling(1 / 255.0)(image))
    qmodel = msq_tf.quantize_model(keras.Model(image, L.Dense(2)(x)))
    written(qmodel, tmp_path / "m.tflite", folder)


def test_the_range_of_training_judges_them(qmodel, folder, tmp_path):
    """A model of 0..1 is given 0..255."""
    with pytest.raises(ValueError, match="on another scale"):
        written(qmodel, tmp_path / "m.tflite", folder)


@pytest.mark.slow
def test_the_command_scales_pixels(qmodel, folder, tmp_path, capsys):
    qmodel.save(tmp_path / "m.keras")
    arguments = [
        f"--model={tmp_path / 'm.keras'}",
        f"--output={tmp_path / 'm.tflite'}",
        "--target=cpu_int8",
        f"--representative_data={folder}",
    ]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--pixels=raw"]) == 1
    assert "on another scale" in capsys.readouterr().err


def test_lists_of_numbers_are_no_arrays(tmp_path):
    vector = keras.Input((3,), name="x")
    flat = msq_tf.quantize_model(keras.Model(vector, L.Dense(2)(vector)))
    with pytest.raises(ValueError, match=r"numpy\.asarray.*Received"):
        written(flat, tmp_path / "m.tflite", [[1.0, 2.0, 3.0]] * 4)


def test_folders_that_do_not_fit(qmodel, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.png").write_bytes(b"no image")
    for wrong, message in (
        (tmp_path / "no", "no such folder"),
        (tmp_path / "x.npy", "no such folder.*numpy.load"),
        (tmp_path / "empty", "can't be read.*No images"),
        (damaged, "can't be read"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            written(qmodel, tmp_path / "m.tflite", wrong)
        assert "\n" not in str(caught.value)
    vector = keras.Input((3,), name="x")
    flat = msq_tf.quantize_model(keras.Model(vector, L.Dense(2)(vector)))
    with pytest.raises(ValueError, match="1, 3 or 4 channels.*None, 3"):
        written(flat, tmp_path / "m.tflite", folder)
