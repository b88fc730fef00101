"""Starts the workers of a cluster on this machine, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Sequence

# Seconds until workers are killed, whatever they do: many times what they take
# on an idle machine, since other jobs may hold it.
PATIENCE = 1500


def addresses(count: int) -> list[str]:
    """Free ports of this machine."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


@contextlib.contextmanager
def launched(
    commands: Sequence[Sequence[str]], root: pathlib.Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts a worker for each command; kills those that are left.

    Args:
        commands: A command for each worker, the chief's first.
        root: Where to run them.
    """
    workers = addresses(len(commands))
    processes = []
    try:
        for index, command in enumerate(commands):
            config = {
                "cluster": {"worker": workers},
                "task": {"type": "worker", "index": index},
            }
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=root,
                    env={**os.environ, "TF_CONFIG": json.dumps(config)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            with process:  # closes its pipe
                process.kill()


def outputs(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What each printed, once all have ended."""
    end = time.monotonic() + PATIENCE
    return [
        process.communicate(timeout=end - time.monotonic())[0]
        for process in processes
    ]
