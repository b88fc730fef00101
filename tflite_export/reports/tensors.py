"""Rows of a report, from what was written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msq_tf.core.quantized_weight import QuantizedWeight
from msq_tf.core.quantized_weight import SkippedWeight
from msq_tf.core.quantized_weight import count_codes
from msq_tf.reports.code_use import code_use
from tflite_export.matching.match import Matching
from tflite_export.matching.records import Written
from tflite_export.reports.report import FLOAT_BITS
from tflite_export.reports.report import FloatTensor
from tflite_export.reports.report import TensorReport
from tflite_export.targets import CONTAINERS


def average_bits(
    quantized: Sequence[QuantizedWeight], skipped: Sequence[SkippedWeight]
) -> tuple[float, float]:
    """Bits a weight, what stays float included: stored, and without signs."""
    left = sum(s.size for s in skipped if s.quantizable)
    count = sum(w.codes.size for w in quantized)
    stored = sum(w.bits * w.codes.size for w in quantized)
    total = stored + FLOAT_BITS * left
    return total / (count + left), (total - count) / (count + left)


def tensor_report(record: Written) -> TensorReport:
    """The row of a weight as it was written."""
    found = record.match
    fit, shape = found.fit, found.constant.value.shape
    channels = shape[record.channels.axis if fit.axis is None else fit.axis]
    use = code_use(found.weight)
    return TensorReport(
        name=found.weight.path,
        ops=record.ops,
        shape=shape,
        bits=found.weight.bits,
        container=record.container,
        container_bits=CONTAINERS[record.container],
        granularity=record.granularity,
        bytes=record.payload_bytes,
        distinct_codes=int(np.count_nonzero(count_codes(found.codes))),
        exact_scale=fit.exact and not record.channels.rescaled,
        flipped=int((fit.signs < 0).sum()),
        dead=use.dead,
        # One factor is that of all channels.
        muted=fit.muted * (channels if fit.axis is None else 1),
        rescaled=len(record.channels.rescaled),
        silenced=len(record.channels.silenced),
        change=record.channels.units,
        unfolded=fit.columns is not None,
        also=tuple(twin.weight.path for twin in found.twins),
        channels=use.channels,
        entropy=use.entropy,
    )


def float_reports(matching: Matching) -> tuple[FloatTensor, ...]:
    """The rows of the weights that stay float."""
    return tuple(
        FloatTensor(
            name=weight.path,
            ops=constant.readers,
            shape=constant.value.shape,
            bytes=constant.value.nbytes,
            reason=weight.reason,
        )
        for constant, weight in matching.floats
    )
