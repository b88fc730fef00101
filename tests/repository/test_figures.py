"""Every measured figure of README and docs stands in a result file.

Tables are written from results by `tools.docs`. A figure in a sentence has to
stand in one of those tables, or in `docs/results/notes.json`, which keeps what
was measured once, under the command and the date of the run.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest

from tools import docs

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_NOTES = _ROOT / "docs/results/notes.json"

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


@functools.cache
def of_tables() -> set[str]:
    """Measured figures in all that is written from results.

    Cells of tables have their unit in the head of the column; they count with
    every unit.
    """
    found: set[str] = set()
    for sections in docs.pages().values():
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
        for note in json.loads(_NOTES.read_text())
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


@pytest.mark.parametrize(
    "page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT))
)
def test_quoted_figures_are_in_the_results(page):
    name = page.relative_to(_ROOT).as_posix()
    assert without_source(name, page.read_text()) == []


def test_what_is_a_measured_figure():
    text = (
        "It took 1.27x and 87.4 % at 8x, +0.5 points, 1,269 MiB, 40 seconds; "
        "1e-4, 12 layers and v2.3x1 are none."
    )
    assert quoted(text) == {
        "1.27x",
        "87.4%",
        "0.5points",
        "1,269MiB",
        "40seconds",
    }


def test_a_figure_out_of_nowhere_is_found():
    text = "We measured 73.21 % and 1,234,567 MiB.\n"
    assert without_source("docs/zoo.md", text) == [
        "1,234,567MiB",
        "73.21%",
    ]
    hidden = (
        "<!-- figures of x: written by tools/docs.py -->\n73.21 %\n"
        "<!-- end of figures -->\n```\n73.21 %\n```\n"
    )
    assert without_source("docs/zoo.md", hidden) == []


def test_notes_are_quoted_and_say_how_they_came_about():
    for note in json.loads(_NOTES.read_text()):
        assert set(note) == {"page", "figures", "how", "date"}
        text = prose((_ROOT / note["page"]).read_text())
        assert set(note["figures"]) <= quoted(text), note["how"]
        assert note["how"] and note["date"]
