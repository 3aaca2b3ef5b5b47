"""Files that a caller names: only files are read, and none is ever half written."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from comet_rec.errors import InputError
from comet_rec.files import read_lines, write_text_whole, written_whole


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "latin").write_bytes(b"caf\xc3\xa9\ncaf\xe9\n")
    return {name: tmp_path / name for name in ("pipe", "zero", "loop", "latin", "none")} | {
        "device": Path("/dev/null"), "folder": tmp_path, "nul": Path("a\0b"),
        "long": Path("a" * 300),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pipe", "is a pipe"), ("zero", "is a device"), ("device", "is a device"),
        ("folder", "is a folder"), ("loop", "symbolic links"), ("none", "No such file"),
        ("latin", "line 2 is not UTF-8"), ("nul", "null byte"), ("long", "name too long"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_at_once(name, why, places):
    with pytest.raises(InputError, match=why) as error:
        read_lines(places[name], "--users-file X")
    assert "\n" not in str(error.value)


def test_a_list_that_is_too_large_is_refused_before_it_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("comet_rec.files.MOST_BYTES", 10)
    (tmp_path / "list").write_text("1\n" * 6)
    with pytest.raises(InputError, match="is larger than 10 bytes"):
        read_lines(tmp_path / "list", "list")


def test_lines_keep_all_but_their_ends(tmp_path):
    path = tmp_path / "list"
    path.write_bytes("\ufeffa,b\r\n x \n\n日本\u2028\nlast".encode())
    assert read_lines(path, "list") == ["a,b", " x ", "日本\u2028", "last"]


def test_a_file_that_cannot_be_finished_leaves_the_older_one(tmp_path):
    target = tmp_path / "lists.csv"
    target.write_text("old")
    target.chmod(0o600)

    def write_half() -> None:
        with written_whole(target) as fresh:
            fresh.write_text("half")
            raise OSError(28, "no room")

    with pytest.raises(InputError, match="cannot be written: no room"):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["lists.csv"]
    with written_whole(target) as fresh:
        fresh.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_link_stays_one_and_a_pipe_is_written_through(tmp_path):
    (tmp_path / "link").symlink_to("real")
    with written_whole(tmp_path / "link") as fresh:
        fresh.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "x"
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    with written_whole(pipe) as fresh:
        fresh.write_text("through")
    reader.join()
    assert got == ["through"]
    assert pipe.is_fifo()


def test_a_pipe_that_nobody_reads_from_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("comet_rec.files.READER_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no program reads"), written_whole(tmp_path / "pipe") as f:
        f.write_text("x")


def test_a_text_is_seen_whole_or_not_at_all(tmp_path, monkeypatch):
    write_text_whole(tmp_path / "list", "old\n")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_text_whole(tmp_path / "list", "new\n")
    assert (tmp_path / "list").read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["list"]


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    write_text_whole(Path("/dev/null"), "new")
    assert not Path("/dev/null").is_file()
