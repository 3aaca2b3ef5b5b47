"""One writer of a folder at a time; the lock ends with its process."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import comet_rec as cr
from comet_rec.artefact import lock
from comet_rec.artefact.lock import locked
from comet_rec.artefact.run import load_run, save_run
from comet_rec.cli.app import run as command
from comet_rec.errors import ArtefactError
from tests.artefact.test_replacing import names
from tests.processes import ENVIRONMENT, HOME

HOLDER = """
import sys
from pathlib import Path
from comet_rec.artefact.lock import locked
with locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, purpose: str):
    """Another process that holds the lock until the end of the block, or is killed in it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), purpose], env=ENVIRONMENT, cwd=HOME,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture
def log_file(tmp_path) -> Path:
    rows = [f"u{u},i{i},{i}" for u in range(9) for i in range(u % 3, 12, 2)]
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


def test_second_training_into_one_folder_is_refused_at_its_start(tmp_path, capsys):
    """Before the log is read, which may take minutes: this one does not even exist."""
    out = tmp_path / "runs" / "shop"
    with holder(out, "train") as other:
        assert command(["train", "nowhere.csv", "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{out}: another training (process {other.pid}) is writing there" in line
        assert names(tmp_path / "runs") == [".shop.lock"]
    assert not (tmp_path / "runs").exists()  # it was made for the lock, and stayed empty


@pytest.mark.parametrize("there", [None, "checkpoints"])
def test_reading_a_folder_that_is_trained_into_says_so(tmp_path, there):
    out = tmp_path / "shop"
    if there:
        (out / there).mkdir(parents=True)
    with holder(out, "train"), pytest.raises(ArtefactError, match="a training is writing there"):
        cr.load_model(out)
    with pytest.raises(ArtefactError, match=r"unfinished training|no such run"):
        cr.load_model(out)


def test_a_save_into_a_folder_that_is_trained_into_is_refused(tmp_path, before):
    out = tmp_path / "shop"
    with holder(out, "train"), pytest.raises(ArtefactError, match="another training"):
        save_run(load_run(before / "itemknn"), out)
    assert names(tmp_path) == []


def test_a_save_waits_for_another_save(tmp_path, before):
    out = tmp_path / "shop"
    with holder(out, "save") as other:
        saving = threading.Thread(target=save_run, args=(load_run(before / "itemknn"), out))
        saving.start()
        time.sleep(0.1)
        assert not out.exists()
        assert other.stdin is not None
        other.stdin.close()
        saving.join(60)
    assert names(tmp_path) == ["shop"]


def test_a_killed_training_locks_nobody_out_and_is_gone_on_with(log_file, tmp_path, capsys):
    out = tmp_path / "shop"
    words = ["train", str(log_file), "--out", str(out), "--model", "mf", "--quiet"]
    for setting in ("train.patience=0", "train.epochs=60", "model.embedding_dim=2"):
        words += ["--set", setting]
    code = "import sys; from comet_rec.training import checkpoints as c; c.CHECKPOINT_SECONDS = 0;"
    code += "from comet_rec.cli.app import run; sys.exit(run(sys.argv[1:]))"
    with subprocess.Popen([sys.executable, "-c", code, *words], env=ENVIRONMENT) as process:
        while not (out / "checkpoints" / "last.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # it must not end by itself
        assert command([*words, "--resume"]) == 2  # as long as it lives
        assert "another training" in capsys.readouterr().err
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".shop.lock").exists()
    assert command([*words, "--resume"]) == 0
    assert names(tmp_path) == ["log.csv", "shop"]


def test_a_run_that_was_finished_meanwhile_is_not_replaced(
    log_file, tmp_path, capsys, monkeypatch, before
):
    from comet_rec.cli import train

    out, real = tmp_path / "shop", train._Training.fit

    def slow(*given):
        real(*given)
        shutil.copytree(before / "comet", out, dirs_exist_ok=True)
        shutil.copytree(before / "comet", tmp_path / "shop-2")

    monkeypatch.setattr(train._Training, "fit", slow)
    assert command(["train", str(log_file), "--out", str(out), "--model", "ease"]) == 0
    said = capsys.readouterr()
    assert f"this run is saved in {tmp_path / 'shop-3'}" in said.err
    assert f"written to {tmp_path / 'shop-3'}" in said.out
    found = {name: load_run(tmp_path / name).config.name for name in names(tmp_path)[1:]}
    assert found == {"shop": "comet", "shop-2": "comet", "shop-3": "ease"}


def test_a_failed_training_removes_no_run_that_was_finished_meanwhile(
    log_file, tmp_path, capsys, monkeypatch, before
):
    from comet_rec.errors import NonFiniteError
    from comet_rec.estimators.estimator import Estimator

    out = tmp_path / "shop"

    def fails(*given, **more):
        shutil.copytree(before / "comet", out)
        raise NonFiniteError("the loss is not finite")

    monkeypatch.setattr(Estimator, "fit", fails)
    assert command(["train", str(log_file), "--out", str(out)]) == 1
    assert load_run(out).config.name == "comet"


def test_within_a_training_its_own_save_goes_through_and_another_thread_does_not(tmp_path, before):
    out = tmp_path / "shop"
    run, found = load_run(before / "itemknn"), []

    def other():
        try:
            save_run(run, out)
        except ArtefactError as error:
            found.append(str(error))

    with locked(out, "train"):
        save_run(run, out)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    (told,) = found
    assert f"another training (process {os.getpid()})" in told
    assert names(tmp_path) == ["shop"]


def test_where_a_file_system_has_no_locks_saving_works_and_sweeps_nothing(
    tmp_path, monkeypatch, before
):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    (tmp_path / ".shop.saving-abcd1234").mkdir()  # its owner may live
    save_run(load_run(before / "itemknn"), tmp_path / "shop")
    assert names(tmp_path) == [".shop.saving-abcd1234", "shop"]


def test_a_place_where_no_lock_can_be_made_is_one_line(tmp_path, before):
    with pytest.raises(ArtefactError, match=r"cannot be written: File name too long"):
        save_run(load_run(before / "itemknn"), tmp_path / ("a" * 252))
