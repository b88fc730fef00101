"""Chromium is found, or installed, or it is said what to install."""

from __future__ import annotations

import os

import pytest

from tools import chromium


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A path with an `apt-get` alone, which installs a `chromium`."""

    def make(ends_with):
        path = tmp_path / "apt-get"
        path.write_text(
            "#!/bin/sh\n"
            f'echo "$@" >> "{tmp_path}/asked"\n'
            f'[ "$1" = {ends_with} ] && exit 100\n'
            f'if [ "$1" = install ]; then : > "{tmp_path}/chromium"; '
            f'/bin/chmod +x "{tmp_path}/chromium"; fi\n'
            "exit 0\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        return tmp_path / "asked"

    return make


def test_it_is_installed_once(apt, tmp_path, capfd):
    asked = apt("nothing")
    assert chromium.find() is None
    assert chromium.main() == 0
    update, install = asked.read_text().splitlines()
    assert update.startswith("update")
    assert "chromium fonts-dejavu-core" in install
    assert f"run in {tmp_path / 'chromium'}." in capfd.readouterr().out
    assert chromium.main() == 0
    assert len(asked.read_text().splitlines()) == 2


@pytest.mark.parametrize("command", ["update", "install"])
def test_without_a_network_it_is_said_what_to_install(apt, command, capfd):
    apt(command)
    assert chromium.main() == 0
    out = capfd.readouterr().out
    assert "apt-get install chromium fonts-dejavu-core" in out
    assert "skipped" in out


def test_only_root_installs(apt, monkeypatch, capsys):
    asked = apt("nothing")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert chromium.main() == 0
    assert not asked.exists()
    assert "as root" in capsys.readouterr().out
