"""``comet-rec audit``: what it prints, and its exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from comet_rec.cli.app import run

USERS, ITEMS, ROWS, NEGATIVES, PLANTED = 50, 80, 8, 20, 7


@pytest.fixture(scope="module")
def ncf(tmp_path_factory) -> Path:
    """NCF's three files; the first users have their positive among their negatives."""
    folder = tmp_path_factory.mktemp("ncf")
    rng = np.random.default_rng(0)
    train, test, negative, honest = [], [], [], []
    for user in range(USERS):
        items = rng.permutation(ITEMS)
        train += [f"{user}\t{i}\t5\t{1_000_001 + 977 * r + user}" for r, i in
                  enumerate(items[:ROWS])]  # fmt: skip
        positive, drawn = items[ROWS], items[ROWS + 1 : ROWS + 1 + NEGATIVES]
        test.append(f"{user}\t{positive}\t4\t{1_000_001 + 977 * ROWS + user}")
        honest.append("\t".join([f"({user},{positive})", *map(str, drawn)]))
        if user < PLANTED:
            drawn[user] = positive
        negative.append("\t".join([f"({user},{positive})", *map(str, drawn)]))
    files = {"train.rating": train, "test.rating": test, "test.negative": negative}
    for name, lines in {**files, "honest.negative": honest}.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def of_files(ncf: Path, negative: str, *more: str) -> list[str]:
    return ["audit", str(ncf / "train.rating"), "--test", str(ncf / "test.rating"),
            "--candidates", str(ncf / negative), *more]  # fmt: skip


def mistakes(err: str, ncf: Path) -> list[str]:
    """Lines but for the one note on how the trio's training file, without a header, is read."""
    columns = "column 1 is the user, column 2 is the item, column 4 is the time"
    note = f"note: {ncf / 'train.rating'}: no header row: {columns}"
    lines = err.splitlines()
    return lines[1:] if lines[:1] == [note] else lines


def test_positives_among_the_negatives_of_the_ncf_trio_are_counted(ncf, capsys):
    assert run(of_files(ncf, "test.negative", "--json")) == 2
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert len(out.splitlines()) == 1
    assert report["ok"] is False
    (finding,) = report["findings"]
    assert set(finding) == {"check", "severity", "count", "of", "message", "example"}
    assert finding["check"] == "test-positive-among-candidates"
    assert finding["severity"] == "error"
    assert (finding["count"], finding["of"]) == (PLANTED, USERS)
    assert finding["example"]["user"] == 0
    (line,) = mistakes(err, ncf)
    assert "1 finding of severity error" in line


def test_a_trio_without_faults_is_ok(ncf, capsys):
    assert run(of_files(ncf, "honest.negative", "--json")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"findings": [], "ok": True}
    assert mistakes(err, ncf) == []


def test_text_is_a_line_a_finding(ncf, capsys):
    assert run(of_files(ncf, "test.negative")) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        f"error    test-positive-among-candidates: {PLANTED} of {USERS} test users have the "
        "positive among their own candidates"
    )
    assert lines[0].split("; e.g. ")[1].startswith("user 0, item ")
    assert lines[1] == "1 error, 0 warnings, 0 notes"


def test_warnings_and_notes_do_not_fail(tmp_path, capsys):
    """Every user's last two rows share a time."""
    rows = [f"u{u},{(7 * u + 3 * t) % 40},{100 * min(t, 8) + u}" for u in range(20)
            for t in range(10)]  # fmt: skip
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    assert run(["audit", str(path), "--negatives", "20"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "warning  test-ties: 20 of 20 users (100.0%)" in out
    assert out.splitlines()[-1].startswith("0 errors, ")
    assert run(["audit", str(path), "--json"]) == 0  # 99 candidates: fewer are left
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert "test-few-candidates" in {f["check"] for f in report["findings"]}


def test_a_log_of_which_nothing_can_be_held_out_is_looked_at_too(tmp_path, capsys):
    path = tmp_path / "short.csv"
    path.write_text("user,item,ts\n1,7,1\n1,7,2\n2,7,3\n2,8,4\n")
    assert run(["audit", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "repeated-rows" in out
    assert "and none has: only the rows are checked" in err


def test_a_log_of_which_every_user_touched_every_item_is_looked_at_too(tmp_path, capsys):
    path = tmp_path / "full.csv"
    rows = [f"{user},{item},{item}" for user in (1, 2) for item in range(3)]
    path.write_text("user,item,ts\n" + "\n".join(rows) + "\n")
    assert run(["audit", str(path)]) == 0
    assert (
        "every user interacted with all 3 items: only the rows are checked"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("header", ["uid,sku,ts", "user,item,time", "uid,sku,time"])
def test_times_of_a_test_file_are_found_under_its_own_names(header, tmp_path, capsys):
    rows = [f"{u},{(u + i) % 9},{100 * u + i + 1}" for u in range(6) for i in range(4)]
    (tmp_path / "log.csv").write_text("uid,sku,ts\n" + "\n".join(rows) + "\n")
    tests = [f"{u},{(u + 5) % 9},{100 * u + 9}" for u in range(6)]
    (tmp_path / "test.csv").write_text(header + "\n" + "\n".join(tests) + "\n")
    names = ["--user", "uid", "--item", "sku", "--time", "ts"]
    words = ["audit", str(tmp_path / "log.csv"), "--test", str(tmp_path / "test.csv"), "--json"]
    assert run([*words, *names]) == 0
    found = {finding["check"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"future-rows", "future-users"} <= found


def test_a_run(tmp_path, ncf, capsys):
    fast = ["--set", "model.embedding_dim=4", "--set", "model.history_length=5",
            "--set", "train.epochs=1", "--set", "protocol.negatives=20"]  # fmt: skip
    base = ["train", str(ncf / "train.rating"), "--quiet", *fast, "--preset", "static"]
    clean, leaky = str(tmp_path / "clean"), str(tmp_path / "leaky")
    assert run([*base, "--out", clean]) == 0
    assert run([*base, "--out", leaky, "--set", "model.exclude_target=false"]) == 0
    assert run(["audit", clean]) == 0
    assert run(["audit", leaky, "--json"]) == 2
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "target-in-history" in {f["check"] for f in report["findings"]}
    assert run(["audit", clean, "--test", str(ncf / "test.rating")]) == 2
    assert "is a run, which holds its own data; leave --test out" in capsys.readouterr().err
    for words in (["--negatives", "5"], ["--min-rating", "0"], ["--skip-bad", "3"]):
        assert run(["audit", clean, *words]) == 2
        assert f"leave {words[0]} out" in capsys.readouterr().err
    (Path(clean) / "metrics.json").write_text("{}")
    assert run(["audit", clean]) == 2
    assert "artefact-digests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.csv"], "no such file"),
        (["TRAIN", "--candidates", "TEST"], "--candidates needs --test FILE"),
        (["TRAIN", "--test", "nowhere"], "nowhere"),
        (["FOLDER"], "is not a run: no manifest.json"),
        (["TRAIN", "--test", "TEXT"], "'song' is no plain integer, unlike the ids of the log"),
    ],
)
def test_mistakes_get_one_line_and_no_findings(arguments, text, ncf, tmp_path, capsys):
    (tmp_path / "text.csv").write_text("user,item\n1,song\n2,tune\n")
    places = {"TRAIN": ncf / "train.rating", "TEST": ncf / "test.rating",
              "FOLDER": tmp_path, "TEXT": tmp_path / "text.csv"}  # fmt: skip
    assert run(["audit", *(str(places.get(a, a)) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = mistakes(err, ncf)
    assert text in line
