"""Factors along a weight's inputs, which no tensor type can store.

A FULLY_CONNECTED absorbs a multiplication of its input (a batch normalization
without an activation in between): the converter scales the weight's columns.
A tensor holds scales along one axis only, so the column factors are taken out
of the weight again and become a multiplication of the input, as it was.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_export.matching import scales as fitting

_REFINEMENTS = 3


def fit_rows_and_columns(
    tensor: np.ndarray, codes: np.ndarray
) -> fitting.Fit | None:
    """Explains a matrix as `codes * row factor * column factor`.

    A fit whose `columns` hold the column factors, or `None`. A matrix is of
    shape (outputs, inputs).
    """
    if tensor.ndim != 2 or not tensor.any():
        return None
    wide, known = tensor.astype(np.float64), codes.astype(np.float64)
    # A column factor of zero erases its column.
    erased = ~wide.any(axis=0)
    if ((wide == 0) != (known == 0))[:, ~erased].any():
        return None
    columns = _columns(wide, known)
    for _ in range(_REFINEMENTS):
        rows = _ratio(wide, known * columns, axis=1)[:, None]
        columns = _ratio(wide, known * rows, axis=0)[None]
    columns = columns.astype(np.float32)
    plain = np.where(erased, 0, wide / np.where(columns == 0, 1, columns))
    found = fitting.fit_axis(
        plain.astype(np.float32), np.where(erased, 0, codes), None, 0
    )
    if found is None:
        return None
    product = codes * found.along(found.signs * found.scale, 2) * columns
    if not fitting.close(wide, product):
        return None
    return dataclasses.replace(
        found,
        columns=columns.ravel(),
        residual=fitting.relative(wide, product),
    )


def _columns(wide: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Column factors up to one common factor per connected part.

    Rows and columns are the two sides of a graph with an edge at every
    nonzero code; along an edge one factor gives the other.
    """
    edges = (known != 0) & (wide != 0)
    ratio = np.where(edges, wide, 1) / np.where(edges, known, 1)
    columns = np.zeros(wide.shape[1])
    while (unset := (columns == 0) & edges.any(axis=0)).any():
        columns[np.flatnonzero(unset)[0]] = 1.0
        known_before = -1
        while known_before != np.count_nonzero(columns):
            known_before = int(np.count_nonzero(columns))
            rows = _along_edges(ratio, edges, columns)
            spread = _along_edges(ratio.T, edges.T, rows)
            columns = np.where(columns == 0, spread, columns)
    return columns[None]


def _along_edges(
    ratio: np.ndarray, edges: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """Factor of each row from its first edge to a known factor, else 0."""
    usable = edges & (factors != 0)
    first = usable.argmax(axis=1)
    reached = usable.any(axis=1)
    divisor = np.where(reached, factors[first], 1)
    return np.where(reached, ratio[np.arange(len(ratio)), first] / divisor, 0)


def _ratio(wide: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    power = (known * known).sum(axis=axis)
    return (wide * known).sum(axis=axis) / np.where(power == 0, 1, power)
