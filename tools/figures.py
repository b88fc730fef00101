"""Which measured figures the prose of a page quotes, and where they come from.

Tables are written from results by `tools.readme`. A figure in a sentence has to
stand in one of those tables, or in `docs/results/notes.json`, which keeps what
was measured once, under the command and the date of the run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tools import readme

NOTES = Path(__file__).resolve().parent.parent / "docs/results/notes.json"

_GENERATED = re.compile(
    r"<!-- figures[^>]*-->\n.*?<!-- end of figures -->\n", re.DOTALL
)
_CODE = re.compile(r"```.*?```", re.DOTALL)
# A number in a unit that things are measured in. A whole number of times is a
# target that somebody set (8x), one with decimals is what came out.
_FIGURE = re.compile(
    r"(?<![\w.=/-])[+-]?(?:\d[\d,]*(?:\.\d+)?\s?"
    r"(?:%|points?\b|[KMG]iB\b|ms\b|nodes\b|gradients\b|seconds\b|minutes\b)"
    r"|\d[\d,]*\.\d+x(?!\w))"
)


def quoted(text: str) -> set[str]:
    """Measured figures in a text, without spaces, such as `"87.4%"`."""
    return {re.sub(r"\s|^\+", "", found) for found in _FIGURE.findall(text)}


def prose(text: str) -> str:
    """A page without its code and what the scripts wrote."""
    return _CODE.sub("", _GENERATED.sub("", text))


def of_tables() -> set[str]:
    """Measured figures in all that is written from results.

    Cells of tables have their unit in the head of the column; they count with
    every unit.
    """
    found: set[str] = set()
    for sections in readme.pages().values():
        for text in sections.values():
            found |= quoted(text)
            found |= {
                re.sub(r"[^\d.,-]", "", cell)
                for row in text.splitlines()
                if row.startswith("|")
                for cell in row.split("|")
            }
    return found


def of_notes(page: str) -> set[str]:
    """Figures that `docs/results/notes.json` keeps for a page.

    Args:
        page: Path from the root, such as `"docs/zoo.md"`.
    """
    return {
        figure
        for note in json.loads(NOTES.read_text())
        if note["page"] == page
        for figure in note["figures"]
    }


def without_source(page: str, text: str) -> list[str]:
    """Figures in a page's prose that stand in no result.

    Args:
        page: Path from the root.
        text: What the page says.
    """
    known = of_tables() | of_notes(page)
    return sorted(
        figure
        for figure in quoted(prose(text))
        if figure not in known and re.sub(r"[^\d.,-]", "", figure) not in known
    )
