"""A rule that a user wrote: that of the page, and wrong ones."""

import dataclasses
import json
import re
from typing import ClassVar

import keras
import pytest

import msq_tf
from msq_tf.rules import Change
from msq_tf.rules import Decision
from msq_tf.rules import Rule
from tests.msq_tf.rule_samples import layer
from tests.msq_tf.rule_samples import stats


@pytest.fixture(scope="module")
def page(root):
    """Names of the page's example after it ran."""
    keras.utils.set_random_seed(0)
    text = (root / "docs" / "rules.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"__name__": __name__}
    exec(compile(block, "rules.md", "exec"), names)
    return names


def steps(qmodel):
    return [(c.step, c.path, c.old, c.new) for c in qmodel.history_of_bits()]


@pytest.mark.slow
def test_the_pages_rule_reaches_its_target_as_told(page, capsys):
    qmodel = page["qmodel"]
    capsys.readouterr()
    assert qmodel.search.rule_state.done
    assert qmodel.average_bits <= 5
    bits = dict.fromkeys(qmodel.bits, 8)
    sizes = dict(zip(qmodel.paths, qmodel.sizes, strict=True))
    for change in qmodel.history_of_bits():
        bytes_now = {
            path: sizes[path] * width
            for path, width in bits.items()
            if width > 3
        }
        assert bytes_now[change.path] == max(bytes_now.values())
        assert (change.old, change.new) == (
            bits[change.path],
            bits[change.path] - 1,
        )
        bits[change.path] = change.new
        del bytes_now[change.path]
        rest = change.next_in_line
        assert bytes_now[rest.path] == max(bytes_now.values())
    assert bits == qmodel.bits
    # Its phase is the first half of 16 steps.
    assert max(step for step, *_ in steps(qmodel)) <= 8


def test_the_pages_rule_is_pure_and_says_why(page):
    rule = page["LargestFirst"](target_bits=7)
    now = stats(layer("a", size=10), layer("b", size=100))
    first = rule.decide(now, rule.start(now))
    assert first == rule.decide(now, rule.start(now))
    (change,) = first[0].changes
    assert (change.path, change.reason) == ("b", "100 bytes, the most")
    assert first[0].lsb == {"a": 1}
    assert not first[1].done  # 7.09 bits on average
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.seen = 1


class Stop(Exception):
    """Ends a training in the middle."""


@pytest.mark.slow
def test_it_goes_on_after_loading(page, tmp_path):
    whole = page["qmodel"]
    base = keras.models.clone_model(whole.base)
    qmodel = msq_tf.quantize_model(base, msq_tf.MSQConfig(min_bits=3))
    qmodel.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def stop(epoch, logs):
        raise Stop

    def fit(model, *more, begin=0):
        model.fit(
            page["x"],
            page["y"],
            batch_size=64,
            epochs=4,
            initial_epoch=begin,
            verbose=0,
            callbacks=[msq_tf.MSQCallback(page["rule"]), *more],
        )

    with pytest.raises(Stop):
        fit(qmodel, keras.callbacks.LambdaCallback(on_epoch_end=stop))
    path = tmp_path / "m.keras"
    qmodel.save(path)
    loaded = keras.models.load_model(path)
    assert 0 < len(steps(loaded)) < len(steps(whole))
    assert loaded.search.rule_state == qmodel.search.rule_state
    fit(loaded, begin=1)
    assert steps(loaded) == steps(whole)
    assert loaded.bits == whole.bits


@pytest.mark.slow
def test_the_model_keeps_the_reasons_that_the_log_has(page, caplog, tmp_path):
    qmodel = msq_tf.quantize_model(
        keras.models.clone_model(page["qmodel"].base),
        msq_tf.MSQConfig(min_bits=3),
    )
    qmodel.compile("sgd", page["qmodel"].loss)
    with caplog.at_level("INFO", "msq_tf"):
        qmodel.fit(
            page["x"],
            page["y"],
            batch_size=64,
            epochs=2,
            verbose=0,
            callbacks=[msq_tf.MSQCallback(page["rule"])],
        )
    told = [r.bit_change for r in caplog.records if hasattr(r, "bit_change")]
    assert told[0].reason == "384 bytes, the most"
    assert all(change.reason for change in told)
    assert "why: 384 bytes, the most" in caplog.text
    assert str(qmodel.history_of_bits()) == str(told)
    report = msq_tf.precision_report(qmodel)
    data = json.loads(report.to_json())
    assert [c["reason"] for c in data["changes"]] == [c.reason for c in told]
    assert "384 bytes, the most" in str(report.decisions())
    # Weights alone bring them, so that a resumed search has them all.
    qmodel.save_weights(tmp_path / "m.weights.h5")
    fresh = msq_tf.quantize_model(
        keras.models.clone_model(page["qmodel"].base),
        msq_tf.MSQConfig(min_bits=3),
    )
    fresh.load_weights(tmp_path / "m.weights.h5")
    assert str(fresh.history_of_bits()) == str(told)


@dataclasses.dataclass(frozen=True)
class Wrong(Rule):
    """Returns what it was given."""

    answer: Decision = Decision()

    uses_cost: ClassVar[bool] = False

    def widths(self, layer):
        return tuple(range(layer.bits - 1, 1, -1))

    def due(self, progress, average_bits, state):
        return not state.done

    def decide(self, stats, state):
        return self.answer, self.after(stats, state, self.answer.changes)


@pytest.mark.slow
@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("changes", "lsb", "message"),
    [
        ([("none", 8, 4)], {}, r"paths among \['a', 'b'\].*path='none'"),
        ([("a", 8, 4), ("a", 8, 3)], {}, "at most one change"),
        ([("a", 7, 4)], {}, "old=8, the bits it has"),
        ([("b", 8, 3)], {}, "from 4, its `min_bits`"),
        ([("a", 8, 1)], {}, "an integer from 2"),
        ([("a", 8, 9)], {}, "to 8"),
        ([("a", 8, 4.0)], {}, "an integer"),
        ([("a", 8, 8)], {}, "another width"),
        ([], {"none": 1}, "`lsb` of paths"),
        ([("a", 8, 3)], {"a": 2}, "leave a weight fewer than 2"),
    ],
)
def test_a_wrong_decision_is_refused_with_the_rules_name(changes, lsb, message):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="a"),
            keras.layers.Dense(2, name="b"),
        ]
    )
    config = msq_tf.MSQConfig(overrides={"b": msq_tf.LayerConfig(min_bits=4)})
    qmodel = msq_tf.quantize_model(model, config)
    qmodel.compile("sgd", "mse")
    before = qmodel.bits
    answer = Decision(tuple(Change(*c, reason="because") for c in changes), lsb)
    callback = msq_tf.MSQCallback(Wrong(target_bits=4, answer=answer))
    x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
    with pytest.raises(ValueError, match=f"^Wrong decided .*{message}"):
        qmodel.fit(x, y, verbose=0, callbacks=[callback])
    assert qmodel.bits == before
