"""precision_report: its tables, its JSON and its figure."""

import json
import math
import re

import hypothesis
import keras
import numpy as np
import pytest
import rich.console
from hypothesis import strategies as st
from matplotlib.image import imread

import msq_tf
from msq_tf.reports import figure as plots
from msq_tf.reports.labels import spread
from msq_tf.reports.names import broken
from msq_tf.reports.names import shortened
from msq_tf.reports.precision_report import PANELS
from tests.msq_tf.samples import EPOCHS
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model
from tests.msq_tf.samples import tiny_model

# Two epochs: 8 bits on average, then 4.
LOGS = [
    {"loss": 2.0, "val_accuracy": 0.5, "val_loss": 1.9, "msq_bits": 8.0},
    {"loss": 1.0, "val_accuracy": 0.75, "val_loss": 1.5, "msq_bits": 4.0},
]


@pytest.fixture(scope="module")
def searched():
    """A model after a search, and what `fit` returned."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(128, 8, 8, 1)).astype(np.float32)
    data = x, x.reshape(128, 2, 4, 2, 4).mean((2, 4)).reshape(128, 4).argmax(-1)
    qmodel = new_model()
    # One probe has no standard error.
    callback = msq_tf.MSQCallback(budget(), interval=1, max_probes=1)
    return qmodel, fit(qmodel, data, callback, validation_data=data)


def untouched():
    return msq_tf.quantize_model(tiny_model())


def columns(logs):
    return {name: [row[name] for row in logs] for name in logs[0]}


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_a_dash_for_a_sensitivity_is_explained():
    qmodel = untouched()
    known = np.arange(len(qmodel.paths), dtype=np.float32)
    for values, said in ((known, True), (known + 1, False), (known * 0, False)):
        qmodel.search.sensitivity.assign(values)
        text = str(msq_tf.precision_report(qmodel))
        assert ("no upward curvature" in text) == said


@pytest.mark.slow
def test_json_is_strict_and_holds_the_decisions(searched):
    qmodel, history = searched
    report = msq_tf.precision_report(qmodel, history)
    data = json.loads(report.to_json(), parse_constant=refuse)
    assert len(data["changes"]) == len(qmodel.history_of_bits()) > 0
    for record, change in zip(
        data["changes"], qmodel.history_of_bits(), strict=True
    ):
        assert record["path"] == change.path
        assert (record["old"], record["new"]) == (change.old, change.new)
        assert record["cost"] == change.cost
        assert record["sensitivity_error"] is None
        if change.next_in_line is not None:
            assert record["next_in_line"]["path"] == change.next_in_line.path
    assert data["layers"][0]["sensitivity_error"] is None
    assert data["metric"] == "val_accuracy"
    assert [p["value"] for p in data["points"]] == history.history[
        "val_accuracy"
    ]
    # The last epoch's bytes are those of the model, up to the rounding of
    # each layer to whole bytes.
    assert data["points"][-1]["packed_bytes"] == pytest.approx(
        report.packed_bytes, abs=len(report.layers)
    )


@pytest.mark.slow
def test_text_has_layers_and_decisions(searched):
    qmodel, _ = searched
    report = msq_tf.precision_report(qmodel)
    text = str(report)
    assert f"{len(report.changes)} changes of bits" in text
    assert max(map(len, text.splitlines())) <= 110
    table = str(report.decisions())
    assert max(map(len, table.splitlines())) <= 110
    for change in report.changes:
        assert f"{change.old} → {change.new}" in table
    assert "next in line" in table


@pytest.mark.parametrize(
    "history",
    [
        columns(LOGS),
        LOGS,
        # Rows of another phase of training know nothing of bits.
        [{"epoch": 1, "accuracy": 0.1}, *LOGS],
        # Validation every other epoch: no telling which.
        {**columns(LOGS), "val_auc": [0.7]},
    ],
    ids=["columns", "rows", "phases", "sparse"],
)
def test_kinds_of_history(history):
    report = msq_tf.precision_report(untouched(), history)
    assert report.metric == "val_accuracy"
    # 132 elements.
    assert [p.packed_bytes for p in report.points] == [132, 66]
    assert [p.value for p in report.points] == [0.5, 0.75]


def test_epochs_are_counted_from_one():
    rows = [{**row, "epoch": i + 5} for i, row in enumerate(LOGS)]
    history = keras.callbacks.History()
    history.history = columns(LOGS)
    history.epoch = [4, 5]
    for given in (rows, history):
        report = msq_tf.precision_report(untouched(), given)
        assert [p.epoch for p in report.points] == [5, 6]


def test_weights_left_in_float_are_no_codes(tiny):
    config = msq_tf.MSQConfig(overrides={"head": msq_tf.LayerConfig(skip=True)})
    qmodel = msq_tf.quantize_model(tiny, config)
    logs = [{"loss": 1.0, "msq_bits": qmodel.average_bits}]
    report = msq_tf.precision_report(qmodel, logs)
    assert report.metric == "loss"
    assert report.points[0].packed_bytes == report.packed_bytes == 108
    left = report.skipped[0].size
    assert f"{left:,} of {left + 108:,} weights are left" in str(report)
    assert "left in float" not in str(msq_tf.precision_report(untouched()))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["loss", "val_loss", "val_auc", "val_accuracy"], "val_accuracy"),
        (["loss", "val_loss", "val_auc", "accuracy"], "val_auc"),
        (["loss", "accuracy", "val_loss"], "val_loss"),
        (["loss", "accuracy"], "accuracy"),
        (["loss", "auc"], "loss"),
    ],
)
def test_the_metric_that_says_most(names, expected):
    logs = [{name: 0.5 for name in names} | {"msq_bits": 8.0}]
    assert msq_tf.precision_report(untouched(), logs).metric == expected
    report = msq_tf.precision_report(untouched(), logs, metric="loss")
    assert report.metric == "loss"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([{"loss": 1.0}],), "msq_bits.*Received: \\['epoch', 'loss'\\]"),
        (("history.csv",), "keras.callbacks.History.*Received: str"),
        ((LOGS, "auc"), "no such metric.*Received: metric='auc'"),
    ],
)
def test_a_history_that_does_not_do(arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        msq_tf.precision_report(untouched(), *arguments)


def titles(figure):
    return [axes.get_title().split(":")[0] for axes in figure.axes]


@pytest.mark.slow
def test_a_panel_without_data_is_left_out(searched, tmp_path):
    qmodel, history = searched
    bits, sensitivity = "Stored bits of every layer", "Sensitivity against bits"
    accuracy = "Validation accuracy against bytes"
    # All bits went in the first epoch: against bytes there is nothing to see.
    still = msq_tf.precision_report(qmodel, history)
    assert titles(plots.draw(still, PANELS)) == [bits, sensitivity]
    report = msq_tf.precision_report(qmodel, LOGS)
    # The last is the bar of the epochs' colours.
    assert titles(plots.draw(report, PANELS)) == [
        bits,
        sensitivity,
        accuracy,
        "",
    ]
    assert titles(plots.draw(report, ("accuracy",))) == [accuracy, ""]
    alone = msq_tf.precision_report(qmodel)
    assert titles(plots.draw(alone, PANELS)) == [bits, sensitivity]
    new = untouched()
    never = msq_tf.precision_report(new)
    assert titles(plots.draw(never, PANELS)) == [bits]
    assert msq_tf.precision_report(new, []) == never
    for name in ("search.png", "search.svg"):
        report.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    # Something is drawn, and it isn't a blank sheet.
    assert imread(tmp_path / "search.png")[..., :3].std() > 0.05


def test_panels_that_cannot_be_drawn(tmp_path):
    report = msq_tf.precision_report(untouched())
    with pytest.raises(ValueError, match="list of some.*Received.*'bits'"):
        report.plot(tmp_path / "a.png", panels="bits")
    with pytest.raises(ValueError, match="panel.*Received.*loss"):
        report.plot(tmp_path / "a.png", panels=["loss"])
    with pytest.raises(ValueError, match="nothing to draw.*Received.*accuracy"):
        report.plot(tmp_path / "a.png", panels=["accuracy"])
    assert not (tmp_path / "a.png").exists()


def test_names_that_are_cut_differ():
    shapes = ("depthwise_kernel", "pointwise_kernel")
    long = [f"separable_conv2d_{i}/{name}" for i in range(3) for name in shapes]
    for width in (12, 18, 24):
        short = shortened(long, [width] * len(long))
        assert len(set(short)) == len(long)
        assert max(map(len, short)) <= width
    assert shortened(["conv", "conv"], [9, 9]) == ["conv", "conv"]
    # Differences in the middle, where no cut shows them.
    deep = [f"{'a' * 30}{i}{'b' * 30}" for i in range(12)]
    assert len(set(shortened(deep, [12] * 12))) == 12


def test_names_are_broken_at_their_joints():
    assert broken("separable_conv2d/depthwise_kernel", 18) == [
        "separable_conv2d/",
        "depthwise_kernel",
    ]
    assert broken("conv", 2) == ["conv"]
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.SeparableConv2D(4, 3, name="entry_separable_conv")(inputs)
    qmodel = msq_tf.quantize_model(keras.Model(inputs, x))
    console = rich.console.Console(width=64, color_system=None)
    with console.capture() as capture:
        console.print(msq_tf.precision_report(qmodel))
    words = capture.get().split()
    assert "depthwise_kernel" in "".join(words)
    parts = {"entry_", "separable_", "conv/", "depthwise_", "kernel"}
    assert any(word.endswith(("/", "_")) for word in words)
    for word in words:
        pieces = set(re.findall(r"[a-z]+[_/]?", word))
        if pieces & parts:
            assert pieces <= parts


@pytest.mark.slow
def test_a_network_of_many_layers_is_drawn_with_every_name():
    layers = [
        keras.layers.Dense(3, name=f"a_dense_layer_with_number_{i}")
        for i in range(30)
    ]
    qmodel = msq_tf.quantize_model(
        keras.Sequential([keras.Input((3,)), *layers])
    )
    qmodel.search.sensitivity.assign(np.geomspace(1e-6, 1e-1, 30))
    qmodel.search.sensitivity_error.assign(np.geomspace(1e-6, 1e-2, 30))
    report = msq_tf.precision_report(qmodel)
    figure = plots.draw(report, PANELS)
    bits, sensitivity = figure.axes
    assert len(bits.get_yticklabels()) == 30
    names = [text for text in sensitivity.texts if "dense" in text.get_text()]
    assert len(names) == 30
    heights = sorted(
        sensitivity.transData.transform((0.0, text.xyann[1]))[1]
        for text in names
    )
    # Lines of 6.5 points at 120 dots an inch.
    assert min(np.diff(heights)) > 6.5 * 120 / 72
    box = sensitivity.get_window_extent()
    assert box.y0 <= heights[0] <= heights[-1] <= box.y1


@hypothesis.given(
    st.lists(st.floats(-50, 150), min_size=1, max_size=20).map(sorted),
    st.floats(0.5, 5.0),
)
def test_labels_are_apart_and_inside(wanted, gap):
    places = spread(wanted, gap, 0.0, 100.0)
    assert (np.diff(places) >= gap - 1e-9).all()
    assert places[0] >= 0.0
    assert places[-1] <= 100.0 + 1e-9
    far = all(b - a >= gap for a, b in zip(wanted, wanted[1:], strict=False))
    if far and wanted[0] >= 0 and wanted[-1] <= 100:
        np.testing.assert_allclose(places, wanted, atol=1e-9)


def test_a_metric_that_is_not_finite_is_null_and_not_drawn():
    logs = [{**LOGS[0], "val_accuracy": math.nan}, LOGS[1]]
    report = msq_tf.precision_report(untouched(), logs)
    data = json.loads(report.to_json(), parse_constant=refuse)
    assert [p["value"] for p in data["points"]] == [None, 0.75]
    (axes,) = plots.draw(report, ["accuracy"]).axes
    assert len(axes.lines[0].get_xdata()) == 1


def test_what_a_device_takes_is_told():
    qmodel = untouched()
    assert msq_tf.precision_report(qmodel).on_device is None
    qmodel.set_bits(dict.fromkeys(qmodel.paths, 4))  # forgets searches
    widths = range(2, 9)
    qmodel.search.device_costs = msq_tf.DeviceCosts(
        "my board",
        "a stopwatch",
        latency={p: {w: 0.1 * w for w in widths} for p in qmodel.paths},
        ram={p: {w: 1000.0 * w for w in widths} for p in qmodel.paths},
        rest_latency=1.0,
    )
    report = msq_tf.precision_report(qmodel)
    expected = 1.0 + 0.4 * len(qmodel.paths)
    assert report.on_device.latency_ms == pytest.approx(expected)
    words = " ".join(str(report).split())
    assert f"on my board: {expected:.4g} ms and 4,000 bytes of RAM" in words
    found = json.loads(report.to_json())["on_device"]
    assert found["source"] == "a stopwatch" and found["ram_bytes"] == 4000


@pytest.mark.slow
def test_epochs_of_a_fit_are_all_there(searched):
    qmodel, history = searched
    report = msq_tf.precision_report(qmodel, history)
    assert [p.epoch for p in report.points] == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_the_example_of_the_documents_runs(
    root, tmp_path, monkeypatch, capsys, caplog
):
    text = (root / "docs" / "concepts.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    # Restores the level that the example sets.
    caplog.set_level("INFO", logger="msq_tf")
    names = {}
    exec(compile(block, "concepts.md", "exec"), names)
    assert names["qmodel"].compression >= 8.0
    changes = names["qmodel"].history_of_bits()
    records = [r for r in caplog.records if r.name == "msq_tf"]
    assert len(records) == len(changes) > 0
    out = capsys.readouterr().out
    assert "bits frozen" in out
    assert "Decisions" in out
    assert list((tmp_path / "tensorboard").iterdir())
    assert imread(tmp_path / "search.png").shape[0] > 200
