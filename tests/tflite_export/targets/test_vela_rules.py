"""Restrictions of Ethos-U, as files of one operator showed them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.devices.test_restrictions import node
from tests.tflite_export.devices.test_restrictions import options
from tflite_export.targets import vela_rules
from tflite_export.targets.restrictions import RESTRICTIONS

SAME, VALID = 0, 1
U85 = "runs on Ethos-U85 only"


def strided(name, strides, padding, kernel, size=33):
    kind = {
        "conv": "Conv2DOptionsT",
        "depthwise": "DepthwiseConv2DOptionsT",
        "pool": "Pool2DOptionsT",
    }[name]
    given = options(
        kind, strideH=strides[0], strideW=strides[1], padding=padding
    )
    inputs = [(1, size, size, 4), (4, *kernel, 4)]
    if name == "pool":
        given.filterHeight, given.filterWidth = kernel
        inputs = inputs[:1]
    return node(inputs, options=given)


@pytest.mark.parametrize(
    ("rule", "name", "strides", "padding", "kernel", "size", "only"),
    [
        ("vela_strides", "conv", (4, 4), SAME, (3, 3), 33, U85),
        ("vela_strides", "conv", (1, 4), SAME, (3, 3), 33, U85),
        ("vela_strides", "conv", (4, 4), VALID, (5, 5), 33, None),
        ("vela_strides", "conv", (4, 4), SAME, (4, 4), 32, None),
        ("vela_strides", "conv", (3, 3), SAME, (3, 3), 33, None),
        ("vela_strides", "pool", (4, 4), SAME, (5, 5), 33, U85),
        ("vela_strides", "pool", (4, 4), VALID, (5, 5), 33, None),
        ("vela_depthwise_strides", "depthwise", (4, 4), VALID, (3, 3), 9, U85),
        ("vela_depthwise_strides", "depthwise", (3, 3), SAME, (3, 3), 9, None),
        ("vela_average_window", "pool", (1, 1), SAME, (9, 9), 33, "at most 8"),
        ("vela_average_window", "pool", (1, 1), SAME, (3, 9), 33, "at most 8"),
        ("vela_average_window", "pool", (1, 1), SAME, (8, 8), 33, None),
        ("vela_average_window", "pool", (1, 1), VALID, (9, 9), 33, None),
        ("vela_average_window", "pool", (9, 9), SAME, (9, 9), 18, None),
    ],
)
def test_strides_and_windows(rule, name, strides, padding, kernel, size, only):
    text = RESTRICTIONS[rule](strided(name, strides, padding, kernel, size))
    assert (text is None) if only is None else (text and only in text)


@pytest.mark.parametrize(
    ("read", "written", "kernel", "strides", "padding", "only"),
    [
        ((5, 6), (10, 12), (3, 3), (2, 2), SAME, None),
        ((5, 6), (11, 13), (3, 3), (2, 2), VALID, None),
        ((5, 6), (10, 12), (1, 1), (2, 2), VALID, None),
        ((5, 6), (5, 6), (3, 3), (1, 1), SAME, None),
        ((1, 6), (1, 12), (1, 4), (1, 2), SAME, None),
        ((5, 1), (10, 1), (3, 1), (2, 1), SAME, None),
        ((5, 6), (5, 12), (3, 3), (1, 2), SAME, U85),
        ((5, 6), (15, 18), (3, 3), (3, 3), SAME, U85),
        ((5, 6), (15, 18), (2, 2), (3, 3), VALID, U85),
        ((5, 6), (14, 17), (2, 2), (3, 3), VALID, "another size"),
        ((5, 6), (12, 14), (3, 3), (2, 2), VALID, "another size"),
    ],
)
def test_transposed(read, written, kernel, strides, padding, only):
    given = options(
        "TransposeConvOptionsT",
        strideH=strides[0],
        strideW=strides[1],
        padding=padding,
    )
    made = node(
        [np.zeros(4), (4, *kernel, 3), (1, *read, 3)], (1, *written, 4), given
    )
    text = vela_rules.vela_transposed(made)
    assert (text is None) if only is None else (text and only in text)


@pytest.mark.parametrize(
    ("read", "written", "bilinear", "nearest"),
    [
        ((6, 6), (12, 12), None, None),
        ((6, 6), (24, 24), U85, None),
        ((6, 6), (12, 24), U85, U85),
        ((6, 6), (18, 18), "powers of two", U85),
        ((6, 6), (3, 3), "powers of two", U85),
        ((6, 6), (5, 8), "powers of two", U85),
        ((6, 1), (12, 1), U85, None),
        ((1, 1), (7, 9), None, None),
        ((6, 6), (6, 6), U85, None),
        ((6, 6), (96, 96), U85, U85),
    ],
)
def test_resizing(read, written, bilinear, nearest):
    for rule, kind, only in (
        ("vela_bilinear", "ResizeBilinearOptionsT", bilinear),
        ("vela_nearest", "ResizeNearestNeighborOptionsT", nearest),
    ):
        given = options(kind, halfPixelCenters=True)
        made = node([(1, *read, 4)], (1, *written, 4), given)
        text = RESTRICTIONS[rule](made)
        assert (text is None) if only is None else (text and only in text), rule


@pytest.mark.parametrize(
    ("shape", "axes", "refused"),
    [
        ((1, 6, 6, 3), (1, 2), False),
        ((1, 6, 6, 3), (3,), True),
        ((1, 6, 6, 1), (3,), False),
        ((1, 1, 6, 5), (3,), False),
        ((1, 3, 8, 8), (2, 3), True),
        ((1, 4, 4, 4, 2), (1, 2, 3), True),
        ((1, 6, 5), (2,), False),
        ((1, 5000, 3), (1,), True),
    ],
)
def test_means(shape, axes, refused):
    made = node([shape, np.array(axes)])
    assert (vela_rules.vela_mean(made) is not None) == refused


@pytest.mark.parametrize(
    ("shape", "axes", "refused"),
    [((1, 6, 3), (1,), True), ((1, 6, 3), (-1,), True), ((1, 6), (0,), False)],
)
def test_reversed_axes(shape, axes, refused):
    text = vela_rules.vela_reverse(node([shape, np.array(axes)]))
    assert bool(text and U85 in text) == refused


@pytest.mark.parametrize(
    ("strides", "refused"),
    [((1, 1, 2), True), ((1, -1, 1), True), ((1, 2, 1), False)],
)
def test_strides_of_slices(strides, refused):
    given = [np.zeros(3), np.array([1, 6, 8]), np.array(strides)]
    made = node([(1, 6, 8), *given])
    assert (vela_rules.vela_slice(made) is not None) == refused
