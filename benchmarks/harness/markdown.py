"""Pages in Markdown: tables, and what stands above them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any


def table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1
) -> list[str]:
    """Lines of a table.

    Args:
        columns: Heads of the columns.
        rows: Cells as text.
        left: How many columns are aligned to the left, the first ones; the
            others are numbers, to the right.
    """
    heads = list(columns)
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]


def page(*parts: str | Sequence[str]) -> str:
    """Text of a section, an empty line between its parts.

    Args:
        *parts: Paragraphs, or lines of a table or a list; what is empty is
            left out.
    """
    texts = [p if isinstance(p, str) else "\n".join(p) for p in parts]
    return "\n\n".join(filter(None, texts)) + "\n"


def ran(environment: dict[str, Any], *facts: str) -> str:
    """The command that gave some figures, when and on how many cores.

    Args:
        environment: What `benchmarks.harness.record.environment` gave.
        facts: What else to know of it, behind the command.
    """
    return ", ".join(
        (
            f"`{environment['command']}`",
            *facts,
            environment["date"],
            f"{environment['cores']} core{'s' * (environment['cores'] != 1)}",
        )
    )


def kept(content: dict[str, Any], section: str = "") -> str:
    """Text of a study that is over: its result file has the page's tables.

    Args:
        content: What the file holds: `code` names the commit that had the
            study's code, `page` the parts of each section.
        section: Which of them.
    """
    return page(
        *(
            part if isinstance(part, str) else table(**part)
            for part in content["page"][section]
        )
    )
