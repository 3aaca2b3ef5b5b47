"""The paper's tables and figures on a tiny log: what the report holds; no stop changes it."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli.app import run
from comet_rec.cli.reproduce import ended_line
from comet_rec.errors import ConfigError, DataError, TrainingInterrupted
from comet_rec.estimators import presets
from comet_rec.estimators.presets import preset
from comet_rec.estimators.registry import load_model
from comet_rec.experiments import jobs, paper, plans, records
from comet_rec.experiments.jobs import Job, finished, kernels_of, trained
from comet_rec.experiments.logs import StudyLog, has_ties, read_logs, reordered, tied_share
from comet_rec.experiments.plans import FULL, PARTS, SMOKE, Budget, Planner, parts_of
from comet_rec.experiments.records import Record
from comet_rec.experiments.reproduce import Study, reproduce
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.tables import compared_cell
from tests.conftest import checkerboard_log, make_log, random_pairs

TINY = Budget(
    name="smoke",
    logs=(),
    seeds=2,
    neural={"model.embedding_dim": 8, "train.epochs": 1, "train.refit": False},
    models={
        "comet": {"model.history_length": 6, "model.hidden": (8,)},
        "mlp": {"model.hidden": (8,)},
        "neumf": {"model.hidden": (8,)},
        "convncf": {"model.channels": 2},
    },
    dims=(4, 8),
)
SOME = ["table1", "table2", "figure4", "figure5", "reliability"]


def small_log():
    return make_log(random_pairs(np.random.default_rng(0), 24, 40, 7), n_items=40)


def study(folder: Path, parts: list[str] = SOME, **more) -> Study:
    gone = StudyLog("amazon-cds", "CDs&Vinyl", None, "not available here: no network")
    log = StudyLog("small", "small", cr.leave_one_out(small_log(), negatives=20))
    return Study(parts, [log, gone], TINY, 2, folder, **more)


def report_of(folder: Path) -> dict:
    """The report without what no two runs share: seconds."""
    text = (folder / "report.json").read_text()
    text = re.sub(r'"(train_|evaluation_)?seconds": [\d.]+', '"seconds": 0', text)
    data = json.loads(text)
    for section in data["sections"].values():
        for table in section["tables"]:
            for name in ("seconds", "seconds a seed"):
                if name in table["columns"]:
                    for row in table["rows"]:
                        row[table["columns"].index(name)] = ""
    return data


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    reproduce(study(folder), "a command")
    return folder


def test_the_report_holds_every_model_and_says_what_was_not_run(written):
    data = report_of(written)
    assert list(data["sections"]) == ["summary", *SOME, "settings", "audit"]
    summary = data["sections"]["summary"]
    assert "CDs&Vinyl: not run: not available here: no network." in summary["text"]
    rows = {row[0]: row[1:] for row in summary["tables"][0]["rows"]}
    missing = "0 of 8 rows; 32 not run"
    assert rows["Tables II and III: eight algorithms"] == ["11 of 11 rows", missing]
    trained = data["sections"]["settings"]["tables"][0]
    of = {row[0]: dict(zip(trained["columns"], row, strict=True)) for row in trained["rows"]}
    assert of["BCE-MF"]["seeds"] == "2"
    assert of["BCE-MF"]["K"] == "8"
    assert of["EASE"]["K"] == ""
    models = data["sections"]["table2"]["data"]["small"]
    expected = {"Popularity", "ItemKNN", "EASE", *paper.ALGORITHMS, "differences"}
    assert set(models) == expected
    for label in paper.ALGORITHMS:
        cells = models[label]["cells"]
        assert len(cells["HR@10"]["seeds"]) == 2
        assert cells["HR@10"]["paper"] is None  # another log than the paper's
    not_run = data["sections"]["table2"]["tables"][1]
    assert not_run["title"] == "CDs&Vinyl (not run)"
    assert len(not_run["rows"]) == 8
    assert data["verdicts"]["table2"] == {"not run": 32}
    assert all(item["state"] == "done" for item in data["trainings"])
    page = (written / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")  # opens without a network
    for name in ("figure4", "figure5", "reliability"):
        assert (written / f"{name}.png").is_file()
        assert (written / f"{name}.svg").is_file()


def test_a_finished_training_is_not_repeated(written, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("trained again")

    before = report_of(written)
    monkeypatch.setattr("comet_rec.experiments.runner.carry_out", refuse)
    reproduce(study(written), "a command", figures=False)
    assert report_of(written) == before


def test_stops_change_nothing(written, tmp_path):
    rng = random.Random(0)
    stops = 0
    while True:
        left = rng.randrange(1, 40)

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        try:
            reproduce(study(tmp_path, stop=stop), "a command", figures=False)
            break
        except TrainingInterrupted:
            stops += 1
            left = 10**9
    assert stops >= 3
    assert report_of(tmp_path) == report_of(written)


def test_a_model_that_cannot_be_trained_has_its_reason_in_its_cell(tmp_path, monkeypatch):
    def fail(job, *rest):
        raise ConfigError("no such luck")

    monkeypatch.setattr("comet_rec.experiments.runner.carry_out", fail)

    lines = []

    def tell(item, items):
        lines.append(ended_line(item, items))

    reproduce(study(tmp_path, ["figure4"], tell=tell), "a command", figures=False)
    figure = report_of(tmp_path)["sections"]["figure4"]
    assert figure["tables"] == []
    why = "small, not run: COMET, original only, interaction only (no such luck)."
    assert why in figure["text"]
    assert [line.split()[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("failed no such luck" in line for line in lines)


def test_a_start_that_failed_takes_its_model_with_it(tmp_path, monkeypatch):
    from comet_rec.experiments import runner

    whole = runner.carry_out

    def fail(job, *rest):
        if job.model == "gmf":
            raise ConfigError("no such luck")
        return whole(job, *rest)

    monkeypatch.setattr(runner, "carry_out", fail)
    split = cr.leave_one_out(small_log(), negatives=20)
    job = Planner("small", split.interactions, TINY).job("NeuMF", "neumf-p")
    queue = Runner({"small": split}, tmp_path, 1)
    queue.add([job])
    queue.run()
    assert queue.record(job) == "gmf before NeuMF: no such luck"


def test_a_dear_training_has_one_seed(tmp_path, monkeypatch):
    monkeypatch.setattr("comet_rec.experiments.runner.DEAR", -1.0)
    split = cr.leave_one_out(small_log(), negatives=20)
    job = Job("small", "MF", "mf", "paper", (("train.epochs", 1),))
    queue = Runner({"small": split}, tmp_path, 3)
    queue.add([job], seeded=True)
    queue.run()
    assert [item.state for item in queue.items] == ["done", "left out", "left out"]
    assert len(queue.seeds_of(job)) == 1


@pytest.mark.parametrize(
    ("seconds", "only", "done"),
    [
        ((1_500.0, 1_500.0, 1.0), (), set()),  # a start that is dear alone
        ((700.0, 700.0, 800.0), (), {"BCE-MF"}),  # or with what it is for
        ((9.0, 700.0, 800.0), ("ConvNCF",), {"mf before ConvNCF", "ConvNCF"}),
        ((9.0, 9.0, 8.0), (), {"BCE-MF", "mf before ConvNCF", "ConvNCF"}),
    ],
)  # fmt: skip
def test_a_further_seed_is_trained_where_a_row_that_needs_it_has_one(
    tmp_path, monkeypatch, seconds, only, done
):
    def pretend(job, *rest):
        labels = ("BCE-MF", "mf before ConvNCF", "ConvNCF")
        spent = seconds[labels.index(job.label)]
        return Record({"train_seconds": spent, "sampled": {"HR@10": 0.5}}, "key")

    monkeypatch.setattr("comet_rec.experiments.runner.carry_out", pretend)
    split = cr.leave_one_out(small_log(), negatives=20)
    rows = [j for j in Planner("small", split.interactions, TINY).algorithms()
            if j.label in ("ConvNCF", "BCE-MF")]  # fmt: skip
    queue = Runner({"small": split}, tmp_path, 2, only=only)
    queue.add(rows, seeded=True)
    queue.run()
    assert not queue.failed
    assert {i.job.label for i in queue.items if i.job.seed == 1 and i.state == "done"} == done


def test_kept_records_stand_for_their_trainings_until_weights_are_needed(tmp_path):
    split = cr.leave_one_out(small_log(), negatives=20)
    planner = Planner("small", split.interactions, TINY)
    comet, neumf = planner.job("COMET", "comet"), planner.job("NeuMF", "neumf-p")

    def queue(*jobs):
        made = Runner({"small": split}, tmp_path, 1)
        made.add(jobs)
        made.run()
        return made

    before = queue(comet, neumf)
    ranks = {name: values.copy() for name, values in before.record(neumf).ranks.items()}
    runs = {path.name for path in (tmp_path / "runs").iterdir()}
    shutil.rmtree(tmp_path / "runs")

    again = queue(comet, neumf)
    assert not (tmp_path / "runs").exists()
    assert again.record(comet).values == before.record(comet).values
    assert {item.state for item in again.items} == {"done"}

    records.rewrite(tmp_path / "records" / "small.zip", remove=[neumf.key(split)])
    third = queue(comet, neumf)  # what it starts from is trained again, for its parameters
    assert {path.name for path in (tmp_path / "runs").iterdir()} == runs - {comet.key(split)}
    found = third.record(neumf).ranks
    assert all((found[name] == values).all() for name, values in ranks.items())


def test_a_training_that_two_parts_share_may_be_named_as_in_either(tmp_path):
    log = small_log()
    split, planner = cr.leave_one_out(log, negatives=20), Planner("small", log, FULL)
    labels = "COMET, best without a taste", "+ refit"
    shared = [j for j in (*planner.beyond(), *planner.ablation()) if j.label in labels]
    assert len({job.key(split) for job in shared}) == 1
    for label in labels:
        queue = Runner({"small": split}, tmp_path, 1, only=(label,))
        queue.add(planner.beyond())
        queue.add(planner.ablation())
        queue.check()
        queue._leave_out_unasked()
        assert [item.job.key(split) for item in queue.items if item.state == "waiting"] == [
            shared[0].key(split)
        ]


def test_only_trains_what_is_asked_for_and_shows_the_rest_that_is_there(tmp_path):
    first = study(tmp_path, ["table2"], only=["EASE"])
    reproduce(first, "a command")
    assert {i.job.label for i in first.runner.items if i.state == "done"} == {"EASE"}

    second = study(tmp_path, ["table2"], only=["NeuMF"])
    reproduce(second, "a command")
    done = {i.job.label for i in second.runner.items if i.state == "done"}
    assert done == {"EASE", "NeuMF", "GMF", "MLP"}  # it starts from the last two
    text = (tmp_path / "report.md").read_text()
    assert "FISM, ConvNCF, COMET (not among the requested models)." in text

    with pytest.raises(ConfigError, match=r"NeuFM.*NeuMF"):
        reproduce(study(tmp_path / "new", ["table2"], only=["NeuFM"]), "a command")
    assert not (tmp_path / "new").exists()


def test_keys_tell_apart_what_differs_and_nothing_else():
    split = cr.leave_one_out(small_log(), negatives=20)
    other = cr.leave_one_out(small_log(), negatives=20, seed=1)
    planner = Planner("small", split.interactions, TINY)
    job = planner.job("COMET", "comet")
    assert job.key(split) == planner.job("another label", "comet").key(split)
    assert job.key(split) != job.key(other)
    assert job.key(split) != planner.job("COMET", "comet", {"model.channels": 3}).key(split)
    plain, start = planner.job("NeuMF", "neumf"), planner.job("NeuMF", "neumf-p")
    assert plain.key(split) != start.key(split)


def test_full_asks_for_the_papers_own_settings(monkeypatch):
    log = make_log(random_pairs(np.random.default_rng(0), 24, 40, 7), n_items=40)
    small = Planner("small", log, FULL)
    assert {job.preset for job in (*small.filters(), *small.figure_3())} == {"static"}
    assert small.filters()[0].estimator().config_for(log).train.refit
    monkeypatch.setattr("comet_rec.experiments.plans.MEDIUM", len(log))
    planner = Planner("ml-1m", log, FULL)
    config = planner.job("COMET", "comet").estimator().config_for(log)
    assert (config.model.embedding_dim, config.model.widths) == (128, (1, 8, 32, 128))
    assert (config.model.history, config.train.loss, config.train.negatives) == (
        "sampled",
        "bce",
        4,
    )
    assert config.train.refit
    values = [
        dict(job.settings)["model.embedding_dim"]
        for job in planner.figure_6()["model.embedding_dim"]
    ]
    assert values == [16, 32, 64, 128]
    whole = planner.filters()[0].estimator().config_for(log)
    assert (whole.model.embedding_dim, whole.train.refit) == (128, True)
    monkeypatch.setattr("comet_rec.experiments.plans.large_tables", lambda log: True)
    for job in (*planner.filters(), *planner.figure_3()):
        config = job.estimator().config_for(log)
        assert (config.model.embedding_dim, config.train.refit) == (64, False)
    for job in planner.figure_4():  # own embeddings alone are not shown the validation rows
        config = job.estimator().config_for(log)
        assert (config.model.embedding_dim, config.train.refit) == (64, True)
    sizes = planner.figure_6()["model.embedding_dim"]
    assert [dict(job.settings)["model.embedding_dim"] for job in sizes] == values
    assert planner.job("COMET", "comet").estimator().config_for(log).train.refit


def test_the_error_of_a_cell_has_a_part_of_users_and_one_of_the_mean_over_seeds():
    assert compared_cell([0.7], [0.01], 100).error == pytest.approx(0.01)
    found = compared_cell([0.7, 0.8], [0.01, 0.03], 100)
    assert found.error == pytest.approx(np.sqrt((0.01**2 + 0.03**2) / 2 + 0.005 / 2))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.7300], "reproduced"),
        ([0.7410, 0.7430], "reproduced"),
        ([0.76], "better"),
        ([0.69], "lower"),
    ],
)
def test_a_verdict_is_two_sided_at_196_standard_errors(values, verdict):
    cell = compared_cell(values, [0.0057] * len(values), 6040, 0.730)
    assert cell.status == verdict
    assert cell.difference == pytest.approx(np.mean(values) - 0.730)
    reach = 1.96 * np.sqrt(cell.error**2 + 0.73 * 0.27 / 6040)
    assert (abs(cell.difference) <= reach) == (verdict == "reproduced")


def test_other_orders_of_ties_change_ties_alone():
    log = checkerboard_log()
    assert not has_ties(log)
    tied = log.__class__(**vars(log) | {"times": log.times // 5})
    assert has_ties(tied)
    assert 0 < tied_share(tied) < 1
    for order in ("random", "item"):
        other = reordered(tied, order)
        assert np.array_equal(other.users, tied.users)
        assert np.array_equal(other.times, tied.times)
        assert not np.array_equal(other.items, tied.items)
        assert sorted(zip(other.users, other.times, other.items, strict=True)) == sorted(
            zip(tied.users, tied.times, tied.items, strict=True)
        )
    by_item = reordered(tied, "item")
    same = (by_item.users[1:] == by_item.users[:-1]) & (by_item.times[1:] == by_item.times[:-1])
    assert (by_item.items[1:][same] > by_item.items[:-1][same]).all()


def test_parts_and_logs_are_checked(tmp_path):
    assert parts_of(["all"]) == list(PARTS)
    assert parts_of(["figure3", "table1"]) == ["table1", "figure3"]
    with pytest.raises(ConfigError, match="unknown part 'tabel2'; did you mean 'table2'"):
        parts_of(["tabel2"])
    with pytest.raises(DataError, match="no such file"):
        read_logs(["nowhere.csv"], {}, lambda line: None)
    assert SMOKE.logs == ("ml-100k",)


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert run(["reproduce", "tabel2", "--out", str(tmp_path)]) == 2
    assert "did you mean 'table2'" in capsys.readouterr().err
    assert run(["reproduce", "all", "--budget", "huge", "--out", str(tmp_path)]) == 2
    assert "unknown budget 'huge'" in capsys.readouterr().err
    words = ["--journal", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert run(["reproduce", "table1", "--data", "nowhere.csv", *words]) == 2
    assert "no such file; give a journal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inspect_draws_the_kernels_of_a_run(written, tmp_path, capsys):
    folders = sorted((written / "runs").glob("small-comet-*"))
    assert run(["inspect", str(folders[0] / "run"), "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"user-kernels.png", "user-kernels.svg"} <= names
    other = next((written / "runs").glob("small-mf-*")) / "run"
    assert run(["inspect", str(other), "--out", str(tmp_path / "x")]) == 0
    assert "the model mf has no filters" in capsys.readouterr().err


@pytest.mark.slow
def test_kills_at_ten_random_moments_change_nothing(tmp_path):
    rows = random_pairs(np.random.default_rng(0), 30, 40, 8).tolist()
    log = tmp_path / "log.csv"
    text = "".join(f"u{u},i{i},{t // 3}\n" for t, (u, i) in enumerate(rows))
    log.write_text("user,item,time\n" + text)

    def command(out: str) -> list[str]:
        words = [
            "reproduce",
            "all",
            "--data",
            str(log),
            "--out",
            str(tmp_path / out),
            "--seeds",
            "1",
        ]
        return [sys.executable, "-m", "comet_rec.cli.app", *words, "--quiet", "--no-figures"]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    whole = time.monotonic() - began
    rng = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 0.5) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    assert report_of(tmp_path / "killed") == report_of(tmp_path / "whole")


@pytest.mark.parametrize("whole", [None, 1_000, 50])
def test_the_ablation_goes_from_the_papers_setting_to_best_a_step_a_row(monkeypatch, whole):
    if whole is not None:  # as on a log of more rows, with tables that fit into a batch or not
        for module in (presets, plans):
            monkeypatch.setattr(module, "MEDIUM", 100)
        monkeypatch.setitem(presets.WHOLE_TABLES, "batch_size", whole)
    monkeypatch.setattr(presets, "MANY", 1)
    log = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), scope="per_user")
    planner = Planner("small", log, FULL)
    jobs = planner.ablation()
    configs = [job.estimator().config_for(log) for job in jobs]
    name = "static" if whole is None else "paper"
    paper_config, best = preset(name, "comet", log), preset("blended", "comet", log)
    plain: dict[str, object] = {"train.refit": False, "train.matmul_precision": "medium"}
    assert configs[0] == replace(paper_config.with_settings(plain), preset="blended")
    assert configs[-1] == best.with_settings({"train.matmul_precision": "medium"})
    assert jobs[-1].key(cr.leave_one_out(log)) == planner.beyond()[0].key(cr.leave_one_out(log))
    for before, after in itertools.pairwise(configs):
        assert before != after
    assert all(not config.train.refit for config in configs[:-3])
    assert configs[-3].train.refit
    assert configs[-3] == planner.beyond()[1].estimator().config_for(log)  # without a blend
    assert [config.train.selection_metric for config in configs[-2:]] == ["sampled", "full"]
    for (before, after), job in zip(itertools.pairwise(configs), jobs[1:], strict=True):
        if before.get("model.embedding_dim") != after.get("model.embedding_dim"):
            assert job.label == f"+ K = {best.get('model.embedding_dim')}"


def test_past_the_paper_stands_what_best_is_without_its_blend(monkeypatch):
    monkeypatch.setattr(presets, "MANY", 1)
    log = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), scope="per_user")
    best, alone, *others = Planner("small", log, FULL).beyond()
    log_of = cr.leave_one_out(log)
    drawn = ("train.selection_metric", "sampled")
    small = ("blend.preset", "paper"), ("blend.embedding_dim", 64)
    plain = replace(best, settings=(*best.settings, drawn, *small))
    assert others[0].key(log_of) == plain.key(log_of) != best.key(log_of)
    assert others[1].label == "COMET, best, by drawn items"
    assert others[1].key(log_of) == replace(best, settings=(*best.settings, drawn)).key(log_of)
    for job, by in zip(others[-2:], ("sampled", "full"), strict=True):  # its FISM by itself
        train = job.estimator().config_for(log).train
        assert (train.loss, train.selection_metric) == ("softmax", by)
    config = best.estimator().config_for(log)
    assert config.blend.model == "fism"
    changes = {
        "blend.model": "none", "train.selection_metric": "sampled"
    }  # fmt: skip
    assert alone.estimator().config_for(log) == config.with_settings(changes)
    without_order = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), times=False)
    labels = [job.label for job in Planner("small", without_order, FULL).beyond()]
    assert alone.label not in labels


def test_past_the_paper_stands_what_a_search_over_the_whole_catalogue_found(monkeypatch):
    monkeypatch.setattr(presets, "MANY", 1)
    log = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), scope="per_user")
    whole = {
        "ease": {"model.l2": 5.0, "train.selection_metric": "full"},
        "comet": {"train.learning_rate": 0.1},  # from `paper`, and this log's COMET is `static`
    }
    planner = Planner("small", log, FULL, {"ease": {"model.l2": 700.0}}, whole)
    found = {job.label: job.estimator().config_for(log) for job in planner.beyond()}
    assert found["EASE"].get("model.l2") == 700.0
    assert found["EASE, by the whole catalogue"].get("model.l2") == 5.0
    assert (
        found["COMET, preset blended"].train.selection_metric == "full"
    )  # of short histories, many users
    assert "COMET, by the whole catalogue" not in found
    assert not any("catalogue" in job.label for job in planner.algorithms())
    long = make_log(random_pairs(np.random.default_rng(0), 5, 90, 50), scope="per_user")
    found_long = {
        job.label: job.estimator().config_for(long).train.selection_metric
        for job in Planner("long", long, FULL).beyond()
    }
    assert found_long["COMET, preset blended"] == "sampled"
    assert found_long["COMET, best, by the whole catalogue"] == "full"
    assert all(
        config.train.selection_metric == "sampled" for config in map(found.get, ("EASE", "FISM"))
    )


def test_past_the_paper_are_figures_with_100_negatives(tmp_path):
    """On a log of more items: what ten draws of as many candidates give in the mean."""
    log = make_log(random_pairs(np.random.default_rng(0), 60, 160, 8), scope="per_user")
    wide = StudyLog("wide", "Wide", cr.leave_one_out(log, negatives=100))
    found = Study(["beyond"], [wide], SMOKE, 1, tmp_path, only=["EASE"])
    reproduce(found, "a command", figures=False)
    data = json.loads((tmp_path / "report.json").read_text())["sections"]["beyond"]
    hr, gain = data["data"]["wide"]["EASE"]["with 100 negatives"]
    file = tmp_path / "records" / "wide.zip"
    (key,) = records.keys(file)
    draws = records.find(file.parent, "wide", key).values["draws"]
    for value, metric in ((hr, "HR@10"), (gain, "NDCG@10")):
        drawn = np.array([draw[metric] for draw in draws])
        assert abs(value - drawn.mean()) < 4 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    columns = data["tables"][0]["columns"]
    assert "HR@10, NDCG@10 with 100" in columns
    assert "with 100 of items of 5 rows, at least" in columns
    assert all(len(row) == len(columns) for row in data["tables"][0]["rows"])
    low, _ = data["data"]["wide"]["EASE"]["with 100 negatives of 5 rows"]
    assert np.bincount(log.items).min() < 5
    assert 0 < low < hr
    assert "full HR@10" in columns


def test_a_row_of_the_ablation_says_that_it_has_steps_above_it_that_were_not_run(tmp_path):
    log = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), scope="per_user")
    logs = [StudyLog("small", "small", cr.leave_one_out(log, negatives=20))]
    labels = [job.label for job in Planner("small", log, TINY).ablation()]
    asked = [labels[0], labels[1], labels[3]]
    found = Study(["ablation"], logs, TINY, 1, tmp_path, only=asked)
    reproduce(found, "a command", figures=False)
    section = json.loads((tmp_path / "report.json").read_text())["sections"]["ablation"]
    shown = [row[0] for row in section["tables"][0]["rows"]]
    assert shown == [*asked[:2], f"{asked[2]}, and the steps not run above it"]
    assert any(f"{labels[2]} (" in text or f"{labels[2]}, " in text for text in section["text"])


def test_a_comet_smaller_than_the_papers_gets_no_verdict(tmp_path, monkeypatch):
    """On the paper's own log, beside models whose size the paper leaves open."""
    log = small_log()
    split = cr.leave_one_out(log, negatives=20)
    counts = replace(paper.LOGS["ml-1m"], users=24, items=40, interactions=len(log))
    monkeypatch.setitem(paper.LOGS, "ml-1m", counts)
    logs = [StudyLog("ml-1m", "ML-1M", split)]
    for folder, budget in (("a", TINY), ("b", replace(TINY, neural={"train.epochs": 1}))):
        found = Study(["table2"], logs, budget, 1, tmp_path / folder, only=["COMET", "GMF"])
        reproduce(found, "a command", figures=False)
    sections = [
        json.loads((tmp_path / folder / "report.json").read_text())["sections"]["table2"]
        for folder in "ab"
    ]
    told = [
        {row[0]: row[1] for row in data["tables"][0]["rows"] if row[0] in ("COMET", "GMF")}
        for data in sections
    ]
    assert [row["COMET"].endswith(": a smaller model") for row in told] == [True, False]
    assert not any("smaller" in row["GMF"] for row in told)
    for data, rows in zip(sections, (["GMF"], ["GMF", "COMET"]), strict=True):
        near = 0
        for label in rows:  # the same rule, by hand
            for other in set(paper.ALGORITHMS) - {label}:
                cells = data["data"]["ml-1m"][label]["cells"].values()
                for of, p in zip(cells, paper.ALGORITHMS[other]["ml-1m"], strict=True):
                    reach = 1.96 * np.sqrt(of["error"] ** 2 + p * (1 - p) / len(split.test))
                    near += abs(of["ours"] - p) <= reach
        assert any(f"would reproduce {near} of {28 * len(rows)}." in text for text in data["text"])


def test_the_ablation_leaves_alone_what_the_budget_settles():
    log = make_log(random_pairs(np.random.default_rng(0), 30, 40, 8), scope="per_user")
    planner = Planner("small", log, SMOKE)
    for job in planner.ablation():
        config = job.estimator().config_for(log)
        for key, value in SMOKE.settings("comet").items():
            assert config.get(key) == value, (job.label, key)


def test_a_damaged_record_counts_for_nothing_and_is_made_anew(tmp_path):
    split = cr.leave_one_out(small_log(), negatives=20)
    job = Job("small", "EASE", "ease", "paper")

    def record():
        queue = Runner({"small": split}, tmp_path, 1)
        queue.add([job])
        queue.run()
        return queue.record(job)

    first = record()
    ranks = first.ranks["better"].copy()
    file = tmp_path / "records" / "small.zip"
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF  # within the compressed figures
    file.write_bytes(data)
    assert finished(job, split, tmp_path) is None
    again = record()
    assert (again.ranks["better"] == ranks).all()
    assert again.values["sampled"] == first.values["sampled"]
    assert records.keys(file) == [job.key(split)]


def test_recorded_starts_of_a_dear_training_are_not_trained_again(tmp_path, monkeypatch):
    split = cr.leave_one_out(small_log(), negatives=20)
    job = Planner("small", split.interactions, TINY).job("NeuMF", "neumf-p")

    def queue(jobs):
        made = Runner({"small": split}, tmp_path, 2)
        made.add(jobs, seeded=True)
        made.run()
        return made

    queue(job.starts)
    first = Runner({"small": split}, tmp_path, 1)
    first.add([job])
    first.run()
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr("comet_rec.experiments.runner.DEAR", -1.0)
    states = {item.job.label: item.state for item in queue([job]).items if item.job.seed == 1}
    assert states["NeuMF"] == "left out"
    assert not (tmp_path / "runs").exists()


def test_a_record_keeps_the_kernels_that_figure_5_shows(tmp_path, monkeypatch):
    first = study(tmp_path, ["figure5"])
    reproduce(first, "a command", figures=False)
    (job,) = first.planner("small").figure_5()
    record = first.runner.record(job)
    state = load_model(trained(job, first.splits["small"], tmp_path)).run.state
    assert record.kernels.keys() == kernels_of(state).keys()
    for name, weights in kernels_of(state).items():
        np.testing.assert_allclose(record.kernels[name], weights, rtol=1e-3, atol=1e-6)

    shutil.rmtree(tmp_path / "runs")  # the record is enough
    report = reproduce(study(tmp_path, ["figure5"], recorded=True), "a command", figures=False)
    (section,) = [s for s in report.sections if s.name == "figure5"]
    assert [d.name for d in section.drawings] == ["figure5"]
    rows = dict(row[:2] for row in report.sections[0].tables[0].rows)  # what was run
    assert rows["Figure 5: learned kernels"] == "drawn"

    records.rewrite(
        tmp_path / "records" / "small.zip", remove=[record.key]
    )  # and one of before kernels were kept says what to do
    monkeypatch.setattr(jobs, "kernels_of", lambda state: {})
    report = reproduce(study(tmp_path, ["figure5"]), "a command", figures=False)
    (section,) = [s for s in report.sections if s.name == "figure5"]
    assert not section.drawings
    assert f"record {record.key} has no kernels" in " ".join(section.text)


def test_a_setting_at_its_default_changes_no_key():
    split = cr.leave_one_out(small_log(), negatives=20)
    plain = Job("small", "MF", "mf", "paper")
    config = plain.estimator().config_for(split.interactions)
    same = replace(plain, settings=(("train.warmup", config.train.warmup),))
    assert same.key(split) == plain.key(split)
    assert all("warmup" not in line for line in config.changed())
    other = config.with_settings({"train.warmup": 0.5})
    assert "train.warmup = 0.5" in other.changed()
