"""Surroundings of a command: signals, the encoding of its output, folders that are not ours."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from comet_rec.cli.app import run
from comet_rec.cli.progress import interruptible
from comet_rec.estimators.registry import load_model


@pytest.fixture
def log_file(tmp_path) -> Path:
    rows = [f"u{u},日本 {i},{i}" for u in range(9) for i in range(u % 3, 12, 2)]
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_stops(sign, capfd):
    before = signal.getsignal(sign)
    with interruptible() as stop:
        assert not stop()
        os.kill(os.getpid(), sign)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sign)
    assert signal.getsignal(sign) is before
    assert "stopping after this step" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_lists_are_utf_8_whatever_the_locale(form, log_file, tmp_path, monkeypatch):
    out = str(tmp_path / "run")
    assert run(["train", str(log_file), "--model", "ease", "--out", out, "--quiet"]) == 0
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert run(["recommend", out, "--user", "u1", "--format", form]) == 0
    sys.stdout.flush()
    assert "日本 " in written.getvalue().decode("utf-8")


def test_line_ends_within_ids_come_out_as_they_went_in(tmp_path, capfdbinary):
    path, out = tmp_path / "log.csv", str(tmp_path / "run")
    rows = [f'"u\r\n{u}","i\r{(u + k) % 5}",{k}' for u in range(4) for k in range(3)]
    path.write_bytes("\n".join(["user,item,time", *rows, ""]).encode())
    assert run(["train", str(path), "--model", "popularity", "--out", out, "--quiet"]) == 0
    capfdbinary.readouterr()
    assert run(["recommend", out, "--user", "u\r\n1", "-k", "1", "--format", "csv"]) == 0
    sys.stdout.flush()
    line = capfdbinary.readouterr().out.split(b"\n", 1)[1]
    assert line.startswith(b'"u\r\n1","i\r')


def test_an_empty_folder_that_cannot_be_replaced_is_refused_in_a_line(
    log_file, tmp_path, monkeypatch, capsys
):
    """A mount point, or a folder within one that is not ours."""
    out = tmp_path / "mounted"
    out.mkdir()

    def busy(self):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rmdir", busy)
    assert run(["train", str(log_file), "--model", "ease", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be replaced" in line
    assert "give a new folder inside it" in line
    assert list(out.iterdir()) == []


def test_a_run_says_how_its_log_was_read(log_file, tmp_path):
    out = tmp_path / "run"
    words = ["--user", "user", "--min-item", "2", "--threads", "1"]
    assert run(["train", str(log_file), "--model", "ease", "--out", str(out), *words]) == 0
    data = json.loads((out / "manifest.json").read_text())["data"]
    assert data["source"] == str(log_file)
    wanted = {"user": "user", "min_item_interactions": 2, "time_scope": "auto", "skip_bad": 0}
    assert data["reading"] == wanted
    assert load_model(out).run.reading == wanted
