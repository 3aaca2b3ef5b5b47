"""Search for a model's settings on the validation items, for a given wall time.

The journal is a small text file: a search that was stopped goes on, on another machine too, and
what was tried can be read by anyone. The test items are never looked at.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comet_rec import renamed
from comet_rec.artefact.run import Run
from comet_rec.config import Config, unknown
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError, NonFiniteError, TrainingInterrupted, by_reader
from comet_rec.estimators.presets import blend_config, check_protocol, preset
from comet_rec.estimators.surroundings import torch_device, undisturbed
from comet_rec.experiments.journal import (
    CUT,
    Space,
    close_abandoned,
    finished_in,
    library,
    open_study,
    seconds_of,
    tried_in,
    words,
)
from comet_rec.files import refuse_other_than_file
from comet_rec.models import base
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import fit
from comet_rec.training.trainer import Progress

if TYPE_CHECKING:
    import optuna
    import torch

Settings = Mapping[str, Any]

RATES = (1e-3, 2e-3, 5e-3)
DECAYS = (0.0, 1e-7, 5e-7, 2e-6)

BASELINE: Space = {
    "train.learning_rate": RATES,
    "train.weight_decay": DECAYS,
    "model.embedding_dim": (32, 64, 128),
}
LAYERS = ((32,), (64, 32), (64, 32, 16))
SPACES: dict[str, Space] = {
    "comet": {
        "train.learning_rate": (5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 8e-3),
        "train.weight_decay": (0.0, 1e-6, 5e-6, 1e-5, 5e-5),
    },
    "mf": BASELINE,
    "gmf": BASELINE,
    "svdpp": BASELINE,
    "fism": {**BASELINE, "model.alpha": (0.0, 0.25, 0.5, 0.75, 1.0)},
    "mlp": {**BASELINE, "model.hidden": LAYERS, "model.dropout": (0.0, 0.3)},
    "neumf": {**BASELINE, "model.hidden": LAYERS, "model.dropout": (0.0, 0.3)},
    "convncf": {"train.learning_rate": (5e-4, 1e-3, 2e-3), "train.weight_decay": DECAYS},
    "itemknn": {
        "model.neighbours": (20, 50, 100, 200, 500, 1000),
        "model.shrink": (0.0, 10.0, 50.0, 100.0, 500.0),
    },
    "ease": {"model.l2": (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)},
}
"""Search space of each model. The paper's grids go down to a rate of 5e-7 and up to a decay
of 5e-5; with batches of thousands and a mean over pairs, the former moves nothing and the latter
leaves nothing, so the grids are cut and go a little further. Closed forms: usual ranges."""

REPEATS = 200
"""Settings in a row that were tried before, after which the sampler has nothing new."""
COMBINATIONS = 10_000
"""Looked through for one that can be, before a search begins."""


def tune(
    split: Split,
    model: str,
    *,
    journal: Path,
    seconds: float,
    preset_name: str = "auto",
    settings: Mapping[str, Any] | None = None,
    search: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Spend `seconds` on trials and name the best settings.

    Parameters
    ----------
    split : Split
    model, device : str
        Names.
    journal : Path
        Text file that every trial is added to; one that exists is gone on from, the time of its
        trials counted (a killed one's as far as its last epoch).
    seconds : float
        Wall time of all trials; the last is cut after the epoch in which it ends.
    preset_name : str
        Settings that are not searched.
    settings : mapping, optional
        Dotted keys that stay fixed.
    search : mapping, optional
        Dotted key → values to try; nothing else is searched then. Without it: `SPACES`.
    seed : int
        Seed of the search and of training.
    say : callable
        Told a line after each trial.

    Returns
    -------
    dict
        ``model``, ``trials``, ``seconds``, ``protocol``, and of the best trial ``validation``,
        ``settings`` and ``epochs``.

    Raises
    ------
    ConfigError
        For a model without a space, a value that no setting has, or a journal of something else.
    """
    check([model], journal, search, device)
    optuna = library()
    settings = renamed.settings(settings or {}, warn=True)
    search = renamed.settings(search, warn=True) if search else None
    fixed, space = settled(split, model, preset_name, settings, search, seed)
    study = open_study(optuna, journal, fixed, split, space, settings)
    close_abandoned(optuna, study)
    tried = tried_in(study)
    if not tried:  # the preset's own first: a short search has a good trial to compare with
        own = {key: fixed.get(key) for key, values in space.items() if fixed.get(key) in values}
        study.enqueue_trial({key: json.dumps(value) for key, value in own.items()})
    config_of = _configs(split, model, preset_name, settings, seed)
    _spend(study, tried, seconds, split, config_of, space, device, say)
    return _outcome(study, model, split)


def check(
    models: Sequence[str],
    journal: Path,
    search: Mapping[str, Sequence[Any]] | None = None,
    device: str = "cpu",
) -> None:
    """Tell what no search can do, before any data are read.

    Raises
    ------
    ConfigError
        For an unknown model or device, a model without a space, or a journal that cannot be
        written.
    """
    torch_device(device)
    for model in models:
        if model not in base.names():
            raise ConfigError(unknown("model", model, list(base.names())))
        if model not in SPACES and not search:
            raise ConfigError(f"{model} has nothing to search; models: {', '.join(sorted(SPACES))}")
    if journal.is_dir() or not journal.parent.is_dir():
        raise ConfigError(f"{journal}: must be a file in a folder that exists; give another")
    if journal.exists():
        refuse_other_than_file(journal, str(journal))


def settled(
    split: Split,
    model: str,
    preset_name: str,
    settings: Settings,
    search: Mapping[str, Sequence[Any]] | None,
    seed: int,
) -> tuple[Config, Space]:
    """Settings that stay, and values to search as the settings read them.

    Raises
    ------
    ConfigError
        For a setting that is unknown or a value that it cannot have.
    """
    config_of = _configs(split, model, preset_name, settings, seed)
    fixed = config_of({})
    check_protocol(fixed, settings, split.protocol)
    for key in search or ():
        if key.startswith("protocol."):
            raise ConfigError(f"{key}: the split's, and nothing to search; leave it out")
        if key == "train.selection_metric":
            one = by_reader(python="in settings", shell="with --set")
            raise ConfigError(f"{key}: is what a search looks at; give one value, {one}")
    space = {
        key: tuple(dict.fromkeys(fixed.coerced(key, value) for value in values))
        for key, values in (search or _around(fixed, SPACES[model])).items()
        if key not in settings
    }
    if not space:
        raise ConfigError(f"{model}: nothing to search, every setting is fixed; leave out one")
    wrong: ConfigError | None = None
    for chosen in islice(product(*space.values()), COMBINATIONS):
        try:
            config_of(dict(zip(space, chosen, strict=True)))
        except ConfigError as error:
            wrong = wrong or error
        else:
            return fixed, space
    raise wrong or ConfigError(f"{model}: nothing to search: a setting has no values")


def _around(fixed: Config, space: Space) -> Space:
    """The space, with the preset's own values where it has others: they are tried first."""
    return {key: tuple(dict.fromkeys([*vs, fixed.get(key)])) for key, vs in space.items()}


def _configs(
    split: Split, model: str, preset_name: str, settings: Settings, seed: int
) -> Callable[[Settings], Config]:
    """Config of a trial; all settings at once, since they may need one another."""
    plain = replace(preset(preset_name, model, split.interactions), seed=seed)
    return lambda chosen: plain.with_settings({**settings, **chosen})


def _spend(
    study: optuna.Study, tried: dict[str, float], seconds: float, split: Split,
    config_of: Callable[[Settings], Config], space: Space, device: str, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Try what was not tried before, until the time is up or nothing new comes."""
    repeated, some = 0, bool(tried)
    blends: dict[str, Run] = {}
    while len(tried) < math.prod(map(len, space.values())) and repeated < REPEATS:
        # A search that is too short for one training still has that one.
        left = seconds - seconds_of(study) if some else math.inf
        if left <= 0:
            break
        trial = study.ask()
        chosen = {k: json.loads(trial.suggest_categorical(k, words(v))) for k, v in space.items()}
        word = json.dumps(chosen, sort_keys=True)
        if word in tried:  # a sampler of categories repeats itself
            study.tell(trial, tried[word])
            repeated += 1
            continue
        repeated = 0
        try:
            config = config_of(chosen)
        except ConfigError as error:  # values that are fine, but not together
            tried[word] = 0.0
            study.tell(trial, 0.0)
            say(f"{study.study_name}: left out: {error}")
            continue
        score, note = _trial(trial, split, config, device, left, blends)
        tried[word], some = score, True
        study.tell(trial, score)
        say(f"{study.study_name} {seconds_of(study):,.0f}/{seconds:,.0f} s: {note} {word}")


def _outcome(study: Any, model: str, split: Split) -> dict[str, Any]:
    best, trials = study.best_trial, len(finished_in(study.trials))
    return {
        "model": model, "trials": trials, "seconds": round(seconds_of(study), 1),
        "protocol": split.hash,
        "validation": best.user_attrs.get("validation"),
        "epochs": best.user_attrs.get("epochs"),
        "settings": {k: json.loads(v) for k, v in best.params.items()},
    }  # fmt: skip


def _trial(
    trial: optuna.Trial,
    split: Split,
    config: Config,
    device: str,
    left: float,
    blends: dict[str, Run],
) -> tuple[float, str]:
    """One training, cut short where it is behind the median of those before, or time is up."""
    best: tuple[float, int, Mapping[str, float]] = (0.0, 0, {})
    behind = late = False
    selects = config.train.selects
    began = time.perf_counter()

    def report(stage: str, progress: Progress) -> None:
        nonlocal behind, best, late
        if not progress.finished_epoch:
            return
        spent = time.perf_counter() - began
        trial.set_user_attr("seconds", round(spent, 2))  # should it be killed
        late = spent > left
        if stage == "validation" and progress.validation is not None:  # and not the second model's
            figures = progress.validation
            best = max(best, (figures[selects], progress.epoch, figures), key=lambda b: b[0])
            trial.report(best[0], progress.epoch)
            behind = trial.should_prune()  # reads the journal: once an epoch, not once a step

    hooks = Hooks(report=report, stop=lambda: behind or late)
    figures: Mapping[str, float]
    try:
        figures, epochs = validate(config, split, torch_device(device), hooks, blends)
        score, note = figures[selects], f"{selects} {figures[selects]:.4f}"
    except TrainingInterrupted:
        score, epochs, figures = best
        note = f"{'stopped early' if behind else 'out of time'} at {score:.4f}"
        if not behind:
            trial.set_user_attr(CUT, True)
    except NonFiniteError:
        score, epochs, figures, note = 0.0, 0, {}, "not finite"
    if figures and not behind:
        trial.set_user_attr("validation", dict(figures))
        trial.set_user_attr("epochs", epochs)
    trial.set_user_attr("seconds", round(time.perf_counter() - began, 2))
    return score, f"{note} after {epochs} epochs"


@undisturbed
def validate(
    config: Config, split: Split, device: torch.device, hooks: Hooks, trained: dict[str, Run]
) -> tuple[dict[str, float], int]:
    """Train without a refit: figures of the validation items in the best epoch, and that epoch.

    `trained` has the second models of blends from earlier calls with this split, by their config;
    a new one is added.
    """
    config = replace(config, train=replace(config.train, refit=False))
    second = blend_config(config, split.interactions)
    run = None
    if second is not None:
        key = second.to_toml()
        if key not in trained:
            inner = hooks.of_blend(second.name)
            trained[key] = fit(second, split, hooks=inner, device=device)
        run = trained[key]
    found = fit(config, split, second=run, hooks=hooks, device=device)
    return dict(found.validation or {}), found.epochs
