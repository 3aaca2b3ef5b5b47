"""The long tests of this folder in their short forms, and proof that they find faults."""

from __future__ import annotations

import errno
import os

import pytest

from comet_rec.artefact import checkpoint, folder
from comet_rec.errors import ArtefactError
from comet_rec.evaluation import paired
from tests.processes import run_program
from tests.reliability import archives, numbers, power
from tests.reliability.recorded import Tried

pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")


SEED = int(os.environ.get("RELIABILITY_SEED") or os.getpid())
"""Another one in each run of the tests; a failure shows it."""


def held(found: list[Tried], least: int) -> None:
    for tried in found:
        assert tried.tries >= least, tried.promise
        assert tried.failures == [], f"{tried.promise} RELIABILITY_SEED={SEED}"


def run_long_test(name: str, tries: int, seed: int = SEED) -> None:
    """Run a long test as a program: one that forks, or measures the memory of its process."""
    words = ["--tries", str(tries), "--seed", str(seed)]
    done = run_program(f"tests.reliability.{name}", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " 0 failures" in done.stdout


def test_killed_trainings_resume_to_the_same_bits():
    run_long_test("kills", tries=1)


def test_any_state_that_a_power_failure_leaves_loads():
    held(power.run_power(tries=1, seed=0), least=5)


@pytest.mark.parametrize("room", [folder, checkpoint])
def test_without_syncs_a_power_failure_would_lose_runs_and_checkpoints(room, monkeypatch):
    """The test of power failures can fail."""
    monkeypatch.setattr(room, "sync", lambda path: None)
    assert sum(len(tried.failures) for tried in power.run_power(tries=1, seed=0)) > 0


def test_a_failed_call_leaves_the_earlier_run():
    run_long_test("faults", tries=1)


def test_a_disk_that_fails_when_a_folder_is_looked_at_is_no_foreign_folder(tmp_path, monkeypatch):
    """It once said that the folder is not a run, and to remove it."""
    (tmp_path / "manifest.json").write_text("{}")

    def fails(self, digests):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(folder.Members, "open", fails)
    with pytest.raises(ArtefactError, match="cannot be read: Input/output error"):
        folder.refuse_foreign(tmp_path)


def test_hostile_archives_write_nothing_else():
    held(archives.run_archives(tries=300, seed=SEED), least=300)


def test_numbers_are_finite_and_those_of_other_code(monkeypatch):
    monkeypatch.delenv("COMET_VERIFY", raising=False)  # it would find the injected numbers first
    monkeypatch.setattr(paired, "DRAWS", paired.BLOCK)  # bootstrap samples, which are not looked at
    held(numbers.run_numbers(tries=15, seed=SEED), least=4)


def test_damaged_inputs_are_used_or_refused():
    run_long_test("fuzz", tries=15)


@pytest.mark.slow
def test_two_hundred_killed_trainings_resume_to_the_same_bits():
    run_long_test("kills", tries=200, seed=1)


@pytest.mark.slow
def test_ten_thousand_hostile_archives_write_nothing_else():
    held(archives.run_archives(tries=10_000, seed=0), least=10_000)


@pytest.mark.slow
def test_ten_thousand_damaged_inputs_of_each_kind():
    run_long_test("fuzz", tries=10_000, seed=0)


@pytest.mark.slow
def test_a_thousand_matrices_and_fifty_injections():
    held(numbers.run_numbers(tries=1_000, seed=0), least=50)


@pytest.mark.slow
def test_every_call_that_fails_leaves_the_earlier_run():
    run_long_test("faults", tries=400)


@pytest.mark.slow
def test_trainings_of_several_processes_survive_the_end_of_one():
    run_long_test("restarts", tries=2)
