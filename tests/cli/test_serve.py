"""`comet-rec serve`: what it refuses before it serves, and what it needs."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys

import pytest

from comet_rec.cli.app import run
from comet_rec.cli.ids import titles_of_file
from comet_rec.errors import InputError


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    """Leave frozen what `tests/conftest.py` froze, and no more: a service unfreezes all."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "unfreeze", lambda: None)


@pytest.fixture(scope="module")
def trained(log_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["train", str(log_file), "--model", "ease", "--all", "--out", str(out)]) == 0
    return out


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert run(["serve", str(tmp_path), "--port", "0"]) == 2
    assert f"{tmp_path}: is not a run" in capsys.readouterr().err


def test_a_damaged_run_is_refused(trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in trained.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "ids.safetensors").write_bytes(b"broken")
    assert run(["serve", str(folder), "--port", "0"]) == 2
    assert "ids.safetensors" in capsys.readouterr().err


def test_a_port_in_use_is_refused(trained, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", str(trained), "--port", port]) == 2
    message = capsys.readouterr().err
    assert f"127.0.0.1:{port}: cannot listen there" in message
    assert "--port" in message


def test_unusable_files_of_keys_and_titles_are_refused(trained, tmp_path, capsys):
    for option in ("--keys", "--titles"):
        assert run(["serve", str(trained), "--port", "0", option, str(tmp_path / "no")]) == 2
        assert option in capsys.readouterr().err


def test_titles_of_a_file_are_read_by_item(tmp_path):
    file = tmp_path / "titles.csv"
    file.write_text('item_id,title\n1,"Tent, green"\n2,Mat\n', encoding="utf-8")
    assert titles_of_file(file) == {"1": "Tent, green", "2": "Mat"}
    file.write_text("sku,title\n1,Tent\n", encoding="utf-8")
    assert titles_of_file(file) == {"1": "Tent"}
    file.write_text("item_id,title,year\n1,Tent\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 2 has 2 fields"):
        titles_of_file(file)


def test_without_the_extra_one_line_names_it(trained):
    """uvicorn is hidden from a process of its own."""
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from comet_rec.cli.app import run\n"
        f"sys.exit(run(['serve', {str(trained)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        'comet-rec: serve: uvicorn is not installed; pip install "comet-rec[serve]"\n'
    )
