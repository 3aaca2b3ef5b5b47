"""`comet-rec train`: final trainings, yardsticks and time limits."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli import train
from comet_rec.cli.app import run
from comet_rec.data.split import Split
from comet_rec.errors import NonFiniteError
from comet_rec.training import fit

FAST = [
    "--set", "model.embedding_dim=4", "--set", "model.history_length=5",
    "--set", "train.epochs=2", "--set", "protocol.negatives=9",
]  # fmt: skip


def trained(log_file: Path, out: Path, *more: str) -> Path:
    """Folder of a run that the command trains."""
    assert run(["train", str(log_file), "--out", str(out), "--quiet", *FAST, *more]) == 0
    return out


@pytest.fixture(scope="module")
def measured(log_file, tmp_path_factory) -> Path:
    return trained(log_file, tmp_path_factory.mktemp("runs") / "measured")


@pytest.fixture(scope="module")
def final(log_file, tmp_path_factory) -> Path:
    return trained(log_file, tmp_path_factory.mktemp("runs") / "final", "--final")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@contextlib.contextmanager
def interrupted(monkeypatch, when):
    """Context in which trainings stop as soon as `when` returns true."""

    @contextlib.contextmanager
    def signals():
        yield when

    with monkeypatch.context() as patch:
        patch.setattr(train, "interruptible", signals)
        yield


def test_a_final_run_has_the_figures_of_the_measured_model(measured, final):
    assert (final / "metrics.json").read_bytes() == (measured / "metrics.json").read_bytes()


def test_a_final_run_has_the_weights_of_a_second_training_by_hand(
    log_file, measured, final, tmp_path
):
    chosen = cr.load_model(measured).run.chosen
    words = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    by_hand = trained(log_file, tmp_path / "all", "--all", *words)
    assert weights(final) == weights(by_hand)
    assert weights(final) != weights(measured)


def test_lists_of_a_final_run_hold_no_item_of_the_log(log_file, measured, final, capsys):
    rows = log_file.read_text().splitlines()[1:]
    seen = {tuple(row.split(",")[:2]) for row in rows}

    def listed(folder: Path) -> set[tuple[str, str]]:
        assert run(["recommend", str(folder), "--all-users", "-k", "40", "--format", "csv"]) == 0
        out, err = capsys.readouterr()
        assert ("train with --final" in err) == (folder == measured)
        return {tuple(row.split(",")[:2]) for row in out.splitlines()[1:]}

    assert len(listed(final)) == 25 * 40 - len(seen)
    assert not seen & listed(final)
    assert len(seen & listed(measured)) == 25  # the test items


def test_a_training_that_stopped_in_its_final_stage_resumes_there(
    log_file, final, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "r"
    kept = out / "checkpoints" / "measured"
    words = ["train", str(log_file), "--out", str(out), "--quiet", *FAST, "--final"]
    with interrupted(monkeypatch, kept.is_dir):
        assert run(words) == 130
    assert "--resume to go on" in capsys.readouterr().err
    assert cr.load_model(kept).run.metrics == json.loads((final / "metrics.json").read_text())
    for change in (["--seed", "1"], ["--model", "mf"]):
        assert run([*words, "--resume", *change]) == 2
        assert cr.load_model(kept).run.metrics is not None
    assert run([*words, "--resume"]) == 0
    assert weights(out) == weights(final)
    assert (out / "metrics.json").read_bytes() == (final / "metrics.json").read_bytes()
    assert cr.load_model(out).run.final
    assert not (out / "checkpoints").exists()


def test_a_measured_run_is_kept_when_the_final_training_fails(
    log_file, measured, tmp_path, monkeypatch, capsys
):
    solve = fit.stages_of

    def fails(config, data):
        if not isinstance(data, Split):
            raise NonFiniteError("the loss is not finite")
        return solve(config, data)

    out = tmp_path / "r"
    words = ["train", str(log_file), "--out", str(out), "--quiet", *FAST]
    with monkeypatch.context() as patch:
        patch.setattr(fit, "stages_of", fails)
        assert run([*words, "--final"]) == 1
    assert "the measured run is kept in" in capsys.readouterr().err
    assert run([*words, "--resume"]) == 0  # without --final, the measured run is the result
    assert weights(out) == weights(measured)
    assert not cr.load_model(out).run.final


def test_final_is_refused_before_any_training(log_file, measured, tmp_path, capsys):
    words = ["train", str(log_file), "--out", str(tmp_path / "r"), "--final"]
    assert run([*words, "--all"]) == 2
    assert "remove --final or --all" in capsys.readouterr().err
    start = ["--model", "fism", "--init-from", str(measured)]
    assert run([*words, *start]) == 2
    assert "two runs of each model" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_final_takes_two_initial_runs_of_each_model(log_file, tmp_path):
    same = ["--set", "train.epochs=1", "--set", "model.embedding_dim=8"]
    words = ["train", str(log_file), "--quiet", *same]
    mf, mf_all, out = (str(tmp_path / name) for name in ("mf", "mf-all", "r"))
    assert run([*words, "--model", "mf", "--out", mf]) == 0
    assert run([*words, "--model", "mf", "--out", mf_all, "--all"]) == 0
    starts = ["--init-from", mf, "--init-from", mf_all]
    words += ["--model", "convncf", "--set", "model.channels=2"]
    assert run([*words, *starts, "--final", "--out", out]) == 0
    assert cr.load_model(out).run.final


def shop_log(path: Path, users: int = 800, themes: int = 12, per_theme: int = 4) -> Path:
    """Write the log of a made-up shop in which co-purchases say all.

    Each user buys 5 of the 8 items of each of 3 themes, and neighbouring themes share 4 items. Then
    there are 20 staples that most users buy, whatever their themes. An autoencoder discounts the
    staples and learns the themes.
    """
    rng = np.random.default_rng(0)
    n_items, rows = themes * per_theme, []
    for user in range(users):
        bought: set[int] = set()
        for theme in rng.choice(themes, 3, replace=False).tolist():
            items = (theme * per_theme + np.arange(2 * per_theme)) % n_items
            bought |= set(rng.choice(items, 5, replace=False).tolist())
        staples = n_items + np.flatnonzero(rng.random(20) < np.linspace(0.9, 0.3, 20))
        items = [*staples.tolist(), *rng.permutation(sorted(bought)).tolist()]
        rows += [f"{user},{item},{len(rows) + place}" for place, item in enumerate(items)]
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


def test_train_says_when_ease_is_ahead_and_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    log, out = shop_log(tmp_path / "shop.csv"), str(tmp_path / "r")
    words = ["train", str(log), *FAST, "--set", "train.epochs=1", "--set", "blend.model=none"]
    assert run([*words, "--out", out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ease is ahead of comet on the validation items: train with --model ease" in lines
    first = next(i for i, line in enumerate(lines) if line.startswith("NDCG@10     test sampled"))
    assert [line.split()[0] for line in lines[first + 1 : first + 5]] == [
        "comet", "popularity", "itemknn", "ease",
    ]  # fmt: skip
    assert max(map(len, lines[first : first + 6])) <= 80
    assert run([*words[:2], "--model", "ease", "--out", out + "2"]) == 0
    assert "ease is ahead of every yardstick" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--no-yardsticks", "--all"])
def test_yardsticks_can_be_left_out(log_file, tmp_path, capsys, option):
    words = ["train", str(log_file), "--out", str(tmp_path / "r"), *FAST, option]
    assert run([*words, "--set", "blend.model=none"]) == 0
    assert "itemknn" not in capsys.readouterr().out
    assert cr.load_model(tmp_path / "r").run.yardsticks is None


def test_a_time_limit_ends_with_a_complete_run(log_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "_seconds", lambda text: 0.0)
    out = tmp_path / "r"
    words = ["train", str(log_file), "--out", str(out), "--quiet", *FAST, "--final"]
    assert run([*words, "--time-limit", "1s"]) == 0
    assert "time limit: comet was trained for 1 of 2 epochs" in capsys.readouterr().err
    model = cr.load_model(out)
    assert model.run.final
    assert model.run.epochs == 1
    assert not (out / "checkpoints").exists()


def test_a_long_training_is_estimated_before_it_begins(log_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "LEAST_ESTIMATE", 0.0)
    words = ["train", str(log_file), "--out", str(tmp_path / "r"), *FAST, "--time-limit", "2h"]
    assert run(words) == 0
    lines = capsys.readouterr().err.splitlines()
    estimate = next(i for i, line in enumerate(lines) if line.startswith("training takes"))
    assert lines[estimate].endswith("the limit is 2 h 00 min")
    assert "epoch 1/" in lines[estimate + 1]


def test_time_limits_are_written_in_hours_minutes_and_seconds(tmp_path, capsys):
    limits = {"90s": 90, "5m": 300, "2h": 7200, "1h30m": 5400, "1h1m1s": 3661}
    assert {text: train._seconds(text) for text in limits} == limits
    for wrong in ("", "5", "0s", "m", "-5m", "1m1h", "five"):
        words = ["train", "ml-100k", "--out", str(tmp_path / "r"), f"--time-limit={wrong}"]
        assert run(words) == 2
        assert "write it as 90s, 5m" in capsys.readouterr().err


def test_a_trained_model_is_not_lost_when_the_yardsticks_are_interrupted(
    log_file, measured, tmp_path, monkeypatch
):
    from comet_rec.estimators.estimator import Estimator

    def interrupts(self):
        raise KeyboardInterrupt

    out = tmp_path / "r"
    words = ["train", str(log_file), "--out", str(out), "--quiet", *FAST]
    with monkeypatch.context() as patch:
        patch.setattr(Estimator, "yardsticks", interrupts)
        assert run(words) == 130
        patch.setattr(fit, "stages_of", interrupts)  # nothing is trained again
        assert run([*words, "--resume", "--no-yardsticks"]) == 0
    assert weights(out) == weights(measured)
    assert (out / "metrics.json").read_bytes() == (measured / "metrics.json").read_bytes()


def test_evaluate_shows_the_stored_figures_of_a_final_run(final, capsys):
    assert run(["evaluate", str(final), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((final / "metrics.json").read_text())
    assert "knows all rows" in shown.err
