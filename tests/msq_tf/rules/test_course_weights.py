"""What weights a search for a tolerance goes back to."""

import dataclasses
import math

import pytest

from msq_tf.rules.course import Measured
from tests.msq_tf.course_samples import RUNGS
from tests.msq_tf.course_samples import new_course
from tests.msq_tf.course_samples import run


@pytest.mark.parametrize(
    ("before", "over", "back_to"), [(3.0, 6, 0), (60.0, 6, 0), (600.0, 9, None)]
)
def test_a_larger_size_begins_with_the_weights_that_lose_less(
    before, over, back_to
):
    """Few bits cost eight points: those of before training may be better.

    If there is time to win back what they lose without training.
    """
    untrained = [(0, 0.0), (15, before), (31, 100.0)]
    known = new_course(range(RUNGS), 10, untrained=untrained)
    for epoch in range(1, over + 1):
        rung = 0 if epoch == 1 else 31
        known = known.with_epoch(Measured(epoch, rung, 0.5 if rung == 0 else 8))
    move = known.next_move()
    assert 0 < move.rung < 31
    assert move.back_to == back_to


def test_the_last_rounds_keep_the_weights_of_few_bits():
    """A model of rung 16 is in store, and rung 23 never got there.

    With time left, the one in store loses less; at the end there is none to win
    back what it loses at fewer bits.
    """
    untrained = [(0, 0.0), (8, 3.0), (16, 11.0), (23, 36.0), (31, 134.0)]
    known = new_course(
        [float(r**3) for r in range(RUNGS)], 20, untrained=untrained
    )
    moves = {}
    for epoch in range(1, 20):
        rung = (0 if epoch < 3 else 16) if epoch < 9 else 23
        drop = 3.0 if rung == 23 else 0.9
        known = known.with_epoch(Measured(epoch, rung, drop))
        moves[epoch] = known.next_move()
    for epoch, back_to in ((12, 3), (19, None)):
        assert 16 < moves[epoch].rung < 23
        assert moves[epoch].back_to == back_to


@pytest.mark.parametrize(("drop", "back_to"), [(2.4, 1), (1.4, None)])
def test_what_is_about_as_good_is_trained_on(drop, back_to):
    """At a larger size, weights in store have to be better by half a promise.

    As of a DS-CNN: 2.4 points lost, of which 0.3 were expected to come back,
    beside a larger model that lost 0.95.
    """
    known = new_course([float(r) for r in range(RUNGS)], 20)
    for epoch in range(1, 18):
        rung, lost = (4, 0.95) if epoch < 3 else (20, drop)
        known = known.with_epoch(Measured(epoch, rung, lost))
    move = known.next_move()
    assert 4 < move.rung < 20
    assert move.back_to == back_to


@pytest.mark.parametrize(("stores", "back_to"), [(True, 8), (False, 1)])
def test_the_next_best_is_nearer_than_the_best(stores, back_to):
    """A size fails, and a smaller one does much worse.

    The largest lost least, but there is little time to win back what it loses
    at fewer bits. As of a DS-CNN with integer activations.
    """
    untrained = [(0, 2.0), (8, 10.0), (16, 60.0), (24, 90.0), (31, 99.0)]
    known = dataclasses.replace(
        new_course([float(r**3) for r in range(RUNGS)], 20, 3.65, untrained),
        stores_next_best=stores,
    )
    for epoch in range(1, 17):
        rung = 0 if epoch < 3 else 12 if epoch < 9 else 20
        drop = 1.9 if epoch < 3 else 4.4 if epoch == 8 else 5.3
        known = known.with_epoch(Measured(epoch, rung, drop + 4 * (rung == 20)))
    assert (8 in known.stored) == stores
    move = known.next_move()
    assert move.rung < 20
    assert move.back_to == back_to


def test_an_infinite_loss_before_training_sends_nothing_back():
    """As of a size whose outputs are no numbers without any training."""
    untrained = [(0, 0.0), (8, math.inf), (31, math.inf)]
    known = new_course(range(RUNGS), 20, untrained=untrained)
    for epoch in range(1, 13):
        rung = (0 if epoch < 3 else 12) if epoch < 7 else 23
        drop = 3.0 if rung == 23 else 0.9
        known = known.with_epoch(Measured(epoch, rung, drop))
    move = known.next_move()
    assert move.rung < 23 and move.back_to is None


def test_no_number_goes_back_to_stored_weights():
    known = new_course(range(RUNGS), 20)
    known, _, moves = run(
        known, lambda epoch, _: math.inf if epoch == 4 else 0.0, until=4
    )
    assert moves[-1].back_to == 2
    assert not moves[-1].passed
