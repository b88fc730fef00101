"""A page as HTML: nothing in its data becomes markup, nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json

import pytest

from msq_tf.page import charts
from msq_tf.page import document
from msq_tf.page.records import Layer
from msq_tf.page.records import Page
from msq_tf.page.records import Side
from msq_tf.page.records import plain

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    '"; alert(1); //',
    "{{library}}",
    "{{data}}",
    "\u2028\u2029\u202e\x1b[2J\x00",
    "\ud800",
    "${alert(1)}",
    "datum.value",
)


def hostile_page(name):
    layer = Layer(name, name, name, 4, name, 4, 2, 2, why=(name,))
    side = Side(
        name,
        10,
        facts=((name, name),),
        layers=(layer,),
        findings={"layers": (name,)},
        missing=dict.fromkeys(
            ("search", "tensors", "samples", "targets"), name
        ),
    )
    return Page(title=name, sides=(side,))


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(charts, "javascript", lambda: "window.vegaEmbed = 0;")


class Outline(html.parser.HTMLParser):
    """Elements of a page with their attributes and, of scripts, the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts = [], []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_the_data_becomes_markup(library, name):
    found = Outline(document.render(hostile_page(name)))
    wanted = Outline(document.render(hostile_page("plain")))
    assert [tag for tag, _ in found.elements] == [
        tag for tag, _ in wanted.elements
    ]
    # Attributes are those of the template, whatever the name.
    assert found.elements == wanted.elements
    data, *scripts = found.scripts
    assert scripts == wanted.scripts[1:]
    assert not set(data) & set("<>&") and data.isascii()
    layer = json.loads(data)["sides"][0]["layers"][0]
    shown = layer["name"]
    assert shown.isprintable()
    if name.isprintable():
        assert shown == name


def test_only_its_own_scripts_may_run_and_nothing_is_loaded(library):
    found = Outline(document.render(hostile_page("plain")))
    (policy,) = (
        attributes["content"]
        for tag, attributes in found.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in found.scripts[1:]
    ]
    assert rules["script-src"].split() == [f"'sha256-{d}'" for d in digests]
    # No element that loads, but for an icon that is empty.
    links = [a for tag, a in found.elements if tag == "link"]
    assert links == [{"rel": "icon", "href": "data:,"}]
    assert not any("src" in attributes for _, attributes in found.elements)


def test_a_library_cannot_end_its_script(monkeypatch):
    text = 'const a = "</script>"; const b = "<!--";\r\nconst c = 1;'
    monkeypatch.setattr(charts, "javascript", lambda: text)
    found = Outline(document.render(hostile_page("plain")))
    assert found.scripts[1] == (
        'const a = "<\\/script>"; const b = "<\\!--";\nconst c = 1;'
    )


def test_numbers_that_json_lacks_are_null():
    layer = Layer("a", "a", "", 1, "INT4", 4, 1, 1, predicted=float("nan"))
    assert plain(layer)["predicted"] is None


def test_a_page_is_written_whole_or_not_at_all(library, tmp_path):
    path = tmp_path / "m.html"
    path.write_text("before")
    page = hostile_page("plain")
    with pytest.raises(AttributeError):
        document.save(Page(title=object(), sides=page.sides), path)
    assert path.read_text() == "before"
    document.save(page, path)
    assert path.read_text() == document.render(page)
    assert [p.name for p in tmp_path.iterdir()] == ["m.html"]


def test_a_library_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(charts.extras, "missing", lambda extra: [extra])
    with pytest.raises(ImportError, match="pip install.*Received"):
        charts.check_installed()


def test_the_library_is_one_that_a_page_can_hold():
    pytest.importorskip("vl_convert", reason="the extra look is not installed")
    text = charts.javascript()
    assert "window.vegaEmbed" in text and len(text) < 1_500_000
