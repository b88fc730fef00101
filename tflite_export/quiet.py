"""Keeps TensorFlow's greetings off the terminal, for command lines."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def start() -> Iterator[None]:
    """Holds back what is written to standard error, and drops it.

    TensorFlow's libraries print while they load, from native code, whatever
    the log level. What was held back appears if the block raises. From here
    on native code says what is fatal, unless TF_CPP_MIN_LOG_LEVEL asks for
    more; then nothing is held back.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        wanted = os.environ["TF_CPP_MIN_LOG_LEVEL"] < "3"
    else:
        wanted = False
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if wanted:
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
