"""Estimates of what a narrower width costs."""

from msq_tf.sensitivity.divergence import output_divergence as output_divergence
from msq_tf.sensitivity.hessian import BlockHessian as BlockHessian
from msq_tf.sensitivity.hessian import TraceEstimate as TraceEstimate

__all__ = [
    "BlockHessian",
    "TraceEstimate",
    "output_divergence",
]
