"""Ends a process that waits in native code and holds Python's lock.

In this state no Python thread and no signal handler runs, so nothing in the
process could say why it ends. Another process says it, and sends a signal that
the system's own `_exit` handles.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

# `_exit` is called with the signal's number, and 2 is the exit code that a run
# ends with that could not be done.
_SIGNAL = signal.SIGINT
# Waits for the end of its input: that comes when the block is left, or when
# the process that waits is gone.
_WATCH = """
import os, select, sys
parent, seconds, number, text = sys.argv[1:]
if not select.select([0], [], [], float(seconds))[0]:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass
    if os.getppid() == int(parent):
        os.kill(int(parent), int(number))
"""


@contextlib.contextmanager
def within(seconds: float, text: str) -> Iterator[None]:
    """Surrounds what may take so long; then the process ends with code 2.

    The text is printed to standard error at the end. In another thread than
    the main one, which alone sets handlers, the process is killed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    number = _SIGNAL if in_main else signal.SIGKILL
    watch = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", "-c", _WATCH),
            *(str(os.getpid()), str(seconds), str(int(number)), text),
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with _exits() if in_main else contextlib.nullcontext():
            yield
    finally:
        # Ends it.
        watch.communicate()


@contextlib.contextmanager
def _exits() -> Iterator[None]:
    """Has `_SIGNAL` end the process, whoever holds Python's lock."""
    handler = signal.getsignal(_SIGNAL)
    system = ctypes.CDLL(None)
    system.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    system.signal.restype = ctypes.c_void_p
    system.signal(_SIGNAL, ctypes.cast(system._exit, ctypes.c_void_p))
    try:
        yield
    finally:
        signal.signal(_SIGNAL, signal.SIG_DFL if handler is None else handler)
