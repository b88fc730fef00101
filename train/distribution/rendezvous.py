"""Waits until all workers of a cluster are there.

TensorFlow waits, too, but forever: while a worker is missing, the call that
starts its server neither returns nor reacts to signals. So the workers first
meet here, on the chief's port. TensorFlow takes over the port afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

# Tells a worker that waits from whatever else connects to a port.
_HELLO = b"msq_tf worker %8d\n"
_FAILED = b"msq_tf failed %8d\n"
# What the chief says, of one length: is it you, then go, or go home.
_ASK = b"msq_tf ??\n"
_GO = b"msq_tf go\n"
_NO = b"msq_tf no\n"
# What a worker answers when it is asked.
_HERE = b"msq_tf ok\n"
# Seconds between two attempts to connect.
_PAUSE = 0.2
# Seconds that a peer may take for an answer.
_ANSWER = 5.0
# Seconds for which a worker that has failed looks for the chief, to tell it,
# and the chief waits to tell those that come after it.
_TELL = 60.0


def meet(addresses: Sequence[str], index: int, timeout: float) -> None:
    """Returns when all workers have called it.

    The addresses are `host:port` of every worker, the chief first.

    Raises:
        ValueError: If some are missing at the end of the timeout, or this or
            another worker cannot take its port.
    """
    if len(addresses) == 1:
        return
    end = time.monotonic() + timeout
    try:
        server = _server(int(addresses[index].rpartition(":")[2]))
    except OSError as error:
        if index:
            # The chief tells the others.
            soon = min(end, time.monotonic() + _TELL)
            _report(addresses[0], _FAILED % index, soon)
        name = f"Worker {index}" if index else "The chief"
        raise ValueError(
            f"{name} cannot take its port. Expected a free one in TF_CONFIG. "
            f"Received: {addresses[index]} ({error.strerror})"
        ) from error
    # Held to the end, for TensorFlow to take it over.
    with server:
        if index == 0:
            missing = _gather(server, addresses, end)
        else:
            answer = _report(addresses[0], _HELLO % index, end)
            if answer == _NO:
                raise ValueError(
                    "The cluster did not come together. Expected that all "
                    f"{len(addresses)} workers can take their ports. Received: "
                    "one that cannot, whose own output says why"
                )
            missing = [] if answer == _GO else [0]
    if missing:
        silent = ", ".join(f"{i} ({addresses[i]})" for i in missing)
        raise ValueError(
            "The cluster did not come together. Expected all "
            f"{len(addresses)} workers within --worker_timeout={timeout:g} "
            f"seconds of each other. Received: nothing from worker {silent}"
        )


def _gather(
    server: socket.socket, addresses: Sequence[str], end: float
) -> list[int]:
    """The chief's part; returns the numbers of those that are missing."""
    others = set(range(1, len(addresses)))
    with contextlib.ExitStack() as stack:
        # Several claim a number if one is something else that knows the word.
        there: dict[int, list[socket.socket]] = {}
        while True:
            if others <= set(there):
                there = _answering(there)
                if others <= set(there):
                    break
            left = end - time.monotonic()
            if left <= 0:
                return sorted(others - set(there))
            server.settimeout(left)
            try:
                guest, _ = server.accept()
            except TimeoutError:
                continue
            stack.enter_context(guest)
            word, number = _greeted(guest)
            if number in others and word == _word(_FAILED):
                _tell(there, _NO)
                late = others - set(there) - {number}
                _dismiss(server, late, min(end, time.monotonic() + _TELL))
                raise ValueError(
                    f"Worker {number} cannot take its port. Expected a free "
                    f"one in TF_CONFIG. Received: {addresses[number]}"
                )
            if number in others:
                there.setdefault(number, []).append(guest)
        _tell(there, _GO)
    return []


def _dismiss(server: socket.socket, late: set[int], end: float) -> None:
    """Sends those home that come when all is over already."""
    while late and (left := end - time.monotonic()) > 0:
        server.settimeout(left)
        with contextlib.suppress(TimeoutError):
            guest, _ = server.accept()
            with guest:
                word, number = _greeted(guest)
                if word == _word(_HELLO):
                    _tell({number: [guest]}, _NO)
            late = late - {number}


def _answering(
    there: dict[int, list[socket.socket]],
) -> dict[int, list[socket.socket]]:
    """Those that are still there and are what they say."""
    _tell(there, _ASK)
    found: dict[int, list[socket.socket]] = {}
    for number, guests in there.items():
        for guest in guests:
            with contextlib.suppress(OSError):
                guest.settimeout(_ANSWER)
                if _read(guest, len(_HERE)) == _HERE:
                    found.setdefault(number, []).append(guest)
    return found


def _tell(there: dict[int, list[socket.socket]], word: bytes) -> None:
    for guests in there.values():
        for guest in guests:
            # One that is gone by now does not answer, or is TensorFlow's to
            # notice.
            with contextlib.suppress(OSError):
                guest.sendall(word)


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(("", port))


def _greeted(guest: socket.socket) -> tuple[bytes, int]:
    """What something that connected says, and its number; 0 for nothing."""
    guest.settimeout(_ANSWER)
    with contextlib.suppress(OSError, ValueError):
        said = _read(guest, len(_HELLO % 0))
        for word in (_word(_HELLO), _word(_FAILED)):
            if said.startswith(word):
                return word, int(said[len(word) :])
    return b"", 0


def _word(greeting: bytes) -> bytes:
    return greeting.partition(b"%")[0]


def _report(chief: str, greeting: bytes, end: float) -> bytes:
    """A worker's part; returns the chief's last word, empty if there is none.

    Nothing is waited for behind a greeting that this worker has failed.
    """
    host, _, port = chief.rpartition(":")
    address = (host.strip("[]"), int(port))
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError):
            with socket.create_connection(address, min(left, _ANSWER)) as peer:
                peer.sendall(greeting)
                if greeting.startswith(_word(_FAILED)):
                    return b""
                while (left := end - time.monotonic()) > 0:
                    peer.settimeout(max(left, _PAUSE))
                    word = _read(peer, len(_GO))
                    if word in (_GO, _NO):
                        return word
                    if word != _ASK:
                        break
                    peer.sendall(_HERE)
        time.sleep(_PAUSE)
    return b""


def _read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        if not part:
            break
        data += part
    return data
