"""Parameters that start as those of trained models (pre-training)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError, InputError
from comet_rec.models import base


@dataclass(frozen=True)
class Start:
    """Finished runs that a model's parameters start from; none for a random start."""

    runs: Sequence[Run] = ()

    @classmethod
    def of(cls, models: Any) -> Self:
        """From one fitted model or several.

        Raises
        ------
        InputError
            For what is no model.
        NotFittedError
            For one that is not trained yet.
        """
        several = isinstance(models, Iterable) and not isinstance(models, str)
        given = list(models) if several else [models]
        runs = [run for model in given if isinstance(run := getattr(model, "run", None), Run)]
        if len(runs) < len(given):
            raise InputError(
                f"init_from: give fitted models, not {models!r}; load_model(folder) reads one"
            )
        return cls(runs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Model and digest of its state, for each run."""
        return tuple(f"{run.config.name} {_digest(run.state)}" for run in self.runs)

    @cached_property
    def digest(self) -> str:
        """What tells two starts apart, the same before and after a refit of theirs."""
        return " ".join(_digest(run.selected or run.state) for run in self.runs)

    def check(self, config: Config, log: Interactions, split: Split | None) -> None:
        """Refuse runs that the model cannot or must not start from.

        Raises
        ------
        ConfigError
            When the model takes no start or other models, or a run saw other data, another
            split, or validation rows before their time.
        """
        if not self.runs:
            return
        wanted = sources(config)
        given = tuple(sorted(run.config.name for run in self.runs))
        if given != tuple(sorted(wanted)):
            takes = f"needs one run each of {', '.join(wanted)}" if wanted else "takes none"
            raise ConfigError(f"{config.name} started from {', '.join(given)}: it {takes}")
        for run in self.runs:
            self._check_settings(run, config)
            self._check_data(run, config, log, split)

    @staticmethod
    def _check_settings(run: Run, config: Config) -> None:
        _, shared, _ = getattr(config.model, "companions", {}).get(run.config.name, ("", {}, 0))
        for key, value in {"model.exclude_target": True, **shared}.items() if shared else ():
            if run.config.get(key) != value:
                raise ConfigError(
                    f"the {run.config.name} run has {key} = {run.config.get(key)} where this model "
                    f"needs {value}; train it so, or fit this model's settings to it"
                )

    def _check_data(self, run: Run, config: Config, log: Interactions, split: Split | None) -> None:
        name = run.config.name
        if run.interactions.fingerprint != log.fingerprint:
            raise ConfigError(f"the {name} run was trained on another log; train it on this one")
        own = run.split
        if (own is None) != (split is None):
            raise ConfigError(
                f"the {name} run and this training must both hold items out, or neither; "
                "train it the same way"
            )
        if own is not None and split is not None and bool((own.part != split.part).any()):
            raise ConfigError(f"the {name} run was trained on another split; train it on this one")
        if split is not None and run.config.train.refit != config.train.refit:
            raise ConfigError(
                f"the {name} run was trained with refit = {str(run.config.train.refit).lower()} "
                f"and this one with {str(config.train.refit).lower()}: a start that knows the "
                "validation rows would choose on them; train both the same way"
            )

    def apply(self, model: Any, *, refitted: bool) -> None:
        """Load the start into a fresh model.

        Parameters
        ----------
        model : module
        refitted : bool
            Take the parameters that a refit gave, not those that validation chose.

        Raises
        ------
        ConfigError
            When the shapes differ.
        """
        wanted = type(model).sources(model.config) if self.runs else ()
        if not wanted:
            return
        states = {
            run.config.name: run.state if refitted or run.selected is None else run.selected
            for run in self.runs
            if run.config.name in wanted
        }
        if set(states) != set(wanted):
            return  # `check` says what is wrong
        try:
            model.load_state_dict(model.initial_state(**states))
        except (RuntimeError, KeyError) as error:
            raise ConfigError(
                f"the runs to start from have other sizes ({str(error).splitlines()[-1].strip()}); "
                "give all the same embedding_dim and hidden"
            ) from None


def sources(config: Config) -> tuple[str, ...]:
    """Models that one with this config starts from."""
    found: tuple[str, ...] = base.model_class(config.name).sources(config.model)
    return found


def _digest(state: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(name.encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
