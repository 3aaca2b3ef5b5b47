"""The command line as tested behaviour: what it prints, what it refuses, its exit statuses."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from safetensors import SafetensorError

import comet_rec
from comet_rec.cli.app import run
from comet_rec.experiments.tuning import SPACES

FAST = [
    "--set", "model.embedding_dim=4", "--set", "model.history_length=5",
    "--set", "train.epochs=1", "--set", "protocol.negatives=9",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(log_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["train", str(log_file), "--out", str(out), "--quiet", *FAST]) == 0
    return out


def test_train_prints_figures_and_progress(log_file, tmp_path, capsys):
    blend = ["--set", "blend.model=fism"]
    assert run(["train", str(log_file), "--out", str(tmp_path / "r"), *FAST, *blend]) == 0
    out, err = capsys.readouterr()
    assert "positive + 9 negatives" in out
    assert "full ranking" in out
    assert "validation epoch 1/1: loss" in err
    (last,) = [line for line in out.splitlines() if "to train on all rows" in line]
    words = last.split("--all ")[1].split()
    assert words[:2] == ["--set", "train.full_epochs=1"]
    assert words[3].startswith("blend.weight=")
    live = ["train", str(log_file), "--out", str(tmp_path / "live"), *FAST, *blend, "--all", *words]
    assert run(live) == 0
    assert "to train on all rows" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_was_saved_stays_when_the_disk_is_full(log_file, tmp_path, capsys, monkeypatch, error):
    from comet_rec.artefact import checkpoint
    from comet_rec.training import checkpoints as training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    written, save = [], checkpoint.save_file

    def fills(tensors, path):
        written.append(path)
        if len(written) == 4:
            raise error
        save(tensors, path)

    given = ["train", str(log_file), "--out", str(tmp_path / "r"), *FAST, "--quiet"]
    checkpoints = tmp_path / "r" / "checkpoints"
    with monkeypatch.context() as full:
        full.setattr(checkpoint, "save_file", fills)
        assert run(given) != 0
    assert re.search("No space left on device.*; --resume goes on", capsys.readouterr().err)
    assert len(written) == 4
    (checkpoints / ".tmpXyz").write_text("of a killed writer")
    saved = contents(checkpoints)
    for other in ("ease", "mf"):  # the one has no epochs, the other no blend
        words = ["train", str(log_file), "--out", str(tmp_path / "r"), "--model", other]
        assert run([*words, "--resume", "--quiet"]) == 2
        assert "began with another model" in capsys.readouterr().err
    assert contents(checkpoints) == saved
    (tmp_path / "r" / "notes.md").write_text("mine")
    assert run([*given, "--resume"]) != 0
    assert "holds notes.md, which is not part of a run" in capsys.readouterr().err
    (tmp_path / "r" / "notes.md").unlink()
    assert run([*given, "--resume"]) == 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("everything", [[], ["--all"]])
def test_a_model_without_epochs_takes_no_training_for_its_own(
    log_file, tmp_path, capsys, monkeypatch, everything
):
    """MF has no blend: its own checkpoint alone can tell."""
    from comet_rec.cli import train

    @contextlib.contextmanager
    def stopped():
        yield lambda: True

    out = tmp_path / "r"
    words = ["train", str(log_file), "--out", str(out), "--quiet", *everything]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(train, "interruptible", stopped)
        assert run([*words, "--model", "mf"]) == 130
    saved = contents(out)
    assert out / "checkpoints" / "last.json" in saved
    capsys.readouterr()
    assert run([*words, "--model", "ease", "--resume"]) == 2
    assert "began with another model" in capsys.readouterr().err
    assert contents(out) == saved
    assert run([*words, "--model", "mf", "--resume"]) == 0


def test_a_training_that_fails_leaves_nothing_behind(log_file, tmp_path, capsys):
    """Not the FISM either, which was trained before and went well.

    Without `--quiet` there are trial steps, which fail before the FISM is trained.
    """
    out = tmp_path / "r"
    given = ["train", str(log_file), "--out", str(out), *FAST, "--set", "model.init_scale=1e30"]
    for more in ([], ["--quiet"]):
        assert run([*given, *more]) == 1
        err = capsys.readouterr().err
        assert "fism validation" not in err
        assert "is not finite" in err
        assert not out.exists()


def test_evaluate_json_is_the_contract(trained, capsys):
    assert run(["evaluate", str(trained), "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == ""
    figures = {"HR@5", "NDCG@5", "HR@10", "NDCG@10"}
    for name in ("sampled", "sampled_se", "full", "full_se"):
        assert set(report[name]) == figures
    assert report["model"] == "comet"
    assert report["n_users"] == 25
    assert {"hash", "split", "negatives", "ties"} <= set(report["protocol"])
    assert report == json.loads((trained / "metrics.json").read_text())
    assert run(["evaluate", str(trained), "--json", "--no-full"]) == 0
    assert json.loads(capsys.readouterr().out)["full"] is None


def test_a_user_with_nothing_left_has_an_empty_list(tmp_path, capsys):
    rows = [f"{u},{i}" for u in range(4) for i in range(6 if u in (1, 3) else 3)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    out = str(tmp_path / "run")
    assert run(["train", str(tmp_path / "log.csv"), "--out", out, "--model", "ease", "--all"]) == 0
    capsys.readouterr()
    json_ = ["recommend", out, "-k", "2", "--format", "json"]
    some = ["--user", "3", "--user", "99", "--user", "0", "--user", "3", "--user", "1"]
    assert run([*json_, "--all-users"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(of["user_id"], len(of["items"])) for of in found] == [(0, 2), (1, 0), (2, 2), (3, 0)]
    assert run([*json_, *some, "--unknown", "popular"]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = [(of["user_id"], len(of["items"])) for of in found]
    assert sizes == [(3, 0), (99, 2), (0, 2), (3, 0), (1, 0)]
    some = ["--history", "0,1", "--history", "0,1,2,3,4,5", "--history", "2"]
    assert run([*json_, *some]) == 0
    assert [len(of["items"]) for of in json.loads(capsys.readouterr().out)] == [2, 0, 2]


def test_recommend_in_every_format(trained, tmp_path, capsys):
    assert run(["recommend", str(trained), "--user", "u3", "-k", "2", "--format", "json"]) == 0
    lists = json.loads(capsys.readouterr().out)
    assert lists[0]["user_id"] == "u3"
    assert [item["rank"] for item in lists[0]["items"]] == [1, 2]
    assert set(lists[0]["items"][0]) == {"item_id", "score", "rank"}
    assert run(["recommend", str(trained), "--user", "u3", "-k", "2"]) == 0
    assert str(lists[0]["items"][0]["item_id"]) in capsys.readouterr().out
    for form in ("csv", "parquet"):
        path = tmp_path / f"lists.{form}"
        arguments = ["--all-users", "-k", "3", "--format", form, "--out", str(path)]
        assert run(["recommend", str(trained), *arguments]) == 0
        import duckdb

        rows = duckdb.connect().execute(f"SELECT * FROM '{path}'").fetchall()
        assert len(rows) == 75
    assert run(["recommend", str(trained), "--history", "100,101", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["user_id"] == 0


def test_data_stats(log_file, capsys):
    assert run(["data", "stats", str(log_file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    size = {"users": 25, "items": 40, "interactions": 200, "density": 0.2}
    assert {name: found[name] for name in size} == size
    assert found["columns"] == {"user": "user", "item": "item", "time": "time"}
    assert found["rows"]["all"] == 200
    assert found["per_user"] == [8, 8, 8, 8, 8]
    assert run(["data", "list"]) == 0
    assert "ml-100k" in capsys.readouterr().out


def test_train_on_everything_and_on_given_files(log_file, tmp_path, capsys):
    assert run(["train", str(log_file), "--out", str(tmp_path / "all"), "--all", *FAST,
                "--set", "train.full_epochs=1"]) == 0  # fmt: skip
    assert json.loads((tmp_path / "all" / "metrics.json").read_text()) is None
    (tmp_path / "train.tsv").write_text(
        "".join(f"{u}\t{i}\t5\t{i}\n" for u in range(9) for i in range(u, u + 6))
    )
    (tmp_path / "test.tsv").write_text("".join(f"{u}\t{u + 6}\t5\t99\n" for u in range(9)))
    (tmp_path / "neg.tsv").write_text(
        "".join(f"({u},{u + 6})\t20\t21\t{u + 6}\n" for u in range(9))
    )
    capsys.readouterr()
    assert run(["train", str(tmp_path / "train.tsv"), "--out", str(tmp_path / "given"),
                "--test", str(tmp_path / "test.tsv"), "--candidates", str(tmp_path / "neg.tsv"),
                *FAST]) == 0  # fmt: skip
    assert "9 candidates that are positives of their user dropped" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "given" / "metrics.json").read_text())
    assert metrics["protocol"]["split"] == "given"
    assert metrics["n_users"] == 9


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "LOG"], "Missing option '--out'"),
        (
            ["train", "nowhere.csv", "--out", "NEW"],
            "no such file; give a log file or one of ml-100k",
        ),
        (["train", "LOG", "--out", "RUN"], "holds a finished run; give another --out, or remove"),
        (
            ["train", "LOG", "--out", "NEW", "--set", "model.width=3"],
            "did you mean 'model.widths'?",
        ),
        (["train", "LOG", "--out", "NEW", "--set", "model.channels"], "give KEY=VALUE"),
        (["train", "LOG", "--out", "NEW", "--set", "train.epochs=two"], "must be a whole number"),
        (["train", "LOG", "--out", "NEW", "--model", "commet"], "did you mean 'comet'?"),
        (["train", "LOG", "--out", "NEW", "--model", "EASE"], "did you mean 'ease'?"),
        (["train", "LOG", "--out", "NEW", "--set", "model.K=8"], "known: model.embedding_dim, "),
        (
            ["train", "LOG", "--out", "NEW", "--model", "ease", "--set", "model.widths=8"],
            "known: model.l2, model.memory_gib, model.beyond",
        ),
        (
            ["train", "LOG", "--out", "NEW", "--set", "train.learning_rate=nan"],
            "must be above 0, and finite",
        ),
        (["train", "LOG", "--out", "NEW", "--preset", "papr"], "did you mean 'paper'?"),
        (["train", "LOG", "--out", "NEW", "--all", "--refit"], "--all holds nothing out"),
        (["train", "LOG", "--out", "NEW", "--candidates", "LOG"], "--candidates needs --test"),
        (["train", "LOG", "--out", "NEW", "--user", "nobody"], "nobody"),
        (["train", "LOG", "--out", "NEW", "--resume"], "nothing to resume"),
        (["train", "LOG", "--out", "NEW", "--set", "seed=3"], "give the full key"),
        (["train", "LOG", "--out", "/proc/nowhere/run"], "cannot be written"),
        (["recommend", "RUN", "--user", "9" * 30], "unknown user"),
        (["evaluate", "nowhere"], "no such run"),
        (["evaluate", "a" * 300], "File name too long"),
        (["train", "LOG", "--out", "a" * 300], "File name too long"),
        (["data", "stats", "caf\udce9.csv"], "'caf\\udce9.csv': is not valid UTF-8"),
        (["train", "LOG", "--out", "o\udce9"], "is not valid UTF-8"),
        (["recommend", "RUN", "--user", "\udcff", "--unknown", "popular"], "is not valid UTF-8"),
        (["recommend", "RUN", "--all-users", "--format", "csv", "--out", "RUN"], "Is a directory"),
        (
            ["recommend", "RUN", "--all-users", "--format", "csv", "--out", "/proc/none/x"],
            "comet-rec: /proc/none/x: cannot be written: No such file or directory",
        ),
        (["recommend", "RUN"], "give one of --user ID"),
        (["recommend", "RUN", "--user", "u3", "--format", "xml"], "must be one of table"),
        (["recommend", "RUN", "--user", "stranger"], "unknown user 'stranger'"),
        (["recommend", "RUN", "--history", "7"], "unknown item 7"),
        (["recommend", "RUN", "--history", " "], "holds no id; give ID,ID"),
        (["recommend", "RUN", "--user", "+1"], "unknown user '+1'"),
        (["recommend", "RUN", "--user", "01"], "unknown user '01'"),
        (["recommend", "RUN", "--all-users", "--format", "parquet"], "needs --out FILE"),
        (["data", "fetch", "ml-100"], "ml-100k"),
        (["nonsense"], "No such command"),
    ],
)
def test_mistakes_get_one_line_and_status_2(arguments, text, log_file, trained, tmp_path, capsys):
    new = tmp_path / "new"
    places = {"LOG": str(log_file), "RUN": str(trained), "NEW": str(new)}
    arguments = [places.get(a, a) for a in arguments]
    assert run([arguments[0], *(FAST if arguments[0] == "train" else []), *arguments[1:]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert len([line for line in err.splitlines() if not line.startswith("note:")]) == 1
    assert not new.exists()


def test_a_training_that_was_killed_before_its_first_checkpoint_begins_anew(
    log_file, tmp_path, capsys
):
    """Neither --resume nor a training without it may be refused with the advice to do the other."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / ".last-validation-3.safetensors.tmp").write_text("half of it")
    words = ["train", str(log_file), "--out", str(out), *FAST, "--quiet"]
    assert run([*words, "--resume"]) == 2
    assert "nothing to resume; leave --resume out to start anew" in capsys.readouterr().err
    assert run(words) == 0
    assert (out / "manifest.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_ctrl_c_saves_and_resume_ends_where_an_unbroken_run_does(log_file, tmp_path, capsys):
    slow = [*FAST, "--set", "train.epochs=6", "--set", "train.patience=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out: str, *more: str) -> list[str]:
        program = [sys.executable, "-m", "comet_rec.cli.app", "train", str(log_file)]
        return [*program, "--out", str(tmp_path / out), *slow, *more]

    process = subprocess.Popen(
        command("a"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    while "epoch 3/" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume to go on" in err.splitlines()[-1]
    assert not (tmp_path / "a" / "manifest.json").exists()
    assert run(command("a")[3:]) == 2
    assert "add --resume" in capsys.readouterr().err
    for arguments in (command("a", "--resume"), command("b")):
        subprocess.run(arguments, check=True, capture_output=True, env=environment)
    a, b = ((tmp_path / n / "model.safetensors").read_bytes() for n in "ab")
    assert a == b


def test_help_needs_no_torch():
    code = (
        "import sys, comet_rec.cli.app; sys.exit('torch' in sys.modules or 'duckdb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    found = subprocess.run(
        [sys.executable, "-m", "comet_rec.cli.app", "--help"], capture_output=True, text=True
    )
    assert "train" in found.stdout


def test_csv_goes_behind_what_a_file_holds_already(trained, tmp_path):
    """Stdout opened anew by its name would begin at the start of the file."""
    file = tmp_path / "lists.csv"
    file.write_text("kept\n")
    words = ["recommend", str(trained), "--user", "u1", "-k", "2", "--format", "csv"]
    with file.open("a") as out:
        command = [sys.executable, "-m", "comet_rec.cli.app", *words]
        subprocess.run(command, stdout=out, check=True)
    lines = file.read_text().splitlines()
    assert lines[:2] == ["kept", "user_id,item_id,score,rank"]
    assert [line.split(",")[0] for line in lines[2:]] == ["u1", "u1"]


def test_an_id_that_holds_a_comma_is_quoted_in_a_history(tmp_path, capsys):
    rows = [f'{u},"Tee, size {i}",{u + i}' for u in range(9) for i in range(u % 3, 12, 2)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    out = str(tmp_path / "run")
    assert (
        run(["train", str(tmp_path / "log.csv"), "--model", "ease", "--out", out, "--quiet"]) == 0
    )
    words = ["recommend", out, "--history", '"Tee, size 1", "Tee, size 3"', "--format", "json"]
    assert run(words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    listed = {item["item_id"] for item in found["items"]}
    assert listed
    assert not listed & {"Tee, size 1", "Tee, size 3"}


def test_epochs_asked_for_hold_where_nothing_is_held_out(log_file, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["--set", "train.epochs=2", "--set", "blend.model=none"]  # the later one counts
    given = ["train", str(log_file), "--all", "--out", str(out), "--preset", "best"]
    assert run([*given, *FAST, *more]) == 0
    epochs = [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]
    capsys.readouterr()


def test_notes_of_the_log_are_told_by_every_command_that_splits(tmp_path, capsys):
    rows = [f"u{u},i{i}" for u in range(9) for i in range(u % 3, 30, 2)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join([*rows, *rows[:5]]) + "\n")
    data = str(tmp_path / "log.csv")
    journal = ["--journal", str(tmp_path / "j"), "--seconds", "1", "--set", "model.shrink=0"]
    for words in (
        ["compare", data, "--models", "ease,itemknn"],
        ["tune", data, "--models", "itemknn", *journal, "--json"],
    ):
        assert run(words) == 0
        out, err = capsys.readouterr()
        assert "5 repeated (user, item) rows removed" in err
        assert "no time column" in err
    found = json.loads(out)
    assert [model["model"] for model in found["models"]] == ["itemknn"]


def test_a_search_needs_nothing_but_data(log_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SPACES, "comet", {"train.learning_rate": (3e-3,)})
    small = ["model.embedding_dim=4", "model.history_length=5", "train.epochs=1"]
    monkeypatch.setitem(SPACES["comet"], "model.widths", ((1, 8, 32, 128),))
    words = [word for setting in small for word in ("--set", setting)]
    assert run(["tune", str(log_file), "--seconds", "1", "--preset", "static", *words]) == 0
    _, header, row, to_train = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["model", "HR@10", "NDCG@10"]
    assert row.startswith("comet ")
    assert to_train.startswith("to train with them: --model comet --preset static --set ")
    assert "--set train.learning_rate=0.003 --set model.widths=[1,8,32,128]" in to_train
    given = to_train.removeprefix("to train with them: ").split()
    assert run(["train", str(log_file), "--out", str(tmp_path / "run"), "--quiet", *given]) == 0
    assert (tmp_path / f"{log_file.name}.journal").is_file()


def test_a_warning_of_ours_is_a_note_and_another_keeps_its_place(monkeypatch, tmp_path, capsys):
    rows = [f"u{u},i{i}" for u in range(9) for i in range(u % 3, 30, 2)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    memory = f"model.memory_gib={4 * 20**2 / 2**30}"
    words = ["train", str(tmp_path / "log.csv"), "--model", "ease", "--set", memory]
    assert run([*words, "--out", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    assert "all but the 20 most popular items score 0" in err
    assert ".py:" not in err

    def odd(*arguments, **keywords):
        warnings.warn("odd", stacklevel=1)

    monkeypatch.setattr("comet_rec.cli.app.program", odd)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(["--help"]) == 0
    assert re.search(r"test_cli\.py:\d+: UserWarning: odd", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--models", "itemknn,foo"], "unknown model 'foo'"),
        (["--models", "itemknn,popularity"], "popularity has nothing to search"),
        (["--models", "itemknn", "--journal", "nowhere/j"], "a file in a folder that exists"),
        (["--models", "itemknn", "--journal", "LOG"], "not a journal"),
        (["--models", "itemknn", "--search", "model.neighbours=-1"], "neighbours"),
        (["--models", "itemknn,mf", "--search", "model.neighbours=5"], "unknown setting"),
    ],
)
def test_a_search_that_cannot_be_is_told_before_any_trial(
    words, text, log_file, tmp_path, monkeypatch, capsys
):
    from comet_rec.experiments import tuning

    def refuse(*arguments):
        raise AssertionError("a trial began")

    monkeypatch.setattr(tuning, "_trial", refuse)
    copy = tmp_path / "log.csv"
    copy.write_text(log_file.read_text())
    given = [str(copy) if word == "LOG" else word for word in words]
    journal = [] if "--journal" in given else ["--journal", str(tmp_path / "j")]
    assert run(["tune", str(log_file), "--seconds", "1", "--quiet", *journal, *given]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert copy.read_text() == log_file.read_text()


def test_a_setting_of_a_model_that_is_not_compared_is_refused(log_file, capsys):
    words = ["--models", "ease,itemknn", "--set", "mf:train.epochs=2"]
    assert run(["compare", str(log_file), *words]) == 2
    assert "mf is not compared; add it to --models" in capsys.readouterr().err


def test_blanks_that_belong_to_an_id_count_in_a_history(tmp_path, capsys):
    rows = [f'u{u}," i{i}"' for u in range(9) for i in range(u % 3, 30, 2)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    out = str(tmp_path / "run")
    assert run(["train", str(tmp_path / "log.csv"), "--model", "popularity", "--out", out]) == 0
    capsys.readouterr()
    words = ["recommend", out, "--history", '" i1"," i2"', "-k", "40", "--format", "json"]
    assert run(words) == 0
    listed = [row["item_id"] for row in json.loads(capsys.readouterr().out)[0]["items"]]
    assert len(listed) == 28
    assert not {" i1", " i2"} & set(listed)


def test_spaces_around_the_ids_of_a_history_do_not_count(trained, capsys):
    found = []
    for history in ("100,101", "100 , 101", " 100,101 "):
        assert run(["recommend", str(trained), "--history", history, "--format", "json"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] == found[2]


def test_a_list_takes_the_place_of_an_older_one_whole_or_not_at_all(
    trained, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "lists.json"
    words = ["recommend", str(trained), "--all-users", "--format", "json", "--out", str(out)]
    assert run(words) == 0
    before = out.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert run([*words, "-k", "3"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full")
@pytest.mark.parametrize("words", [["evaluate", "--json"], ["recommend", "--all-users"]])
def test_a_full_disk_behind_stdout_is_one_line(trained, words):
    program = [sys.executable, "-m", "comet_rec.cli.app", words[0], str(trained), *words[1:]]
    with open("/dev/full", "w") as out:
        done = subprocess.run(program, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("comet-rec: standard output: No space left on device")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full")
@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_full_disk_behind_a_file_is_one_line(trained, form, capsys):
    words = ["recommend", str(trained), "--all-users", "--format", form, "--out", "/dev/full"]
    assert run(words) == 2
    wanted = "comet-rec: /dev/full: cannot be written: No space left on device\n"
    assert capsys.readouterr().err == wanted


def test_mistakes_have_status_2_where_nobody_can_be_told(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert run(["evaluate", "nowhere"]) == 2


def test_a_place_that_is_not_ours_is_one_line(monkeypatch, capsys):
    def refused(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "reports/x")

    monkeypatch.setattr("comet_rec.cli.app.program", refused)
    assert run(["reproduce"]) == 2
    assert capsys.readouterr().err.startswith("comet-rec: reports/x: Permission denied; ")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a file of ours"),
        OSError("libnothing.so: cannot open shared object file"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
    ],
)
def test_a_fault_of_ours_is_not_laid_at_the_users_door(monkeypatch, error):
    def fails(*arguments, **keywords):
        raise error

    monkeypatch.setattr("comet_rec.cli.app.program", fails)
    with pytest.raises(type(error)):  # Python's traceback, and status 1
        run(["evaluate"])


def test_a_log_with_one_test_user_goes_through(tmp_path, capsys):
    rows = [f"{u},{i}" for u, items in ((1, range(9)), (2, (50, 51))) for i in items]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    data, out = str(tmp_path / "log.csv"), str(tmp_path / "run")
    assert run(["compare", data, "--models", "popularity,itemknn"]) == 0
    assert run(["train", data, "--model", "popularity", "--out", out]) == 0
    assert run(["audit", out]) == 0
    capsys.readouterr()
    assert run(["evaluate", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_users"] == 1
    assert set(found["sampled_se"].values()) == {0.0}  # nothing is known of other users


def test_an_interrupt_that_no_command_caught_is_told(monkeypatch, capsys):
    from comet_rec.cli import app

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("comet_rec.cli.options.read_data", interrupted)
    assert app.run(["data", "stats", "x.csv"]) == 130
    assert capsys.readouterr().err.endswith("comet-rec: interrupted\n")


def test_a_comparison_is_written_where_it_can_be(log_file, tmp_path, capsys):
    """Told before any training; a device stays one."""
    given = ["compare", str(log_file), "--models", "random,popularity", "--quiet", "--out"]
    assert run([*given, str(tmp_path / "nowhere" / "table.json")]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert run([*given, str(tmp_path / "table.json")]) == 0
    assert "popularity" in (tmp_path / "table.json").read_text()
    assert run([*given, "/dev/null"]) == 0
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("command", [["train", "LOG"], ["reproduce", "table1"], ["inspect", "LOG"]])
def test_a_folder_under_a_file_is_refused_first_and_none_is_left(command, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("user,item\n")
    given = [str(file) if word == "LOG" else word for word in command]
    assert run([*given, "--out", str(file / "x")]) == 2
    reason = "cannot be written: Not a directory; give another --out"
    assert capsys.readouterr().err == f"comet-rec: {file / 'x'}: {reason}\n"
    assert run([given[0], str(tmp_path / "none"), "--out", str(tmp_path / "a" / "b")]) == 2
    assert not (tmp_path / "a").exists()


def test_events_and_repeats_are_options_of_reading_and_stored_with_the_run(tmp_path, capsys):
    rows = [
        f"u{user},i{(user + k) % 7},{100 - k if k < 5 else k},{('view', 'cart', 'buy')[k % 3]}"
        for user in range(9)
        for k in range(12)
    ]
    path, out = tmp_path / "log.csv", tmp_path / "run"
    path.write_text("\n".join(["user,item,time,type", *rows, ""]))
    reading = ["--event", "type=buy, cart", "--repeats", "last"]
    words = ["train", str(path), "--model", "popularity", "--out", str(out), *reading]
    assert run(words) == 0
    err = capsys.readouterr().err
    assert "note: kept 72 of 108 rows: type in buy, cart" in err
    assert "repeated (user, item) rows removed, the last of each pair kept" in err
    stored = comet_rec.load_model(out).run.reading
    assert stored["events"] == {"type": ["buy", "cart"]}
    assert stored["repeats"] == "last"
    again = comet_rec.read(path, **stored)
    written = json.loads((out / "manifest.json").read_text())["data"]
    assert again.fingerprint == written["fingerprint"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--event", "tpye=buy"], "no column 'tpye'; did you mean 'type'?"),
        (["--event", "type=by"], "no row has 'by'; its values are 'buy', 'view'"),
        (["--event", "type"], "give COLUMN=VALUE,VALUE"),
        (["--event", "type=buy", "--event", "item=i1"], "--event event=cart,purchase"),
        (["--repeats", "lsat"], "repeats is 'lsat'; give first or last"),
    ],
)
def test_a_wrong_event_or_repeat_is_refused_in_a_line(words, hint, tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("user,item,type\nu,i1,buy\nu,i2,view\n")
    assert run(["data", "stats", str(path), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line


def stats(words, capsys) -> dict[str, str]:
    """Lines that `data stats` prints, by the name before them."""
    assert run(["data", "stats", *map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:14].strip(): line[14:].strip() for line in lines}


def test_stats_show_columns_times_and_the_rows_left_out(tmp_path, capsys):
    days = [f"u{user},i{item},2024-03-{item + 1:02d},4" for user in range(4) for item in range(6)]
    again = ["u0,i0,2024-05-01,5", "u0,i1,2024-05-02,5", "u0,i9,2024-05-02,1"]
    few = ["u9,i0,2024-03-09,5"]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["buyer,sku,day,stars", *days, *again, *few, "u1,i1,never,4", "x"]))
    words = [path, "--user", "buyer", "--time", "day", "--min-rating", "2", "--min-user", "2"]
    words += ["--rating", "stars"]
    found = stats(words, capsys)
    assert found["users"] == "4"
    assert found["items"] == "6"
    assert found["interactions"] == "24"
    assert found["density"] == "1.00000"
    assert found["columns"] == "user 'buyer', item 'sku', time 'day', rating 'stars'"
    assert found["times"] == "2024-03-01 to 2024-03-06"
    left_out = "2 bad, 1 rated too low, 2 repeated, 1 of users or items with too few"
    assert found["rows"] == f"30; left out: {left_out}"
    assert found["first bad row"].endswith("line 30, column 'day': 'never' is not a time")
    assert found["per user"].split() == ["6", "6", "6", "6", "6"]
    assert found["per item"].split() == ["4", "4", "4", "4", "4"]
    latest = stats([*words, "--repeats", "last"], capsys)
    assert latest["times"] == "2024-03-01 to 2024-05-02"


def test_stats_count_every_row_once(tmp_path, capsys):
    rows = [f"u{n % 7},i{n % 5},{n},{('view', 'buy')[n % 2]}" for n in range(300)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,type", *rows, "u1,,3,buy"]))
    words = ["data", "stats", str(tmp_path / "log.csv"), "--event", "type=buy", "--json"]
    assert run([*words, "--min-item", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    left_out = {name: count for name, count in found["rows"].items() if isinstance(count, int)}
    assert left_out.pop("all") == 301
    assert sum(left_out.values()) + found["interactions"] == 301
    assert (left_out["bad"], left_out["other_events"]) == (1, 150)
    assert found["times"]["dates"] is None


def test_stats_tell_times_from_positions(tmp_path, capsys):
    path = tmp_path / "log.csv"
    rows = [f"u{user},i{item},{item}" for user in range(3) for item in range(4)]
    path.write_text("\n".join(["user,item,time", *rows]))
    assert stats([path], capsys)["times"] == "positions 0 to 3 within each user"
    path.write_text("user,item\n1,2\n1,3\n")
    assert stats([path], capsys)["times"] == "none: rows count in the order of the log"
    path.write_text("user,item,time\n1,2,1400000000123\n1,3,1500000000000\n")
    assert stats([path], capsys)["times"] == "2014-05-13 16:53:20 to 2017-07-14 02:40:00"
    path.write_text("user,item,time\n1,2,0.5\n1,3,7\n")
    assert stats([path], capsys)["times"] == "500000 to 7000000"


def test_stats_of_a_log_without_a_good_row_name_the_first_bad_one(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\na,b,x\nc,d,y\n")
    words = ["data", "stats", str(path)]
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "log.csv, line 2, column 'time': 'x' is not a time; 2 of 2 rows are bad" in line
    path.write_text("user,item,time\na,b,1\nc,,2\nc,,3\n")
    assert run(words) == 0
    assert run([*words, "--skip-bad", "1"]) == 2
