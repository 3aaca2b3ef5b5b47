"""Search for a model's settings on the validation items, for a given wall time.

Trials are kept in a journal, Optuna's text file: a search that was stopped continues from it, on
another machine too. Test items are never looked at.
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
    "itemknn": {
        "model.neighbours": (20, 50, 100, 200, 500, 1000),
        "model.shrink": (0.0, 10.0, 50.0, 100.0, 500.0),
    },
    "ease": {"model.l2": (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)},
}
"""Search space of each model.

The paper's grids go down to a rate of 5e-7 and up to a decay of 5e-5. With batches of thousands
and a mean over pairs, that rate moves nothing and that decay leaves nothing. So the grids are cut
and go a little further at the other end. Ranges of non-iterative models are the usual ones.
"""

REPEATS = 200
"""Repeated settings in a row after which the sampler has nothing new."""
COMBINATIONS = 10_000
"""Combinations that are tested for a valid one before a search begins."""
CUT = "cut"
"""Attribute of a trial that ran out of time: a search that continues may try its settings again."""
OLD_METRIC = next(old for old, new in renamed.SETTINGS.items() if new == "train.selection_metric")


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
        Text file that every trial is added to. A search continues from one that exists, and the
        time of its trials counts (of a killed trial, the time up to its last epoch).
    seconds : float
        Wall time of all trials; the last is cut after the epoch in which it ends.
    preset_name : str
        Preset of the settings that are not searched.
    settings : mapping, optional
        Dotted keys of settings that stay fixed.
    search : mapping, optional
        Dotted key → values to try; nothing else is searched then. Without it: `SPACES`.
    seed : int
        Seed of the search and of training.
    say : callable
        Called with a line after each trial.

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
    study = open_study(journal, fixed, split, space, settings)
    # Nobody will end trials that were killed; the time that they took stays counted.
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    tried = tried_in(study)
    if not tried:  # the preset's own first: a short search has a good trial to compare with
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
    """Refuse what no search can do, before any data are read.

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
    """Settings that stay fixed, and values to search as the settings read them.

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
    if not search:  # the preset's own values too: they are tried first
        search = {key: (*values, fixed.get(key)) for key, values in SPACES[model].items()}
    space = {
        key: tuple(dict.fromkeys(fixed.coerced(key, value) for value in values))
        for key, values in search.items()
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


def _configs(
    split: Split, model: str, preset_name: str, settings: Settings, seed: int
) -> Callable[[Settings], Config]:
    """Config of a trial; all settings at once, since they may need one another."""
    plain = replace(preset(preset_name, model, split.interactions), seed=seed)
    return lambda chosen: plain.with_settings({**settings, **chosen})


def _spend(
    study: Any, tried: dict[str, float], seconds: float, split: Split,
    config_of: Callable[[Settings], Config], space: Space, device: str, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Try settings that were not tried before, until the time is up or nothing new comes."""
    repeated, trained = 0, bool(tried)
    blends: dict[str, Run] = {}
    while len(tried) < math.prod(map(len, space.values())) and repeated < REPEATS:
        # A search that is too short for one training still has that one.
        left = seconds - seconds_of(study) if trained else math.inf
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
    """One training; it ends early when it is behind the median of those before, or time is up."""
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
        Validation NDCG@10 of the best epoch, sampled or full as the search selects.
    seconds : float
    stopped_early : bool
        It was behind the median of those before it. (A trial with numbers that are not finite has
        the value 0.)
    cut : bool
        The time ran out; its value is that of the best epoch so far.
    """

    settings: Mapping[str, Any]
    value: float
    seconds: float
    stopped_early: bool
    cut: bool


@dataclass(frozen=True)
class Search:
    """Trials of one model in a journal.

    Parameters
    ----------
    model : str
    trials : list of Trial
        In their order, without repeated settings.
    begun : mapping
        The log, the split and the settings that the search began with: see `open_study`.
    """

    model: str
    trials: Sequence[Trial]
    begun: Mapping[str, Any]

    @property
    def selection_metric(self) -> str:
        """Metric that the search maximised: "sampled" or "full" NDCG@10."""
        lines = self.begun.get("settings", ())  # as they were written, perhaps by an old name
        full = any(f'{name} = "full"' in lines for name in ("train.selection_metric", OLD_METRIC))
        return "full" if full else "sampled"

    @property
    def best(self) -> Trial | None:
        """The best trial; None where none finished."""
        return max(self.trials, key=lambda trial: trial.value, default=None)


def searched_on(
    journals: Sequence[Path], split: Split, preset: str, selection_metric: str = "sampled"
) -> dict[str, dict[str, Any]]:
    """Model → the best settings of a search on this very split that began from `preset`.

    Only searches by this selection metric count, for each model the one with the best trial. The
    settings include those that the search had fixed.

    Raises
    ------
    ConfigError
        For a file that is no journal, or without Optuna.
    """
    about = {"log": split.interactions.fingerprint, "protocol": split.hash, "preset": preset}
    best_values: dict[str, float] = {}
    settings: dict[str, dict[str, Any]] = {}
    for search in (search for journal in journals for search in history(journal)):
        begun, best = search.begun, search.best
        same = all(begun.get(key) == value for key, value in about.items())  # a preset since 0034
        if best is None or not same or search.selection_metric != selection_metric:
            continue
        if best.value > best_values.get(search.model, -math.inf):
            fixed = {key: _as_setting(value) for key, value in begun["fixed"].items()}
            best_values[search.model] = best.value
            settings[search.model] = renamed.settings({**fixed, **best.settings})
    return settings


def history(journal: Path) -> list[Search]:
    """All searches in a journal, one for each model.

    Raises
    ------
    ConfigError
        For a file that is no journal, or without Optuna.
    """
    library()  # its absence is no fault of the file
    if not journal.exists():
        raise ConfigError(f"{journal}: no such file; give a journal that comet-rec tune wrote")
    refuse_other_than_file(journal, str(journal))
    try:
        storage, searches = _storage(journal), []
        for study in storage.get_all_studies():
            trials = finished_in(storage.get_all_trials(study._study_id))
            searches.append(Search(study.study_name, trials, study.user_attrs))
    except Exception:  # of any kind: neither Optuna nor we check what a line holds
        searches = []
    if not searches or any(search.model not in base.names() for search in searches):
        raise ConfigError(f"{journal}: not a journal; give one that comet-rec tune wrote")
    return searches


def finished_in(trials: Sequence[Any]) -> list[Trial]:
    """Trials of Optuna that trained a model: no repeats, none that was killed."""
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
    """Optuna's study of a model in a journal, new or continued.

    `fixed` is a preset with `settings`.

    Raises
    ------
    ConfigError
        For a file that is no journal, or one of another log or split, of other settings or values
        to try; nothing of this call is written into it then.
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
        finished_in(study.trials), seconds_of(study), tried_in(study)  # what is asked for later
    except OSError as error:
        raise ConfigError(f"{journal}: cannot be written: {error.strerror}") from None
    except Exception:  # of any kind: Optuna does not check what a line of the file holds
        raise ConfigError(f"{journal}: is another file, not a journal; give another") from None
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
            raise ConfigError(f"{journal}: begun {what}; give another {argument('journal')}")
    if not _same_space(study, space):
        raise ConfigError(f"{journal}: begun with other values; give another {argument('journal')}")
    for key, (value, _) in begun.items():
        if key not in before:
            study.set_user_attr(key, value)
    return study


def _same_space(study: Any, space: Space) -> bool:
    """Optuna's categories cannot change within a study, not even those of a killed trial."""
    choices = {key: words(values) for key, values in space.items()}
    for trial in study.trials:
        before = {key: list(kind.choices) for key, kind in trial.distributions.items()}
        if trial.value is None:  # killed, maybe before all of its settings were drawn
            before = {**choices, **before}
        if before != choices:
            return False
    return True


def seconds_of(study: Any) -> float:
    """Wall time of all trials."""
    return sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in study.trials)


def tried_in(study: Any) -> dict[str, float]:
    """Settings that were tried to their end, as JSON, and what came out."""
    return {
        json.dumps({k: json.loads(v) for k, v in t.params.items()}, sort_keys=True): t.value
        for t in study.trials
        if t.value is not None and CUT not in t.user_attrs
    }


def _as_setting(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value


def words(values: tuple[Any, ...]) -> list[str]:
    """Values as Optuna's categories, which have to be simple: JSON."""
    return [json.dumps(value) for value in values]


def _storage(journal: Path) -> Any:
    optuna = library()
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))


def library() -> Any:
    """Optuna, quiet.

    Raises
    ------
    ConfigError
        Without it.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("tuning needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
