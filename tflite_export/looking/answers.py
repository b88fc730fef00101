"""Answers of the float model and of the file, sample by sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

# Entries of an output that are shown of each sample.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Decision:
    """How an output decides.

    Attributes:
        classes: Whether the largest along the last axis is the class.
        threshold: What each number is compared with; `None` for nothing.
    """

    classes: bool = False
    threshold: float | None = None

    def chosen(self, values: np.ndarray) -> np.ndarray | None:
        """Decisions, one row a sample; `None` where there are none."""
        rows = len(values)
        if self.threshold is not None:
            return (values > self.threshold).reshape(rows, -1)
        if self.classes and values.ndim > 1 and values.shape[-1] > 1:
            return values.argmax(-1).reshape(rows, -1)
        return None


def compare(
    names: Sequence[str],
    decisions: Sequence[Decision],
    wanted: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    labels: np.ndarray | None,
    most: int,
) -> dict[str, Any]:
    """Compares two runs, and finds the samples that are furthest apart.

    Args:
        names: Names of the outputs.
        decisions: How each output decides.
        wanted: Outputs of the float model, samples along the first axis.
        got: Outputs of the file, as real values.
        labels: True classes of the first output; `None` for none.
        most: How many samples to return.

    Returns:
        `agreement`, `accuracy` of both and `distance`, where known, and the
        `samples` that are furthest apart.
    """
    rows = len(wanted[0])
    distance = np.zeros(rows)
    differs = np.zeros(rows, bool)
    decided = False
    for decision, a, b in zip(decisions, wanted, got, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                "The float model and the file give outputs of different "
                f"shapes. Received: {a.shape} and {b.shape}"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = a[np.isfinite(a)]
        spread = float(np.ptp(finite)) if finite.size else 0.0
        with np.errstate(invalid="ignore"):
            off = np.where(a == b, 0.0, np.abs(a - b)).reshape(rows, -1)
        off = np.where(np.isnan(off), np.inf, off)
        distance = np.maximum(
            distance, off.max(axis=1, initial=0.0) / (spread or 1.0)
        )
        first, second = decision.chosen(a), decision.chosen(b)
        if first is not None and second is not None:
            decided = True
            differs |= (first != second).any(axis=1)
    # Those that decide differently first, then by distance.
    order = np.lexsort((-distance, ~differs))[:most]
    found: dict[str, Any] = {
        "count": rows,
        "agreement": float(1 - differs.mean()) if decided else None,
        "distance": float(distance.max(initial=0.0)),
        "samples": [
            {
                "number": int(number),
                "distance": float(distance[number]),
                "answers": [
                    _answer(name, decision, a[number], b[number])
                    for name, decision, a, b in zip(
                        names, decisions, wanted, got, strict=True
                    )
                ],
            }
            for number in order
        ],
    }
    if labels is not None:
        found["accuracy"] = [
            _accuracy(decisions[0], outputs[0], labels)
            for outputs in (wanted, got)
        ]
    return found


def _answer(
    name: str, decision: Decision, wanted: np.ndarray, got: np.ndarray
) -> dict[str, Any]:
    a = np.asarray(wanted, np.float64).ravel()
    b = np.asarray(got, np.float64).ravel()
    first = decision.chosen(wanted[None])
    second = decision.chosen(got[None])
    changed = None
    if first is not None and second is not None:
        changed = bool((first != second).any())
    if first is not None:
        places = [*np.argsort(-a)[:_SHOWN], *np.argsort(-b)[:_SHOWN]]
    else:
        places = list(np.argsort(-np.abs(a - b))[:_SHOWN])
    places = list(dict.fromkeys(int(k) for k in places))
    return {
        "name": name,
        "places": places,
        "float_model": [float(a[k]) for k in places],
        "file": [float(b[k]) for k in places],
        "changed": changed,
    }


def _accuracy(
    decision: Decision, outputs: np.ndarray, labels: np.ndarray
) -> float:
    chosen = decision.chosen(outputs)
    if chosen is None:
        raise ValueError(
            "The output decides between no classes, so that labels say "
            "nothing. Expected a file with classes, or no labels. Received: "
            f"an output of shape {outputs.shape}"
        )
    true = np.asarray(labels)
    if true.ndim > 1 and true.shape[-1] > 1 and decision.threshold is None:
        true = true.argmax(-1)  # one-hot
    true = true.reshape(len(true), -1)
    if true.shape != chosen.shape:
        raise ValueError(
            "Labels don't fit the output. Expected one for each decision, "
            f"{chosen.shape}. Received: {np.shape(labels)}"
        )
    return float((chosen == true.astype(chosen.dtype)).mean())


def alike(
    decisions: Sequence[Decision],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
) -> float:
    """How much two runs have in common, from 0 to 1.

    The share of samples that are decided alike; where nothing is decided, the
    share of the first outputs' power that is no difference.
    """
    shares = []
    for decision, a, b in zip(decisions, first, second, strict=True):
        one, other = decision.chosen(a), decision.chosen(b)
        if one is not None and other is not None:
            shares.append(float((one == other).all(axis=1).mean()))
            continue
        power = float(np.square(a, dtype=np.float64).sum())
        off = float(np.square(a - b, dtype=np.float64).sum())
        shares.append(max(1.0 - off / power, 0.0) if power else float(not off))
    return min(shares, default=1.0)


def divergence(
    decisions: Sequence[Decision],
    wanted: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
) -> float:
    """How far outputs moved, as a loss with the others for the truth.

    The Kullback-Leibler divergence where the output is a distribution or
    decides by a threshold of one half, else the mean squared difference.
    """
    total = 0.0
    for decision, first, second in zip(decisions, wanted, got, strict=True):
        a, b = first.astype(np.float64), second.astype(np.float64)
        if decision.classes and _distribution(a):
            a, b = np.clip(a, 1e-7, 1.0), np.clip(b, 1e-7, 1.0)
            total += float((a * np.log(a / b)).sum(-1).mean())
        elif decision.classes:
            total += divergence([decision], [softmax(a)], [softmax(b)])
        elif decision.threshold == 0.5:
            a, b = (np.clip(v, 1e-7, 1 - 1e-7) for v in (a, b))
            total += float(
                (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))).mean()
            )
        else:
            total += float(np.square(a - b).mean())
    return total


def softmax(values: np.ndarray) -> np.ndarray:
    """Scores as a distribution along the last axis."""
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _distribution(values: np.ndarray) -> bool:
    return bool(
        (values >= 0).all() and np.allclose(values.sum(-1), 1.0, atol=0.02)
    )
