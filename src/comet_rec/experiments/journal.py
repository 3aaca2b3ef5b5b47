"""The journal of a search: Optuna's text file, what it holds, and who may go on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comet_rec import renamed
from comet_rec.config import Config
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError, argument
from comet_rec.files import refuse_other_than_file
from comet_rec.models import base

Space = Mapping[str, tuple[Any, ...]]
"""Dotted key → values to try."""

CUT = "cut"
OLD_METRIC = next(old for old, new in renamed.SETTINGS.items() if new == "train.selection_metric")
"""Attribute of a trial that time ran out for: whoever goes on with the search tries it again."""


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Parameters
    ----------
    settings : dict
        Dotted keys and what was chosen for them.
    value : float
        Validation NDCG@10 of the kind that the search selects by, of the best epoch.
    seconds : float
    stopped_early : bool
        It was behind the median of those before it. (One that was not finite has the value 0.)
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
        In their order; repeated settings are left out.
    begun : mapping
        On which log and split, from which settings: see `open_study`.
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

    Of searches that selected by such a figure; the fixed settings of one are among them. Of two
    for a model the better one counts.

    Raises
    ------
    ConfigError
        For a file that is no journal, or without Optuna.
    """
    same = {
        "log": split.interactions.fingerprint, "protocol": split.hash, "preset": preset
    }  # fmt: skip
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for search in (search for journal in journals for search in history(journal)):
        begun, best = search.begun, search.best
        ours = all(begun.get(key) == value for key, value in same.items())  # a preset since 0034
        if best is None or not ours or search.selection_metric != selection_metric:
            continue
        if search.model not in found or best.value > found[search.model][0]:
            fixed = {key: _as_setting(value) for key, value in begun["fixed"].items()}
            settings = renamed.settings({**fixed, **best.settings})
            found[search.model] = (best.value, settings)
    return {model: settings for model, (_, settings) in found.items()}


def history(journal: Path) -> list[Search]:
    """All searches in a journal, one for each model.

    Raises
    ------
    ConfigError
        For a file that is no journal, or without Optuna.
    """
    optuna = library()
    if not journal.exists():
        raise ConfigError(f"{journal}: no such file; give a journal that comet-rec tune wrote")
    refuse_other_than_file(journal, str(journal))
    try:
        storage = _storage(optuna, journal)
        studies = storage.get_all_studies()
        found = [
            Search(
                study.study_name,
                finished_in(storage.get_all_trials(study._study_id)),
                study.user_attrs,
            )
            for study in studies
        ]
    except Exception:  # of any kind: Optuna takes what a line holds for granted, and so do we
        found = []
    if not found or any(search.model not in base.names() for search in found):
        raise ConfigError(f"{journal}: not a journal; give one that comet-rec tune wrote")
    return found


def finished_in(trials: Sequence[Any]) -> list[Trial]:
    """Optuna's trials that trained something to a figure: no repeats, none that was killed."""
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


def open_study(
    optuna: Any, journal: Path, fixed: Config, split: Split, space: Space,
    settings: Mapping[str, Any],
) -> Any:  # fmt: skip
    """Optuna's study of a model in a journal, begun there or gone on with.

    `fixed` is a preset with `settings`, which it is begun with.

    Raises
    ------
    ConfigError
        For a file that is no journal, or one of another log or split, of other settings or values
        to try; nothing of this call is written into it then.
    """
    try:
        study = optuna.create_study(
            storage=_storage(optuna, journal),
            study_name=fixed.name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=fixed.seed, multivariate=True),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=10),
        )
        finished_in(study.trials), seconds_of(study), tried_in(study)  # what is asked for later
    except OSError as error:
        raise ConfigError(f"{journal}: cannot be written: {error.strerror}") from None
    except Exception:  # of any kind: Optuna takes what a line of the file holds for granted
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
    wanted = {key: words(values) for key, values in space.items()}
    for trial in study.trials:
        found = {key: list(kind.choices) for key, kind in trial.distributions.items()}
        if trial.value is None:  # killed, maybe before all of its settings were drawn
            found = {**wanted, **found}
        if found != wanted:
            return False
    return True


def close_abandoned(optuna: Any, study: Any) -> None:
    """Trials that were killed: nobody will end them, and what they took stays counted."""
    running = (optuna.trial.TrialState.RUNNING,)
    for trial in study.get_trials(deepcopy=False, states=running):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


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


def _storage(optuna: Any, journal: Path) -> Any:
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
