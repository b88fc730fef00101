"""The section "Hostile files" of docs/reliability.md, from the benchmark."""

from __future__ import annotations

from typing import Any

from tools import markdown

# What the benchmark calls its ways of damaging, in words.
_DAMAGE = {
    "arbitrary": "bytes that no writer wrote",
    "flipped": "bits flipped",
    "cut": "cut, or with bytes left out or put in",
    "spliced": "a piece of another file put in",
    "numbered": "offsets, lengths and scalars at their ends",
    "rebuilt": "written anew with odd values",
}


def section(content: dict[str, Any]) -> str:
    """Markdown of what came of the files.

    Args:
        content: What `benchmarks/results/fuzz.json` holds.
    """
    environment, results = content["environment"], content["results"]
    ran = markdown.ran(environment, f"seed {results['seed']}")
    versions = environment["versions"]
    sizes = results["files"].values()
    reasons = sorted(results["reasons"].items(), key=lambda item: -item[1])
    lines = [
        f"{ran}, LiteRT {versions['ai-edge-litert']}: "
        f"{len(results['files'])} valid files of {min(sizes):,} to "
        f"{max(sizes):,} bytes, damaged "
        f"{results['cases']:,} times, {results['cases_per_second']:.0f} a "
        "second.",
        "",
        *markdown.table(
            ("damage", "accepted", "refused with a reason", "anything else"),
            (
                (_DAMAGE[engine], *(f"{count:,}" for count in counts.values()))
                for engine, counts in results["engines"].items()
            ),
        ),
        "",
        f"Processes that died: {len(results['died'])}, under a limit of "
        f"{results['most_memory_gib']:.0f} GiB; memory grew by "
        f"{results['growth_mib']:.0f} MiB at most, and the slowest file took "
        f"{results['slowest_s']:.1f} s.",
        "",
        _atheris(results["atheris"]),
        "",
        _interpreter(results["interpreter"]),
        "",
        "What the refusals were about:",
        "",
        *markdown.table(
            ("reason", "files"),
            ((name, f"{count:,}") for name, count in reasons),
        ),
    ]
    return "\n".join([*lines, ""])


def _atheris(found: dict[str, Any]) -> str:
    if not found["installed"]:
        return "atheris was not installed."
    if found["status"]:
        return f"atheris {found['version']} stopped: {found['message']}"
    return (
        f"atheris {found['version']}, which follows coverage, read "
        f"{found['runs']:,} more in {found['seconds']:,} s and found nothing."
    )


def _interpreter(found: dict[str, Any]) -> str:
    outcomes = ", ".join(
        f"{name} {count:,}" for name, count in found["outcomes"].items()
    )
    return (
        f"{found['files']:,} damaged files that were accepted went on to "
        f"`compare`, which runs them in a process of its own: {outcomes}."
    )
