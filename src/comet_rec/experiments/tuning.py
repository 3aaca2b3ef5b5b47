"""Search for a model's best settings within a given wall time, by metrics on validation items.

A trial is one training of the search. Trials are written to a journal, a text file of Optuna. A
stopped search continues from its journal, on another machine too. Test items are never used.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comet_rec import renamed
from comet_rec.artefact.run import Run
from comet_rec.config import Config, unknown
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError, NonFiniteError, TrainingInterrupted, argument, by_reader
from comet_rec.estimators.presets import blend_config, check_protocol, preset
from comet_rec.estimators.surroundings import torch_device, undisturbed
from comet_rec.files import refuse_other_than_file
from comet_rec.models import base
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import fit
from comet_rec.training.trainer import Progress

if TYPE_CHECKING:
    import torch

Settings = Mapping[str, Any]
"""Dotted keys and values."""
Space = Mapping[str, tuple[Any, ...]]
"""Dotted key → values to try."""

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
    "sasrec": {
        "train.learning_rate": (5e-4, 1e-3, 2e-3),
        "train.weight_decay": (0.0, 1e-6, 1e-5),
        "model.embedding_dim": (64, 128),
        "model.blocks": (1, 2, 3),
        "model.heads": (1, 2),
        "model.dropout": (0.1, 0.2, 0.3, 0.5),
    },
    "itemknn": {
        "model.neighbours": (20, 50, 100, 200, 500, 1000),
        "model.shrink": (0.0, 10.0, 50.0, 100.0, 500.0),
    },
    "ease": {"model.l2": (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)},
}
"""Values that a search tries: model → dotted key → values.

The paper's grids go down to a learning rate of 5e-7 and up to a weight decay of 5e-5. Here, the
loss is a mean over batches of thousands of pairs. Then such a rate changes nothing, and such a
decay erases the weights. So the grids stop earlier at these ends and go a little further at the
other ends. Non-iterative models have the usual ranges.
"""

REPEATS = 200
"""A search ends after this many proposals in a row whose settings were tried before."""
COMBINATIONS = 10_000
"""Largest number of combinations that are checked, before a search, until one is valid."""
CUT = "cut"
"""Mark of a trial that ran out of time. A continued search may try its settings again."""
OLD_METRIC = next(old for old, new in renamed.SETTINGS.items() if new == "train.selection_metric")
"""Former name of the setting `train.selection_metric`, which old journals contain."""


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
    """Search for the best settings of a model: run trials for `seconds`, and return the best.

    Parameters
    ----------
    split : Split
    model, device : str
        Registered name of the model, and device of the trainings.
    journal : Path
        Text file to which every trial is added. If the file exists, its search continues, and the
        time of its trials counts. For a killed trial, the time up to its last epoch counts.
    seconds : float
        Wall time of all trials. The last trial is cut after the epoch in which the time ends.
    preset_name : str
        Preset of the settings that are not searched.
    settings : mapping, optional
        Dotted keys of settings that stay fixed.
    search : mapping, optional
        Dotted key → values to try, in place of the model's space in `SPACES`.
    seed : int
        Seed of the search and of training.
    say : callable
        Called with a line after each trial.

    Returns
    -------
    dict
        ``model``, ``trials``, ``seconds`` and ``protocol`` of the search, and ``validation``,
        ``settings`` and ``epochs`` of the best trial.

    Raises
    ------
    ConfigError
        If the model has no space, a value is invalid, or the journal belongs to another search.
    """
    check([model], journal, search, device)
    optuna = library()
    settings = renamed.settings(settings or {}, warn=True)
    search = renamed.settings(search, warn=True) if search else None
    fixed, space = settled(split, model, preset_name, settings, search, seed)
    study = open_study(journal, fixed, split, space, settings)
    # Killed trials still count as running: mark them as failed. Their seconds still count.
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    tried = tried_in(study)
    if not tried:  # first the values of the preset, so that even a short search has a good trial
        start = {key: fixed.get(key) for key, values in space.items() if fixed.get(key) in values}
        study.enqueue_trial({key: json.dumps(value) for key, value in start.items()})
    config_of = _configs(split, model, preset_name, settings, seed)
    _spend(study, tried, seconds, split, config_of, space, device, say)
    best = study.best_trial
    return {
        "model": model,
        "trials": len(finished_in(study.trials)),
        "seconds": round(seconds_of(study), 1),
        "protocol": split.hash,
        "validation": best.user_attrs.get("validation"),
        "epochs": best.user_attrs.get("epochs"),
        "settings": {key: json.loads(value) for key, value in best.params.items()},
    }


def check(
    models: Sequence[str],
    journal: Path,
    search: Mapping[str, Sequence[Any]] | None = None,
    device: str = "cpu",
) -> None:
    """Check that the models, the journal and the device can be used, before any data are read.

    If `search` has values to try, a model needs no space in `SPACES`.

    Raises
    ------
    ConfigError
        If a model or device is unknown, a model has no space, or the journal cannot be written.
    """
    torch_device(device)
    for model in models:
        if model not in base.names():
            raise ConfigError(unknown("model", model, list(base.names())))
        if model not in SPACES and not search:
            raise ConfigError(
                f"{model} has nothing to search; choose among {', '.join(sorted(SPACES))}"
            )
    if journal.is_dir() or not journal.parent.is_dir():
        raise ConfigError(f"{journal}: must be a file in a folder that exists; give another path")
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
    """Config with the fixed settings, and the search space with values of the right types.

    `search` maps dotted keys to the values to try; None stands for the model's space in `SPACES`.

    Raises
    ------
    ConfigError
        If a setting is unknown, or cannot have one of its values.
    """
    config_of = _configs(split, model, preset_name, settings, seed)
    fixed = config_of({})
    check_protocol(fixed, settings, split.protocol)
    for key in search or ():
        if key.startswith("protocol."):
            raise ConfigError(
                f"{key}: belongs to the split and cannot be searched; search other settings"
            )
        if key == "train.selection_metric":
            one = by_reader(python="in settings", shell="with --set")
            raise ConfigError(
                f"{key}: is the metric that a search maximises; give one value, {one}"
            )
    if not search:  # and the values of the preset, which are tried first
        search = {key: (*values, fixed.get(key)) for key, values in SPACES[model].items()}
    space = {
        key: tuple(dict.fromkeys(fixed.coerced(key, value) for value in values))
        for key, values in search.items()
        if key not in settings
    }
    if not space:
        raise ConfigError(
            f"{model}: nothing to search, since every setting is fixed; leave one of them free"
        )
    wrong: ConfigError | None = None
    for chosen in islice(product(*space.values()), COMBINATIONS):
        try:
            config_of(dict(zip(space, chosen, strict=True)))
        except ConfigError as error:
            wrong = wrong or error
        else:
            return fixed, space
    raise wrong or ConfigError(f"{model}: nothing to search: a setting has no values; give some")


def _configs(
    split: Split, model: str, preset_name: str, settings: Settings, seed: int
) -> Callable[[Settings], Config]:
    """Function that makes the config of a trial from the settings that the trial tries.

    All settings are set at once, since they may depend on each other.
    """
    plain = replace(preset(preset_name, model, split.interactions), seed=seed)
    return lambda chosen: plain.with_settings({**settings, **chosen})


def _spend(
    study: Any, tried: dict[str, float], seconds: float, split: Split,
    config_of: Callable[[Settings], Config], space: Space, device: str, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Run trials until the time is up, or until the sampler proposes nothing new.

    `tried` maps settings, as JSON, to the value of their trial. New trials are added to it.
    """
    repeated, trained = 0, bool(tried)
    blends: dict[str, Run] = {}
    while len(tried) < math.prod(map(len, space.values())) and repeated < REPEATS:
        # The first training always runs, even if the search is too short for it.
        left = seconds - seconds_of(study) if trained else math.inf
        if left <= 0:
            break
        trial = study.ask()
        chosen = {k: json.loads(trial.suggest_categorical(k, words(v))) for k, v in space.items()}
        word = json.dumps(chosen, sort_keys=True)
        if word in tried:  # the sampler may repeat itself
            study.tell(trial, tried[word])
            repeated += 1
            continue
        repeated = 0
        try:
            config = config_of(chosen)
        except ConfigError as error:  # each value is valid, but not the combination
            tried[word] = 0.0
            study.tell(trial, 0.0)
            say(f"{study.study_name}: left out: {error}")
            continue
        score, note = _trial(trial, split, config, device, left, blends)
        tried[word], trained = score, True
        study.tell(trial, score)
        say(f"{study.study_name} {seconds_of(study):,.0f}/{seconds:,.0f} s: {note} {word}")


def _trial(
    trial: Any,
    split: Split,
    config: Config,
    device: str,
    left: float,
    blends: dict[str, Run],
) -> tuple[float, str]:
    """Train with one config; return the best epoch's validation metric and why training ended.

    Training stops early if the trial is behind the median of earlier trials. It is cut after `left`
    seconds.
    """
    best: tuple[float, int, Mapping[str, float]] = (0.0, 0, {})
    behind = late = False
    selects = config.train.selects
    began = time.perf_counter()

    def report(stage: str, progress: Progress) -> None:
        nonlocal behind, best, late
        if not progress.finished_epoch:
            return
        spent = time.perf_counter() - began
        trial.set_user_attr("seconds", round(spent, 2))  # written now, in case the trial is killed
        late = spent > left
        if stage == "validation" and progress.validation is not None:  # not of the second model
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
    """Train without a refit; return the validation metrics of the best epoch, and that epoch.

    If the config has a blend, the scores of a second model are added, and that model is trained
    first. `trained` holds the second models by their configs, so that each is trained only once.
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
    trained_run = fit(config, split, second=run, hooks=hooks, device=device)
    return dict(trained_run.validation or {}), trained_run.epochs


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Parameters
    ----------
    settings : dict
        Dotted keys and the values of this trial.
    value : float
        Validation NDCG@10 of the best epoch, sampled or full by the selection metric of the search.
    seconds : float
    stopped_early : bool
        Whether the training stopped because the trial was behind the median of earlier trials. It
        is False for a trial with non-finite numbers, whose value is 0.
    cut : bool
        Whether the time ran out. `value` is then that of the best epoch until then.
    """

    settings: Mapping[str, Any]
    value: float
    seconds: float
    stopped_early: bool
    cut: bool


@dataclass(frozen=True)
class Search:
    """All trials of one model in a journal.

    Parameters
    ----------
    model : str
    trials : list of Trial
        In the order in which they ran, without repeated settings.
    begun : mapping
        Log, split and settings at the beginning of the search; see `open_study`.
    """

    model: str
    trials: Sequence[Trial]
    begun: Mapping[str, Any]

    @property
    def selection_metric(self) -> str:
        """The metric that the search maximised: "sampled" or "full" NDCG@10."""
        lines = self.begun.get("settings", ())  # an old journal has the old name
        full = any(f'{name} = "full"' in lines for name in ("train.selection_metric", OLD_METRIC))
        return "full" if full else "sampled"

    @property
    def best(self) -> Trial | None:
        """Trial with the largest value; None if no trial finished."""
        return max(self.trials, key=lambda trial: trial.value, default=None)


def searched_on(
    journals: Sequence[Path], split: Split, preset: str, selection_metric: str = "sampled"
) -> dict[str, dict[str, Any]]:
    """Model → the best settings that a search on this split found.

    Only searches that began from `preset` and maximised `selection_metric` count. If there are
    several for a model, the search with the best trial counts. The result includes the settings
    that the search kept fixed.

    Raises
    ------
    ConfigError
        If a file is not a journal, or if Optuna is not installed.
    """
    about = {"log": split.interactions.fingerprint, "protocol": split.hash, "preset": preset}
    best_values: dict[str, float] = {}
    settings: dict[str, dict[str, Any]] = {}
    for search in (search for journal in journals for search in history(journal)):
        begun, best = search.begun, search.best
        same = all(
            begun.get(key) == value for key, value in about.items()
        )  # old journals have no preset
        if best is None or not same or search.selection_metric != selection_metric:
            continue
        if best.value > best_values.get(search.model, -math.inf):
            fixed = {key: _as_setting(value) for key, value in begun["fixed"].items()}
            best_values[search.model] = best.value
            settings[search.model] = renamed.settings({**fixed, **best.settings})
    return settings


def history(journal: Path) -> list[Search]:
    """Read all searches in a journal, one for each model.

    Raises
    ------
    ConfigError
        If the file is not a journal, or if Optuna is not installed.
    """
    library()  # raises here if Optuna is missing, so that the file is not blamed
    if not journal.exists():
        raise ConfigError(f"{journal}: no such file; give a journal that comet-rec tune wrote")
    refuse_other_than_file(journal, str(journal))
    try:
        storage, searches = _storage(journal), []
        for study in storage.get_all_studies():
            trials = finished_in(storage.get_all_trials(study._study_id))
            searches.append(Search(study.study_name, trials, study.user_attrs))
    except Exception:  # any exception, since nothing checks the content of a line
        searches = []
    if not searches or any(search.model not in base.names() for search in searches):
        raise ConfigError(f"{journal}: not a journal; give one that comet-rec tune wrote")
    return searches


def finished_in(trials: Sequence[Any]) -> list[Trial]:
    """Convert Optuna's trials to `Trial`.

    Trials without a training of their own (repeated settings) and killed trials are left out.
    """
    return [
        Trial(
            {key: _as_setting(json.loads(value)) for key, value in trial.params.items()},
            float(trial.value),
            float(trial.user_attrs["seconds"]),
            trial.user_attrs.get("validation") is None and trial.value > 0,
            CUT in trial.user_attrs,
        )
        for trial in trials
        if trial.value is not None and "seconds" in trial.user_attrs
    ]


def open_study(journal: Path, fixed: Config, split: Split, space: Space, settings: Settings) -> Any:
    """Open or create Optuna's study of a model in a journal.

    `fixed` is the config of a preset with the fixed `settings`; `space` has the values to try.

    Raises
    ------
    ConfigError
        If the file is not a journal, or if its search has another log, split, settings or values to
        try. The file is then left as it is.
    """
    optuna = library()
    try:
        study = optuna.create_study(
            storage=_storage(journal),
            study_name=fixed.name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=fixed.seed, multivariate=True),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=10),
        )
        finished_in(study.trials), seconds_of(study), tried_in(study)  # read all now, to fail early
    except OSError as error:
        raise ConfigError(f"{journal}: cannot be written: {error.strerror}") from None
    except Exception:  # any exception, since Optuna does not check the lines
        raise ConfigError(f"{journal}: is not a journal; give another file") from None
    begun = {
        "protocol": (split.hash, "on another log or split"),
        "log": (split.interactions.fingerprint, "on another log or split"),
        "settings": (fixed.recorded(), "with other settings, another preset or seed"),
        "preset": (fixed.preset, "with another preset"),
        "fixed": (json.loads(json.dumps(dict(settings))), "with other settings"),
    }
    before = dict(study.user_attrs)
    if "fixed" in before:
        before["fixed"] = renamed.settings(before["fixed"])
    for key, (value, what) in begun.items():
        if before.get(key, value) != value:
            raise ConfigError(
                f"{journal}: its search was begun {what}; give another {argument('journal')}"
            )
    if not _same_space(study, space):
        raise ConfigError(
            f"{journal}: its search was begun with other values; give another {argument('journal')}"
        )
    for key, (value, _) in begun.items():
        if key not in before:
            study.set_user_attr(key, value)
    return study


def _same_space(study: Any, space: Space) -> bool:
    """Whether `space` is the search space of all trials, since Optuna cannot change it later."""
    choices = {key: words(values) for key, values in space.items()}
    for trial in study.trials:
        before = {key: list(kind.choices) for key, kind in trial.distributions.items()}
        if trial.value is None:  # killed, maybe before all of its settings were drawn
            before = {**choices, **before}
        if before != choices:
            return False
    return True


def seconds_of(study: Any) -> float:
    """Seconds of wall time of all trials in Optuna's study."""
    return sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in study.trials)


def tried_in(study: Any) -> dict[str, float]:
    """Settings of a study's completed trials, as JSON → value of the trial.

    Trials that ran out of time are left out.
    """
    return {
        json.dumps({k: json.loads(v) for k, v in t.params.items()}, sort_keys=True): t.value
        for t in study.trials
        if t.value is not None and CUT not in t.user_attrs
    }


def _as_setting(value: Any) -> Any:
    """Value of a setting from JSON, in which a tuple has become a list."""
    return tuple(value) if isinstance(value, list) else value


def words(values: tuple[Any, ...]) -> list[str]:
    """Values as JSON texts, since Optuna accepts only simple types as categories."""
    return [json.dumps(value) for value in values]


def _storage(journal: Path) -> Any:
    optuna = library()
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))


def library() -> Any:
    """Import Optuna, turn off its messages and return it.

    Raises
    ------
    ConfigError
        If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("tuning needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
