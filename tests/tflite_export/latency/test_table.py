"""Tables of latencies: files taken apart, looked up and predicted."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from tests.tflite_export.devices.files import files
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import model as fb
from tflite_export.latency import operators
from tflite_export.latency import timing
from tflite_export.latency.operators import Operator
from tflite_export.latency.table import LatencyTable
from tflite_export.latency.table import Row
from tflite_export.latency.table import Whole
from tflite_export.latency.table import share_measured
from tflite_export.runtime import interpreter


@pytest.fixture(scope="module")
def data():
    return files()["int8"]


def table(*rows, call=0.0):
    made = LatencyTable("a processor", "2026-11-30", "LiteRT", call)
    made.rows.update(rows)
    return made


def operator(macs, moved=1000.0, family="CONV_2D[] int8 =int8* k3x3"):
    return Operator(0, (0,), f"{family} | {macs} {moved}", family, macs, moved)


def row(ms, macs, moved=1000.0, **kwargs):
    known = operator(macs, moved, **kwargs)
    return known.key, Row(ms, known.family, macs, moved)


def test_operators_alone_compute_what_they_do_together(data):
    """One after the other, each fed with what those before gave."""
    model = fb.read(data)
    graph = model.subgraphs[0]
    rng = np.random.default_rng(0)
    whole = interpreter.Session(data, "builtin")
    found = operators.split(data)
    assert len(found) == len(graph.operators)
    values = {}
    for index in fb.inputs(graph):
        shape = fb.shape(graph.tensors[index])
        values[index] = rng.integers(-90, 90, shape).astype(np.int8)
    expected = whole([values[i] for i in fb.inputs(graph)])
    for each in found:
        op = graph.operators[each.position]
        alone = interpreter.Session(operators.alone(data, each), "builtin")
        fed = [values[i] for i in dict.fromkeys(fb.inputs(op)) if i in values]
        values |= zip(fb.outputs(op), alone(fed), strict=True)
    for index, wanted in zip(fb.outputs(graph), expected, strict=True):
        np.testing.assert_array_equal(values[index], wanted)


def test_what_an_operator_does_is_counted(data):
    for each in operators.split(data):
        if "FULLY_CONNECTED" in each.family:
            sizes = each.key.rpartition(" | ")[2]
            weights = sizes.split(",")[1].partition(">")[0].split("x")
            assert each.macs == np.prod([int(n) for n in weights])
        assert each.moved > 0
        assert each.key.startswith(each.family)


def test_sums_are_near_what_a_file_takes(data):
    """A factor of two, on a machine that has other things to do."""
    made = LatencyTable.of_this_machine()
    assert made.measure(data, seconds=0.01) > 0
    assert made.measure(data) == 0  # all are known by now
    predicted = [made.predict(o) for o in operators.split(data)]
    total = made.call + sum(p.milliseconds for p in predicted)
    assert share_measured(predicted) == 1.0
    measured = timing.milliseconds(data)
    assert measured / 2 < total < 2 * measured


def test_what_lies_between_is_predicted_from_the_nearest():
    made = table(row(1.1, 1000), row(2.1, 2000), row(40.1, 9000), call=0.1)
    assert made.predict(operator(1000)) == (1.0, True)
    between = made.predict(operator(1500))
    assert not between.measured
    assert 1.3 < between.milliseconds < 2.2


def test_work_without_multiplications_is_bytes():
    family = "ADD[] int8 int8"
    made = table(row(1.0, 0, 1000.0, family=family))
    found = made.predict(operator(0, 3000.0, family=family))
    assert found.milliseconds == pytest.approx(3.0)


def test_options_may_differ_but_not_types():
    made = table(row(1.0, 1000, family="CONV_2D[strideH=2] int8 =int8* k5x5"))
    assert made.predict(operator(1000)).milliseconds == pytest.approx(1.0)
    other = operator(1000, family="CONV_2D[] int8 =int4* k3x3")
    with pytest.raises(ExportError, match="measure=True.*Received: CONV_2D"):
        made.predict(other)


def test_a_trained_layer_is_like_a_fresh_one():
    """Which has no bias yet, and may have one scale."""
    fresh = "FULLY_CONNECTED[] int8 =int4"
    trained = "FULLY_CONNECTED[fusedActivationFunction=1] int8 =int4* =int32*"
    for one, other in ((fresh, trained), (trained, fresh)):
        made = table(row(1.0, 1000, family=one))
        found = made.predict(operator(1000, family=other))
        assert found.milliseconds == pytest.approx(1.0) and not found.measured


def test_a_table_survives_a_file(tmp_path):
    made = table(row(1.25, 1000), row(0.5, 0, family="MEAN[] int8"), call=0.01)
    made.files["0123456789abcdef"] = Whole(1.75, 2.5)
    made.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == made
    for text in ("", "{}", '{"families": 3}'):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(ValueError, match="no table.*Received: "):
            LatencyTable.load(tmp_path / "t.json")


def test_tables_of_before_have_no_depths_and_no_files(tmp_path):
    old = {"processor": "p", "date": "d", "runtime": "r", "call": 0.1}
    old["families"] = {"CONV_2D[] int8": {"key": [1.5, 1000, 20.0]}}
    (tmp_path / "t.json").write_text(json.dumps(old))
    made = LatencyTable.load(tmp_path / "t.json")
    assert made.rows["key"] == Row(1.5, "CONV_2D[] int8", 1000, 20.0, 0)
    assert made.files == {} and made.whole([operator(9)], 2.0) == 2.0


def test_a_network_takes_what_others_take_for_their_sums():
    made = table(row(1.0, 1000))
    made.files |= {"a": Whole(1.0, 2.0), "b": Whole(3.0, 4.0)}
    made.files["c"] = Whole(9.0, 10.0)
    assert made.whole([operator(1000)], 8.0) == 6.0


def test_a_file_that_is_measured_again_keeps_its_fastest_time(
    data, monkeypatch
):
    times = iter([3.0, 2.0, 4.0])
    made = LatencyTable.of_this_machine()
    made.measure(data, seconds=0.01, whole=False)
    assert not made.files
    monkeypatch.setattr(timing, "milliseconds", lambda *_: next(times))
    for fastest in (3.0, 2.0, 2.0):
        made.measure(data)
        (whole,) = made.files.values()
        assert whole.milliseconds == fastest
        assert made.whole(operators.split(data), 1.0) == fastest


def test_a_sum_over_few_channels_is_like_another_one():
    shallow = operator(1000)._replace(depth=1)
    deep = operator(1000)._replace(depth=64)
    found = {}
    for each, ms in ((shallow, 8.0), (deep, 1.0)):
        key = f"{each.key} {each.depth}"
        found[key] = Row(ms, each.family, each.macs, each.moved, each.depth)
    made = table(*found.items())
    assert made.predict(shallow).milliseconds > 7.0
    assert made.predict(deep).milliseconds < 1.2
    # Beyond a vector's length all are alike.
    assert made.predict(deep._replace(depth=512)) == made.predict(deep)


def test_the_table_of_the_package_says_where_it_is_from():
    made = LatencyTable.load()
    assert made.processor and made.date.startswith("20")
    assert made.runtime.startswith("LiteRT ")
    assert 0 < made.call < 0.1 and len(made.rows) > 100
    assert all(r.milliseconds > 0 for r in made.rows.values())
    fields = dataclasses.asdict(made)
    assert set(fields) == {
        *("processor", "date", "runtime", "call", "files", "rows")
    }
    kinds = {key.partition("[")[0] for key in made.rows}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= kinds


def test_more_of_the_same_work_never_takes_less_in_a_small_table():
    made = table(row(1.0, 1000), row(2.0, 2000))
    times = [
        made.predict(operator(n)).milliseconds
        for n in (100, 500, 1000, 1500, 2000, 9000)
    ]
    assert all(a < b for a, b in itertools.pairwise(times))
