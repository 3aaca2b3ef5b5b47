"""One training of a study, called a job, from its description to the record of its metrics.

A job's key is a digest of its settings, its log and its split. So a finished job is never repeated,
and jobs with different settings have different keys. Settings with default values are not digested,
so a new setting changes no key. The code is not part of the key. After a code change that changes
metrics, the records with the old metrics must be removed.

A job writes a run directory to the study's folder `runs` and a small record to its folder
`records`. Records alone suffice to write a report, on another machine too.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec import renamed
from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.artefact.provenance import machine, versions
from comet_rec.artefact.run import Run
from comet_rec.data.split import Split
from comet_rec.errors import ArtefactError
from comet_rec.estimators.estimator import Estimator
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.presets import blend_config
from comet_rec.estimators.registry import ESTIMATORS, load_model
from comet_rec.evaluation.ranking import Report
from comet_rec.evaluation.reliability import by_popularity, redrawn
from comet_rec.evaluation.scoring import run_scores
from comet_rec.experiments import records
from comet_rec.experiments.records import Kernel, Record
from comet_rec.training.checkpoints import Hooks

RECORDS = "records"
"""Name of the folder within a study's folder that holds the records of its trainings."""

DRAWS = tuple(range(1, 11))
"""Seeds of further candidate samples, which show how sampled metrics vary between samples."""

KERNELS_SHOWN = 2
"""A record keeps kernels of this many filter widths, and this many filters of each width."""


@dataclass(frozen=True)
class Job:
    """One training of a study: a model on a log, with settings and a seed.

    Parameters
    ----------
    log : str
        Name of the log within the study.
    label : str
        Name of the job in tables.
    model : str
        Registered name of the model.
    preset : str
    settings : tuple of (dotted key, value)
    seed : int
        Seed of training.
    starts : tuple of Job
        Jobs whose trained weights initialise the model.
    """

    log: str
    label: str
    model: str
    preset: str
    settings: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    starts: tuple[Job, ...] = ()

    def estimator(self, device: str = "cpu") -> Estimator:
        """Untrained model with the job's settings."""
        return ESTIMATORS[self.model](
            preset=self.preset, seed=self.seed, device=device, **dict(self.settings)
        )

    def key(self, split: Split) -> str:
        """Name of the job's record and run directory, with a digest of settings and split."""
        state = hashlib.sha256(self._identity(split).encode())
        preset = renamed.PRESETS.get(self.preset, self.preset)
        return f"{self.log}-{self.model}-{preset}-{self.seed}-{state.hexdigest()[:12]}"

    def _identity(self, split: Split) -> str:
        """Text whose digest is part of the job's key."""
        config = self.estimator().config_for(split.interactions)
        parts = [*config.recorded(), split.interactions.fingerprint, split.hash]
        second = blend_config(config, split.interactions)
        if second is not None and not self.starts:
            parts += second.recorded()
        return "\n".join([*parts, *(start._identity(split) for start in self.starts)])


def finished(job: Job, split: Split, home: Path) -> Record | None:
    """Record of a job in the study folder `home`; None if the record is missing or damaged."""
    return records.find(home / RECORDS, job.log, job.key(split))


def trained(job: Job, split: Split, home: Path) -> Path:
    """Path of a job's run directory in the study folder `home`."""
    return home / "runs" / job.key(split) / "run"


def carry_out(
    job: Job, split: Split, home: Path, stop: Callable[[], bool], device: str = "cpu"
) -> Record:
    """Train a job, unless its run exists, then evaluate the run and write the record.

    A stopped training resumes from its checkpoint.

    Parameters
    ----------
    job : Job
        Job with finished `starts`.
    split : Split
    home : Path
        Folder of the study.
    stop : callable
        Returns True to stop training after the current step.
    device : str
        Device of the training.

    Raises
    ------
    TrainingInterrupted, ConfigError, NonFiniteError
    """
    place = trained(job, split, home)
    place.parent.mkdir(parents=True, exist_ok=True)
    checkpoints = place.parent / "checkpoints"
    _put_aside_if_damaged(place)
    if not place.is_dir():
        resume = has_checkpoint(checkpoints)
        hooks = Hooks(stop=stop, checkpoints=checkpoints, resume=resume)
        _train(job, split, home, hooks, device)
    shutil.rmtree(checkpoints, ignore_errors=True)
    run = load_model(place).run
    # Seconds of training with its refit and its blend; pre-training is a job of its own.
    train_seconds = float(sum(line["train_seconds"] for line in run.log))
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
        "train_seconds": round(train_seconds, 1),
        "validation": run.validation,
        **{k: v for k, v in report.to_dict().items() if k != "model"},
        **_reliability(run, split, report),
        "evaluation_seconds": round(time.perf_counter() - began, 1),
        "versions": versions(),
        "machine": machine() | {"device": device},
    }
    arrays = {**_ranks(report), **_kernels(run)}
    records.keep(home / RECORDS, job.log, job.key(split), values, arrays)
    record = finished(job, split, home)  # as the next study will read it
    assert record is not None
    return record


def _train(job: Job, split: Split, home: Path, hooks: Hooks, device: str) -> None:
    model = job.estimator(device)
    starts = [load_model(trained(start, split, home)) for start in job.starts]
    model.fit(split, init_from=starts, hooks=hooks)
    model.describe(job.log, titles={}, reading={})
    model.save(trained(job, split, home))


def _put_aside_if_damaged(place: Path) -> None:
    """Rename a run directory that cannot be loaded, so that the job is trained again."""
    if not place.is_dir():
        return
    try:
        load_model(place)
    except ArtefactError:
        aside = place.with_name("run.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)


def _reliability(run: Run, split: Split, report: Report) -> dict[str, Any]:
    """Sampled metrics by popularity stratum of the items, and on other samples of candidates."""
    test, ties = split.test, split.protocol.ties
    draws = None
    if run.model.full_ranking_users is None:  # models that score pairs would take too long
        draws = redrawn(run_scores(run), split.interactions, test, DRAWS, ties)
    strata = by_popularity(report.sampled_ranks, test, split.train, ties)
    return {"by_popularity": strata, "draws": draws}


def _ranks(report: Report) -> dict[str, npt.NDArray[Any]]:
    """Ranks of each test user as arrays of the smallest integer type that holds them."""
    ranks = {"better": report.sampled_ranks.better, "tied": report.sampled_ranks.tied}
    if report.full_ranks is not None:
        ranks |= {"full_better": report.full_ranks.better, "full_tied": report.full_ranks.tied}
    return {name: values.astype(np.min_scalar_type(values.max())) for name, values in ranks.items()}


def _kernels(run: Run) -> dict[str, npt.NDArray[Any]]:
    """Kernels of a COMET for Figure 5, in half precision, which is enough for a heat map."""
    return {
        f"{records.KERNELS}{name}": weights.astype(np.float16)
        for name, weights in kernels_of(run.state).items()
    }


def with_seed(job: Job, seed: int) -> Job:
    """Copy of a job with another seed. The jobs that initialise it get the same seed."""
    starts = tuple(with_seed(start, seed) for start in job.starts)
    return replace(job, seed=seed, starts=starts)


def kernels_of(state: Mapping[str, Any], tower: str = "user_tower") -> dict[str, Kernel]:
    """Some convolution kernels of a trained COMET, to show as heat maps.

    They are the first filters of the two widest filter widths. Only widths that cover several, but
    not all, embedding dimensions count. If there is no such width, all widths count.

    Parameters
    ----------
    state : dict of Tensor
        Parameters of a trained COMET.
    tower : {"user_tower", "item_tower"}

    Returns
    -------
    dict
        Title → weights, float32 [N, width], one row for each row of the embedding map. Empty for a
        tower without filters over all history rows.
    """
    filters = _filters(state, tower)
    k = state["item_embedding"].shape[1] if "item_embedding" in state else 0
    partial = [weights for weights in filters if 1 < weights.shape[2] < k] or filters
    return {
        f"width {weights.shape[2]}, filter {channel + 1}": weights[channel].numpy()
        for weights in partial[-KERNELS_SHOWN:]
        for channel in range(min(KERNELS_SHOWN, len(weights)))
    }


def position_weights(state: Mapping[str, Any], tower: str) -> dict[str, Kernel]:
    """Root mean square of the filter weights at each position of a history, by filter width.

    The result maps the width, as text, to float32 [N], the latest position last. It is empty for a
    tower without filters over all history rows.
    """
    return {
        f"width {weights.shape[2]}": weights.square().mean(dim=(0, 2)).sqrt().numpy()
        for weights in _filters(state, tower)
    }


def _filters(state: Mapping[str, Any], tower: str) -> list[Any]:
    """Filters of a tower, or of its first layer, each [channels, N, width], by width."""
    prefixes = (f"{tower}.convolution.weights.", f"{tower}.layers.0.convolution.weights.")
    filters = [t for name, t in sorted(state.items()) if name.startswith(prefixes) and t.dim() == 3]
    return sorted(filters, key=lambda weights: weights.shape[2])
