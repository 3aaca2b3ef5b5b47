"""Several processes: losses, figures, tables and checkpoints are those of one process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import comet_rec as cr
from comet_rec import processes
from comet_rec.artefact.parts import save_parts
from comet_rec.data.batch_parts import compacted, part_of_users
from comet_rec.errors import ArtefactError, TrainingInterrupted
from comet_rec.estimators import presets
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.models import base
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import batches_of, fit
from comet_rec.training.losses import objective
from comet_rec.training.tables import Layout
from tests.conftest import checkerboard_log
from tests.models.test_contract import SMALL
from tests.processes import Group, group

CPU = torch.device("cpu")
SPARSE = {"train.table_optimizer": "sparse_adam", "train.average": 0.9}
SOFTMAX = {"train.loss": "softmax", "train.softmax_items": 20}
NO_DROPOUT = {"model.dropout": 0.0, "model.id_embedding_dropout": 0.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "comet": ("comet", NO_DROPOUT | {"train.average": 0.9}),
    "comet sparse": ("comet", NO_DROPOUT | SPARSE),
    "comet layers": ("comet", {"model.dropout": 0.0} | SPARSE | SOFTMAX),
    "comet full softmax": ("comet", NO_DROPOUT | {"train.loss": "softmax"}),
    "mf bpr": ("mf", {"train.loss": "bpr", "train.weight_decay": 1e-3}),
    "mf sparse sum": ("mf", SPARSE | {"train.reduction": "sum", "train.weight_decay": 1e-4}),
    "mf tables alone": ("mf", SPARSE | {"model.biases": False}),
    "fism softmax": ("fism", SPARSE | SOFTMAX | {"train.mask_known_positives": True}),
    "sasrec": ("sasrec", {"model.dropout": 0.0} | SPARSE),
    "svdpp": ("svdpp", SPARSE),
}


def config_of(case: str, log: cr.Interactions) -> Any:
    name, changes = CASES[case]
    small = SMALL.get(name, {}) | {"preset": "static", "batch_size": 128, "epochs": 3}
    if case == "comet layers":
        small = {"preset": "best", "embedding_dim": 8, "history_length": 8, "batch_size": 128}
        changes = {"blend.model": "none", "train.matmul_precision": "highest"} | changes
        changes |= {"train.epochs": 3, "train.sampling": "uniform"}
    config = ESTIMATORS[name](**small).config_for(log)
    known = config.setting_names()
    return config.with_settings({key: value for key, value in changes.items() if key in known})


def small_split() -> cr.Split:
    return cr.leave_one_out(checkerboard_log(), negatives=30)


def trained(case: str) -> dict[str, Any]:
    """Losses of all steps, figures and scores of a training of a few epochs."""
    split = small_split()
    losses: list[float] = []

    def report(stage: str, progress: Any) -> None:
        losses.append(progress.loss)

    run = fit(config_of(case, split.interactions), split, hooks=Hooks(report=report))
    report_ = measure(run, split)
    return {
        "losses": np.array(losses),
        "validation": [line["validation"] for line in run.log],
        "test": dict(report_.sampled) | {f"full {k}": v for k, v in (report_.full or {}).items()},
        "scores": (run.user_vectors @ run.item_vectors.T).numpy(),
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with group(2, tmp_path_factory.mktemp("pair")) as members:
        yield members


def test_parts_of_a_batch_add_up_to_it():
    log = checkerboard_log()
    for case in CASES:
        config = config_of(case, log)
        model = base.build(config.name, config.model, log.n_users, log.n_items, 0)
        batch = next(iter(batches_of(log, config, model).epoch(0)))
        summed = replace(config.train, reduction="sum")
        whole, _ = objective(model, batch, summed, None)
        owners = Layout(log.n_users, 3).owners(batch.users).numpy()
        assert np.bincount(owners, minlength=3).min() > 0
        parts = [part_of_users(batch, owners == process) for process in range(3)]
        assert sum(part.positives for part in parts) == batch.positives
        total = sum(objective(model, part, summed, None)[0].item() for part in parts)
        assert total == pytest.approx(whole.item(), rel=2e-6), case
        for part in parts:
            full, _ = objective(model, part, summed, None)
            small, rows = compacted(part, log.n_users)
            roles = base.table_roles(type(model), config.model)
            kept = {name: p.data for name, p in model.named_parameters() if name in roles}
            for name, parameter in model.named_parameters():
                if name in roles:
                    parameter.data = kept[name][rows[roles[name]]]
            assert objective(model, small, summed, None)[0] == full, case
            for name, parameter in model.named_parameters():
                if name in roles:
                    parameter.data = kept[name]


def test_a_model_may_consist_of_tables_alone():
    model = cr.MF(
        preset="static", biases=False, embedding_dim=4, epochs=2, average=0.9,
        table_optimizer="sparse_adam",
    )  # fmt: skip
    losses = [line["loss"] for line in model.fit(small_split()).run.log]
    assert losses[1] < losses[0]


def test_a_model_of_tables_alone_resumes_in_two_processes(pair: Group, tmp_path):
    undisturbed = stopped(str(tmp_path / "a"), "mf tables alone", 10**6, False)
    assert undisturbed is not None
    assert pair(stopped, str(tmp_path / "b"), "mf tables alone", 20, False)[0] is None
    for result in pair(stopped, str(tmp_path / "b"), "mf tables alone", 10**6, True):
        assert np.allclose(result["log"], undisturbed["log"], rtol=1e-5)


def test_presets_update_large_tables_by_rows(monkeypatch):
    log = checkerboard_log()
    assert cr.MF().config_for(log).train.table_optimizer == "adam"
    monkeypatch.setattr(presets, "BY_ROWS", 100)
    assert cr.MF(preset="static").config_for(log).train.table_optimizer == "sparse_adam"
    assert cr.MF(preset="paper").config_for(log).train.table_optimizer == "adam"
    chosen = cr.MF(preset="static", table_optimizer="adam").config_for(log)
    assert chosen.train.table_optimizer == "adam"
    softmax = cr.MF(preset="static", loss="softmax").config_for(log)
    assert softmax.train.table_optimizer == "adam"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot be written"):
        save_parts(tmp_path / "file" / "parts", {"a/values": torch.zeros(2)}, {"a/values": 2})


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100, 1_000])
def test_each_row_has_one_place_and_one_owner(rows):
    layout = Layout(rows, 3)
    places = layout.places(torch.arange(rows))
    assert sorted(places.tolist()) == list(range(rows))
    owned = [layout.own(process) for process in range(3)]
    assert sorted(torch.cat(owned).tolist()) == list(range(rows))
    for process, own in enumerate(owned):
        assert (layout.owners(own) == process).all()
        assert layout.places(own).tolist() == sorted(layout.places(own).tolist())
    if rows == 1_000:  # neighbouring rows are spread
        owners = layout.owners(torch.arange(30))
        assert torch.bincount(owners, minlength=3).min() >= 8


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_model_of_one(pair: Group, case):
    one = trained(case)
    for other in pair(trained, case):
        assert np.allclose(other["losses"], one["losses"], rtol=1e-5, atol=0)
        for name, value in one["test"].items():
            assert other["test"][name] == pytest.approx(value, abs=0.01), name
        # Single parameters may differ: Adam makes steps of gradients that are rounding errors.
        assert np.corrcoef(other["scores"].ravel(), one["scores"].ravel())[0, 1] > 0.999


def stopped(folder: str, case: str, after: int, resume: bool) -> dict[str, Any] | None:
    """A training that is stopped after some steps, or resumed; with the state that it ends in."""
    split, steps = small_split(), []
    hooks = Hooks(
        report=lambda stage, progress: steps.append(progress.batch),
        stop=lambda: processes.rank() == 0 and len(steps) >= after,
        checkpoints=Path(folder),
        resume=resume,
    )
    try:
        run = fit(config_of(case, split.interactions), split, hooks=hooks)
    except TrainingInterrupted:
        return None
    state = {name: value.numpy().copy() for name, value in run.state.items()}
    return state | {"log": [line["loss"] for line in run.log]}


@pytest.mark.parametrize("case", ["comet", "comet sparse"])
def test_a_training_resumes_with_another_number_of_processes(pair: Group, case, tmp_path):
    undisturbed = stopped(str(tmp_path / "whole"), case, 10**6, False)
    assert undisturbed is not None
    for name, first, second in (("2 to 1", pair, None), ("1 to 2", None, pair)):
        folder = str(tmp_path / name)
        arguments = folder, case, 20, False
        assert (first(stopped, *arguments) if first else [stopped(*arguments)])[0] is None
        arguments = folder, case, 10**6, True
        results = second(stopped, *arguments) if second else [stopped(*arguments)]
        for result in results:
            for key, value in undisturbed.items():
                assert np.allclose(result[key], value, atol=2e-3, rtol=1e-4), (name, key)


def test_one_process_resumes_to_the_same_bits(tmp_path):
    undisturbed = stopped(str(tmp_path / "a"), "comet sparse", 10**6, False)
    assert stopped(str(tmp_path / "b"), "comet sparse", 20, False) is None
    resumed = stopped(str(tmp_path / "b"), "comet sparse", 10**6, True)
    assert undisturbed is not None
    assert resumed is not None
    for key, value in undisturbed.items():
        assert np.array_equal(resumed[key], value), key


class Planted:
    """A pickle of it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_planted_pickle_is_not_executed(tmp_path):
    folder = tmp_path / "checkpoints"
    assert stopped(str(folder), "comet sparse", 20, False) is None
    (parts,) = folder.glob("tables-*")
    for name in (".metadata", "shard-00001.metadata"):
        (parts / name).write_bytes(pickle.dumps(Planted(tmp_path / "executed")))
    (parts / "__0_0.distcp").write_bytes(pickle.dumps(Planted(tmp_path / "executed")))
    assert stopped(str(folder), "comet sparse", 10**6, True) is not None
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["flip", "missing", "more", "swap", "link"])
def test_damaged_parts_are_refused(tmp_path, damage):
    folder = tmp_path / "checkpoints"
    assert stopped(str(folder), "mf sparse sum", 20, False) is None
    (parts,) = folder.glob("tables-*")
    (file,) = parts.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    elif damage == "more":
        (parts / "more.safetensors").write_bytes(content)
    elif damage == "swap":
        save_file({"user_embedding/values": torch.zeros(3)}, file)
    else:
        parts.rename(tmp_path / "elsewhere")
        parts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="remove the folder and train again"):
        stopped(str(folder), "mf sparse sum", 10**6, True)
