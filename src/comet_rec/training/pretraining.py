"""Initialisation of a model's parameters from pre-trained models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError, InputError
from comet_rec.models import base
from comet_rec.training import blend


def runs_of(models: Any) -> list[Run]:
    """The runs (trained parameters with their data) of one fitted model or of several.

    Raises
    ------
    InputError
        When `models` holds something else than models.
    NotFittedError
        When a model is not trained yet.
    """
    several = isinstance(models, Iterable) and not isinstance(models, str)
    given = list(models) if several else [models]
    runs = [run for model in given if isinstance(run := getattr(model, "run", None), Run)]
    if len(runs) < len(given):
        raise InputError(
            f"init_from: give fitted models, not {models!r}; load_model(folder) reads one back"
        )
    return runs


def check(
    starts: Sequence[Run], second: Sequence[Run], config: Config, log: Interactions,
    split: Split | None,
) -> None:  # fmt: skip
    """Check that a model with this config may be initialised from the given pre-trained models.

    Parameters
    ----------
    starts : sequence of Run
        Pre-trained models for the initial parameters.
    second : sequence of Run
        The trained second model of a blend, if the caller gives one; otherwise empty.
    config : Config
    log : Interactions
    split : Split or None

    Raises
    ------
    ConfigError
        When the model needs other pre-trained models or none. Also when one was trained on another
        log, on another split, or on the validation rows of this training.
    """
    given, needed = sorted(run.config.name for run in starts), sources(config)
    if given and given != sorted(needed):
        takes = f"needs one run each of {', '.join(needed)}" if needed else "takes none"
        raise ConfigError(f"{config.name} cannot start from runs of {', '.join(given)}: it {takes}")
    for run in second:
        blend.check_given(run, config)
    for run in (*starts, *second):
        check_data(run, config, log, split)


def check_data(run: Run, config: Config, log: Interactions, split: Split | None) -> None:
    """Check that a pre-trained model was trained on the same data as the model that starts from it.

    Raises
    ------
    ConfigError
    """
    name, run_split = run.config.name, None if run.final else run.split
    if run.interactions.fingerprint != log.fingerprint:
        raise ConfigError(f"the {name} run was trained on another log; train the run on this log")
    if (run_split is None) != (split is None):
        raise ConfigError(
            f"the {name} run and this training must both hold items out, or neither; "
            "train the run the same way"
        )
    if run_split is not None and split is not None and bool((run_split.part != split.part).any()):
        raise ConfigError(f"the {name} run was trained on another split; train it on this split")
    if split is not None and run.config.train.refit != config.train.refit:
        raise ConfigError(
            f"the {name} run was trained with refit = {str(run.config.train.refit).lower()} "
            f"and this model with {str(config.train.refit).lower()}, so validation could use rows "
            "of training; train both the same way"
        )


def initialise(model: Any, runs: Sequence[Run], *, refitted: bool) -> None:
    """Set the initial parameters of a new model from pre-trained models.

    Parameters
    ----------
    model : module
    runs : sequence of Run
        The pre-trained models, one for each name in the model's `sources`; call `check` first.
    refitted : bool
        Whether to take their parameters from after their refit, or from before it.

    Raises
    ------
    ConfigError
        When the shapes of the parameters differ.
    """
    states = {
        run.config.name: run.state if refitted or run.selected is None else run.selected
        for run in runs
    }
    try:
        model.load_state_dict(model.initial_state(**states))
    except (RuntimeError, KeyError) as error:
        raise ConfigError(
            "the sizes of the pre-trained models differ from this model's "
            f"({str(error).splitlines()[-1].strip()}); give all the same embedding_dim and hidden"
        ) from None


def sources(config: Config) -> tuple[str, ...]:
    """Names of the pre-trained models that can initialise a model with this config."""
    models: tuple[str, ...] = base.model_class(config.name).sources(config.model)
    return models
