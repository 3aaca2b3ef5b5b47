"""A run that is replaced: old or new for readers, never nothing, whatever is killed or fails.

`python -m tests.artefact.test_replacing WHAT HOW HOME RUNS` replaces what stands in HOME by
something new, over and over, each time killed one call later, and checks after each kill that the
old or the new one stands whole. WHAT is "run" or "checkpoint", HOW is "exchange" or "renames"; the
folder RUNS holds the runs "comet" and "itemknn". The number of kills is printed.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import comet_rec as cr
from comet_rec.artefact import folder as writing
from comet_rec.artefact.checkpoint import load_checkpoint, save_checkpoint
from comet_rec.artefact.run import load_run, save_run
from comet_rec.data.arrays import Array
from comet_rec.errors import ArtefactError, CometWarning, DamagedError
from tests.processes import ENVIRONMENT, HOME, run_program

CALLS = ("open", "os.", "fcntl.flock", "shutil.", "tempfile.")


def refused(*_: Any) -> None:
    """A system that cannot exchange two names."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def kill_at(number: int) -> None:
    """Kill this process before the call of this number, counted from now."""
    calls = 0

    def count(event: str, _: Any = None) -> None:
        nonlocal calls
        if event.startswith(CALLS) and event != "os.kill":
            calls += 1
            if calls > number:
                os.kill(os.getpid(), signal.SIGKILL)

    for room, name in ((os, "fsync"), (writing, "exchange")):  # neither is audited
        real: Any = getattr(room, name)

        def counted(*given: Any, real: Any = real) -> Any:
            count("os.")
            return real(*given)

        setattr(room, name, counted)
    sys.addaudithook(count)


def in_child(act: Callable[[], None]) -> int:
    """Exit status of a forked child; the negative number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills_of(replace: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill `replace` before each of its calls; how often that was."""
    for number in range(10_000):

        def act(number: int = number) -> None:
            kill_at(number)
            replace()

        status = in_child(act)
        check()
        if status == 0:
            return number
        assert status == -signal.SIGKILL, status
    raise AssertionError("it does not end")


def kill_runs(home: Path, runs: Path) -> int:
    """Kill saves of a run over another one."""
    target = home / "run"
    old, new = load_run(runs / "itemknn"), load_run(runs / "comet")
    save_run(old, target)

    def check() -> None:
        assert load_run(target).config.name in ("comet", "itemknn")
        save_run(old, target)  # the next save sweeps
        assert [path.name for path in home.iterdir()] == ["run"], list(home.iterdir())

    return kills_of(lambda: save_run(new, target), check)


def kill_checkpoints(home: Path) -> int:
    """Kill checkpoints over another one of the same step, the hardest case."""
    about = {"stage": "validation", "step": 7}
    save_checkpoint(home, {"w": torch.zeros(3)}, about)

    def check() -> None:
        found = load_checkpoint(home, lambda _: {"w": Array(shape=(3,))})
        assert found is not None
        assert found[0]["w"].tolist() in ([0.0] * 3, [1.0] * 3)
        save_checkpoint(home, {"w": torch.zeros(3)}, about)
        assert len(list(home.iterdir())) == 2, list(home.iterdir())

    return kills_of(lambda: save_checkpoint(home, {"w": torch.ones(3)}, about), check)


@pytest.mark.parametrize(
    ("what", "how"), [("run", "exchange"), ("run", "renames"), ("checkpoint", "exchange")]
)
def test_killed_before_any_call_a_save_leaves_the_old_or_the_new(what, how, tmp_path, before):
    words = [what, how, str(tmp_path / "home"), str(before)]
    done = run_program("tests.artefact.test_replacing", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > (40 if what == "run" else 8)


WRITER = """
import sys
from pathlib import Path
from comet_rec.artefact import folder
from comet_rec.artefact.run import load_run, save_run
from tests.artefact.test_replacing import refused
if sys.argv[3] == "renames":
    folder.exchange = refused
runs = [load_run(Path(sys.argv[1], name)) for name in ("comet", "itemknn")]
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    save_run(runs[number % 2], Path(sys.argv[2]))
print(number + 1)
"""


def assert_same(run, whole):
    assert run.log == whole.log
    assert run.titles == whole.titles
    assert run.interactions.fingerprint == whole.interactions.fingerprint
    assert run.state.keys() == whole.state.keys()
    assert all(torch.equal(run.state[key], whole.state[key]) for key in run.state)
    assert (run.user_vectors is None) == (whole.user_vectors is None)


@pytest.mark.parametrize(("how", "reads", "replacements"), [
    ("exchange", 600, 60), ("renames", 200, 40),
])  # fmt: skip
def test_a_run_that_is_read_while_it_is_replaced_is_the_old_one_or_the_new_one(
    how, reads, replacements, tmp_path, before
):
    wanted = {name: load_run(before / name) for name in ("comet", "itemknn")}
    target = tmp_path / "run"
    save_run(wanted["itemknn"], target)
    seen: dict[str, int] = {}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(before), str(target), how], env=ENVIRONMENT, cwd=HOME,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as writer:  # fmt: skip
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for number in range(reads):
            if number % (reads // replacements) == 0:
                writer.stdin.write("\n")
                writer.stdin.flush()
            run = load_run(target)
            seen[run.config.name] = seen.get(run.config.name, 0) + 1
            assert_same(run, wanted[run.config.name])
        writer.stdin.close()
        assert int(writer.stdout.read()) == replacements
    assert set(seen) == {"comet", "itemknn"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture
def run(before):
    return load_run(before / "itemknn")


@pytest.fixture
def target(tmp_path, before):
    return shutil.copytree(before / "comet", tmp_path / "run")


def name_of(folder: Path) -> str:
    return load_run(folder).config.name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_two_renames_were_replacing_is_found_and_comes_back(run, target):
    staging = target.parent / ".run.saving-abcd1234"
    staging.mkdir()
    target.rename(staging / "replaced")
    assert name_of(target) == "comet"
    (staging / "replaced" / "notes.md").write_text("x")
    with pytest.raises(ArtefactError, match="holds notes"):  # the old one, with a note in it
        save_run(run, target)
    assert names(target.parent) == ["run"]
    assert (target / "notes.md").exists()


def test_what_killed_saves_left_goes_with_the_next_save_and_what_is_of_others_stays(run, target):
    for name in (".run.saving-abcd1234", ".run.saving-x", ".run2.saving-abcd1234", ".runsaving"):
        (target.parent / name / "fresh").mkdir(parents=True)
    save_run(run, target)
    assert names(target.parent) == [".run.saving-x", ".run2.saving-abcd1234", ".runsaving", "run"]


def failing(real, code=errno.EIO, after=0):
    calls = []

    def fails(*given, **more):
        calls.append(given)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return real(*given, **more)

    return fails


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EBUSY, errno.ENOSPC])
def test_the_old_run_stays_where_the_names_cannot_be_exchanged(run, target, monkeypatch, code):
    monkeypatch.setattr(writing, "exchange", failing(writing.exchange, code))
    with pytest.raises(ArtefactError, match="cannot be written"):
        save_run(run, target)
    assert name_of(target) == "comet"
    assert names(target.parent) == ["run"]


def test_a_disk_that_does_not_confirm_the_new_run_is_a_warning(run, target, monkeypatch):
    """It stands: nobody is told that it could not be written."""
    real = writing.sync

    def fails(path):
        if path == target.parent:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path)

    monkeypatch.setattr(writing, "sync", fails)
    with pytest.warns(CometWarning, match="written, but the disk does not confirm it"):
        save_run(run, target)
    assert name_of(target) == "itemknn"


def test_an_old_run_that_cannot_be_removed_is_a_warning(run, target, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(writing.shutil, "rmtree", lambda *given, **more: None)
        with pytest.warns(CometWarning, match=r"written, but .*\.saving-.* could not be removed"):
            save_run(run, target)
    assert name_of(target) == "itemknn"
    save_run(run, target)
    assert names(target.parent) == ["run"]


def test_a_link_to_a_run_stays_one_and_the_run_behind_it_is_replaced(run, target, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(target)
    assert name_of(link) == "comet"
    save_run(run, link)
    assert link.is_symlink()
    assert name_of(target) == "itemknn"


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "log.jsonl"])
@pytest.mark.parametrize("kind", ["link", "device", "pipe", "folder", "dangling"])
def test_what_is_no_plain_file_is_refused_and_not_opened(name, kind, target, tmp_path, before):
    path = target / name
    path.rename(tmp_path / "kept")
    if kind == "pipe":
        os.mkfifo(path)  # opened plainly, it would wait for a writer for ever
    elif kind == "folder":
        path.mkdir()
    else:
        aims = {"link": tmp_path / "kept", "device": "/dev/zero", "dangling": "nowhere"}
        path.symlink_to(aims[kind])
    with pytest.raises(DamagedError, match=f"{name}: is (a link|not a plain file)"):
        cr.load_model(target)
    other = load_run(before / "itemknn")
    if name == "manifest.json" and kind in ("pipe", "folder", "dangling"):
        with pytest.raises(ArtefactError, match="exists and is not a run"):
            save_run(other, target)


def test_a_file_with_a_hole_of_gigabytes_is_refused_unread(target):
    with (target / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedError, match="is a sparse file"):
        cr.load_model(target)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "/etc/passwd", "a\0b", "x" * 300])
def test_a_run_at_a_place_that_is_no_folder_is_refused(place):
    with pytest.raises(ArtefactError, match=r"no such run|File name too long"):
        cr.load_model(place)


def test_saves_to_one_folder_at_once_wait_for_each_other(target, before):
    runs = [load_run(before / name) for name in ("comet", "itemknn")]
    found: list[BaseException] = []

    def save(run):
        try:
            for _ in range(10):
                save_run(run, target)
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=save, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == []
    assert name_of(target) in ("comet", "itemknn")
    assert names(target.parent) == ["run"]


def test_runs_that_an_earlier_version_wrote_give_what_they_gave(before):
    comet, knn = (cr.load_model(before / name) for name in ("comet", "itemknn"))
    (best,) = comet.recommend([0], k=1).rows()
    assert (best["item_id"], best["score"]) == (6, pytest.approx(0.005011804401874542, rel=1e-5))
    (best,) = knn.recommend([4], k=1).rows()
    assert (best["item_id"], best["score"]) == ("ítem 6", pytest.approx(1.7270526885986328))
    for model in (comet, knn):
        stored = model.run.metrics
        assert stored is not None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = cr.evaluate(model).to_dict()
        assert again["sampled"] == pytest.approx(stored["sampled"])
    assert knn.run.titles == {"ítem 1": "Title 1"}
    assert comet.run.selected is not None


if __name__ == "__main__":
    what, how, place, runs = sys.argv[1:]
    if how == "renames":
        writing.exchange = refused  # type: ignore[assignment]
    torch.set_num_threads(1)
    home = Path(place)
    home.mkdir()
    count = kill_runs(home, Path(runs)) if what == "run" else kill_checkpoints(home)
    shutil.rmtree(place)
    print(count)
