"""Makes `.venv-arm`: ARM cores to run files on, emulated on this machine.

    python -m tools.arm FOLDER

Debian's packages hold an emulator (`qemu-user-static`) and Python for arm64;
PyPI has LiteRT for it. Nothing is installed: packages are unpacked into the
folder, and apt-get has lists of its own there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Of the machine itself, and of arm64; their dependencies come with them.
_HOST = ("qemu-user-static",)
_GUEST = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "zlib1g")
# As in requirements.txt.
_WHEELS = ("ai-edge-litert==2.3.0", "numpy==2.4.6")
_PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64")
_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_MIDDLE = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# What /proc/cpuinfo says there: LiteRT chooses kernels by it.
_CORES = {
    "cortex-a53": (_BASE, "0xd03"),
    "cortex-a76": (_MIDDLE, "0xd0b"),
    "max": (f"{_MIDDLE} dcpodp ilrcpc flagm frint i8mm bf16 dgh", "0xd47"),
}
_SECONDS = 600


def make(folder: Path) -> None:
    """Unpacks emulator, Python and LiteRT into a folder.

    Args:
        folder: Where to; what is there is replaced.

    Raises:
        RuntimeError: If a tool is missing or fails, with its own words.
    """
    missing = [tool for tool in ("apt-get", "dpkg") if not shutil.which(tool)]
    if missing:
        raise RuntimeError(
            "The packages are Debian's. Expected apt-get and dpkg, of Debian "
            f"12 or later. Received: no {', '.join(missing)}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder = folder.resolve()
    _unpack(folder, "host", _HOST, None)
    # It comes with emulators of thirty other processors.
    for other in (folder / "host" / "usr" / "bin").glob("qemu-*"):
        if other.name != "qemu-aarch64-static":
            other.unlink()
    _unpack(folder, "root", _GUEST, "arm64")
    for core, (features, part) in _CORES.items():
        _root(folder, core, features, part)
    _call(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "--target", folder / "site"),
            *(f"--platform={name}" for name in _PLATFORMS),
            *("--only-binary=:all:", "--python-version=3.11", *_WHEELS),
        ]
    )


def _unpack(
    folder: Path, name: str, packages: tuple[str, ...], architecture: str | None
) -> None:
    """Downloads Debian's packages and unpacks them into a folder below."""
    own = folder / f"apt-{name}"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (own / part).mkdir(parents=True)
    (own / "status").touch()
    lines = [
        f'Dir::State "{own}/state";',
        f'Dir::State::status "{own}/status";',
        f'Dir::Cache "{own}/cache";',
        'APT::Sandbox::User "root";',
        'Acquire::http::Timeout "20";',
    ]
    if architecture is not None:
        lines += [
            f'APT::Architecture "{architecture}";',
            f'APT::Architectures {{ "{architecture}"; }};',
        ]
    (own / "apt.conf").write_text("\n".join(lines))
    environment = {**os.environ, "APT_CONFIG": str(own / "apt.conf")}
    _call(["apt-get", "update", "-qq"], environment)
    _call(
        [
            *("apt-get", "install", "-qq", "-y", "--download-only"),
            *("--no-install-recommends", *packages),
        ],
        environment,
    )
    (folder / name).mkdir()
    for archive in sorted((own / "cache/archives").glob("*.deb")):
        _call(["dpkg", "-x", archive, folder / name])
    shutil.rmtree(own)


def _root(folder: Path, core: str, features: str, part: str) -> None:
    """A root for one core: the packages, and what the kernel says of it."""
    root = folder / core
    (root / "proc").mkdir(parents=True)
    for name in ("usr", "lib", "etc"):
        if (folder / "root" / name).exists():
            (root / name).symlink_to(Path("..", "root", name))
    one = (
        f"BogoMIPS\t: 50.00\nFeatures\t: {features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part}\nCPU revision\t: 1\n"
    )
    text = "\n".join(f"processor\t: {i}\n{one}" for i in range(2))
    (root / "proc" / "cpuinfo").write_text(text + "\n")


def _call(
    command: list[str | Path], environment: dict[str, str] | None = None
) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} failed. Expected the packages. Received: "
            f"{done.stderr.strip()[-500:]}"
        )


def main(arguments: list[str]) -> int:
    """Makes the folder, or says why it can't be made."""
    try:
        make(Path(*arguments))
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
