"""The queue of a study: what fails, what is damaged, what time is left, what is audited."""

from __future__ import annotations

import json

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli.app import run
from comet_rec.errors import ConfigError, DataError, InputError
from comet_rec.experiments import records, summary
from comet_rec.experiments import reproduce as study_of
from comet_rec.experiments.jobs import Job, kernels_of, trained
from comet_rec.experiments.logs import StudyLog, read_logs
from comet_rec.experiments.plans import FULL, NON_ITERATIVE, SMOKE, Planner
from comet_rec.experiments.reproduce import Study, reproduce
from comet_rec.experiments.runner import Item, Runner, seconds_left
from tests.conftest import make_log, random_pairs

SHORT = (("train.epochs", 1), ("train.patience", 0), ("model.embedding_dim", 4))
"""Settings of a training that ends soon."""


def small_log():
    return make_log(random_pairs(np.random.default_rng(0), 24, 40, 7), n_items=40)


@pytest.fixture
def split():
    return cr.leave_one_out(small_log(), negatives=20)


@pytest.fixture
def csv(tmp_path):
    rows = random_pairs(np.random.default_rng(0), 24, 40, 7).tolist()
    file = tmp_path / "log.csv"
    file.write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for t, (u, i) in enumerate(rows)))
    return file


def test_a_damaged_run_is_trained_again(split, tmp_path):
    job = Job("small", "MF", "mf", "paper", (("train.epochs", 1), ("train.refit", False)))

    def finish():
        queue = Runner({"small": split}, tmp_path, 1)
        queue.add([job])
        queue.run()
        return queue.record(job)

    first = finish()
    ranks = first.ranks["better"].copy()
    place = trained(job, split, tmp_path)
    weights = place / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    records.rewrite(tmp_path / "records" / "small.zip", remove=[first.key])
    assert (finish().ranks["better"] == ranks).all()
    assert weights.read_bytes() == whole
    assert (place.with_name("run.damaged") / "model.safetensors").is_file()


def test_a_failed_training_ends_the_command_with_1(csv, tmp_path, monkeypatch, capsys):
    def fail(job, *rest):
        raise ConfigError("no such luck")

    monkeypatch.setattr("comet_rec.experiments.runner.carry_out", fail)
    words = ["reproduce", "figure4", "--data", str(csv), "--out", str(tmp_path / "out")]
    assert run([*words, "--no-figures", "--quiet"]) == 1
    assert "3 of 3 trainings failed, first log-csv COMET seed 0: no such luck" in (
        capsys.readouterr().err
    )
    assert (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize("name", ["../evil", "a b", "", "-x", "a/b"])
def test_a_log_is_named_by_what_a_folder_may_be_called(csv, name):
    with pytest.raises(InputError, match="use letters, digits and hyphens"):
        read_logs([f"{name}={csv}"], {}, lambda line: None)


def test_who_names_a_model_gets_all_its_seeds(split, tmp_path, monkeypatch):
    monkeypatch.setattr("comet_rec.experiments.runner.DEAR", -1.0)
    job = Job("small", "MF", "mf", "paper", SHORT)
    queue = Runner({"small": split}, tmp_path, 3, only=["MF"])
    queue.add([job], seeded=True)
    queue.run()
    assert [item.state for item in queue.items] == ["done"] * 3


@pytest.mark.parametrize("model", NON_ITERATIVE)
def test_what_draws_nothing_is_trained_once(split, tmp_path, model):
    jobs = [Job("small", model, model, "paper"), Job("small", "MF", "mf", "paper", SHORT)]
    queue = Runner({"small": split}, tmp_path, 3)
    queue.add(jobs, seeded=True)
    assert [item.job.model for item in queue.items] == [model, "mf", "mf", "mf"]
    queue.run()
    assert [len(queue.seeds_of(job)) for job in jobs] == [1, 3]


def test_the_device_reaches_the_training_and_no_key(split, tmp_path):
    job = Job("small", "EASE", "ease", "paper")
    queue = Runner({"small": split}, tmp_path, 1, device="nowhere")
    queue.add([job])
    queue.run()
    assert "unknown device 'nowhere'" in queue.record(job)
    again = Runner({"small": split}, tmp_path, 1)
    again.add([job])
    again.run()
    assert again.record(job).values["machine"]["device"] == "cpu"


def item(model, state="waiting", seconds=0.0):
    return Item(Job("log", model, model, "paper"), state, "", seconds)


def test_time_left_comes_from_trainings_of_the_same_model_or_else_from_all():
    items = [item("comet"), item("comet"), item("mf")]
    assert seconds_left(items) == 0  # nothing is known of any
    running = [item("comet", "running"), *items]
    assert seconds_left([item("ease", "done", 60.0), *running]) == pytest.approx(3 * 60)
    done = [item("comet", "done", 100.0), item("mf", "done", 10.0), *running]
    assert seconds_left(done) == pytest.approx(2 * 100 + 10)


def test_falsifications_of_budget_full_are_small_and_in_every_seed(split, tmp_path):
    jobs = Planner("small", split.interactions, FULL).falsifications()
    assert [dict(job.settings)["model.embedding_dim"] for job in jobs] == [32] * 6
    study = Study(["falsification"], [StudyLog("small", "small", split)], FULL, 2, tmp_path)
    study.queue()
    queued = [(item.job.label, item.job.seed) for item in study.runner.items]
    assert sorted(queued) == sorted((job.label, seed) for job in jobs for seed in (0, 1))


def test_training_batches_are_audited_once_a_kind(split):
    planner = Planner("small", split.interactions, SMOKE)
    found = study_of.audit_trainings(planner.falsifications(), {"small": split})
    checks = {name: [one.check for one in of] for name, of in found.items()}
    assert checks == {
        "small, training batches of COMET": [],
        "small, training batches of history shuffled": [],
        "small, training batches of target kept in the history": ["target-in-history"],
    }
    page = summary.audit(found)
    assert ["target-in-history", "error"] in [
        row[:2] for table in page.tables for row in table.rows
    ]


def test_a_target_that_nobody_asked_to_keep_ends_the_study(split, monkeypatch):
    from comet_rec.evaluation.audit.findings import Finding

    fault = Finding("target-in-history", "error", 1, 1, "trains on the answer")
    monkeypatch.setattr(study_of, "audit_shown", lambda split, config: [fault])
    planner = Planner("small", split.interactions, SMOKE)
    with pytest.raises(DataError, match="training batches of COMET: target-in-history"):
        study_of.audit_trainings(planner.figure_4(), {"small": split})


def test_a_report_is_json_whatever_is_missing(split, tmp_path):
    """Two models, one of them without full ranks of all users: no order to agree on."""
    wide = StudyLog("small", "small", split)
    study = Study(["reliability"], [wide], SMOKE, 1, tmp_path, only=["Popularity", "MLP"])
    reproduce(study, "a command", figures=False)

    def refuse(word):
        raise AssertionError(word)

    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=refuse)["sections"]["reliability"]["tables"]
    assert "nan" not in (tmp_path / "report.md").read_text()


def test_rows_that_were_not_run_count_by_the_cells_that_the_paper_prints(tmp_path, monkeypatch):
    log = StudyLog("ml-1m", "ML-1M", cr.leave_one_out(small_log(), negatives=20))
    monkeypatch.setattr(StudyLog, "is_the_papers", True)
    found = Study(["table2"], [log], SMOKE, 1, tmp_path, only=["EASE", "BCE-MF"])
    reproduce(found, "a command", figures=False)
    data = json.loads((tmp_path / "report.json").read_text())
    counts = data["verdicts"]["table2"]
    assert counts.pop("not run") == 7 * 4
    assert sum(counts.values()) == 4
    rows = {row[0]: row for row in data["sections"]["table2"]["tables"][0]["rows"]}
    assert rows["COMET"][1] == "paper .558; not run: not among the requested models"
    assert "ItemKNN" not in rows
    assert (
        "ML-1M, not run: Popularity, ItemKNN (not among the requested models)."
        in (data["sections"]["table2"]["text"])
    )
    summary = data["sections"]["summary"]["tables"][0]["rows"]
    whole = [row for row in summary if row[0].startswith("Tables II and III")]
    assert len(whole) == 1
    assert whole[0][1].startswith("2 of 11 rows; ")
    assert whole[0][1].endswith("28 not run")
    cell = data["sections"]["table2"]["data"]["ml-1m"]["BCE-MF"]["cells"]["HR@5"]
    assert f"paper .540, {cell['difference']:+.3f}: {cell['verdict']}" in rows["BCE-MF"][1]


def test_the_kernels_shown_are_the_widest_that_do_not_cover_all():
    torch = pytest.importorskip("torch")
    widths = (1, 4, 8, 16, 32)
    state = {
        f"user_tower.convolution.weights.{n}": torch.zeros(3, 5, width)
        for n, width in enumerate(widths)
    }
    state["item_embedding"] = torch.zeros(7, 32)
    assert list(kernels_of(state)) == [
        f"width {width}, filter {n}" for width in (8, 16) for n in (1, 2)
    ]
    assert kernels_of(state, "item_tower") == {}


def test_recorded_trains_nothing_and_shows_what_is_there(split, tmp_path, monkeypatch):
    log = StudyLog("small", "small", split)
    reproduce(Study(["table2"], [log], SMOKE, 1, tmp_path, only=["EASE"]), "", figures=False)

    def refuse(*arguments):
        raise AssertionError("trained")

    monkeypatch.setattr("comet_rec.experiments.runner.carry_out", refuse)
    study = Study(["table2"], [log], SMOKE, 1, tmp_path, recorded=True)
    reproduce(study, "a command", figures=False)
    states = {item.job.label: item.state for item in study.runner.items}
    assert states.pop("EASE") == "done"
    assert set(states.values()) == {"left out"}
    report = (tmp_path / "report.md").read_text()
    assert "ConvNCF, COMET (not recorded yet)." in report
    assert "| EASE | paper |" in report  # among the settings
