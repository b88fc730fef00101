"""What a search tells while it runs: log, terminal line, TensorBoard."""

import contextlib
import io
import logging
import math
import re
import types

import numpy as np
import pytest
import tensorflow as tf

import msq_tf
from msq_tf.core.bit_history import BitChange
from msq_tf.reports import bit_changes
from msq_tf.reports import names
from msq_tf.reports.bit_changes import Decisions
from msq_tf.reports.progress import ProgressPrinter
from msq_tf.rules.records import Candidate
from tests.msq_tf.samples import EPOCHS
from tests.msq_tf.samples import budget
from tests.msq_tf.samples import fit
from tests.msq_tf.samples import new_model

DROP = BitChange(
    7, 0.5, "conv", 8, 6, 1e-3, 0.7, 2e-2, 1e-3, Candidate("dw", 7, 2e-3)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search with all that it told: records, terminal, event file."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(128, 8, 8, 1)).astype(np.float32)
    data = x, x.reshape(128, 2, 4, 2, 4).mean((2, 4)).reshape(128, 4).argmax(-1)
    folder = tmp_path_factory.mktemp("tensorboard")
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("msq_tf")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    qmodel = new_model()
    callback = msq_tf.MSQCallback(
        budget(), interval=1, log_dir=str(folder), verbose=0
    )
    terminal = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(terminal),
            contextlib.redirect_stderr(terminal),
        ):
            fit(qmodel, data, callback, validation_data=data)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    return types.SimpleNamespace(
        qmodel=qmodel,
        records=records,
        terminal=terminal.getvalue(),
        folder=folder,
    )


@pytest.fixture
def printer(monkeypatch):
    """A function that prints the line of some changes."""

    def line(changes, width):
        monkeypatch.setenv("COLUMNS", str(width))
        qmodel = new_model()
        state = qmodel.search.rule_state
        qmodel.search.rule_state = state._replace(target_bits=4.0)
        progress = ProgressPrinter(enabled=True)
        progress.add(changes)
        progress.note(qmodel, epoch=2)
        progress.flush()

    return line


def change(path, old, new, following=None):
    return DROP._replace(path=path, old=old, new=new, next_in_line=following)


def test_a_line_says_where_the_search_is_and_what_comes(printer, capsys):
    printer([DROP, change("dw", 8, 7, Candidate("head", 7, 1e-3))], 100)
    assert capsys.readouterr().out == (
        "MSQ epoch 3: 8.00 bits, 4.00x of 8x; conv 8→6, dw 8→7; next head→7\n"
    )


def test_the_largest_move_comes_first_and_steps_are_summed(printer, capsys):
    changes = [
        # 24 elements; the others have 54.
        change("head", 8, 7),
        change("dw", 8, 7),
        change("conv", 8, 7),
        change("dw", 7, 5),
        # Given back within the epoch: nothing has moved.
        change("conv", 7, 8),
    ]
    printer(changes, 100)
    assert "; dw 8→5, head 8→7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "end"),
    [
        (78, "; conv 8→5, dw 8→5, head 8→5; next head→7"),
        (70, "; conv 8→5 and 2 more; next head→7"),
        (58, "; conv 8→5 and 2 more"),
        (40, ""),
    ],
)
def test_a_line_fits_the_terminal(printer, capsys, width, end):
    following = Candidate("head", 7, 1e-3)
    printer([change(p, 8, 5, following) for p in ("conv", "dw", "head")], width)
    out = capsys.readouterr().out
    assert out == f"MSQ epoch 3: 8.00 bits, 4.00x of 8x{end}\n"
    assert len(out) <= width + 1


def test_long_names_are_cut_in_their_middle():
    name = "backbone/stage_3/block_12/squeeze_and_excitation_reduce"
    assert names.shorten(name, 60) == name
    short = names.shorten(name, 20)
    assert len(short) == 20
    assert short == "backbon…ation_reduce"
    assert [len(names.shorten(name, n)) for n in (1, 2, 3)] == [1, 2, 3]


def test_that_bits_are_frozen_is_said_once(capsys):
    qmodel = new_model()
    state = qmodel.search.rule_state
    progress = ProgressPrinter(enabled=True)
    for epoch, done in enumerate([0.0, 0.0, 1.0, 1.0]):
        qmodel.search.rule_state = state._replace(target_bits=4.0, done=done)
        progress.add([DROP] if epoch in (0, 2) else [])
        progress.note(qmodel, epoch)
        progress.flush()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "MSQ epoch 1",
        "MSQ epoch 3",
    ]
    assert "target reached, bits frozen; conv 8→6" in lines[1]
    # What would come next does not come any more.
    assert "next" not in lines[1]


def test_a_record_says_everything_that_is_known():
    assert bit_changes.describe(DROP) == (
        "step 7 (epoch 0.50): conv 8 → 6 bits; predicted cost +1.00e-03, "
        "nonzero LSBs 70.0%, sensitivity 2.0e-02 ± 1e-03; next in line: "
        "dw → 7 (+2.0e-03)"
    )
    unknown = DROP._replace(
        cost=math.nan,
        lsb_nonzero=math.nan,
        sensitivity_error=math.inf,
        next_in_line=None,
    )
    assert bit_changes.describe(unknown) == (
        "step 7 (epoch 0.50): conv 8 → 6 bits; predicted cost -, nonzero LSBs "
        "-, sensitivity 2.0e-02; next in line: nothing"
    )


def test_decisions_are_a_table_in_text_and_markdown():
    odd = DROP._replace(path="[bold]a|b", next_in_line=None)
    table = Decisions((DROP, odd))
    text = str(table)
    assert "8 → 6" in text
    assert "dw → 7 (+2.0e-03)" in text
    assert "[bold]a|b" in text
    head, rule, first, second = table.markdown().splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == 10
    assert "Reasons" not in text
    said = Decisions((DROP._replace(reason="[red] cheap | early"), odd))
    assert re.search(r"Reasons .*\[red\] cheap \| early", str(said), re.S)
    assert r"| [red] cheap \| early |" in said.markdown()
    assert "[red] cheap | early" in said._repr_html_()
    assert "2.0e-02 ± 1e-03" in first
    assert r"[bold]a\|b" in second


def test_decisions_are_shown_in_a_notebook():
    shown = Decisions((DROP,))._repr_html_()
    assert shown.count("<tr>") == 2
    assert "<p>cost: the predicted" in shown
    none = Decisions(())
    assert none._repr_html_() == "<p>No change of bits yet.</p>"
    assert str(none) == "No change of bits yet.\n"


@pytest.mark.slow
def test_nothing_is_printed_with_verbose_0(run):
    assert run.terminal == ""


@pytest.mark.slow
def test_the_log_has_a_record_for_every_change(run):
    told = [r.bit_change for r in run.records]
    assert all(change.reason for change in told)
    assert told == run.qmodel.history_of_bits()
    assert [r.getMessage() for r in run.records] == [
        bit_changes.describe(change) for change in told
    ]
    assert {r.levelno for r in run.records} == {logging.INFO}


def test_every_change_is_there_with_its_reasons(run):
    widths = dict.fromkeys(run.qmodel.paths, 8)
    changes = run.qmodel.history_of_bits()
    for change in changes:
        assert change.old == widths[change.path] != change.new
        widths[change.path] = change.new
        # Four steps make an epoch.
        assert change.epoch == change.step / 4
        assert np.isfinite(change.cost)
        assert 0 < change.lsb_nonzero < 1
        assert change.sensitivity >= 0
        assert np.isfinite(change.sensitivity_error)
        if change.next_in_line is not None:
            assert change.next_in_line.path in widths
    assert widths == run.qmodel.bits
    steps = [change.step for change in changes]
    assert steps == sorted(steps)


def test_tensorboard_shows_what_the_report_does(run):
    scalars = {}
    texts = {}
    images = {}
    histograms = {}
    (file,) = run.folder.iterdir()
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            array = tf.make_ndarray(value.tensor)
            if plugin == "scalars":
                scalars[value.tag, event.step] = array.item()
            elif plugin == "text":
                texts[event.step] = array.item().decode()
            elif plugin == "histograms":
                histograms[value.tag, event.step] = array
            else:
                images[event.step] = array
    report = msq_tf.precision_report(run.qmodel)
    last = EPOCHS - 1
    assert scalars["msq/packed_bytes", last] == report.packed_bytes
    assert scalars["msq/compression", last] == np.float32(report.compression)
    for layer in report.layers:
        for name in (
            "bits",
            "lsb_nonzero",
            "sensitivity",
            "sensitivity_error",
        ):
            assert scalars[f"msq/{name}/{layer.path}", last] == np.float32(
                getattr(layer, name)
            )
        # A bar a code, and every code that occurs is in one.
        bars = histograms[f"msq/codes/{layer.path}", last]
        codes = [code for code, _ in layer.use.counts]
        assert len(bars) == codes[-1] - codes[0] + 1
        assert np.count_nonzero(bars[:, 2]) == len(codes)
    # The table of each epoch has the changes of that epoch.
    for step, text in texts.items():
        changes = [c for c in report.changes if step < c.epoch <= step + 1]
        assert text == Decisions(tuple(changes)).markdown()
    rows = [text.count("\n") - 1 for text in texts.values()]
    assert sum(rows) == len(report.changes)
    assert set(images) == {*texts, last}
    width, height, png = images[last]
    assert int(width) > int(height) > 100
    assert png[:4] == b"\x89PNG"
