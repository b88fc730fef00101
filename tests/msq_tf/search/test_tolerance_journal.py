"""What a search for a tolerance writes down, and reads again."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

import msq_tf
from msq_tf.rules.tolerance import Rung
from msq_tf.search import tolerance_journal
from msq_tf.search.tolerance_journal import Journal
from msq_tf.search.tolerance_journal import Record

RULE = msq_tf.ToleranceRule(max_drop=1.0)
JOURNAL = Journal(
    settings=tolerance_journal.settings_of(RULE, 10),
    first=0,
    reference=0.75,
    ladder=(Rung(8.0, 8.0, 0.0), Rung(4.0, 3.9, 0.5)),
    untrained=((0, 0.75), (1, math.nan)),
    records=(Record(1, 0, 0.75, 2, (8, 8)), Record(2, 1, math.inf, 0, (4, 3))),
)


def test_a_journal_is_read_as_it_was_written():
    text = json.dumps(JOURNAL.to_json())
    found = tolerance_journal.of_same_search(json.loads(text), RULE, 10)
    assert repr(found) == repr(JOURNAL)
    assert found.bits_of(2) == (4, 3)


def test_a_journal_of_an_earlier_version_knows_no_bits():
    old = JOURNAL.to_json()
    for record in old["records"]:
        del record["bits"]
    found = tolerance_journal.of_same_search(old, RULE, 10)
    assert found.bits_of(1) == ()


def test_a_search_of_an_earlier_version_goes_on_without_a_next_best():
    """Whose weights are not there."""
    old = JOURNAL.to_json()
    assert old.pop("next_best")
    found = tolerance_journal.of_same_search(old, RULE, 10)
    assert not found.course(RULE).stores_next_best
    again = tolerance_journal.of_same_search(found.to_json(), RULE, 10)
    assert not again.next_best
    assert found.records[0].value == 0.75


@pytest.mark.parametrize(
    ("rule", "epochs"),
    [(RULE, 11), (dataclasses.replace(RULE, max_drop=2.0), 10)],
)
def test_a_journal_of_another_search_is_refused(rule, epochs):
    with pytest.raises(ValueError, match="another tolerance"):
        tolerance_journal.of_same_search(JOURNAL.to_json(), rule, epochs)
