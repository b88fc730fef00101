"""A page as the text of one HTML file, which needs no network.

Names and words from files and models are data: they go into a block that no
browser runs, and the scripts show them as text. As a second barrier, the policy
in the head allows only these scripts, by their digests, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import os

from msq_tf import atomic_files
from msq_tf.page import charts
from msq_tf.page.records import Page
from msq_tf.page.records import plain

# In the order in which they run; each sees what those before it define.
_SCRIPTS = (
    "elements.js",
    "charts.js",
    "layers.js",
    "search.js",
    "tensors.js",
    "samples.js",
    "targets.js",
    "changes.js",
    "sections.js",
)
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
# The library's names are global; ours are not, so that none of them meet.
_OWN = "(() => {{\n'use strict';\n{}\n}})();"
# What ends a script or begins markup; U+2028 and U+2029 are ASCII by then.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def render(page: Page) -> str:
    """The text of a page.

    Raises:
        ImportError: If the charting library is not installed.
    """
    own = "\n".join(_asset(name) for name in _SCRIPTS)
    scripts = [_script(charts.javascript()), _script(_OWN.format(own))]
    policy = _POLICY.format(scripts=" ".join(map(_digest, scripts)))
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(_printable(page.title)),
        "style": _asset("page.css"),
        "data": embedded(page),
        "library": scripts[0],
        "script": scripts[1],
    }
    text = _asset("page.html")
    # One pass: what is put in is not looked at again.
    pieces = text.split("{{")
    whole = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        whole += [parts[name], rest]
    return "".join(whole)


def save(page: Page, path: str | os.PathLike[str]) -> None:
    """Writes a page, which appears whole or not at all.

    Raises:
        ImportError: If the charting library is not installed.
        NotWrittenError: If the file can't be written.
    """
    text = render(page)
    with atomic_files.replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def embedded(page: Page) -> str:
    """The data of a page as JSON that can stand in any HTML element."""
    data = plain(page, _printable)
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return "".join(_ESCAPES.get(character, character) for character in text)


def _printable(text: str) -> str:
    """Text whose control characters are spelled out.

    Names in a file are anyone's choice; some turn around what follows.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _script(text: str) -> str:
    """A script that can stand in an HTML element, lines as browsers see them.

    In its text `</script` can only be within a string or a comment.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(name: str) -> str:
    folder = importlib.resources.files(__package__) / "assets"
    return (folder / name).read_text(encoding="utf-8")
