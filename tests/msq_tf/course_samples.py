"""Courses of searches for a tolerance, over made-up sizes."""

from msq_tf.rules import course
from msq_tf.rules.course import Course
from msq_tf.rules.course import Measured
from msq_tf.rules.tolerance import Rung

RUNGS = 32


def ladder(costs):
    """Sizes from 8 to 2 bits, with the costs given."""
    count = len(costs)
    averages = [8 * 0.25 ** (i / max(count - 1, 1)) for i in range(count)]
    return tuple(
        Rung(average, average, cost)
        for average, cost in zip(averages, costs, strict=True)
    )


def keeps(max_drop):
    return lambda drop: drop <= max_drop + 1e-5


def new_course(costs, epochs, max_drop=1.0, untrained=()):
    return Course(
        ladder(costs),
        epochs,
        max_drop,
        keeps(max_drop),
        tuple(Measured(0, *found) for found in untrained),
        stored=(0,),
    )


def run(known, drop_at, rung=0, until=None):
    """Trains by a function of epoch and rung; the course, rungs, restores."""
    ends = course.round_ends(known.epochs)
    begun = len(known.measured)
    moves = []
    for epoch in range(begun + 1, (until or known.epochs) + 1):
        known = known.with_epoch(Measured(epoch, rung, drop_at(epoch, rung)))
        if epoch in ends and epoch != ends[-1]:
            move = known.next_move()
            assert 0 <= move.rung < len(known.ladder)
            assert move.back_to is None or move.back_to in known.stored
            moves.append(move)
            rung = move.rung
    return known, rung, moves
