"""Reports as a notebook shows them."""

import html.parser

import keras
import numpy as np
import rich.table

import msq_tf
import tflite_export
from msq_tf.reports.html_tables import as_html

NAME = "<b>a&b[red]</b>"


class Cells(html.parser.HTMLParser):
    """The text of a page, by the tag that it stands in."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.tags = [], {}, set()
        self.feed(text)
        assert not [t for t in self.open if t != "br"]

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1], []).append(data)


def test_cells_are_escaped():
    table = rich.table.Table(title=NAME)
    table.add_column("name")
    table.add_column("n", justify="right")
    table.add_row(NAME, "1")
    for markup, shown in ((False, NAME), (True, "<b>a&b</b>")):
        page = Cells(as_html([table, NAME], markup))
        assert page.text["td"] == [shown, "1"]
        assert page.text["caption"] == page.text["p"] == [NAME]
        assert "b" not in page.tags
    assert 'style="text-align: right">1<' in as_html([table], False)


def test_reports_show_as_tables(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="a>b"),
            keras.layers.Dense(2),
        ]
    )
    qmodel = msq_tf.quantize_model(model)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    report = msq_tf.precision_report(qmodel)
    exported = tflite_export.export(
        qmodel, tmp_path / "m.tflite", representative_data=x, verbose=False
    )
    found = tflite_export.inspect_file(tmp_path / "m.tflite")
    for shown in (report, exported, found):
        page = Cells(shown._repr_html_())
        assert page.tags >= {"table", "caption", "th", "td"}
    assert "a>b" in Cells(report._repr_html_()).text["td"]
    assert "a>b" in Cells(exported._repr_html_()).text["td"]
    # Nothing was decided, which is no empty table.
    assert "table" not in Cells(report.decisions()._repr_html_()).tags
