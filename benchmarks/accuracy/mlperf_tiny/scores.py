"""How near the outputs of a file are to those of the float file."""

from __future__ import annotations

import numpy as np


def agreement(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of examples of which both have the same class.

    Args:
        found: Scores `(examples, classes)`.
        wanted: The float model's.
    """
    return float((found.argmax(-1) == wanted.argmax(-1)).mean())


def accuracy(found: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose class is right.

    Args:
        found: Scores `(examples, classes)`.
        labels: Classes `(examples,)`.
    """
    return float((found.argmax(-1) == labels).mean())


def anomalies(
    inputs: np.ndarray, outputs: np.ndarray, windows: int
) -> np.ndarray:
    """Anomaly scores of recordings: mean squared errors of reconstructions.

    Args:
        inputs: Windows `(recordings * windows, features)`.
        outputs: What the autoencoder made of them.
        windows: Windows of a recording.

    Returns:
        A score for each recording.
    """
    errors = np.square(inputs - outputs).mean(-1)
    return errors.reshape(-1, windows).mean(-1)


def same_order(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of pairs that both put in the same order.

    A pair is a recording without an anomaly and one with. The area under the
    ROC curve counts just these pairs, so it changes by less than what is
    missing here to 1.

    Args:
        found: Anomaly scores; every second recording has an anomaly.
        wanted: The float model's.
    """
    orders = [
        scores[1::2, None] > scores[None, ::2] for scores in (found, wanted)
    ]
    return float((orders[0] == orders[1]).mean())


def roc_area(scores: np.ndarray) -> float:
    """Area under the ROC curve of anomaly scores.

    Args:
        scores: One a recording; every second recording has an anomaly.
    """
    return float((scores[1::2, None] > scores[None, ::2]).mean())


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """Median of the differences of scores, relative to the float model's."""
    return float(np.median(np.abs(found - wanted) / wanted))
