"""Inputs that name rows which a table does not have."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import msq_tf
import tflite_export
from tflite_export import export
from tflite_export import float_file
from tflite_export.evaluation.scores import evaluate_file

L = keras.layers
ROWS = 20


def tokens(dtype="int32", wrong=None):
    ids = np.random.default_rng(0).integers(0, ROWS, (24, 6)).astype(dtype)
    if wrong is not None:
        ids[5, 2] = wrong
    return ids


def network(dtype="int32", before=lambda x: x):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype=dtype, name="tokens")
    x = L.Embedding(ROWS, 4, name="words")(before(inputs))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def quantized(model, bits=None):
    config = msq_tf.MSQConfig(activation_bits=bits)
    qmodel = msq_tf.quantize_model(model, config)
    if bits:
        qmodel.compile("sgd", "mse")
        dtype = model.inputs[0].dtype
        qmodel.fit(tokens(dtype), np.zeros((24, 2)), verbose=0)
    return qmodel


class Subclassed(keras.Model):
    """A model that does not show what its layers read."""

    def __init__(self):
        super().__init__()
        self.words = L.Embedding(ROWS, 4, name="words")
        self.head = L.Dense(2)

    def call(self, x):
        return self.head(keras.ops.mean(self.words(x), 1))


def nested():
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    return keras.Model(inputs, network()(inputs))


MESSAGE = (
    r"ids from 0 to 19, or from -20 to -1.*`input_dim` of its Embedding is 20"
    r".*Received: ids from {low} to {high}.* sample 5"
)


@pytest.mark.parametrize("target", ["min_size", "cpu_int8", "mcu"])
@pytest.mark.parametrize(("dtype", "wrong"), [("int32", 99), ("float32", -21)])
def test_an_export_refuses_them_at_once(tmp_path, target, dtype, wrong):
    given = tokens(dtype, wrong)
    words = MESSAGE.format(low=int(given.min()), high=int(given.max()))
    with pytest.raises(ValueError, match=rf"'tokens'.*'words'.*{words}"):
        export(
            quantized(network(dtype)),
            tmp_path / "m.tflite",
            target=target,
            representative_data=given,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("make", [Subclassed, nested])
def test_so_it_does_where_only_the_file_shows_the_table(tmp_path, make):
    model = make()
    model(tokens())
    qmodel = quantized(model)
    words = MESSAGE.format(low=0, high=20)
    with pytest.raises(ValueError, match=words):
        export(qmodel, tmp_path / "m", representative_data=tokens(wrong=ROWS))
    export(qmodel, tmp_path / "m", representative_data=tokens(wrong=-ROWS))


@pytest.mark.parametrize("target", ["min_size", "cpu_int8"])
def test_ids_that_are_computed_are_refused_too(tmp_path, target):
    qmodel = quantized(network(before=lambda x: x + 1))
    with pytest.raises(ValueError, match="such as ids .*Received: "):
        export(
            qmodel,
            tmp_path / "m.tflite",
            target=target,
            representative_data=tokens(wrong=19),
        )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["min_size", "cpu_int8", "mcu"])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_file_is_not_run_on_them(tmp_path, target, dtype):
    path = tmp_path / "m.tflite"
    export(
        quantized(network(dtype), 8),
        path,
        target=target,
        representative_data=tokens(dtype),
    )
    labels = np.zeros((24, 2), "f")
    for wrong in (99, -21):
        given = tokens(dtype, wrong)
        words = MESSAGE.format(low=int(given.min()), high=int(given.max()))
        with pytest.raises(ValueError, match=f"`inputs`.*{words}"):
            tflite_export.run(path, given)
        with pytest.raises(ValueError, match=f"x for.*{words}"):
            evaluate_file(path, given, labels)
    evaluate_file(path, tokens(dtype, -20), labels)
    tflite_export.run(path, tokens(dtype, -20))


def test_several_tables_have_sizes_of_their_own(tmp_path):
    inputs = [keras.Input((3,), dtype="int32", name=name) for name in "ab"]
    tables = [
        L.Embedding(rows, 4, name=f"table_{rows}")(x)
        for rows, x in zip((50, 5), inputs, strict=True)
    ]
    model = keras.Model(inputs, L.Dense(1)(L.Concatenate()(tables)))
    float_file(model, tmp_path / "m.tflite")
    ids = np.full((4, 3), 5, "int32")
    with pytest.raises(ValueError, match="'b' asks.*'table_5'|'b' asks"):
        tflite_export.run(tmp_path / "m.tflite", {"a": ids, "b": ids})
    tflite_export.run(tmp_path / "m.tflite", {"a": ids, "b": ids - 1})
    with pytest.raises(ValueError, match="'b' asks.*'table_5'.*0 to 4"):
        export(
            quantized(model),
            tmp_path / "q.tflite",
            representative_data={"a": ids, "b": ids},
        )


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "given",
    [
        np.full((2, 6), 0.5),
        np.full((2, 6), np.nan),
        np.full((2, 6), np.inf),
        np.full((2, 6), 2**40),
    ],
)
def test_numbers_that_are_no_ids_are_not_cut(tmp_path, given):
    path = tmp_path / "m.tflite"
    float_file(network(), path)
    for call in (
        lambda: tflite_export.run(path, given),
        lambda: evaluate_file(path, given, np.zeros((2, 2))),
    ):
        with pytest.raises(
            ValueError, match="(whole|finite) numbers.*Received"
        ):
            call()
    whole = np.full((2, 6), 3)
    same = [tflite_export.run(path, whole.astype(t)) for t in ("int32", "f")]
    np.testing.assert_array_equal(*same)


def test_ids_that_a_file_computes_end_in_words(tmp_path):
    path = tmp_path / "m.tflite"
    float_file(network(before=lambda x: x + 1), path)
    with pytest.raises(ValueError, match="values of `inputs`.*Received"):
        tflite_export.run(path, tokens(wrong=19))
