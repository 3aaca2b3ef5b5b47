"""Curves of a training: the picture in the run, and what TensorBoard and MLflow receive."""

import json

import numpy as np
import pytest

from comet_rec.artefact.run import load_run
from comet_rec.cli import tracking
from comet_rec.cli.app import run
from comet_rec.estimators.registry import load_model
from comet_rec.experiments import plots
from tests.conftest import random_pairs

FAST = ["--model", "fism", "--set", "train.epochs=3", "--set", "protocol.negatives=9", "--quiet"]


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    pairs = random_pairs(np.random.default_rng(0), 25, 40, 8)
    rows = [f"u{u},{i + 100},{t}" for t, (u, i) in enumerate(pairs.tolist())]
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return str(path)


def train(log_file, out, *more):
    return run(["train", log_file, "--out", str(out), *FAST, *more])


def metrics(out):
    return load_run(out).metrics


def test_curves_are_a_file_of_the_run(log_file, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot draws the curves")
    assert train(log_file, tmp_path / "run") == 0
    picture = tmp_path / "run" / "curves.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "curves.png" in manifest["files"]
    load_model(tmp_path / "run").save(tmp_path / "run")  # replaces a run that has a picture
    assert not picture.exists()


def test_without_matplotlib_the_run_has_no_picture_and_nothing_is_said(
    log_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert train(log_file, tmp_path / "run") == 0
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "run" / "curves.png").exists()


def test_models_without_epochs_have_no_curves(log_file, tmp_path):
    words = ["train", log_file, "--out", str(tmp_path / "run"), "--model", "ease", "--quiet"]
    assert run(words) == 0
    assert not (tmp_path / "run" / "curves.png").exists()


def test_tensorboard_receives_curves_and_test_metrics(log_file, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(log_file, tmp_path / "shop", "--tracker", "tensorboard") == 0
    events = EventAccumulator(str(tmp_path / "shop.tensorboard"))
    events.Reload()
    log = load_run(tmp_path / "shop").log
    loss = [(each.step, each.value) for each in events.Scalars("validation/training_loss")]
    assert loss == [(line["epoch"], pytest.approx(line["loss"])) for line in log]
    chosen = [each.value for each in events.Scalars("validation/NDCG_10")]
    assert chosen == pytest.approx([line["validation"]["NDCG@10"] for line in log])
    (tested,) = events.Scalars("test_full/NDCG_10")
    assert tested.value == pytest.approx(metrics(tmp_path / "shop")["full"]["NDCG@10"])


@pytest.mark.filterwarnings("ignore")  # of MLflow's own dependencies
def test_mlflow_receives_curves_settings_and_test_metrics(log_file, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    assert train(log_file, tmp_path / "shop", "--tracker", "mlflow") == 0
    (record,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert (record.info.run_name, record.info.status) == ("shop", "FINISHED")
    assert record.data.params["train.epochs"] == "3"
    tested = metrics(tmp_path / "shop")["sampled"]["HR@10"]
    assert record.data.metrics["test_sampled/HR_10"] == pytest.approx(tested)
    client = mlflow.MlflowClient()
    history = client.get_metric_history(record.info.run_id, "validation/training_loss")
    losses = [line["loss"] for line in load_run(tmp_path / "shop").log]
    assert [each.value for each in sorted(history, key=lambda each: each.step)] == losses


def test_an_unknown_or_missing_tracker_is_refused_before_the_training(
    log_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert train(log_file, tmp_path / "run", "--tracker", "mlflow") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install "comet-rec[mlflow]"' in line
    assert train(log_file, tmp_path / "run", "--tracker", "tensorbord") == 2
    assert "did you mean 'tensorboard'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Failing:
    """A tracker that fails at the second epoch."""

    closed: list[bool]

    def __init__(self, out):
        Failing.closed = []

    def figures(self, values, epoch):
        if epoch == 2:
            raise ConnectionError("the server is away")

    def settings(self, values):
        raise AssertionError("sent after the fault")

    def close(self, *, failed):
        Failing.closed.append(failed)


def test_a_fault_of_a_tracker_is_told_and_the_training_goes_on(
    log_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(tracking.SINKS, "mlflow", Failing)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    assert train(log_file, tmp_path / "run", "--tracker", "mlflow") == 0
    assert "mlflow: the server is away; the training goes on without it" in capsys.readouterr().err
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_a_refused_training_closes_the_record_as_failed(log_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(tracking.SINKS, "mlflow", Failing)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    words = [
        "--tracker",
        "mlflow",
        "--set",
        "train.loss=softmax",
        "--set",
        "train.learning_rate=1e30",
    ]
    assert train(log_file, tmp_path / "run", *words) != 0
    assert Failing.closed == [True]
    assert "learning" in capsys.readouterr().err


def test_a_tracker_that_does_not_open_is_refused_before_the_training(
    log_file, tmp_path, monkeypatch, capsys
):
    def refuse(out):
        raise OSError("no route to the server")

    monkeypatch.setitem(tracking.SINKS, "mlflow", refuse)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    assert train(log_file, tmp_path / "run", "--tracker", "mlflow") == 2
    assert "no route to the server; fix it, or leave --tracker out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
