"""One training of a study: from its description to a small record of what came out.

A job's key is a digest of its settings, its log and its split, so a finished one is never repeated
and one of other settings never mistaken for it; settings that stand at their defaults are left out,
so a setting that comes later changes no key. The code is not part of it: who changes numbers
removes the records that they are in. What it leaves behind in a study's folder: the run directory
in `runs`, with everything, and a small record in `records`, with the figures, each test user's
ranks and some kernels. Records alone can be kept, and carried to another machine.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.artefact.folder import read_manifest, write_folder
from comet_rec.artefact.provenance import machine, versions
from comet_rec.artefact.run import Run
from comet_rec.data.split import Split
from comet_rec.errors import ArtefactError
from comet_rec.estimators.estimator import Estimator
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.presets import blend_config
from comet_rec.estimators.registry import ESTIMATORS, load_model
from comet_rec.evaluation.metrics import hit_rate, ndcg
from comet_rec.evaluation.ranking import Ranks, Report
from comet_rec.evaluation.reliability import by_popularity, redrawn
from comet_rec.evaluation.scoring import run_scores
from comet_rec.experiments.kernels import Kernel, kernels_of
from comet_rec.training.checkpoints import Hooks

DRAWS = tuple(range(1, 11))
"""Seeds of the other draws of candidates."""

Stop = Callable[[], bool]
Tell = Callable[[str, Any], None]


@dataclass(frozen=True)
class Job:
    """A model to train on a log under settings and a seed.

    Parameters
    ----------
    log : str
        Name of the log within the study.
    label : str
        What tables call it.
    model : str
        Its name in the registry.
    preset : str
    settings : tuple of (dotted key, value)
    seed : int
        Of training.
    starts : tuple of Job
        Trainings that its parameters start from.
    """

    log: str
    label: str
    model: str
    preset: str
    settings: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    starts: tuple[Job, ...] = ()

    def estimator(self, device: str = "cpu") -> Estimator:
        """A fresh model with the job's settings."""
        return ESTIMATORS[self.model](
            preset=self.preset, seed=self.seed, device=device, **dict(self.settings)
        )

    def key(self, split: Split) -> str:
        """Name of the job's folders under this split: readable, and a digest of what decides."""
        state = hashlib.sha256(self._identity(split).encode())
        return f"{self.log}-{self.model}-{self.preset}-{self.seed}-{state.hexdigest()[:12]}"

    def _identity(self, split: Split) -> str:
        config = self.estimator().config_for(split.interactions)
        parts = [*config.recorded(), split.interactions.fingerprint, split.hash]
        second = blend_config(config, split.interactions)
        if second is not None and not self.starts:
            parts += second.recorded()
        return "\n".join([*parts, *(start._identity(split) for start in self.starts)])


@dataclass(frozen=True)
class Record:
    """What a finished job found.

    Parameters
    ----------
    values : dict
        Plain data: figures, seconds, epochs, the scatter over draws, strata.
    folder : Path
        Of the record.
    """

    values: Mapping[str, Any]
    folder: Path

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels of a COMET's user tower by name, float16; empty for other models."""
        path = self.folder / "kernels.npz"
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as packed:
            return dict(packed)

    @cached_property
    def ranks(self) -> dict[str, npt.NDArray[np.int64]]:
        """better, tied of each test user, sampled; and full_better, full_tied."""
        with np.load(self.folder / "ranks.npz", allow_pickle=False) as packed:
            return {name: packed[name].astype(np.int64) for name in packed.files}

    def whole(self, users: int) -> Ranks | None:
        """Ranks over the whole catalogue, where all `users` test users have them."""
        ranks = self.ranks
        if len(ranks.get("full_better", ())) != users:
            return None
        return Ranks(ranks["full_better"], ranks["full_tied"])

    def of_users(self, metric: str, *, full: bool = False) -> npt.NDArray[np.float64]:
        """HR@10 or NDCG@10 of each test user, float64 [T].

        Among the sampled candidates, or over the whole catalogue; empty where it was not ranked,
        shorter where only a sample of users was.
        """
        of = hit_rate if metric.startswith("HR") else ndcg
        kind, k = "full_" if full else "", int(metric.split("@")[1])
        if f"{kind}better" not in self.ranks:
            return np.empty(0)
        return of(self.ranks[f"{kind}better"], self.ranks[f"{kind}tied"], k)


def finished(job: Job, split: Split, home: Path) -> Record | None:
    """Record of a job that was done before, or None; one that is damaged counts for nothing."""
    folder = home / "records" / job.key(split)
    try:
        values = read_manifest(folder)["record"]
    except (ArtefactError, KeyError):
        return None
    return Record(values, folder)


def trained(job: Job, split: Split, home: Path) -> Path:
    """Run directory of a job in the folder of a study."""
    return home / "runs" / job.key(split) / "run"


def carry_out(
    job: Job, split: Split, home: Path, tell: Tell, stop: Stop, device: str = "cpu"
) -> Record:
    """Train, measure and write what is not there yet; a stopped training is gone on with.

    Parameters
    ----------
    job : Job
        Whose `starts` are finished.
    split : Split
    home : Path
        Folder of the study.
    tell : callable
        Called with the stage and the progress of training.
    stop : callable
        True asks for a stop after the present step.
    device : str
        Where to compute.

    Raises
    ------
    TrainingInterrupted, ConfigError, NonFiniteError
    """
    place = trained(job, split, home)
    place.parent.mkdir(parents=True, exist_ok=True)
    checkpoints = place.parent / "checkpoints"
    _put_aside_if_damaged(place)
    if not place.is_dir():
        hooks = Hooks(
            report=tell, stop=stop, checkpoints=checkpoints, resume=has_checkpoint(checkpoints)
        )
        _train(job, split, home, hooks, device)
    shutil.rmtree(checkpoints, ignore_errors=True)
    run = load_model(place).run
    began = time.perf_counter()
    report = measure(run, split)
    values = {
        "label": job.label,
        "model": job.model,
        "preset": job.preset,
        "settings": dict(job.settings),
        "seed": job.seed,
        "log": job.log,
        "epochs": run.epochs,
        "train_seconds": round(_seconds(run), 1),
        "validation": run.validation,
        **{k: v for k, v in report.to_dict().items() if k != "model"},
        **_scatter(run, split, report),
        "evaluation_seconds": round(time.perf_counter() - began, 1),
        "versions": versions(),
        "machine": machine() | {"device": device},
    }
    _write_record(home / "records" / job.key(split), values, report, kernels_of(run.state))
    record = finished(job, split, home)  # as it is read the next time
    assert record is not None
    return record


def _train(job: Job, split: Split, home: Path, hooks: Hooks, device: str) -> None:
    model = job.estimator(device)
    starts = [load_model(trained(start, split, home)) for start in job.starts]
    model.fit(split, init_from=starts, hooks=hooks)
    model.describe(job.log, titles={}, reading={})
    model.save(trained(job, split, home))


def _put_aside_if_damaged(place: Path) -> None:
    if not place.is_dir():
        return
    try:
        load_model(place)
    except ArtefactError:
        aside = place.with_name("run.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)


def _seconds(run: Run) -> float:
    """Of training, with a refit and a blend's second model; pre-training is a job of its own."""
    return float(sum(line["train_seconds"] for line in run.log))


def _scatter(run: Run, split: Split, report: Report) -> dict[str, Any]:
    """Strata, and other draws of candidates."""
    held, ties = split.test, split.protocol.ties
    strata = by_popularity(report.sampled_ranks, held, split.train, ties)
    found: dict[str, Any] = {"by_popularity": strata, "draws": None}
    if not hasattr(run.model, "full_users"):  # else its pairs are too dear
        found["draws"] = redrawn(run_scores(run), split.interactions, held, DRAWS, ties)
    return found


def _write_record(
    folder: Path, values: Mapping[str, Any], report: Report, kernels: Mapping[str, Kernel]
) -> None:
    ranks = {"better": report.sampled_ranks.better, "tied": report.sampled_ranks.tied}
    if report.full_ranks is not None:
        ranks |= {"full_better": report.full_ranks.better, "full_tied": report.full_ranks.tied}
    small: dict[str, Any] = {
        name: found.astype(np.min_scalar_type(found.max())) for name, found in ranks.items()
    }

    def write(fresh: Path) -> dict[str, Any]:
        np.savez_compressed(fresh / "ranks.npz", **small)
        if kernels:  # half precision is more than a heat map shows
            halved: dict[str, Any] = {name: w.astype(np.float16) for name, w in kernels.items()}
            np.savez_compressed(fresh / "kernels.npz", **halved)
        return {"record": values}

    shutil.rmtree(folder, ignore_errors=True)  # half of one, carried here
    write_folder(folder, write)


def with_seed(job: Job, seed: int) -> Job:
    """The same training, and those it starts from, with another seed."""
    starts = tuple(with_seed(start, seed) for start in job.starts)
    return replace(job, seed=seed, starts=starts)
