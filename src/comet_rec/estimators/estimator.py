"""The estimator: one class for every model; a model is a name and a preset (`registry`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from comet_rec import renamed
from comet_rec.artefact.run import Run, save_run
from comet_rec.config import Config, is_whole
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.nearest import shown
from comet_rec.data.split import Split
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError, InputError, NotFittedError
from comet_rec.estimators import lists, presets
from comet_rec.estimators.evaluate import measured
from comet_rec.estimators.presets import blend_config, preset
from comet_rec.estimators.surroundings import torch_device, undisturbed
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import run_scores
from comet_rec.training import pretraining
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import fit
from comet_rec.training.trainer import Progress
from comet_rec.training.validation import validation_text


def folder_path(folder: Any, call: str) -> Path:
    """Path of a folder as a caller gives it.

    Raises
    ------
    InputError
        For what is no path.
    """
    if not isinstance(folder, (str, PathLike)):
        raise InputError(f"{call}: {shown(folder)} is no path; give the folder of a run")
    return Path(os.fsdecode(folder)).expanduser()


class Estimator:
    """A model with the life that a user knows: settings, `fit`, `recommend`, `save`.

    Parameters
    ----------
    preset : str
        Named settings; "auto" chooses by the size of the log.
    seed : int
        Seed of everything random in training. Evaluation candidates have their own seed.
    device : str
        "cpu", "cuda", "cuda:1", "mps".
    settings
        Any setting of the model or of training by its own name, e.g. ``embedding_dim=64``,
        ``epochs=20``.

    Raises
    ------
    ConfigError
        For an unknown setting; the nearest one is named.
    """

    name = "comet"
    """Name of the model in the registry."""

    def __init__(
        self, *, preset: str = "auto", seed: int = 0, device: str = "cpu", **settings: Any
    ) -> None:
        if not is_whole(seed) or seed < 0:
            raise ConfigError(f"seed = {seed!r}: must be a whole number, 0 or above")
        self.preset = preset
        self.seed = int(seed)
        self.device = torch_device(device)
        self.settings = renamed.settings(settings, warn=True)
        self._run: Run | None = None
        presets.check_without_log(self.config_for)

    def config_for(self, log: Interactions) -> Config:
        """Complete config that `fit` would use for this log.

        Raises
        ------
        ConfigError
            For settings that are unknown, out of range, or not for this model.
        """
        plain = replace(preset(self.preset, self.name, log), seed=self.seed)
        return presets.applied(plain, self.settings)

    @undisturbed
    def fit(
        self,
        data: Interactions | Split,
        *,
        refit: bool | None = None,
        init_from: Sequence[Estimator] | Estimator = (),
        progress: bool = False,
        hooks: Hooks | None = None,
    ) -> Self:
        """Train; `cr.evaluate` measures.

        Parameters
        ----------
        data : Split or Interactions
            A split stops training by its validation items; a bare log trains on everything for
            a fixed number of epochs, `full_epochs` (where `epochs` alone was given, that many),
            and nothing can be measured afterwards.
        refit : bool, optional
            Train once more on training and validation rows for the epochs that validation
            chose. Default: the constructor's ``refit``, else the preset's.
        init_from : Estimator or sequence of Estimator
            Trained models that the parameters start from: a GMF and an MLP for NeuMF, an MF for
            ConvNCF, a FISM for COMET's blend; trained on the same split, with or without a refit
            as this one.
        progress : bool
            Tell each epoch on stderr.
        hooks : Hooks, optional
            Progress, stopping, checkpoints; in the place of `progress`.

        Raises
        ------
        NonFiniteError
            When the loss is not finite.
        ConfigError
            When the model cannot start from the models given, or the protocol is not the split's.
        InputError
            For data that are neither a split nor a log, or an `init_from` without a model.
        """
        if not isinstance(data, (Interactions, Split)):
            raise InputError(not_a_log(data, "fit", "leave_one_out or "))
        starts = pretraining.runs_of(init_from)
        hooks = hooks or (Hooks(report=tell_epochs) if progress else Hooks())
        log = data.interactions if isinstance(data, Split) else data
        config = self.config_for(log)
        if refit is not None:
            config = config.with_settings({"train.refit": refit})
        if isinstance(data, Split):
            presets.check_protocol(config, self.settings, data.protocol)
            config = replace(config, protocol=data.protocol)
        else:
            chosen = presets.dotted(config, self.settings)
            if "train.epochs" in chosen and "train.full_epochs" not in chosen:
                config = config.with_settings({"train.full_epochs": config.train.epochs})
        second: Any = blend_config(config, log)
        for run in starts if second else ():
            if run.config.name == second.name:  # trained before
                second = run
                starts.remove(run)
                break
        self._run = fit(config, data, second=second, starts=starts, hooks=hooks, device=self.device)
        return self

    @property
    def run(self) -> Run:
        """The finished training.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        if self._run is None:
            raise NotFittedError("this model is not trained yet; call fit first")
        return self._run

    @property
    def config(self) -> Config:
        """Config that the model was trained with."""
        return self.run.config

    @property
    def chosen(self) -> dict[str, Any]:
        """Arguments of a fresh model to be trained on everything as validation chose.

        ``COMET(**model.chosen).fit(interactions)``: this model's own, the epochs that validation
        chose (the schedule stays as long as it was), and the weight and the epochs of a blend. A
        model that started from given runs needs them again, trained on everything too.

        Raises
        ------
        NotFittedError
        ConfigError
            For a model that was trained without validation items.
        """
        if self.run.split is None:
            raise ConfigError("the model was trained on the whole log: validation chose nothing")
        chosen = self.run.chosen
        replaced = {*chosen, *map(presets.bare, chosen)}
        kept = {name: value for name, value in self.settings.items() if name not in replaced}
        device = str(self.device)
        return {"preset": self.preset, "seed": self.seed, "device": device, **kept, **chosen}

    @undisturbed
    def recommend(
        self,
        users: Iterable[Any] | None = None,
        k: int = 10,
        *,
        include_seen: bool = False,
        allow: Iterable[Any] | None = None,
        block: Iterable[Any] | None = None,
        unknown: lists.Unknown = "error",
    ) -> Table:
        """Best items for known users.

        Parameters
        ----------
        users : list of ids, optional
            Any list, array, Series or Arrow array; None for every user. An id that stands for the
            log's type exactly is that id: with integers 7, 7.0 and "7", with text also the number
            of its digits. Any other value is an error, whatever `unknown` says.
        k : int
            Items a user; fewer where fewer are left.
        include_seen : bool
            Whether items that the model knows of the user may be listed. A model that was
            fitted on a split does not know the test items.
        allow, block : list of item ids, optional
            List nothing but these; never list these. Ids that the log does not hold are passed
            over; what cannot be an id of its items is an error.
        unknown : {"error", "skip", "popular"}
            Answer for a user outside the log: an error, no rows, or the most popular items
            (their score is the number of users).

        Returns
        -------
        Table
            Rows user_id, item_id, score (the logit of Eq. 8), rank (from 1); equal scores in
            the order of ids.

        Raises
        ------
        UnknownIdError, NotFittedError, InputError
        """
        rules = lists.Rules(k, include_seen, allow, block, unknown)
        return lists.for_users(self.run, users, rules)

    @undisturbed
    def recommend_for_history(
        self,
        histories: Sequence[Sequence[Any]],
        k: int = 10,
        *,
        include_seen: bool = False,
        allow: Iterable[Any] | None = None,
        block: Iterable[Any] | None = None,
        unknown: lists.Unknown = "error",
    ) -> Table:
        """Best items for users that the model never saw: one tower pass over each history.

        Parameters
        ----------
        histories : list of lists of item ids
            Oldest first; an item that occurs again counts once, at its first place. Ids are taken
            as in `recommend`.
        k, include_seen, allow, block
            As in `recommend`; seen means in the history given.
        unknown : {"error", "skip", "popular"}
            Answer to an item outside the log: an error, no entry, or no entry and a
            history without a known item gets the most popular items. An empty history gets what
            the model makes of none; EASE and ItemKNN make nothing of it, and list popular items.

        Returns
        -------
        Table
            As `recommend`; user_id is the place of the history, from 0.
        """
        rules = lists.Rules(k, include_seen, allow, block, unknown)
        return lists.for_histories(self.run, histories, rules, self.device)

    @undisturbed
    def score(self, users: Iterable[Any], items: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Scores of known users for items: what `recommend` ranks by, float32 [B].

        MLP, NeuMF and ConvNCF pass pairs through a network: their last bits depend on how many are
        scored at a time.

        Parameters
        ----------
        users, items : list of ids [B]
            A pair at each place; seen items are scored like any other.

        Raises
        ------
        UnknownIdError, InputError, NotFittedError
        """
        log = self.run.interactions
        left = lists.known(log.user_ids, users, "user")
        right = lists.known(log.item_ids, items, "item")
        if len(left) != len(right):
            raise InputError(
                f"score: {len(left)} users and {len(right)} items; give an item for each user"
            )
        return checked(run_scores(self.run).score_pairs(left, right[:, None]))[:, 0]

    def user_vectors(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """All users' ids, and vectors whose inner product with an item's is the score, [m, W].

        For an index of one's own. W is K, and more where a model has biases (a column that meets
        the constant 1) or a blend (the second model's columns come last).

        Raises
        ------
        ConfigError
            For a model whose scores are no inner product: EASE, ItemKNN, MLP, NeuMF, ConvNCF.
        NotFittedError
        """
        return self._vectors(self.run.user_vectors, self.run.interactions.user_ids)

    def item_vectors(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """All items' ids, and their vectors, [n, W]; as `user_vectors`."""
        return self._vectors(self.run.item_vectors, self.run.interactions.item_ids)

    def _vectors(
        self, vectors: Tensor | None, ids: Ids
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        if vectors is None:
            raise ConfigError(f"{self.name} has no vectors: its scores are no inner product")
        return ids.external(np.arange(len(ids))), vectors.numpy().copy()

    def describe(self, source: str, titles: Mapping[str, str], reading: Mapping[str, Any]) -> None:
        """Add a log's source, items' titles by id as text, and the options it was read with."""
        self._run = replace(self.run, source=source, titles=dict(titles), reading=dict(reading))

    @undisturbed
    def save(self, folder: str | Path) -> None:
        """Write the run directory, whole or not at all; an earlier run there is replaced.

        With the figures of its test items, over the whole catalogue too, if it holds any out.

        Raises
        ------
        NotFittedError, ArtefactError
        InputError
            For what is no path.
        """
        place = folder_path(folder, "save")
        self._run = measured(self.run)
        save_run(self._run, place)

    def __repr__(self) -> str:
        state = "not fitted" if self._run is None else f"{self.run.epochs} epochs"
        return f"{type(self).__name__}(preset={self.preset!r}, seed={self.seed}, {state})"


def tell_epochs(stage: str, progress: Progress) -> None:
    """A line on stderr at the end of each epoch."""
    if not progress.finished_epoch:
        return
    figures = f", {validation_text(progress.validation)}" if progress.validation else ""
    where = f"{stage} epoch {progress.epoch}/{progress.epochs}"
    sys.stderr.write(f"{where}: loss {progress.loss:.4f}{figures}\n")
    sys.stderr.flush()
