"""Devices and workers of the command line, as far as one process can."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.train import worker
from train import pipeline
from train.distribution import loop
from train.distribution import strategy as distribution
from train.distribution.strategy import Distribution
from train.errors import WorkerLostError
from train.folder import checkpoints
from train.models import builders

# Sums over parts of a batch are taken in another order.
ATOL = 1e-5


@pytest.fixture
def even_settings(tiny_settings, monkeypatch):
    monkeypatch.setitem(builders.BUILDERS, "even", worker.even)

    def make(**changes):
        settings = tiny_settings(
            model="even", targets=("min_size",), target_compression=12.0
        )
        return dataclasses.replace(settings, **changes)

    return make


def mirrored():
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )


@pytest.mark.slow
def test_two_devices_give_the_run_of_one(even_settings, console, tmp_path):
    one, two = (
        even_settings(
            output_dir=str(tmp_path / name), distribution=name, devices=devices
        )
        for name, devices in (("none", None), ("mirrored", ("CPU:0", "cpu:1")))
    )
    expected, received = (pipeline.run(run, console) for run in (one, two))
    assert received.passed
    assert received.bits == expected.bits
    assert len(set(expected.bits.values())) > 1
    a, b = (
        keras.models.load_model(pathlib.Path(run.output_dir) / "model.keras")
        for run in (one, two)
    )
    assert b.get_layer("a_bn").synchronized
    for ours, theirs in zip(b.weights, a.weights, strict=True):
        if ours.dtype == "float32" and "search" not in ours.path:
            np.testing.assert_allclose(
                ours.numpy(), theirs.numpy(), atol=ATOL, err_msg=ours.path
            )
    # Where a run computes may change while it is interrupted.
    resumed = dataclasses.replace(
        one, distribution="mirrored", devices=("CPU:0", "CPU:1"), resume=True
    )
    assert pipeline.run(resumed, console).bits == expected.bits


@pytest.mark.slow
def test_the_loop_trains_as_fit(monkeypatch):
    def prepared():
        keras.utils.set_random_seed(0)
        strategy = mirrored()
        with strategy.scope():
            model = worker.even((28, 28, 1), 10, 1.0)
            model.compile(
                keras.optimizers.SGD(0.05, momentum=0.9),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
        return model, strategy

    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 28, 28, 1)).astype(np.float32)
    y = rng.integers(0, 10, 48)
    fitted, _ = prepared()
    history = fitted.fit(
        x, y, batch_size=16, epochs=2, shuffle=False, verbose=0
    ).history

    seen = []
    looped, strategy = prepared()
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((batch, dict(logs))),
        on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))),
    )
    parts = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    loop.fit(
        looped,
        strategy,
        parts.repeat(2),
        epochs=2,
        steps_per_epoch=3,
        callbacks=[record],
    )
    assert [place for place, _ in seen] == [0, 1, 2, 0, 0, 1, 2, 1]
    for name, values in history.items():
        np.testing.assert_allclose(
            [seen[3][1][name], seen[7][1][name]], values, rtol=1e-5
        )
    for ours, theirs in zip(looped.weights, fitted.weights, strict=True):
        np.testing.assert_allclose(
            ours.numpy(), theirs.numpy(), atol=1e-6, err_msg=theirs.path
        )


def test_the_loop_heeds_stop_training():
    strategy = mirrored()
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile("sgd", "mse")

    class Stops(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            self.model.stop_training = True

    stops = Stops()
    data = tf.data.Dataset.from_tensors((tf.ones((4, 3)), tf.ones((4, 2))))
    loop.fit(
        model,
        strategy,
        data.repeat(),
        epochs=5,
        steps_per_epoch=2,
        callbacks=[stops],
    )
    assert stops.epochs == 1
    assert int(model.optimizer.iterations.numpy()) == 2


def test_replicas_draw_apart_and_the_same_again():
    strategy = mirrored()
    with strategy.scope():
        dropout = keras.layers.Dropout(0.5)
        model = keras.Sequential([keras.Input((4,)), dropout])
    seeds = checkpoints.EpochSeeds(7)
    seeds.set_model(model)

    def states(epoch):
        seeds.on_epoch_begin(epoch)
        return [
            part.numpy().tolist()
            for part in strategy.experimental_local_results(
                dropout.seed_generator.state.value
            )
        ]

    first = states(0)
    assert first[0] != first[1]
    assert states(1) != first
    assert states(0) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": ("GPU:7",)}, "no such devices.*devices=GPU:7"),
        ({"devices": ("CPU:0", "CPU:0")}, "each once"),
        ({"devices": ("CPU:x",)}, "devices=CPU:x"),
    ],
)
def test_devices_that_are_not_there(tiny_settings, changes, message):
    settings = tiny_settings(distribution="mirrored", **changes)
    with pytest.raises(ValueError, match=message):
        distribution.start(settings)


def test_a_batch_needs_equal_parts(tiny_settings):
    settings = tiny_settings()
    recipe = dataclasses.replace(settings.recipe, batch_size=33)
    with pytest.raises(ValueError, match="multiple of 2. Received: batch_size"):
        Distribution(mirrored()).check(
            dataclasses.replace(settings, recipe=recipe)
        )


@pytest.fixture
def second_of_two(monkeypatch):
    """The second of two workers, which receives what `heard` holds."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": ["a:1", "b:1"]}),
        task_type="worker",
        task_id=1,
    )
    strategy = types.SimpleNamespace(
        cluster_resolver=resolver, num_replicas_in_sync=4
    )
    heard = []
    monkeypatch.setattr(
        distribution.distribute,
        "_sum_over_workers",
        lambda strategy, value: value + heard.pop(0),
    )
    return Distribution(strategy, timeout=9.0), heard


def words(content):
    return np.frombuffer(content, np.uint16).astype(np.float32)


def test_a_worker_has_its_share_of_the_replicas(second_of_two):
    found, _ = second_of_two
    assert not found.chief
    assert dataclasses.astuple(found.share) == (4, 2, 2)
    assert str(found) == "worker 1 of 2"


def test_files_of_the_chief_are_copied_once(second_of_two, tmp_path):
    found, heard = second_of_two
    heard[:] = [words((5).to_bytes(8, "little")), words(b"model\0")]
    copy = found.file(tmp_path / "chief" / "m.keras")
    assert copy.read_bytes() == b"model"
    assert copy.name == "m.keras" and tmp_path not in copy.parents
    assert found.file(tmp_path / "chief" / "m.keras") == copy
    assert not heard


def test_workers_of_other_settings_are_refused(second_of_two, tiny_settings):
    found, heard = second_of_two
    heard[:] = [np.array([1.0, 0.0], np.float32)]
    with pytest.raises(ValueError, match=r"other than the chief's: workers"):
        found.check(tiny_settings())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            tf.errors.UnavailableError(
                None, None, "Collective ops is aborted by: /task:0 is down"
            ),
            "stopped or cannot be reached.*--resume.*/task:0 is down",
        ),
        (
            tf.errors.DeadlineExceededError(
                None, None, "Heartbeats (/task:0)\nand more lines"
            ),
            r"--resume.*DeadlineExceededError, Heartbeats \(/task:0\) \(/task",
        ),
    ],
)
def test_a_lost_worker_is_told_in_plain_words(second_of_two, error, message):
    found, _ = second_of_two
    with pytest.raises(WorkerLostError, match=message):
        with found.losses_of_workers():
            raise error


def test_exchanges_are_watched_and_nothing_else(second_of_two, monkeypatch):
    found, heard = second_of_two
    seen, watching = [], []

    @contextlib.contextmanager
    def exchange():
        seen.append("begin")
        yield
        seen.append("end")

    @contextlib.contextmanager
    def watch():
        watching.append(True)
        yield
        watching.append(False)

    # The sum itself is what is looked at.
    monkeypatch.undo()
    strategy = types.SimpleNamespace(
        reduce=lambda op, value, axis: tf.constant(seen.append("sum") or 3.0)
    )
    found._watchdog = types.SimpleNamespace(exchange=exchange, watching=watch)
    with found.losses_of_workers():
        assert watching == [True] and not seen
        assert distribution.distribute._sum_over_workers(strategy, 1.0) == 3.0
    assert seen == ["begin", "sum", "end"]
    assert watching == [True, False]
    # Behind it, exchanges are nobody's matter.
    distribution.distribute._sum_over_workers(strategy, 1.0)
    assert seen[3:] == ["sum"]
    assert not heard


def test_who_gives_up_leaves_no_copies(second_of_two, tmp_path):
    found, heard = second_of_two
    heard[:] = [words((5).to_bytes(8, "little")), words(b"model\0")]
    copy = found.file(tmp_path / "chief" / "m.keras")
    text = found._give_up()
    assert not copy.parent.exists()
    assert text.startswith(
        "Another worker did not answer within --worker_timeout=9 s. Expected"
    )
    assert "--resume" in text and "\n" not in text


def test_errors_that_are_no_loss_stay_as_they_are(second_of_two):
    found, _ = second_of_two
    for where in (found, Distribution()):
        with pytest.raises(tf.errors.ResourceExhaustedError):
            with where.losses_of_workers():
                raise tf.errors.ResourceExhaustedError(None, None, "memory")
    with pytest.raises(tf.errors.UnavailableError):
        with Distribution().losses_of_workers():
            raise tf.errors.UnavailableError(None, None, "mine")
