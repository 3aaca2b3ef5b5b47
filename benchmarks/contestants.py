"""Contestants of benchmarks/peers.py: models of this library and of others, with their settings.

Each library is imported by its own contestant alone: the others live in an environment without
comet-rec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Held = Mapping[str, np.ndarray]
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
AfterEpoch = Callable[[], None]


@dataclass(frozen=True)
class Contestant:
    """A model with its settings, before training.

    Parameters
    ----------
    train : callable
        Trains; calls its argument after every epoch, which raises when it is enough.
    score : callable
        Users [B], items [B, C] → scores [B, C] under the present weights.
    save : callable
        Writes the artefact into a folder.
    served : callable or None
        As `score`, with the validation item in the history that the test user is shown.
    """

    train: Callable[[AfterEpoch], object]
    score: Score
    save: Callable[[Path], object]
    served: Score | None = None


def log_of(data: str) -> Any:
    """The log of a catalog name or a file."""
    import comet_rec as cr
    from comet_rec.datasets import catalog

    return cr.load(data) if catalog.is_name(data) else cr.read(data)


def own(model: str, preset: str, settings: Mapping[str, Any], data: str) -> tuple[Held, Contestant]:
    """A model of this library, through the trainer and into the run directory of an estimator."""
    from dataclasses import replace

    import torch

    import comet_rec as cr
    from comet_rec.artefact.run import Run, save_run
    from comet_rec.data.histories import input_histories
    from comet_rec.estimators import presets
    from comet_rec.evaluation.scoring import model_scores, vectors
    from comet_rec.models import base
    from comet_rec.models.interfaces import NonIterative, TwoTower
    from comet_rec.random import torch_seed
    from comet_rec.training.fit import batches_of
    from comet_rec.training.trainer import Trainer, frozen

    split = cr.leave_one_out(log_of(data))
    log, rows, held = split.interactions, split.train, split.arrays()
    config = presets.preset(preset, model, log).with_settings({"train.refit": False, **settings})
    seed = torch_seed(config.seed, "parameters")
    module = base.build(model, config.model, log.n_users, log.n_items, seed)
    histories = (
        None if isinstance(module, NonIterative) else input_histories(rows, module.histories)
    )
    epochs = 0

    def train(after_epoch: AfterEpoch) -> None:
        nonlocal epochs
        if isinstance(module, NonIterative):
            module.fit(rows)
            epochs = 1
            after_epoch()
            return
        trainer = Trainer(
            module, batches_of(rows, config, module), config.train,
            seed=config.seed, device=torch.device("cpu"),
        )  # fmt: skip
        while True:
            epochs += 1
            trainer.run(epochs)  # leaves the averaged weights in the model, where they are kept
            after_epoch()
            if trainer.averaged is not None:
                trainer.averaged.swap()

    def save(folder: Path) -> None:
        towers = isinstance(module, TwoTower)
        users, items = vectors(module, split.known) if towers else (None, None)
        config_of_split = replace(config, protocol=split.protocol)
        save_run(Run(config_of_split, epochs, frozen(module), log, split, users, items), folder)

    return held, Contestant(
        train,
        lambda users, items: model_scores(module, rows, histories).score_pairs(users, items),
        save,
        lambda users, items: model_scores(module, split.known).score_pairs(users, items),
    )


@dataclass(frozen=True)
class Rows:
    """Data for the other libraries: the training rows and the held-out items, as indices."""

    users: np.ndarray
    items: np.ndarray
    n_users: int
    n_items: int
    held: Held
    folder: Path

    @staticmethod
    def read(folder: Path) -> Rows:
        """Read the data that `export` wrote."""
        held = dict(np.load(folder / "rows.npz"))
        n_users, n_items = (int(n) for n in held.pop("shape"))
        return Rows(held.pop("users"), held.pop("items"), n_users, n_items, held, folder)


def export(data: str, folder: Path) -> None:
    """Write the rows for the others: an .npz, and RecBole's files of one row a line."""
    import comet_rec as cr

    split = cr.leave_one_out(log_of(data))
    log = split.interactions
    shape = np.array([log.n_users, log.n_items])
    held = split.arrays()
    np.savez(
        folder / "rows.npz", users=split.train.users, items=split.train.items, shape=shape, **held
    )
    (folder / "log").mkdir()
    parts = {"train": (split.train.users, split.train.items)}
    parts |= {p: (held[f"{p}.users"], held[f"{p}.positives"]) for p in ("validation", "test")}
    for part, (users, items) in parts.items():
        np.savetxt(
            folder / "log" / f"log.{part}.inter", np.column_stack([users, items]), "%d",
            delimiter="\t", header="user_id:token\titem_id:token", comments="",
        )  # fmt: skip


def implicit(name: str, settings: Mapping[str, Any], rows: Rows) -> Contestant:
    """implicit: ALS or BPR; an iteration is an epoch."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # what implicit asks for: it has threads of its own
    from implicit import als, bpr
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")
    ones = np.ones(len(rows.users), dtype=np.float32)
    seen = csr_matrix((ones, (rows.users, rows.items)), shape=(rows.n_users, rows.n_items))
    kinds = {"als": als.AlternatingLeastSquares, "bpr": bpr.BayesianPersonalizedRanking}
    model = kinds[name](random_state=0, use_gpu=False, **settings)

    def train(after_epoch: AfterEpoch) -> None:
        model.fit(seen, show_progress=False, callback=lambda *_: after_epoch())

    def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.einsum("uk,uck->uc", model.user_factors[users], model.item_factors[items])

    return Contestant(train, score, lambda folder: model.save(folder / "model.npz"))


def in_blocks(pairs: Callable[[Any, Any], Any]) -> Score:
    """Scores from a function of user and item tensors [P], a block of pairs at a time."""
    import torch

    @torch.no_grad()
    def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        left = torch.from_numpy(np.repeat(users, items.shape[1])).split(8192)
        right = torch.from_numpy(items.ravel()).split(8192)
        found = [pairs(u, i) for u, i in zip(left, right, strict=True)]
        return torch.cat(found).numpy().reshape(items.shape)

    return score


def cornac(settings: Mapping[str, Any], rows: Rows) -> Contestant:
    """Cornac's NeuMF on torch."""
    import torch
    from cornac.data import Dataset
    from cornac.models import NeuMF

    class Told(NeuMF):  # type: ignore[misc]
        def early_stop(self, *_: Any, **__: Any) -> bool:
            """Cornac calls this after every epoch."""
            self.after_epoch()
            return False

    model = Told(
        backend="pytorch", num_epochs=10_000, early_stopping={}, seed=0, verbose=False, **settings
    )
    triples = zip(rows.users.tolist(), rows.items.tolist(), [1.0] * len(rows.users), strict=True)
    known = Dataset.build(
        list(triples), seed=0,
        global_uid_map={u: u for u in range(rows.n_users)},
        global_iid_map={i: i for i in range(rows.n_items)},
    )  # fmt: skip

    def train(after_epoch: AfterEpoch) -> None:
        model.after_epoch = after_epoch
        model.fit(known)

    def save(folder: Path) -> None:  # model.save is not there for this backend
        torch.save(model.model.state_dict(), folder / "model.pt")

    return Contestant(train, in_blocks(lambda users, items: model.model(users, items)), save)


def recbole(name: str, negatives: int, settings: Mapping[str, Any], rows: Rows) -> Contestant:
    """A model of RecBole, with its own files, batches and trainer."""
    # Names that numpy 2 no longer has and RecBole 1.2.1 asks for.
    vars(np).update(float_=np.float64, complex_=np.complex128, unicode_=np.str_)
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.data.interaction import Interaction
    from recbole.utils import get_model, get_trainer, init_seed

    fixed = {
        "data_path": str(rows.folder), "benchmark_filename": ["train", "validation", "test"],
        "load_col": {"inter": ["user_id", "item_id"]}, "use_gpu": False, "show_progress": False,
        "checkpoint_dir": str(rows.folder / name), "state": "ERROR",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": negatives},
    }  # fmt: skip
    config = Config(model=name, dataset="log", config_dict={**fixed, **settings})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    batches, *_ = data_preparation(config, dataset)
    model = get_model(name)(config, batches.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    index = {
        field: np.array([dataset.field2token_id[field].get(str(i), 0) for i in range(count)])
        for field, count in (("user_id", rows.n_users), ("item_id", rows.n_items))
    }
    epoch = 0

    def train(after_epoch: AfterEpoch) -> None:
        nonlocal epoch
        while True:
            trainer._train_epoch(batches, epoch)
            epoch += 1
            model.eval()
            after_epoch()

    pairs = in_blocks(lambda u, i: model.predict(Interaction({"user_id": u, "item_id": i})))
    return Contestant(
        train,
        lambda users, items: pairs(index["user_id"][users], index["item_id"][items]),
        lambda folder: trainer._save_checkpoint(
            epoch, verbose=False, saved_model_file=folder / "model.pth"
        ),
    )


BFLOAT16 = {"train.matmul_precision": "medium"}
ALONE = {"blend.model": "none", "model.embedding_dim": 64}
"""The race is between single trainings, and short ones: no FISM beside COMET, and K 64."""

OWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "COMET, static": ("comet", "paper", BFLOAT16),
    "COMET, best without a taste": ("comet", "blended", ALONE),
    "COMET, best without a taste, bfloat16": ("comet", "blended", {**ALONE, **BFLOAT16}),
    "MF": ("mf", "paper", {}),
    "EASE": ("ease", "paper", {}),
}
"""Name → model, preset, settings that differ."""

OTHERS: dict[str, tuple[Callable[..., Contestant], tuple[str, ...], dict[str, Any]]] = {
    "implicit ALS": (
        implicit, ("als",),
        {"factors": 64, "alpha": 5.0, "regularization": 10.0, "iterations": 1000},
    ),
    "implicit BPR": (
        implicit, ("bpr",), {"factors": 128, "learning_rate": 0.05, "iterations": 100_000}
    ),
    "Cornac NeuMF": (
        cornac, (), {"num_factors": 32, "layers": (128, 64, 32)}
    ),
    "RecBole NeuMF": (recbole, ("NeuMF", 4), {}),
    "RecBole ConvNCF": (recbole, ("ConvNCF", 1), {}),
    "RecBole FISM": (recbole, ("FISM", 4), {"alpha": 0.5}),
}  # fmt: skip
"""Name → builder, its arguments, settings that differ from the package's own."""


def entered(name: str, data: str, folder: Path) -> tuple[Held, Contestant]:
    """The held-out items and the contestant of that name, ready to be trained."""
    if name in OWN:
        return own(*OWN[name], data)
    rows = Rows.read(folder)
    build, arguments, settings = OTHERS[name]
    return rows.held, build(*arguments, settings, rows)
