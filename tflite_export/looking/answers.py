"""Answers of the float model and of the file, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.differences import Decision
from tflite_export.differences import spread

# Entries of an output that are shown of each sample.
_SHOWN = 3


def compare(
    names: Sequence[str],
    decisions: Sequence[Decision | None],
    wanted: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    labels: np.ndarray | None,
    most: int,
) -> dict[str, Any]:
    """Compares two runs, and finds the samples that are furthest apart.

    Args:
        names: Names of the outputs.
        decisions: How each output decides; `None` where nothing is decided.
        wanted: Outputs of the float model, samples along the first axis.
        got: Outputs of the file, as real values.
        labels: True classes of the first output; `None` for none.
        most: How many samples to return.

    Returns:
        `agreement`, the share of the `decisions` that are the same, `accuracy`
        of both and `distance`, where known, and the `samples` that are furthest
        apart.
    """
    rows = len(wanted[0])
    distance = np.zeros(rows)
    differs = np.zeros(rows, bool)
    decided = agreed = 0
    for decision, a, b in zip(decisions, wanted, got, strict=True):
        if a.shape != b.shape:
            raise ValueError(
                "The float model and the file give outputs of different "
                f"shapes. Received: {a.shape} and {b.shape}"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore"):
            off = np.where(a == b, 0.0, np.abs(a - b)).reshape(rows, -1)
        off = np.where(np.isnan(off), np.inf, off)
        distance = np.maximum(
            distance, off.max(axis=1, initial=0.0) / spread(a)
        )
        same = _same(decision, a, b)
        if same is not None:
            decided += same.size
            agreed += int(same.sum())
            differs |= ~same.all(axis=1)
    # Those that decide differently first, then by distance.
    order = np.lexsort((-distance, ~differs))[:most]
    found: dict[str, Any] = {
        "decisions": decided,
        "agreement": agreed / decided if decided else None,
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


def _same(
    decision: Decision | None, wanted: np.ndarray, got: np.ndarray
) -> np.ndarray | None:
    """Which decisions are the same, a row a sample; `None` for none."""
    if decision is None or not decision.fits(wanted.shape):
        return None
    same = decision.alike(got, wanted, 0.0)
    return same.reshape(len(wanted), -1)


def _answer(
    name: str, decision: Decision | None, wanted: np.ndarray, got: np.ndarray
) -> dict[str, Any]:
    a = np.asarray(wanted, np.float64).ravel()
    b = np.asarray(got, np.float64).ravel()
    same = _same(decision, wanted[None], got[None])
    if same is not None:
        places = [*np.argsort(-a)[:_SHOWN], *np.argsort(-b)[:_SHOWN]]
    else:
        places = list(np.argsort(-np.abs(a - b))[:_SHOWN])
    places = list(dict.fromkeys(int(k) for k in places))
    return {
        "name": name,
        "places": places,
        "float_model": [float(a[k]) for k in places],
        "file": [float(b[k]) for k in places],
        "changed": None if same is None else not same.all(),
    }


def _accuracy(
    decision: Decision | None, outputs: np.ndarray, labels: np.ndarray
) -> float:
    if decision is None or not decision.fits(outputs.shape):
        raise ValueError(
            "The output decides between no classes, so that labels say "
            "nothing. Expected a file with classes, or no labels. Received: "
            f"an output of shape {outputs.shape}"
        )
    chosen = decision.chosen(outputs).reshape(len(outputs), -1)
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
    decisions: Sequence[Decision | None],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
) -> float:
    """How much two runs have in common, from 0 to 1.

    The share of decisions that are the same; where nothing is decided, the
    share of the first outputs' power that is no difference.
    """
    shares = []
    for decision, a, b in zip(decisions, first, second, strict=True):
        same = _same(decision, a, b)
        if same is not None:
            shares.append(float(same.mean()))
            continue
        power = float(np.square(a, dtype=np.float64).sum())
        off = float(np.square(a - b, dtype=np.float64).sum())
        shares.append(max(1.0 - off / power, 0.0) if power else float(not off))
    return min(shares, default=1.0)
