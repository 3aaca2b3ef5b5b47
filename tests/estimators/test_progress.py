"""Progress on stderr: where it is shown, and that the bar moves within an epoch."""

from __future__ import annotations

import io
import sys

import pytest

import comet_rec as cr
from comet_rec.estimators import progress
from comet_rec.estimators.progress import about, clock, training_progress
from comet_rec.training.trainer import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """Put a terminal of 80 columns in place of stderr; pytest replaces it before each test."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture(scope="module")
def split():
    from tests.conftest import checkerboard_log

    return cr.leave_one_out(checkerboard_log(), negatives=20)


def test_fit_shows_a_bar_on_a_terminal_and_is_silent_elsewhere(split, monkeypatch):
    shown = terminal(monkeypatch)
    cr.MF(epochs=2).fit(split)
    assert "validation epoch 2/2" in shown.getvalue()
    quiet = terminal(monkeypatch)
    cr.MF(epochs=2).fit(split, progress=False)
    assert quiet.getvalue() == ""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    cr.MF(epochs=2).fit(split)
    assert pipe.getvalue() == ""


def test_the_bar_moves_with_every_step_and_says_when_it_validates(monkeypatch):
    from rich.progress import Progress as Bar

    moves = []
    terminal(monkeypatch)
    monkeypatch.setattr(Bar, "update", lambda self, task, **to: moves.append(to))
    with training_progress(None) as report:
        for batch in range(1, 5):
            report("fism validation", Progress(0, 2, batch, 4, 0.5))
        report("fism validation", Progress(1, 2, 4, 4, 0.5, finished_epoch=True))
    assert [to["completed"] for to in moves] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert moves[0]["description"] == "fism validation epoch 1 loss 0.5000"
    assert moves[3]["description"] == "fism validation epoch 1 validating"


def test_a_notebook_shows_progress_without_being_asked(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    with training_progress(None) as report:
        report("validation", Progress(1, 2, 4, 4, 0.5, finished_epoch=True))
    assert capsys.readouterr().err.startswith("validation epoch 1/2: loss 0.5000")


def test_durations_are_rounded_for_a_reader():
    assert [clock(s) for s in (5, 65, 7260)] == ["0:05", "1:05", "2 h 01 min"]
    assert [about(s) for s in (0.2, 42.4, 89, 100, 5400, 7260)] == [
        "1 s", "42 s", "89 s", "2 min", "1 h 30 min", "2 h 01 min",
    ]  # fmt: skip
