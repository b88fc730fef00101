"""A worker that waits too long ends; one that is busy or moves does not."""

from __future__ import annotations

import threading
import time

import pytest

from train.distribution import watchdog


@pytest.fixture
def ends(monkeypatch):
    """The exit statuses with which the process would have ended."""
    found = []
    monkeypatch.setattr(watchdog.os, "_exit", found.append)
    return found


@pytest.fixture
def dog(ends):
    return watchdog.Watchdog(0.5, lambda: "Another worker is silent.")


def wait_for(ends):
    end = time.monotonic() + 30.0
    while not ends and time.monotonic() < end:
        time.sleep(0.05)


def test_an_exchange_without_end_ends_the_process(dog, ends, capsys):
    with dog.watching(), dog.exchange():
        wait_for(ends)
    assert ends[0] == 2
    assert capsys.readouterr().err.startswith(
        "error: Another worker is silent.\n"
    )


def test_work_without_an_exchange_may_take_any_time(dog, ends):
    with dog.watching():
        with dog.exchange():
            pass
        time.sleep(1.0)
    with dog.exchange():
        time.sleep(1.0)
    assert not ends


def test_exchanges_that_end_are_not_added_up(dog, ends):
    with dog.watching(), dog.exchange():
        for _ in range(100):
            with dog.exchange():
                time.sleep(0.01)
    assert not ends


def test_an_error_ends_the_exchange_and_the_watch(dog, ends):
    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"):
        with dog.watching():
            with dog.exchange():
                raise ValueError("mine")
    assert threading.active_count() == before
    with dog.watching():
        time.sleep(1.0)
    assert not ends
