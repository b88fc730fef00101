"""Shows the progress of a long export.

Nothing is said of one that takes less than five seconds. From then on every
step is a line on standard error, as it begins.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Iterator

# Seconds before anything is said.
QUIET = 5.0

_current: contextvars.ContextVar[_Steps | None] = contextvars.ContextVar(
    "steps", default=None
)


@contextlib.contextmanager
def shown(name: str, wanted: bool = True) -> Iterator[None]:
    """Shows the steps of what is done inside, its name first in each line."""
    if not wanted:
        yield
        return
    steps = _Steps(name)
    token = _current.set(steps)
    try:
        yield
    finally:
        _current.reset(token)
        steps.end()


def step(text: str) -> None:
    """Begins a step, such as `"converting"`."""
    steps = _current.get()
    if steps is not None:
        steps.begin(text)


class _Steps:
    def __init__(self, name: str):
        self._name = name
        self._start = time.monotonic()
        self._text = ""
        self._said = ""
        self._lock = threading.Lock()
        # A step that is long itself is shown while it lasts.
        self._timer = threading.Timer(QUIET, self._say)
        self._timer.daemon = True
        self._timer.start()

    def begin(self, text: str) -> None:
        self._text = text
        if time.monotonic() - self._start >= QUIET:
            self._say()

    def end(self) -> None:
        self._timer.cancel()

    def _say(self) -> None:
        with self._lock:
            if self._text in ("", self._said):
                return
            self._said = self._text
            seconds = time.monotonic() - self._start
            # What cannot be shown shall not cost the file.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                print(
                    f"{self._name}: {seconds:.0f} s, {self._text} ...",
                    file=sys.stderr,
                    flush=True,
                )
