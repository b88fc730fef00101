"""Times files in LiteRT, on one thread of this processor."""

from __future__ import annotations

import time

import numpy as np
from ai_edge_litert import interpreter as litert

# Calls of a block take so long, and so many blocks are timed at least and most:
# a clock is too coarse for one call, and other work disturbs some blocks.
_BLOCK_SECONDS = 1e-3
_BLOCKS = (20, 400)


def milliseconds(
    data: bytes, seconds: float = 0.05, sessions: int = 1
) -> float:
    """The time of a call of a file: that of the fastest block of calls.

    Inputs are drawn from a fixed seed. XNNPACK computes what it can, as on
    phones and computers by default.

    Args:
        data: The bytes of the file.
        seconds: How long to measure.
        sessions: How often the file is loaded, for equal parts of that time:
            where its buffers lie makes up to a fifth of the time of a network.

    Raises:
        RuntimeError: If LiteRT lacks an operator.
    """
    return min(_fastest(data, seconds / sessions) for _ in range(sessions))


def _fastest(data: bytes, seconds: float) -> float:
    """Milliseconds of a call, of a file that is loaded once."""
    session = litert.Interpreter(model_content=data, num_threads=1)
    session.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in session.get_input_details():
        shape, kind = detail["shape"], np.dtype(detail["dtype"])
        value = np.zeros(shape, kind)  # indices have to be in range
        if kind == np.int8:
            value = rng.integers(-127, 128, shape).astype(kind)
        elif kind.kind == "f":
            value = rng.uniform(-1.0, 1.0, shape).astype(kind)
        session.set_tensor(detail["index"], value)
    session.invoke()
    start = time.perf_counter()
    session.invoke()
    once = max(time.perf_counter() - start, 1e-7)
    calls = max(1, round(_BLOCK_SECONDS / once))
    least, most = _BLOCKS
    best, begun, blocks = once, time.perf_counter(), 0
    while blocks < least or (
        blocks < most and time.perf_counter() - begun < seconds
    ):
        start = time.perf_counter()
        for _ in range(calls):
            session.invoke()
        best = min(best, (time.perf_counter() - start) / calls)
        blocks += 1
    return best * 1e3
