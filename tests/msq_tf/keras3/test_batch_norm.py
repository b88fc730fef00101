"""Statistics of batch normalization of the network as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from tests.msq_tf.keras3.test_own_training import OwnStep

L = keras.layers
X = np.random.default_rng(0).normal(2.0, 3.0, (96, 8)).astype(np.float32)


def prepared(kind=keras.Model, bits=2, batch=None, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), batch_size=batch)
    x = L.Dense(6, name="hidden")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Dropout(0.5, seed=1)(x)
    x = L.Dense(4, activation="relu", name="second")(x)
    x = L.BatchNormalization(name="norm_2")(x)
    model = kind(inputs, L.Dense(3, name="head")(x))
    config = msq_tf.MSQConfig(start_bits=bits, **options)
    return msq_tf.quantize_model(model, config)


def expected(qmodel, parts):
    """What all batches as one have, by NumPy."""
    weights = dict(zip(qmodel.paths, qmodel.quantized_values(), strict=True))
    rows = {"norm": [], "norm_2": []}
    for x in parts:
        layer = qmodel.base.get_layer("hidden")
        x = (
            x.astype(np.float64) @ weights["hidden"].numpy()
            + layer.bias.numpy()
        )
        rows["norm"].append(x)
        norm = qmodel.base.get_layer("norm")
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + norm.epsilon)
        x = x * norm.gamma.numpy() + norm.beta.numpy()
        layer = qmodel.base.get_layer("second")
        x = x @ weights["second"].numpy() + layer.bias.numpy()
        rows["norm_2"].append(np.maximum(x, 0.0))
    joined = {name: np.concatenate(found) for name, found in rows.items()}
    return {name: (x.mean(0), x.var(0)) for name, x in joined.items()}


def check(qmodel, parts):
    for name, (mean, variance) in expected(qmodel, parts).items():
        layer = qmodel.base.get_layer(name)
        np.testing.assert_allclose(layer.moving_mean.numpy(), mean, atol=1e-5)
        np.testing.assert_allclose(
            layer.moving_variance.numpy(), variance, rtol=1e-5, atol=1e-6
        )


def test_they_are_those_of_all_batches_as_one():
    qmodel = prepared()
    msq_tf.reestimate_batch_norm(qmodel, X, batches=3, batch_size=32)
    check(qmodel, [X[i::3] for i in range(3)])
    data = tf.data.Dataset.from_tensor_slices((X, X[:, 0])).batch(20)
    # The last one is not whole.
    msq_tf.reestimate_batch_norm(qmodel, data)
    check(qmodel, [X[i : i + 20] for i in (0, 20, 40, 60)])
    msq_tf.reestimate_batch_norm(qmodel, data, batches=2)
    check(qmodel, [X[:20], X[20:40]])
    msq_tf.reestimate_batch_norm(qmodel, (X[:10], X[:10]))
    check(qmodel, [X[:10]])


@pytest.mark.slow
def test_nothing_else_moves():
    qmodel = prepared(bits=3, activation_bits=8)
    qmodel.compile("adam", "mse")
    qmodel.fit(X, X[:, :3], verbose=0)
    layers = [qmodel.base.get_layer(name) for name in ("norm", "norm_2")]
    moving = {id(v) for n in layers for v in (n.moving_mean, n.moving_variance)}
    variables = [*qmodel.variables, *qmodel.optimizer.variables]

    def state():
        return [v.numpy() for v in variables if id(v) not in moving]

    kept, called = state(), [vars(layer).get("call") for layer in layers]
    msq_tf.reestimate_batch_norm(qmodel, X)
    first = [v.numpy() for v in variables if id(v) in moving]
    assert len(first) == 4
    for a, b in zip(kept, state(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [layer.momentum for layer in layers] == [0.99, 0.99]
    assert [vars(layer).get("call") for layer in layers] == called
    msq_tf.reestimate_batch_norm(qmodel, X)
    again = [v.numpy() for v in variables if id(v) in moving]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    # It trains and is saved as before.
    qmodel.fit(X, X[:, :3], verbose=0)
    keras.models.clone_model(qmodel.base)


@pytest.mark.first(1)
@pytest.mark.parametrize("bits", [2, 8])
def test_outputs_are_nearer_to_those_of_training(bits):
    """Moving averages that never saw the data are of no use."""
    qmodel = prepared(bits=bits)
    before = np.abs(qmodel(X, training=False).numpy()).max()
    msq_tf.reestimate_batch_norm(qmodel, X)
    assert np.abs(qmodel(X, training=False).numpy()).max() != before


@pytest.mark.parametrize("axis", [-1, 1])
def test_positions_count_and_not_samples(axis):
    inputs = keras.Input((None, 4) if axis == -1 else (4, None))
    x = L.Masking()(inputs) if axis == -1 else inputs
    x = L.BatchNormalization(axis=axis, name="norm")(x)
    if axis == 1:
        x = L.Permute((2, 1))(x)
    model = keras.Model(inputs, L.Dense(3)(x))
    qmodel = msq_tf.quantize_model(model)
    rng = np.random.default_rng(0)
    batches = [rng.normal(k, 1.0, (4, n, 4)) for k, n in ((0, 2), (3, 6))]
    rows = np.concatenate([x.reshape(-1, 4) for x in batches])
    if axis == -1:  # most of one batch is masked, and all of another
        batches = [batches[0], batches[1], np.zeros((4, 5, 4))]
        batches[1][1:] = 0.0
        rows = np.concatenate([batches[0].reshape(-1, 4), batches[1][0]])

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, i):
            x = batches[i].astype(np.float32)
            return x if axis == -1 else x.transpose(0, 2, 1)

    msq_tf.reestimate_batch_norm(qmodel, Batches())
    norm = model.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, rows.var(0), rtol=1e-4)


def test_layers_that_are_frozen_keep_theirs():
    qmodel = prepared()
    frozen = qmodel.base.get_layer("norm")
    frozen.trainable = False
    msq_tf.reestimate_batch_norm(qmodel, X)
    np.testing.assert_array_equal(frozen.moving_mean.numpy(), 0.0)
    assert qmodel.base.get_layer("norm_2").moving_mean.numpy().any()


def test_a_layer_that_is_called_twice_sees_both():
    inputs = keras.Input((8,))
    norm = L.BatchNormalization()
    x = L.Dense(8)(norm(inputs))
    model = keras.Model(inputs, norm(10.0 + L.Rescaling(2.0)(inputs)) + x)
    qmodel = msq_tf.quantize_model(model)
    msq_tf.reestimate_batch_norm(qmodel, X)
    both = np.concatenate([X, 10.0 + 2.0 * X])
    np.testing.assert_allclose(
        norm.moving_mean.numpy(), both.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        norm.moving_variance.numpy(), both.var(0), rtol=1e-5
    )


def test_states_of_recurrent_layers_stay():
    inputs = keras.Input((5, 4), batch_size=6)
    lstm = L.LSTM(3, stateful=True)
    x = L.BatchNormalization()(lstm(inputs))
    qmodel = msq_tf.quantize_model(keras.Model(inputs, L.Dense(2)(x)))
    data = np.ones((13, 5, 4), np.float32)
    msq_tf.reestimate_batch_norm(qmodel, data)
    for state in lstm.states:
        np.testing.assert_array_equal(state.numpy(), 0.0)


def test_a_model_with_a_step_of_its_own():
    qmodel = prepared(OwnStep)
    qmodel.compile("sgd", "mse")
    msq_tf.reestimate_batch_norm(qmodel, X, batch_size=96)
    check(qmodel, [X])


@pytest.mark.first(1)
@pytest.mark.parametrize("renorm", [False, True])
def test_half_precision_and_renormalization(renorm):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        options = {"renorm": True} if renorm else {}
        try:
            norm = L.BatchNormalization(**options)
        except (TypeError, ValueError):
            pytest.skip("this Keras does not renormalize")
        model = keras.Sequential([keras.Input((8,)), norm, L.Dense(2)])
        qmodel = msq_tf.quantize_model(model)
        msq_tf.reestimate_batch_norm(qmodel, X)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(norm.moving_mean.numpy(), X.mean(0), rtol=1e-2)
    np.testing.assert_allclose(
        norm.moving_variance.numpy(), X.var(0), rtol=1e-2
    )
    if renorm:
        deviation = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        for variable in (norm.moving_stddev, norm.renorm_stddev):
            np.testing.assert_allclose(variable.numpy(), deviation, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("synchronized", [False, True])
def test_two_devices_have_what_one_has(synchronized):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")
    found = []
    for count in (1, 2):
        strategy = tf.distribute.MirroredStrategy(
            [d.name for d in devices[:count]],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
        with strategy.scope():
            norm = L.BatchNormalization(synchronized=synchronized)
            model = keras.Sequential([keras.Input((8,)), norm, L.Dense(2)])
            qmodel = msq_tf.quantize_model(model)
        msq_tf.reestimate_batch_norm(qmodel, X)
        found.append([v.numpy() for v in norm.variables])
        for part in strategy.experimental_local_results(norm.moving_mean.value):
            np.testing.assert_array_equal(
                part.numpy(), norm.moving_mean.numpy()
            )
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_has_no_statistics():
    plain = keras.Sequential([keras.Input((8,)), L.Dense(2)])
    with pytest.raises(ValueError, match="quantize_model.*Received: model=Seq"):
        msq_tf.reestimate_batch_norm(plain, X)
    with pytest.raises(ValueError, match="BatchNormalization.*Received"):
        msq_tf.reestimate_batch_norm(msq_tf.quantize_model(plain), X)
    qmodel = prepared()
    with pytest.raises(ValueError, match="no sample"):
        msq_tf.reestimate_batch_norm(qmodel, X[:0])
    with pytest.raises(ValueError, match="not finite.*'norm'"):
        msq_tf.reestimate_batch_norm(qmodel, np.full_like(X, np.nan))
    for name in ("batches", "batch_size"):
        with pytest.raises(ValueError, match=f"Received: {name}=0"):
            msq_tf.reestimate_batch_norm(qmodel, X, **{name: 0})
