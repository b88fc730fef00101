"""The page in headless Chromium: it draws, answers clicks, and is quiet."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tflite_export
from msq_tf.page import document
from msq_tf.page.records import Page
from tests.msq_tf.page.test_document import HOSTILE
from tests.tflite_export.devices.files import files
from tests.tflite_export.devices.files import images
from tests.tflite_export.looking.browser import Opened
from tests.tflite_export.looking.browser import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def looked(browser, tmp_path_factory):
    """The page of an integer file, with data."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "m.tflite"
    path.write_bytes(files()["int8"])
    output = folder / "m.html"
    found = tflite_export.look(
        path, representative_data=images(8), output=output
    )
    return found, output


@pytest.mark.slow
def test_a_click_on_a_bar_shows_its_layer(browser, looked):
    found, output = looked
    opened = Opened(browser, output)
    page = opened.page
    names = [layer.name for layer in found.page.sides[0].layers]
    bars = page.locator("#layers .chart >> nth=0").locator("path[aria-label]")
    assert bars.count() == len(names) == 4
    detail = page.locator("#layers .detail")
    for place in (1, 3, 0):
        bars.nth(place).click()
        assert detail.get_attribute("data-layer") == str(place)
        assert detail.locator("h3").first.inner_text() == names[place]
        page.wait_for_function(
            "document.querySelectorAll('#layers .detail svg').length >= 1"
        )
    # And by keyboard alone.
    page.locator("#layers select").focus()
    page.keyboard.press("ArrowDown")
    assert detail.get_attribute("data-layer") == "1"
    page.locator("#layers summary").focus()
    page.keyboard.press("Enter")
    page.locator("#layers td button").nth(2).focus()
    page.keyboard.press("Enter")
    assert detail.get_attribute("data-layer") == "2"
    page.wait_for_timeout(300)
    assert opened.errors == []
    assert opened.requests == [output.as_uri()]


@pytest.mark.slow
def test_sections_say_what_they_lack(browser, looked):
    _, output = looked
    page = Opened(browser, output).page
    assert page.locator("#search .missing").count() == 1
    assert page.locator("#tensors .chart svg").count() == 1
    assert page.locator("#samples canvas").count() >= 1
    assert page.locator("#targets tbody tr").count() > 5
    assert page.locator("section .do").count() == 5


@pytest.fixture(scope="module")
def pair(browser, tmp_path_factory):
    """The page of a float file beside an integer one."""
    folder = tmp_path_factory.mktemp("pair")
    paths = [folder / f"{name}.tflite" for name in ("float", "int8")]
    for path in paths:
        path.write_bytes(files()[path.stem])
    output = folder / "pair.html"
    found = tflite_export.look(
        *paths, representative_data=images(8), output=output
    )
    return found, output


@pytest.mark.slow
def test_two_sides_show_what_changed(browser, pair):
    found, output = pair
    opened = Opened(browser, output)
    page = opened.page
    told = page.locator("#changes .findings li").all_inner_texts()
    assert told == list(found.page.changes)
    assert "of 4 layers that correspond 4 are narrower" in "".join(told)
    # Each layer twice in bits and bytes, and both lines of the errors.
    charts = page.locator("#changes .chart")
    assert charts.count() == 3
    for place in (0, 1):
        bars = charts.nth(place).locator("path[aria-label]")
        assert bars.count() == 8
    page.locator("#changes summary").click()
    cells = page.locator("#changes tbody tr").first.locator("td")
    sizes = [f"{s.layers[0].stored_bytes:,}" for s in found.page.sides]
    assert cells.all_inner_texts()[1:3] == ["32 → 8", " → ".join(sizes)]
    # Both sides stand below, and what is left out of one is said there.
    heads = page.locator("#layers h3").filter(has_text=".tflite")
    assert heads.all_inner_texts() == ["float.tflite", "int8.tflite"]
    assert page.locator("#search .missing").count() == 2
    assert opened.errors == []
    assert opened.requests == [output.as_uri()]


@pytest.mark.slow
def test_a_pair_of_layers_opens_on_both_sides(browser, pair):
    found, output = pair
    opened = Opened(browser, output)
    page = opened.page
    details = page.locator("#layers .detail")

    def shown():
        names = [details.nth(k).locator("h3").first for k in (0, 1)]
        return [name.inner_text() for name in names]

    def wanted(place):
        return [side.layers[place].name for side in found.page.sides]

    bars = page.locator("#changes .chart >> nth=0").locator("path[aria-label]")
    bars.nth(2).click()
    assert shown() == wanted(1)
    page.locator("#changes summary").click()
    page.locator("#changes td button").nth(3).focus()
    page.keyboard.press("Enter")
    assert shown() == wanted(3)
    # A side by itself goes on by itself.
    page.locator("#layers .chart >> nth=0").locator("path[aria-label]").nth(
        1
    ).click()
    assert shown() == [wanted(1)[0], wanted(3)[1]]
    page.wait_for_timeout(300)
    assert opened.errors == []


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_scheme_and_fits_a_phone(browser, looked, scheme):
    _, output = looked
    opened = Opened(
        browser,
        output,
        color_scheme=scheme,
        viewport={"width": 360, "height": 640},
    )
    page = opened.page
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, color[4:-1].split(","))) < 200
    assert dark == (scheme == "dark")
    # Text of charts stands out from what is behind it.
    fill = page.evaluate(
        "getComputedStyle(document.querySelector('#layers svg text')).fill"
    )
    light_text = sum(map(int, fill[4:-1].split(","))) > 380
    assert light_text == (scheme == "dark")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    # On paper it is light.
    page.emulate_media(media="print")
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(255, 255, 255)"
    assert opened.errors == []


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("name", [text for text in HOSTILE if "\ud800" != text])
def test_hostile_names_are_text(browser, looked, tmp_path, name):
    found, _ = looked
    (side,) = found.page.sides
    layers = [
        dataclasses.replace(x, name=name, key=f"{name} {k}", kind=name)
        for k, x in enumerate(side.layers)
    ]
    tensors = [dataclasses.replace(x, name=name) for x in side.tensors]
    side = dataclasses.replace(
        side, name=name, layers=tuple(layers), tensors=tuple(tensors)
    )
    output = tmp_path / "m.html"
    document.save(Page(title=name, sides=(side,)), output)
    opened = Opened(browser, output)
    page = opened.page
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    bar = page.locator("#layers .chart >> nth=0").locator("path[aria-label]")
    bar.nth(1).hover()
    bar.nth(1).click()
    page.wait_for_timeout(200)
    assert not dialogs and opened.errors == []
    assert opened.requests == [output.as_uri()]
    assert page.locator("#main img, #main iframe, #main script").count() == 0
    if name.isprintable():
        assert name in page.locator("#layers .detail h3").first.text_content()


@pytest.mark.slow
def test_a_large_model_fits(browser, looked, tmp_path):
    """A hundred layers with all that can be shown of each, and two sides."""
    found, _ = looked
    (side,) = found.page.sides
    codes = tuple((code, 1000 + code) for code in range(-127, 128))
    scales = tuple(float(s) for s in np.linspace(1e-3, 2e-3, 256))
    layers = tuple(
        dataclasses.replace(
            side.layers[0],
            key=f"block_{k}/conv",
            name=f"block_{k}/conv",
            codes=codes,
            scales=scales,
            why=("step 100 (epoch 1.00): conv 8 → 4 bits " * 3,) * 3,
        )
        for k in range(100)
    )
    tensors = tuple(
        dataclasses.replace(side.tensors[0], key=f"t{k}", name=f"tensor {k}")
        for k in range(150)
    )
    side = dataclasses.replace(side, layers=layers, tensors=tensors)
    output = tmp_path / "m.html"
    document.save(Page(title="large", sides=(side,)), output)
    assert output.stat().st_size < 3_000_000
    # What is wider than a phone scrolls by itself.
    narrow = Opened(browser, output, viewport={"width": 360, "height": 640})
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 360
    opened = Opened(browser, output)
    page = opened.page
    bars = page.locator("#layers .chart >> nth=0").locator("path[aria-label]")
    assert bars.count() == 100
    bars.nth(40).click()
    detail = page.locator("#layers .detail")
    assert detail.get_attribute("data-layer") == "40"
    assert opened.errors == []
