"""Ends a worker that waits for others that run and do not answer.

TensorFlow notices workers that are gone: their connections break, or their
heartbeats are missing. For a worker that only does not take part, it waits
forever. It offers a timeout for each collective, but each timeout costs a
thread that sleeps until then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator

import rich.console

# Seconds between two looks, at most.
_PAUSE = 1.0


class Watchdog:
    """One thread that looks at how long exchanges take.

    It ends the process, for the thread that waits can do nothing: it is
    inside of TensorFlow, and heeds neither exceptions nor signals. `give_up`
    is called before the end, and returns what is to be said.
    """

    def __init__(self, timeout: float, give_up: Callable[[], str]) -> None:
        self._timeout = timeout
        self._give_up = give_up
        # Begun and not ended, one inside of another.
        self._depth = 0
        # Begun or ended so far: whether anything has moved.
        self._moves = 0

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Surrounds what waits for others. May be nested."""
        self._moves += 1
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._moves += 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Surrounds what is watched."""
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run(self, over: threading.Event) -> None:
        pause = min(_PAUSE, self._timeout / 10)
        waited, moves = 0.0, 0
        while not over.wait(pause):
            # Counted, not read off a clock: a process that was stopped for an
            # hour has not waited for an hour.
            still = self._depth and self._moves == moves
            waited = waited + pause if still else 0.0
            moves = self._moves
            if waited >= self._timeout:
                self._end()

    def _end(self) -> None:
        print(f"error: {self._give_up()}", file=sys.stderr, flush=True)
        # A bar that is shown meanwhile hides it.
        rich.console.Console().show_cursor(True)
        sys.stdout.flush()
        os._exit(2)
