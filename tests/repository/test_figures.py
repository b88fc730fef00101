"""Every measured figure of README and docs stands in a result file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import figures

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    "page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT))
)
def test_quoted_figures_are_in_the_results(page):
    name = page.relative_to(_ROOT).as_posix()
    assert figures.without_source(name, page.read_text()) == []


def test_what_is_a_measured_figure():
    text = (
        "It took 1.27x and 87.4 % at 8x, +0.5 points, 1,269 MiB, 40 seconds; "
        "1e-4, 12 layers and v2.3x1 are none."
    )
    assert figures.quoted(text) == {
        "1.27x",
        "87.4%",
        "0.5points",
        "1,269MiB",
        "40seconds",
    }


def test_a_figure_out_of_nowhere_is_found():
    text = "We measured 73.21 % and 1,234,567 MiB.\n"
    assert figures.without_source("docs/zoo.md", text) == [
        "1,234,567MiB",
        "73.21%",
    ]
    hidden = (
        "<!-- figures of x: written by tools/readme.py -->\n73.21 %\n"
        "<!-- end of figures -->\n```\n73.21 %\n```\n"
    )
    assert figures.without_source("docs/zoo.md", hidden) == []


def test_notes_are_quoted_and_say_how_they_came_about():
    for note in json.loads(figures.NOTES.read_text()):
        assert set(note) == {"page", "figures", "how", "date"}
        text = figures.prose((_ROOT / note["page"]).read_text())
        assert set(note["figures"]) <= figures.quoted(text), note["how"]
        assert note["how"] and note["date"]
