"""Makes one site of docs/, the pages at the root and the files they link to.

Links between pages are written for a reader of the repository: `README.md`
links to `docs/zoo.md`, a page links to `../examples/quickstart.py`. MkDocs
knows the folder docs/ alone. These hooks give every linked file a place on the
site, and point each link at it.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

import markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parent.parent
# Pages outside of docs/ -> their place on the site.
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_PLACES = {place: name for name, place in _PAGES.items()}
# Folder on the site of files that are linked to and are no pages.
_FILES = "files"
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
# The target of a Markdown link or image that leads to a file.
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


class GitHubLists(markdown.Extension):
    """Nests lists as GitHub does: by two spaces, where Markdown wants four."""

    def extendMarkdown(self, md: markdown.Markdown) -> None:  # noqa: N802
        md.tab_length = 2


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the Markdown that GitHub reads and MkDocs does not."""
    extensions: list[Any] = config.markdown_extensions
    extensions.append(GitHubLists())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages at the root and every other file that a page links to."""
    for name, place in _PAGES.items():
        files.append(
            File.generated(config, place, abs_src_path=str(_ROOT / name))
        )
    linked = set()
    for file in files.documentation_pages():
        source = _source(file.src_uri)
        for part in _CODE.split(file.content_string)[::2]:
            linked |= {_target(source, link) for link in _LINK.findall(part)}
    for target in sorted(linked):
        place = _place(target)
        path = _ROOT / target
        if place.startswith(f"{_FILES}/") and path.is_file():
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(
    text: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Points the links of a page at places on the site."""
    del config, files
    here = page.file.src_uri
    source = _source(here)

    def moved(match: re.Match[str]) -> str:
        place = _place(_target(source, match[1]))
        return os.path.relpath(place, posixpath.dirname(here) or ".")

    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def _source(place: str) -> str:
    """Path in the repository of a page of the site."""
    return _PLACES.get(place, f"docs/{place}")


def _target(source: str, link: str) -> str:
    """Path in the repository that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _place(target: str) -> str:
    """Path on the site of a file of the repository."""
    if target in _PAGES:
        return _PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"{_FILES}/{target}"
