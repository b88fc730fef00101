"""Waits until all workers of a cluster are there.

TensorFlow waits too, but without end: the call that starts its server neither
returns nor heeds signals while a worker is missing. So the workers first meet
here, on the chief's port, which TensorFlow takes over when they have.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

# Tells a worker that waits from whatever else connects to a port.
_HELLO = b"msq_tf worker %8d\n"
_GO = b"msq_tf go\n"
# Seconds between two attempts to connect.
_PAUSE = 0.2


def meet(addresses: Sequence[str], index: int, timeout: float) -> None:
    """Returns when all workers have called it.

    Args:
        addresses: `host:port` of every worker, the chief first.
        index: Number of this one.
        timeout: Seconds to wait.

    Raises:
        ValueError: If some are missing at the end of the timeout, or the
            chief cannot take its port.
    """
    if len(addresses) == 1:
        return
    end = time.monotonic() + timeout
    try:
        if index == 0:
            missing = _gather(addresses, end)
        else:
            missing = [] if _report(addresses[0], index, end) else [0]
    except OSError as error:
        raise ValueError(
            "The chief cannot take its port. Expected a free one in "
            f"TF_CONFIG. Received: {addresses[0]} ({error.strerror})"
        ) from error
    if missing:
        silent = ", ".join(f"{i} ({addresses[i]})" for i in missing)
        raise ValueError(
            "The cluster did not come together. Expected all "
            f"{len(addresses)} workers within --worker_timeout={timeout:g} "
            f"seconds of each other. Received: nothing from worker {silent}"
        )


def _gather(addresses: Sequence[str], end: float) -> list[int]:
    """The chief's part; returns the numbers of those that are missing."""
    port = int(addresses[0].rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(port))
        there: dict[int, socket.socket] = {}
        while len(there) < len(addresses) - 1:
            left = end - time.monotonic()
            if left <= 0:
                return sorted(set(range(1, len(addresses))) - set(there))
            server.settimeout(left)
            try:
                guest, _ = server.accept()
            except TimeoutError:
                continue
            stack.enter_context(guest)
            number = _greeted(guest)
            if number is not None and 0 < number < len(addresses):
                there[number] = guest
        for guest in there.values():
            # One that is gone by now is TensorFlow's to notice.
            with contextlib.suppress(OSError):
                guest.sendall(_GO)
    return []


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(("", port))


def _greeted(guest: socket.socket) -> int | None:
    guest.settimeout(5.0)
    with contextlib.suppress(OSError, ValueError):
        said = _read(guest, len(_HELLO % 0))
        if said.startswith(_HELLO.partition(b"%")[0]):
            return int(said.split()[-1])
    return None


def _report(chief: str, index: int, end: float) -> bool:
    """A worker's part; returns whether the chief said to go on."""
    host, _, port = chief.rpartition(":")
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError):
            address = (host.strip("[]"), int(port))
            with socket.create_connection(address, min(left, 5.0)) as peer:
                peer.sendall(_HELLO % index)
                peer.settimeout(max(end - time.monotonic(), _PAUSE))
                if _read(peer, len(_GO)) == _GO:
                    return True
        time.sleep(_PAUSE)
    return False


def _read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            break
        data += part
    return data
