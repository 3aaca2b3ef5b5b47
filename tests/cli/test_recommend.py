"""`recommend`: who is asked for, what lists may hold, and which file they go to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest

import comet_rec
from comet_rec.cli.app import run


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A run whose ids are text; one user and one item hold a comma."""
    folder = tmp_path_factory.mktemp("shop")
    users = ["ann", "bob", "cy", "ann,bob", "x,y", "dee"]
    items = [f"i{i}" for i in range(10)] + ["tee, black", "pot"]
    rows = [f'"{u}","{items[i]}",{i}' for n, u in enumerate(users) for i in range(n % 3, 12, 2)]
    (folder / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    words = ["train", str(folder / "log.csv"), "--model", "ease", "--all", "--quiet"]
    assert run([*words, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def lists(shop, capsys):
    """Lists by user of a call with these words."""

    def ask(*words: str) -> dict[str, list[str]]:
        assert run(["recommend", str(shop), "-k", "20", "--format", "json", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        return {each["user_id"]: [i["item_id"] for i in each["items"]] for each in found}

    return ask


@pytest.mark.parametrize(
    ("words", "users"),
    [
        (["--user", "ann,cy"], ["ann", "cy"]),
        (["--user", "ann", "--user", "cy,dee"], ["ann", "cy", "dee"]),
        (["--user", "ann, cy"], ["ann", "cy"]),
        (["--user", "x,y"], ["x,y"]),  # a known id
        (["--user", "ann,bob"], ["ann,bob"]),
        (["--user", '"x,y",ann'], ["x,y", "ann"]),
        (["--user", "bob,ann"], ["bob", "ann"]),
        (["--user", '"new,one",ann', "--unknown", "popular"], ["new,one", "ann"]),
        (["--user", "ann,nobody", "--unknown", "skip"], ["ann"]),
    ],
)
def test_several_users_are_given_with_commas(words, users, lists):
    assert list(lists(*words)) == users


def test_users_of_a_file_are_one_a_line(lists, tmp_path):
    (tmp_path / "users").write_bytes("\ufeffx,y\r\ncy\n\n".encode())
    assert list(lists("--users-file", str(tmp_path / "users"))) == ["x,y", "cy"]
    both = lists("--users-file", str(tmp_path / "users"), "--user", "ann")
    assert list(both) == ["ann", "x,y", "cy"]


def test_lists_hold_allowed_items_alone_and_no_blocked_ones(shop, lists, tmp_path):
    (tmp_path / "allow").write_text("pot\ntee, black\n")
    (tmp_path / "block").write_text("i0\n")
    alone = lists("--user", "bob", "--include-seen", "--allow", "i1,i3", "--allow", "i5")
    assert set(alone["bob"]) == {"i1", "i3", "i5"}
    alone = lists("--user", "bob", "--include-seen", "--allow-file", str(tmp_path / "allow"))
    assert set(alone["bob"]) == {"pot", "tee, black"}
    words = ["--user", "bob", "--include-seen", "--block", "tee, black", "--block", "i1,i2"]
    rest = lists(*words, "--block-file", str(tmp_path / "block"))["bob"]
    assert len(rest) == 8
    assert not {"tee, black", "i0", "i1", "i2"} & set(rest)
    model = comet_rec.load_model(shop)
    same = model.recommend(["bob"], 20, include_seen=True, block=["tee, black", "i0", "i1", "i2"])
    assert same["item_id"].tolist() == rest
    history = lists("--history", '"tee, black",i1', "--allow", "i2,i3")
    assert set(history[0]) == {"i2", "i3"}


def test_an_empty_list_of_allowed_items_leaves_none(lists, tmp_path):
    (tmp_path / "allow").write_text("\n")
    assert lists("--user", "bob", "--allow-file", str(tmp_path / "allow")) == {"bob": []}


def test_items_that_the_log_does_not_have_are_told(shop, capsys):
    assert run(["recommend", str(shop), "--user", "bob", "--block", "i1,i-one"]) == 0
    note = "note: --block: 1 of 2 items do not occur in the log, such as 'i-one'\n"
    assert capsys.readouterr().err == note


@pytest.mark.parametrize("name", ["l.csv", "l.TSV", "l.parquet", "l.json", "l.jsonl", "l.txt"])
def test_the_name_of_the_file_chooses_the_format(name, shop, tmp_path, capsys):
    path = tmp_path / name
    assert run(["recommend", str(shop), "--user", "x,y", "-k", "2", "--out", str(path)]) == 0
    assert capsys.readouterr() == ("", "")
    if name.endswith(("csv", "parquet")):
        rows = duckdb.connect().execute(f"SELECT user_id, rank FROM '{path}'").fetchall()
        assert rows == [("x,y", 1), ("x,y", 2)]
    elif name == "l.TSV":
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        assert [len(line) for line in lines] == [4, 4, 4]
        assert lines[1][0] == "x,y"
    elif name == "l.txt":
        assert path.read_text().startswith("user x,y\n   1  ")
    else:
        text = path.read_text()
        found = json.loads(text)
        assert (found[0] if name == "l.json" else found)["user_id"] == "x,y"
    assert os.listdir(tmp_path) == [name]


def test_a_format_that_is_named_goes_before_the_name(shop, tmp_path):
    words = ["recommend", str(shop), "--user", "ann", "--format", "json"]
    assert run([*words, "--out", str(tmp_path / "l.csv")]) == 0
    assert json.loads((tmp_path / "l.csv").read_text())[0]["user_id"] == "ann"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--user", "ann", "--out", "lists.xml"], "use one of .txt, .json, .jsonl, .csv"),
        (["--user", "ann", "--out", "lists"], "or add --format"),
        (["--user", "ann", "--out", "."], "Is a directory"),
        (["--user", "ann", "--out", "no/lists.csv"], "No such file or directory"),
        (["--user", "ann,,cy"], "holds an empty id"),
        (["--user", " , "], "holds no id"),
        (["--user", '"ann,cy'], "unexpected end of data"),
        (["--user", "ann", "--allow", ""], "--allow '': holds no id"),
        (["--user", "ann,nobody"], "unknown user 'nobody' (1 of 2 unknown"),
        (["--users-file", "/dev/zero"], "is a device"),
        (["--users-file", "PIPE"], "is a pipe"),
        (["--users-file", "EMPTY"], "holds no id"),
        (["--user", "ann", "--allow-file", "."], "is a folder"),
        (["--user", "ann", "--block-file", "none"], "No such file"),
        (["--user", "ann", "--all-users"], "give one of --user"),
        (["--user", "ann", "--diversify", "0.5"], "ease has no item vectors"),
        (["--user", "ann", "--diversify", "nan"], "diversify = nan: must be a number from 0 to 1"),
        (["--users-file", "EMPTY", "--history", "i1"], "give one of --user"),
        (["--user", "9" * 5000], "unknown user '999"),
        (["--user", "ann", "-k", "9" * 5000], "-k"),
        (["--user", "ann", "--out", "l.csv", "--format", "9" * 5000], "must be one of table"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_nothing_is_written(
    words, text, shop, tmp_path, monkeypatch, capsys
):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_text("\n")
    monkeypatch.chdir(tmp_path)
    places = {"PIPE": "pipe", "EMPTY": "empty"}
    assert run(["recommend", str(shop), *(places.get(word, word) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1
    assert len(err) < 2100
    assert sorted(os.listdir(tmp_path)) == ["empty", "pipe"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_stdout_goes_to_is_written_on_from_where_it_stands(form, shop, tmp_path):
    """Opened anew by a name it would begin at its start, or another file take its place."""
    import subprocess
    import sys

    file = tmp_path / "log"
    file.write_text("kept\n")
    words = ["recommend", str(shop), "--user", "ann", "-k", "1", "--format", form]
    with file.open("a") as out:
        command = [sys.executable, "-m", "comet_rec", *words, "--out", "/dev/stdout"]
        subprocess.run(command, stdout=out, check=True)
    lines = file.read_text().splitlines()
    assert lines[0] == "kept"
    assert "ann" in lines[-1]


def test_numbers_of_any_length_and_deep_lists_are_refused_as_settings(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(f"{u},{u % 5}" for u in range(9)))
    for value in ("9" * 5000, "9" * 400, "[" * 50_000, "1" + ",1" * 50_000, "\x1b[31m"):
        words = ["train", str(tmp_path / "log.csv"), "--out", str(tmp_path / "run"), "--quiet"]
        assert run([*words, "--set", f"train.epochs={value}"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("comet-rec: train.epochs = ")
        assert err.count("\n") == 1
        assert len(err) < 200
        words = ["tune", str(tmp_path / "log.csv"), "--models", "itemknn", "--quiet"]
        words += ["--journal", str(tmp_path / "j"), "--search", f"model.neighbours=-1,{value}"]
        assert run(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_pairs_and_groups_of_files_filter_the_lists(lists, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text('user_id,item_id\nbob,i1\nbob,"tee, black"\ncy,i2\n')
    words = ["--user", "bob,cy,dee", "--include-seen"]
    alone = lists(*words, "--allow-pairs", str(tmp_path / "pairs.csv"))
    assert {user: set(items) for user, items in alone.items()} == {
        "bob": {"i1", "tee, black"}, "cy": {"i2"}, "dee": set(),
    }  # fmt: skip
    rest = lists(*words, "--block-pairs", str(tmp_path / "pairs.csv"), "--block", "pot")
    assert {user: len(items) for user, items in rest.items()} == {"bob": 9, "cy": 10, "dee": 11}

    rows = [f"i{i}\t{'odd' if i % 2 else 'even'}" for i in range(10)]
    (tmp_path / "groups.tsv").write_text("\n".join(["sku\tgenre", *rows]))
    groups = ["--groups", str(tmp_path / "groups.tsv")]
    odd = lists(*words, *groups, "--allow-group", "odd")["bob"]
    assert set(odd) == {"i1", "i3", "i5", "i7", "i9"}
    rest = lists(*words, *groups, "--block-group", "odd", "--block-group", "even")["bob"]
    assert set(rest) == {"tee, black", "pot"}
    few = lists(*words, *groups, "--per-group", "2")["bob"]
    assert len(few) == 6
    assert sum(item in odd for item in few) == 2


def test_unknown_ids_of_pairs_are_told(shop, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("user,item\nbob,i1\neve,i1\nbob,i-one\n")
    words = ["--user", "bob", "--block-pairs", str(tmp_path / "pairs.csv")]
    assert run(["recommend", str(shop), *words]) == 0
    assert capsys.readouterr().err == (
        "note: --block-pairs: 1 of 3 users do not occur in the log, such as 'eve'\n"
        "note: --block-pairs: 1 of 3 items do not occur in the log, such as 'i-one'\n"
    )


@pytest.mark.parametrize(
    ("words", "content", "text"),
    [
        (["--block-pairs", "FILE"], "bob,i1\nbob,i2\n", "line 1 must name the columns"),
        (["--block-pairs", "FILE"], "user_id,what,else\na,b,c\n", "such as user_id,item_id"),
        (["--block-pairs", "FILE"], "", "is empty"),
        (["--block-pairs", "FILE"], "user,item\nbob\n", "row 2 has 1 fields"),
        (["--block-pairs", "FILE"], 'user,item\nbob,"i1\n', "unexpected end of data"),
        (["--groups", "FILE", "--per-group", "1"], "item,group\ni1,a\ni1,b\n", "has two groups"),
        (["--groups", "FILE", "--block-group", "drame"], "item,group\ni1,drama\n", "'drama'"),
        (["--per-group", "2"], "", "per_group: needs groups, e.g. --groups FILE"),
        (["--shard", "1/2"], "", "--shard: needs --all-users"),
    ],
)
def test_filter_files_that_cannot_be_are_refused_in_a_line(
    words, content, text, shop, tmp_path, capsys
):
    (tmp_path / "file.csv").write_text(content)
    words = [str(tmp_path / "file.csv") if word == "FILE" else word for word in words]
    assert run(["recommend", str(shop), "--user", "bob", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1


def test_pairs_need_users_of_the_log(shop, capsys):
    words = ["--history", "i1", "--block-pairs", "nothing.csv"]
    assert run(["recommend", str(shop), *words]) == 2
    assert "need users of the log" in capsys.readouterr().err


def test_shards_hold_all_users_once_and_complete_ones_are_left(shop, tmp_path, capsys):
    whole, folder = tmp_path / "whole.parquet", tmp_path / "shards"
    words = ["recommend", str(shop), "--all-users", "-k", "3"]
    assert run([*words, "--out", str(whole)]) == 0
    for shard in ("1/10", "10/10", "7/10", *(f"{i}/10" for i in (2, 3, 4, 5, 6, 8, 9))):
        assert run([*words, "--shard", shard, "--out", str(folder)]) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(os.listdir(folder))[0] == "01-of-10.parquet"
    assert len(os.listdir(folder)) == 10
    con = duckdb.connect()
    rows = con.execute(f"SELECT * FROM '{folder}/*.parquet'").fetchall()
    assert rows == con.execute(f"SELECT * FROM '{whole}'").fetchall()
    assert len(rows) == 18

    before = (folder / "02-of-10.parquet").stat()
    assert run([*words, "--shard", "2/10", "--out", str(folder)]) == 0
    assert "02-of-10.parquet is complete already" in capsys.readouterr().err
    assert (folder / "02-of-10.parquet").stat() == before
    assert run([*words, "--block", "pot", "--shard", "2/10", "--out", str(folder)]) == 2
    assert "holds something else than these lists" in capsys.readouterr().err
    one = tmp_path / "mine.parquet"
    assert run([*words, "--shard", "2/10", "--out", str(one)]) == 0
    assert sorted(os.listdir(tmp_path)) == ["mine.parquet", "shards", "whole.parquet"]
    for shard in ("0/2", "3/2", "2", "1/0", "-1/2", "a/b"):
        assert run([*words, "--shard", shard, "--out", str(folder)]) == 2
        assert "must be I/N" in capsys.readouterr().err
