"""Commands under a terminal, a shell and signals: escaped text, encodings, streams that fail."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import comet_rec
from comet_rec.cli.app import app, run
from comet_rec.cli.interrupt import interruptible
from comet_rec.text import width_of

PROGRAM = [sys.executable, "-m", "comet_rec"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
SLOW = [
    "--preset", "static", "--set", "model.embedding_dim=4", "--set", "model.history_length=5",
    "--set", "train.epochs=10", "--set", "train.patience=0", "--set", "protocol.negatives=9",
]  # fmt: skip
EVIL = "\x1b[31mred\u202e"
SHOWN = r"\x1b[31mred\u202e"


@pytest.fixture(scope="module")
def log_file(tmp_path_factory) -> Path:
    rows = [f"u{u},{(u * 7 + k * 3) % 40},{k}" for u in range(25) for k in range(8)]
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A run whose ids are escape codes, markup and wide letters."""
    folder = tmp_path_factory.mktemp("hostile")
    users = [f"{EVIL}{n}" for n in range(5)] + ["[red]a[/]", "日本", "u\r\n1", "plain"]
    rows = [f'"{u}","{EVIL}|{i}",{i}' for n, u in enumerate(users) for i in range(n % 3, 12, 2)]
    log = folder / "log.csv"
    log.write_bytes("\n".join(["user,item,time", *rows, ""]).encode())
    out = folder / "run"
    assert run(["train", str(log), "--model", "popularity", "--out", str(out), "--quiet"]) == 0
    return out


def safe(text: str) -> bool:
    return not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text
    )


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["train", "-h"], ["data", "list", "-h"]])
def test_version_and_help_are_there_as_a_module_too(words):
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert done.stderr == ""
    wanted = (
        f"comet-rec {comet_rec.__version__}\n" if words == ["--version"] else "Usage: comet-rec"
    )
    assert done.stdout.startswith(wanted)


def test_every_command_has_the_short_help(capsys):
    for command in app.registered_commands:
        assert run([command.name, "-h"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: comet-rec {command.name}")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["recomend"], "No such command 'recomend'; did you mean 'recommend'? See"),
        (["deploy"], "known: train, evaluate, recommend, update,"),
        (["data", "lst"], "did you mean 'list'?"),
        (["train", "LOG", "--modle", "mf"], "No such option --modle; did you mean '--model'?"),
        (["recommend", "RUN", "--verbose"], "No such option --verbose; known: --user, "),
        (["train", "LOG", "--out", "x", "--model", "foo"], "known: comet, mf, "),
        (["train", "LOG", "--out", "x", "--set", "train.epohcs=1"], "mean 'train.epochs'?"),
        (["train", "LOG", "--out", "x", "--set", "train.foo=1"], "known: train.epochs, "),
        (["data", "fetch", "foo"], "known: ml-100k, "),
        (["recommend", "RUN", "--user", "plain", "--format", "jsn"], "did you mean 'json'?"),
    ],
)
def test_near_names_are_suggested_and_else_the_valid_ones_listed(
    words, hint, log_file, hostile, capsys
):
    places = {"LOG": str(log_file), "RUN": str(hostile)}
    assert run([places.get(word, word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line


@pytest.mark.parametrize(
    "words",
    [
        ["recommend", "RUN", "--all-users"],
        ["recommend", "RUN", "--user", f"{EVIL}9"],
        ["recommend", "RUN", "--user", "plain", "--block", EVIL],
        ["recommend", "RUN", "--history", f"{EVIL}|1"],
        ["recommend", "RUN", "--all-users", "--format", "json"],
        ["recommend", EVIL, "--all-users"],
        ["recommend", "RUN", "--users-file", EVIL],
        ["recommend", "RUN", "--user", "plain", "--out", EVIL],
        ["train", EVIL, "--out", "x"],
        ["train", "LOG", "--out", "x", "--set", f"{EVIL}=1"],
        ["train", "LOG", "--out", "x", "--set", f"train.epochs={EVIL}"],
        ["train", "LOG", "--out", "x", "--model", EVIL],
        ["train", "LOG", "--out", "x", "--seed", EVIL],
        ["audit", "RUN"],
        ["audit", "LOG"],
        [EVIL],
        [f"--{EVIL}"],
    ],
)
def test_no_output_obeys_what_ids_and_names_hold(words, hostile, capsys):
    places = {"LOG": str(hostile.parent / "log.csv"), "RUN": str(hostile)}
    run([places.get(word, word) for word in words])
    out, err = capsys.readouterr()
    assert out + err
    assert safe(out)
    assert safe(err)


def test_files_of_data_hold_ids_as_they_are(hostile, tmp_path, capsys):
    import duckdb

    for form in ("csv", "tsv", "parquet", "json", "jsonl"):
        path = tmp_path / f"lists.{form}"
        words = ["recommend", str(hostile), "--user", f"{EVIL}0", "--user", "u\r\n1", "-k", "2"]
        assert run([*words, "--out", str(path)]) == 0
        assert capsys.readouterr().out == ""
        if form.startswith("json"):
            text = path.read_text(encoding="utf-8")
            lists = json.loads(text) if form == "json" else list(map(json.loads, text.splitlines()))
            users = [each["user_id"] for each in lists]
        else:
            rows = duckdb.connect().execute(f"SELECT user_id FROM '{path}'").fetchall()
            users = list(dict.fromkeys(user for (user,) in rows))
        assert users == [f"{EVIL}0", "u\r\n1"]


def test_lists_align_and_keep_markup_literal(hostile, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["recommend", str(hostile), "--all-users", "-k", "3"]) == 0
    out = capsys.readouterr().out
    assert "user [red]a[/]" in out
    assert "user 日本" in out
    assert r"user u\r\n1" in out
    rows = [line for line in out.splitlines() if not line.startswith("user")]
    assert len({width_of(line) for line in rows}) == 1


@pytest.mark.parametrize("how", [pytest.param("closed", marks=pytest.mark.slow), "full", "gone"])
def test_a_stderr_that_fails_ends_no_training(how, log_file, tmp_path):
    out = tmp_path / "run"
    shell = ["sh", "-c", f'exec "$0" "$@" 2>{"&-" if how == "closed" else "/dev/full"}']
    keywords = {}
    if how == "gone":
        shell = []
        ours, keywords["stderr"] = os.pipe()
        os.close(ours)
    trained = [*shell, *PROGRAM, "train", str(log_file), "--out", str(out), *SLOW]
    trained += ["--set", "train.epochs=2"]  # each writes a line, and none waits for a signal
    done = subprocess.run(trained, stdout=subprocess.PIPE, env=ENVIRONMENT, **keywords)
    assert done.returncode == 0
    assert b"written to" in done.stdout
    assert run(["evaluate", str(out), "--json"]) == 0
    refused = [*shell, *PROGRAM, "data", "stats", "nowhere"]
    assert subprocess.run(refused, env=ENVIRONMENT, **keywords).returncode == 2
    for descriptor in keywords.values():
        os.close(descriptor)


def test_a_file_never_takes_the_number_of_a_closed_stderr(log_file, tmp_path):
    """Else what a library writes to its stderr would go into that file."""
    code = (
        "import os, sys; from comet_rec.cli.terminal import open_descriptors; open_descriptors(); "
        "file = open(sys.argv[1], 'w'); sys.exit(file.fileno() < 3)"
    )
    shell = 'exec "$0" -c "$1" "$2" 2>&- 1>&- 0<&-'
    words = ["sh", "-c", shell, sys.executable, code, str(tmp_path / "file")]
    assert subprocess.run(words).returncode == 0


def started(log_file: Path, out: Path, **more) -> subprocess.Popen:
    """A training in its third epoch."""
    process = subprocess.Popen(
        [*PROGRAM, "train", str(log_file), "--out", str(out), *SLOW],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, **more,
    )  # fmt: skip
    while "epoch 3/" not in process.stderr.readline():
        assert process.poll() is None
    return process


def test_a_hang_up_saves_and_resume_ends_where_an_unbroken_run_does(log_file, tmp_path, capsys):
    process = started(log_file, tmp_path / "a")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)  # the shell sends one, and the terminal that goes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume to go on" in err.splitlines()[-1]
    for command in (["recommend", str(tmp_path / "a"), "--all-users"], ["evaluate", "A"]):
        assert run([str(tmp_path / "a") if word == "A" else word for word in command]) == 2
        assert re.search("unfinished training; go on with .*--resume", capsys.readouterr().err)
    for words in (["a", "--resume"], ["b"]):
        command = ["train", str(log_file), "--out", str(tmp_path / words[0]), *words[1:], *SLOW]
        assert run([*command, "--quiet"]) == 0
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert a == b


def test_under_nohup_a_hang_up_ends_nothing(log_file, tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = started(log_file, tmp_path / "a", preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "a" / "manifest.json").is_file()


def test_a_terminal_that_goes_ends_no_training_unsaved(log_file, tmp_path):
    """Its signal comes, and nothing can be written to it any more."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(PROGRAM[0], [*PROGRAM, "train", str(log_file), "--out", str(tmp_path / "a"),
                               *SLOW, "--set", "train.epochs=500"], ENVIRONMENT)  # fmt: skip
    written = b""
    while b"epoch 3/" not in written:
        written += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert (tmp_path / "a" / "checkpoints" / "last.json").is_file()


def test_a_hang_up_counts_as_no_first_signal():
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def on_a_terminal(words: list[str]) -> str:
    """Output of a command on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end has closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "RUN"], ["recommend", "RUN", "--all-users"], ["data", "list"],
        ["data", "stats", "LOG"], ["audit", "RUN"],
        ["compare", "LOG", "--models", "popularity,itemknn,ease"],
    ],
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(words, hostile, log_file):
    places = {"LOG": str(log_file), "RUN": str(hostile)}
    shown = on_a_terminal([places.get(word, word) for word in words])
    shown = shown.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold headers
    assert max(map(width_of, shown.splitlines())) <= 80
    assert safe(shown)


def test_a_comparison_is_markdown_in_a_pipe_and_loses_nothing_on_a_terminal(
    log_file, capsys, monkeypatch
):
    words = ["compare", str(log_file), "--models", "popularity,itemknn", "--quiet"]
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(words) == 0
    page = capsys.readouterr().out
    assert page.startswith("| model | HR@5 |")
    monkeypatch.setenv("COLUMNS", "80")
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert max(map(width_of, shown.splitlines())) <= 80
    cells = [cell.strip() for line in page.splitlines()[2:4] for cell in line.split("|")]
    assert all(cell in shown for cell in cells[:-2])


def test_figures_of_few_users_come_with_caution(log_file, hostile, tmp_path, capsys):
    assert run(["evaluate", str(hostile)]) == 0
    assert "caution: only 9 test users" in capsys.readouterr().out
    assert run(["compare", str(log_file), "--models", "popularity,random", "--quiet"]) == 0
    assert "Caution: only 25 test users" in " ".join(capsys.readouterr().out.split())
    model = comet_rec.load_model(hostile)
    assert "caution: only 9 test users" in repr(comet_rec.evaluate(model))
    rows = [f"{u},{i}" for u in range(40) for i in range(u % 5, 20, 3)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    out = str(tmp_path / "run")
    assert run(["train", str(tmp_path / "log.csv"), "--model", "ease", "--out", out]) == 0
    assert "caution" not in capsys.readouterr().out


def test_messages_name_python_arguments_in_python_and_options_in_the_shell(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    log = comet_rec.read(tmp_path / "log.csv")
    with pytest.raises(comet_rec.errors.DataError, match=r"train on all of it \(fit\(log\)\)"):
        comet_rec.leave_one_out(log)
    words = ["compare", str(tmp_path / "log.csv"), "--models", "mf,ease"]
    assert run(words) == 2
    assert "train on all of it (--all)" in capsys.readouterr().err


@pytest.fixture
def japanese_log(tmp_path) -> Path:
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
    assert "stopping after the current step" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_lists_are_utf_8_whatever_the_locale(form, japanese_log, tmp_path, monkeypatch):
    out = str(tmp_path / "run")
    assert run(["train", str(japanese_log), "--model", "ease", "--out", out, "--quiet"]) == 0
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
    japanese_log, tmp_path, monkeypatch, capsys
):
    """A mount point, or a folder within one that is not ours."""
    out = tmp_path / "mounted"
    out.mkdir()

    def busy(self):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rmdir", busy)
    assert run(["train", str(japanese_log), "--model", "ease", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be replaced" in line
    assert "give a new folder inside it" in line
    assert list(out.iterdir()) == []


def test_a_run_says_how_its_log_was_read(japanese_log, tmp_path):
    out = tmp_path / "run"
    words = ["--user", "user", "--min-item", "2", "--threads", "1"]
    assert run(["train", str(japanese_log), "--model", "ease", "--out", str(out), *words]) == 0
    data = json.loads((out / "manifest.json").read_text())["data"]
    assert data["source"] == str(japanese_log)
    wanted = {"user": "user", "min_item_interactions": 2, "time_scope": "auto", "skip_bad": 0}
    assert data["reading"] == wanted
    assert comet_rec.load_model(out).run.reading == wanted
