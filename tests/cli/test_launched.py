"""Commands that torchrun starts as several processes: what runs, what is refused, who prints."""

from __future__ import annotations

import os

import pytest

from comet_rec.cli import launched, terminal, train
from comet_rec.cli.app import run


@pytest.fixture
def second_of_two(monkeypatch):
    """The environment that torchrun gives the second of two processes."""
    values = {
        "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_without_torchrun_there_is_one_process(monkeypatch):
    assert (launched.size(), launched.rank(), launched.restarted()) == (1, 0, False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some schedulers set it
    monkeypatch.setenv("RANK", "3")
    assert (launched.size(), launched.rank()) == (1, 0)


def test_only_the_first_process_prints(second_of_two, capsys):
    assert (launched.size(), launched.rank(), launched.local_rank()) == (2, 1, 1)
    terminal.show("a result")
    terminal.say("a note")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", [["evaluate", "run"], ["compare", "log.csv"], ["data", "list"]])
def test_commands_of_one_process_are_refused(monkeypatch, second_of_two, capsys, command):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run(command) == 2
    assert "runs in one process; torchrun is for train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--user", "1"], "torchrun is for --all-users"),
        (["--all-users", "--shard", "1/2", "--out", "lists"], "remove one of the two"),
        (["--all-users"], "needs --all-users and --out FOLDER"),
    ],
)
def test_lists_in_several_processes_are_parts(monkeypatch, second_of_two, capsys, words, said):
    monkeypatch.setenv("RANK", "0")
    assert run(["recommend", "run", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_first_process_of_another_machine_names_itself(monkeypatch, second_of_two, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run(["evaluate", "run"]) == 2
    assert capsys.readouterr().err.startswith("rank 1: comet-rec: evaluate: runs in one process")


@pytest.mark.parametrize("size", ["much", "100MB"])
def test_a_wrong_size_of_memory_is_one_line(capsys, size):
    assert run(["train", "log.csv", "--out", "run", "--memory", size]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_of_this_job_is_younger_than_the_program_that_started_it(tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    assert train._is_of_this_job(tmp_path)
    os.utime(manifest, (1_000_000_000, 1_000_000_000))
    assert not train._is_of_this_job(tmp_path)
