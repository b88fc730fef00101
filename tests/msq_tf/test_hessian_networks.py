"""Traces of small networks against their explicit Hessians in float64."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.sensitivity.hessian import BlockHessian
from msq_tf.sensitivity.statistics import StatisticsGatherer

CLASSES = 3
SAMPLES = 8


def convolution():
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, activation="tanh", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Conv2D(
        4, 2, strides=2, use_bias=False, activation="relu", name="strided"
    )(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


def depthwise():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.DepthwiseConv2D(3, activation="relu", name="dw")(inputs)
    x = keras.layers.SeparableConv2D(4, 2, activation="swish", name="sep")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


def dense():
    inputs = keras.Input((7,))
    x = keras.layers.Dense(8, activation="relu", name="relu")(inputs)
    x = keras.layers.Dense(6, activation="gelu", name="gelu")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


def attention():
    inputs = keras.Input((4, 5))
    x = keras.layers.EinsumDense(
        "abc,cd->abd", output_shape=(None, 4), name="einsum"
    )(inputs)
    y = keras.layers.LayerNormalization(name="ln")(x)
    y = keras.layers.MultiHeadAttention(2, 2, name="mha")(y, y)
    x = keras.layers.Add()([x, y])
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


NETWORKS = {
    function.__name__: (function, paths)
    for function, paths in (
        (convolution, ("conv", "strided", "head")),
        (
            depthwise,
            ("dw", "sep/depthwise_kernel", "sep/pointwise_kernel", "head"),
        ),
        (dense, ("relu", "gelu", "head")),
        (
            attention,
            (
                "einsum",
                "mha/query",
                "mha/key",
                "mha/value",
                "mha/attention_output",
                "head",
            ),
        ),
    )
}


def prepared(build, batches=1):
    """A compiled `MSQModel` and as many batches for it."""
    keras.utils.set_random_seed(1)
    model = build()
    rng = np.random.default_rng(2)
    for variable in model.weights:
        if variable.path.startswith("bn/"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    shape = (SAMPLES, *model.input_shape[1:])
    data = [
        (
            tf.constant(rng.normal(size=shape), tf.float32),
            tf.constant(rng.integers(0, CLASSES, SAMPLES)),
            None,
        )
        for _ in range(batches)
    ]
    return qmodel, data


def explicit_traces(build, qmodel, batches):
    """`Tr(H_l)` of the mean loss, from jacobians of gradients in float64.

    It shares nothing with what is tested: a float64 model of its own, called
    statelessly at the quantized values, and the loss written out.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy(policy)
    variables = [
        tf.constant(v.numpy().astype(np.float64))
        for v in qmodel.base.trainable_variables
    ]
    state = [
        tf.constant(v.numpy().astype(np.float64))
        for v in qmodel.base.non_trainable_variables
    ]
    places = [
        next(
            i
            for i, v in enumerate(qmodel.base.trainable_variables)
            if v is kernel
        )
        for kernel in qmodel.kernels
    ]
    for place, value in zip(places, qmodel.quantized_values(), strict=True):
        variables[place] = tf.cast(value, tf.float64)

    @tf.function(autograph=False)
    def hessian(place, x, y):
        w = variables[place]
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as inner:
                inner.watch(w)
                changed = [*variables[:place], w, *variables[place + 1 :]]
                logits, _ = model.stateless_call(
                    changed, state, x, training=False
                )
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
                )
            flat = tf.reshape(inner.gradient(loss, w), [-1])
        return outer.jacobian(flat, w)

    traces = []
    for place in places:
        total = 0.0
        for x, y, _ in batches:
            rows = hessian(place, tf.cast(x, tf.float64), y).numpy()
            assert rows.dtype == np.float64
            total += np.trace(rows.reshape(len(rows), -1)) / len(batches)
        traces.append(total)
    return np.array(traces)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_within_three_standard_errors_of_the_explicit_hessian(name):
    build, paths = NETWORKS[name]
    qmodel, batches = prepared(build, batches=2)
    assert qmodel.paths == paths
    # Narrow enough that the quantized values are not the latent ones.
    qmodel.set_bits(dict.fromkeys(paths, 4))
    want = explicit_traces(build, qmodel, batches)
    gatherer = StatisticsGatherer(qmodel, batches)
    estimate = gatherer.traces(max_probes=200, tolerance=0.0)
    assert estimate.probes == 200
    # Rounding is far below the noise, also where probes have none.
    rounding = 1e-5 * np.abs(want).sum()
    far = np.abs(estimate.trace - want)
    assert (far <= 3 * estimate.error + rounding).all(), far / estimate.error
    # The estimate says something: errors are small beside the traces.
    assert estimate.error.sum() < 0.3 * np.abs(want).sum()


@pytest.mark.slow
def test_standard_errors_are_honest():
    """They cover the truth as often as they say, and fall with probes."""
    qmodel, batches = prepared(dense)
    want = explicit_traces(dense, qmodel, batches)
    gatherer = StatisticsGatherer(qmodel, batches)
    runs = [
        gatherer.traces(max_probes=16, tolerance=0.0, seed=seed)
        for seed in range(40)
    ]
    traces = np.array([run.trace for run in runs])
    errors = np.array([run.error for run in runs])
    covered = (np.abs(traces - want) <= 2 * errors).mean(axis=0)
    assert (covered > 0.8).all()
    # The spread over seeds is what a single run says of itself.
    said = np.sqrt((errors**2).mean(axis=0))
    np.testing.assert_allclose(traces.std(axis=0, ddof=1), said, rtol=0.35)
    # Unbiased: the mean over all seeds is near by its own, smaller error.
    far = np.abs(traces.mean(axis=0) - want)
    assert (far <= 3 * said / np.sqrt(len(runs))).all()
    more = gatherer.traces(max_probes=64, tolerance=0.0, seed=99)
    np.testing.assert_allclose(more.error, said / 2.0, rtol=0.35)


def products_in(function):
    """Number of products that what a function returns depends on."""
    seen, todo = set(), [output.op for output in function.graph.outputs]
    while todo:
        operation = todo.pop()
        if operation not in seen:
            seen.add(operation)
            todo += [tensor.op for tensor in operation.inputs]
    return sum(
        operation.type.startswith(("Conv2D", "Depthwise", "MatMul", "Einsum"))
        for operation in seen
    )


@pytest.mark.parametrize("name", ["convolution", "depthwise", "dense"])
def test_a_probe_takes_eight_products_where_a_gradient_takes_three(name):
    """Time depends on the machine (`benchmarks.training_cost.step`)."""
    qmodel, (batch,) = prepared(NETWORKS[name][0])
    values = qmodel.quantized_values()

    @tf.function(autograph=False)
    def gradient(values, batch):
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = qmodel.loss_at(values, batch)
        return tape.gradient(loss, values)

    @tf.function(autograph=False)
    def probe(values, batch):
        hessian = BlockHessian(qmodel.loss_at)
        return hessian._block_products(
            range(len(values)), values, batch, tf.zeros(2, tf.int32)
        )

    in_gradient, in_probe = (
        products_in(function.get_concrete_function(values, batch))
        for function in (gradient, probe)
    )
    # The first layer needs no gradient with respect to its inputs.
    layers = len(values)
    assert in_gradient == 3 * layers - 1
    assert in_probe <= 8 * layers - 5
    assert in_probe <= 2.5 * in_gradient


def test_a_downward_curvature_counts_as_no_sensitivity(tiny_data):
    """A loss that wants outputs far from the targets has no minimum."""

    def away(y, outputs):
        return -keras.ops.mean((outputs - keras.ops.cast(y, "float32")) ** 2)

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, name="only"))
    qmodel = msq_tf.quantize_model(model)
    qmodel.compile(keras.optimizers.SGD(1e-5), away)
    x, y = tiny_data
    rule = msq_tf.BudgetRule(target_compression=8.0)
    qmodel.fit(
        x,
        y[:, None],
        batch_size=64,
        verbose=0,
        callbacks=[msq_tf.MSQCallback(rule)],
    )
    # The Hessian is -2 E[x x'].
    want = -2.0 * (x.reshape(len(x), -1) ** 2).mean(axis=0).sum()
    trace, error = qmodel.search.trace.numpy(), qmodel.search.trace_error
    assert abs(trace[0] - want) <= 3 * error.numpy()[0]
    assert (qmodel.search.sensitivity.numpy() == 0.0).all()
    assert (qmodel.search.sensitivity_error.numpy() > 0.0).all()
    assert qmodel.compression >= 8.0


def test_data_that_is_not_finite_stops_the_search(tiny_data):
    x, y = tiny_data
    x = x.copy()
    x[0, 0, 0, 0] = np.nan
    qmodel, _ = prepared(dense)
    rule = msq_tf.BudgetRule(target_compression=8.0)
    # oneDNN's ReLU makes 0 of NaN, so that the trace alone tells; TensorFlow's
    # own, which runs where a processor lacks AVX-512, keeps it.
    told = "NaN in inputs.*Received: (relu: nan|loss=nan)"
    with (
        pytest.warns(UserWarning, match=r"Received: x\[0\]"),
        pytest.raises(ValueError, match=told),
    ):
        qmodel.fit(
            x.reshape(len(x), -1)[:, :7],
            y % CLASSES,
            verbose=0,
            callbacks=[msq_tf.MSQCallback(rule)],
        )


@pytest.fixture
def strategy():
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.skip("needs two logical CPU devices")
    # Collectives of two strategies in one process take each other's keys.
    return tf.distribute.MirroredStrategy(
        [d.name for d in devices[:2]],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("in_scope", [False, True])
def test_traces_are_the_same_under_a_mirrored_strategy(in_scope, strategy):
    with strategy.scope():
        mirrored, batches = prepared(convolution, batches=2)
    x, y = (np.concatenate([batch[i] for batch in batches]) for i in (0, 1))
    mirrored.fit(x, y, batch_size=SAMPLES, epochs=2, verbose=0)
    alone, _ = prepared(convolution)
    alone.set_weights(mirrored.get_weights())
    for qmodel in (alone, mirrored):
        assert qmodel.distribute_strategy.num_replicas_in_sync == (
            2 if qmodel is mirrored else 1
        )
    one = StatisticsGatherer(alone, batches).traces(max_probes=4, seed=5)
    with strategy.scope() if in_scope else contextlib.nullcontext():
        # As where `fit` is called inside the scope.
        two = StatisticsGatherer(mirrored, batches).traces(max_probes=4, seed=5)
    np.testing.assert_allclose(two.trace, one.trace, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(two.error, one.error, rtol=1e-5, atol=1e-7)
