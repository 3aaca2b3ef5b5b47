"""The estimator: the base class of all models, with `fit`, `recommend`, `score` and `save`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from comet_rec import processes, renamed
from comet_rec.artefact.checkpoint import MEASURED
from comet_rec.artefact.run import Run, save_run
from comet_rec.config import Config, is_whole
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.joined import joined
from comet_rec.data.nearest import shown
from comet_rec.data.split import Split
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError, InputError, NotFittedError
from comet_rec.estimators import explanation, lists, lookup, presets, similar
from comet_rec.estimators.evaluate import measured
from comet_rec.estimators.list_file import write_lists
from comet_rec.estimators.presets import blend_config, preset
from comet_rec.estimators.progress import training_progress
from comet_rec.estimators.rows import new_rows
from comet_rec.estimators.rules import Rules, Unknown
from comet_rec.estimators.surroundings import torch_device, undisturbed
from comet_rec.estimators.yardsticks import compared
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import run_scores
from comet_rec.models import base
from comet_rec.reading.item_table import item_columns
from comet_rec.training import kept, pretraining
from comet_rec.training.checkpoints import Hooks, begun_otherwise, started_from
from comet_rec.training.fit import fit
from comet_rec.training.item_features import item_features
from comet_rec.training.update import updated


def folder_path(folder: Any, call: str, what: str = "the folder of a run") -> Path:
    """Convert `folder` to a `Path`; errors name the function `call`, to which it was passed.

    `what` says in the error what the caller should pass.

    Raises
    ------
    InputError
        When `folder` is not a path.
    """
    if not isinstance(folder, (str, PathLike)):
        raise InputError(f"{call}: {shown(folder)} is not a path; give {what}")
    return Path(os.fsdecode(folder)).expanduser()


class Estimator:
    """Base class of all models: train with `fit`, then `recommend`, `score` and `save`.

    Parameters
    ----------
    preset : str
        Name of a complete set of settings. "auto" chooses settings by the log: its size, and
        whether its times give an order.
    seed : int
        Seed of everything random in training. Evaluation candidates have their own seed.
    device : str
        Device for training and for encoding new users: "cpu", "cuda", "cuda:1" or "mps".
    settings
        Settings that replace those of the preset, e.g. ``embedding_dim=64`` or ``epochs=20``.
        The signature of each model lists all of them.

    Raises
    ------
    ConfigError
        When a setting is unknown or out of range. The message suggests the nearest name.
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
            When a setting is unknown, out of range, or does not apply to this model.
        """
        plain = replace(preset(self.preset, self.name, log), seed=self.seed)
        config = presets.applied(plain, self.settings)
        chosen = "train.table_optimizer" in presets.dotted(plain, self.settings)
        return config if chosen else presets.by_rows(config, log)

    @undisturbed
    def fit(
        self,
        data: Interactions | Split,
        *,
        refit: bool | None = None,
        init_from: Sequence[Estimator] | Estimator = (),
        progress: bool | None = None,
        hooks: Hooks | None = None,
    ) -> Self:
        """Train the model on a split or on a full log.

        Training never reads the test items; `evaluate` measures on them afterwards.

        Parameters
        ----------
        data : Split or Interactions
            With a split, the validation items choose the number of epochs. With a log, the model
            is trained on all rows for a fixed number of epochs and cannot be evaluated. That
            number is `full_epochs`; if only `epochs` is set, `epochs` is used.
        refit : bool, optional
            Train again from the start on training and validation rows, for the number of epochs
            that validation chose. Default: the setting ``refit``, else the preset decides.
        init_from : Estimator or sequence of Estimator
            Trained models to initialise from: a GMF and an MLP for NeuMF, an MF for ConvNCF, a
            FISM for the blend of COMET. They must be trained on the same data and with the same
            choice of `refit`.
        progress : bool, optional
            Show progress on stderr: a bar on a terminal and in a notebook, elsewhere a line for
            each epoch. Default: show it on a terminal and in a notebook only.
        hooks : Hooks, optional
            Callbacks for progress and stopping, and a folder for checkpoints. They replace
            `progress`.

        Returns
        -------
        Estimator
            The model itself.

        Raises
        ------
        NonFiniteError
            When the loss is NaN or infinite.
        TrainingInterrupted
            When `hooks` asked to stop.
        ConfigError
            When the model cannot be initialised from `init_from`, or a protocol setting differs
            from the split.
        InputError
            When `data` is neither a split nor a log, or `init_from` holds anything but fitted
            models.
        """
        if not isinstance(data, (Interactions, Split)):
            raise InputError(not_a_log(data, "fit", "leave_one_out or "))
        no_models = isinstance(init_from, tuple) and not init_from  # the default
        initial_runs = [] if no_models else pretraining.runs_of(init_from)
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
        for run in initial_runs if second else ():
            if run.config.name == second.name:  # the caller has trained the second model already
                second = run
                initial_runs.remove(run)
                break
        with self._hooks(hooks, progress) as followed:
            self._run = self._stopped_in_final(config, data, second, initial_runs, followed) or fit(
                config, data, second=second, starts=initial_runs, hooks=followed,
                device=self.device,
            )  # fmt: skip
        return self

    @undisturbed
    def final(
        self,
        *,
        init_from: Sequence[Estimator] | Estimator = (),
        progress: bool | None = None,
        hooks: Hooks | None = None,
    ) -> Self:
        """Train once more on all rows, with the settings that validation chose, for production.

        The model is evaluated on its split first. It then has the weights of
        ``COMET(**model.chosen).fit(log)``, and keeps the split and the metrics, which `save`
        writes. By default, `recommend` then leaves out the test items too, because the model knows
        them. For the same reason, `evaluate` refuses the model.

        Parameters
        ----------
        init_from : Estimator or sequence of Estimator
            Needed only if `fit` had `init_from`: the same models, trained on all rows.
        progress, hooks
            As for `fit`. If training is stopped, repeat `fit` and `final` with the same hooks and
            ``resume=True``; only the final training goes on.

        Returns
        -------
        Estimator
            The model itself.

        Raises
        ------
        ConfigError
            When nothing was held out, or `init_from` is missing.
        NotFittedError
            When the model is not trained yet.
        """
        if self.run.final:
            return self
        if self.run.split is None:
            raise ConfigError("the model knows all rows already, so it needs no final training")
        starts = pretraining.runs_of(init_from)
        if self.run.started_from and not starts:
            raise ConfigError(
                f"this {self.name} started from trained models; pass the same models as "
                "init_from, each trained on all rows or by final()"
            )
        before = measured(self.run)
        every = type(self)(**self.chosen)
        with self._hooks(hooks, progress) as followed:
            inner = followed.of_final()
            # Keeping removes other checkpoints.
            if followed.checkpoints and not inner.resume and processes.rank() == 0:
                kept.keep(before, followed.checkpoints / MEASURED)
            processes.wait()
            every.fit(before.interactions, init_from=init_from, hooks=inner)
        self._run = replace(
            every.run, final=True, config=before.config, split=before.split,
            metrics=before.metrics, yardsticks=before.yardsticks,
            log=[*before.log, *every.run.log], titles=before.titles, source=before.source,
            reading=before.reading,
        )  # fmt: skip
        return self

    @undisturbed
    def update(
        self,
        rows: Any,
        *,
        items: Any = None,
        epochs: int = 0,
        progress: bool | None = None,
        hooks: Hooks | None = None,
    ) -> Self:
        """Learn new rows, users and items without a training from the start.

        Histories take the new rows at once. New users are folded in, or get a first vector from
        their items; new items get one from the users who took them. Then the model is trained on
        the new rows, mixed with a sample of the old ones. Popularity, ItemKNN and EASE are fitted
        again on all rows.

        The model then knows all rows of its log, the held-out ones of a split too. So it keeps the
        metrics of the first training, but has no split, and `evaluate` refuses it.

        Parameters
        ----------
        rows : Interactions, what `read` accepts, or None
            The new rows alone; None for no rows, with `items`. Anything but `Interactions` is read
            with the columns and options that the model's log was read with, else with common
            column names. Of a pair that the log has already, the earliest row counts, or the latest
            if the log was read with ``repeats="last"``.
        items : path, frame or dict of columns, optional
            Features of items: a column of ids, and columns of categories, numbers or texts. Items
            that the log lacks join the catalogue, even without a row. Their first vectors come from
            a map of the features of old items onto trained vectors, so name the old items too.
        epochs : int
            Epochs of training, from the present parameters, on the new rows and nine random old
            rows for each of them. With 0, nothing is trained; ten updates of a log measured no
            worse that way (docs/updates.md).
        progress, hooks
            As for `fit`. An update writes no checkpoints.

        Returns
        -------
        Estimator
            The model itself.

        Raises
        ------
        DataError
            When `rows` cannot be read, or its ids or times do not fit the log.
        InputError
            When `epochs` is no whole number, 0 or above, or `items` cannot be used.
        ConfigError
            With `items`, when the model has no vectors that could be learned from features.
        NotFittedError
            When the model is not trained yet.
        """
        run = self.run
        if not is_whole(epochs) or epochs < 0:
            raise InputError(f"epochs = {epochs!r}: must be a whole number, 0 or above")
        if rows is None and items is None:
            raise InputError("rows = None: give new rows, or items with their features")
        ids: list[Any] = []
        columns: dict[str, Any] = {}
        if items is not None:
            if base.non_iterative(self.name):
                raise ConfigError(
                    f"{self.name} learns nothing from features of items; use a model with vectors, "
                    "e.g. comet or mf"
                )
            ids, columns = item_columns(items, run.interactions.item_ids, run.reading.get("item"))
        repeats = run.reading.get("repeats", "first")
        whole = joined(run.interactions, new_rows(run, rows), repeats, ids)
        described = None
        if items is not None:
            described = whole.log.item_ids.index(ids), item_features(columns)
        second = blend_config(run.config, run.interactions)
        with self._hooks(hooks, progress) as hooks:
            self._run = updated(measured(run), whole, second, described, epochs, hooks, self.device)
        return self

    @undisturbed
    def yardsticks(self) -> Table:
        """Compare the model with popularity, ItemKNN and EASE on its split.

        The yardsticks are refitted if the model was. A yardstick that would need much memory or
        time is left out. `save` keeps the comparison.

        Returns
        -------
        Table
            NDCG@10 of the model and of each yardstick, one row each. Columns: model, validation,
            difference, low, high, test sampled, test full. The difference is the model minus the
            yardstick, on the same validation users; low and high are its 95 % interval. These three
            are NaN in the row of the model.

        Raises
        ------
        ConfigError
            When nothing was held out, or the model is final and was not compared before.
        NotFittedError
            When the model is not trained yet.
        """
        if self.run.yardsticks is None:
            if self.run.split is None or self.run.final:
                raise ConfigError(
                    "the model knows all rows, so nothing is left to compare it on; fit it on a "
                    "split, and call yardsticks before final"
                )
            run = measured(self.run)
            self._run = replace(run, yardsticks=compared(run))
        models = (self.run.yardsticks or {})["models"]
        columns = {"test sampled": "sampled", "test full": "full"}
        columns = {name: name for name in ("validation", "difference", "low", "high")} | columns
        # None becomes NaN.
        values = {name: np.array([m[key] for m in models], float) for name, key in columns.items()}
        return Table({"model": np.array([m["model"] for m in models]), **values})

    @staticmethod
    @contextlib.contextmanager
    def _hooks(hooks: Hooks | None, progress: bool | None) -> Iterator[Hooks]:
        """Context with the caller's hooks, or with hooks that show progress."""
        if hooks is not None:
            yield hooks
            return
        with training_progress(progress) as report:
            yield Hooks(report=report)

    @staticmethod
    def _stopped_in_final(
        config: Config, data: Interactions | Split, second: Any, starts: Sequence[Run], hooks: Hooks
    ) -> Run | None:
        """The measured run that waits for its final training to resume; None if there is none."""
        if hooks.checkpoints is None or not hooks.resume:
            return None
        run = kept.waiting(hooks.checkpoints / MEASURED, config, data)
        given = [*starts, second] if isinstance(second, Run) else starts
        if run is not None and run.started_from != started_from(given):
            raise begun_otherwise(hooks.checkpoints)
        return run

    @property
    def run(self) -> Run:
        """Result of the training: config, weights, log and split.

        Raises
        ------
        NotFittedError
            When the model is not trained yet.
        """
        if self._run is None:
            raise NotFittedError("this model is not trained yet; call fit first")
        return self._run

    @property
    def config(self) -> Config:
        """Complete config of the training."""
        return self.run.config

    @property
    def chosen(self) -> dict[str, Any]:
        """Constructor arguments for a final model, with the epochs that validation chose.

        ``COMET(**model.chosen).fit(log)`` trains on all rows, with this model's settings and the
        chosen number of epochs. The learning rate schedule keeps its length. For a blend, the
        arguments include its chosen weight and epochs. Models passed as `init_from` must be
        trained on all rows and passed again.

        Raises
        ------
        NotFittedError
            When the model is not trained yet.
        ConfigError
            When the model was trained without validation items.
        """
        if self.run.split is None:
            raise ConfigError(
                "the model was trained on the full log, so validation chose nothing; "
                "fit it on a split"
            )
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
        allow_pairs: Any = None,
        block_pairs: Any = None,
        groups: Any = None,
        allow_groups: Iterable[Any] | None = None,
        block_groups: Iterable[Any] | None = None,
        per_group: int | None = None,
        unknown: Unknown = "error",
        diversify: float = 0.0,
    ) -> Table:
        """Recommend the k best items to users of the log.

        Parameters
        ----------
        users : list of ids, optional
            User ids in any list, array, Series or Arrow array; None for all users. Ids may have
            another type with the same value: 7, 7.0 and "7" are one id. A value that cannot be
            an id, such as 7.5 in a log of integers, is always an error.
        k : int
            Items per user. A list is shorter if fewer items are left.
        include_seen : bool
            Also list items that the user has interacted with. Test items of a split may be
            listed in any case, because the model does not know them.
        allow : list or set of item ids, optional
            List only these items. Ids that the log does not hold are ignored.
        block : list or set of item ids, optional
            Never list these items. Ids that the log does not hold are ignored.
        allow_pairs : frame, table or dict of columns, optional
            Columns user_id and item_id: list only these items to these users. A user without a row
            gets no items.
        block_pairs : frame, table or dict of columns, optional
            Columns user_id and item_id: never list these items to these users.
        groups : dict of item id to group, or frame, optional
            Group of each item, such as its category; a frame has the columns item_id and group.
            Items without a group are never limited by `per_group`.
        allow_groups, block_groups : list of groups, optional
            List only items of these groups, or never items of these groups.
        per_group : int, optional
            Largest number of items of one group in a list.
        unknown : {"error", "skip", "popular"}
            For a user outside the log: raise an error, return no rows, or return the most popular
            items, with the number of their users as the score.
        diversify : float
            How much an item loses for being like one that stands before it, from 0 to 1 (maximal
            marginal relevance over item vectors). With 0, the order is that of the scores.

        Returns
        -------
        Table
            Columns user_id, item_id, score (the logit of Eq. 8) and rank (from 1). Items with
            equal scores are ordered by id.

        Raises
        ------
        UnknownIdError
            When a user is not in the log and `unknown` is "error".
        NotFittedError
            When the model is not trained yet.
        InputError
            When an argument is not a list of ids, or `k` is not a whole number above 0.
        """
        rules = Rules(
            k=k, include_seen=include_seen, allow=allow, block=block, allow_pairs=allow_pairs,
            block_pairs=block_pairs, groups=groups, allow_groups=allow_groups,
            block_groups=block_groups, per_group=per_group, unknown=unknown, diversify=diversify,
        )  # fmt: skip
        return lists.for_users(self.run, users, rules).table(self.run)

    @undisturbed
    def recommend_for_history(
        self,
        histories: Sequence[Sequence[Any]],
        k: int = 10,
        *,
        include_seen: bool = False,
        allow: Iterable[Any] | None = None,
        block: Iterable[Any] | None = None,
        groups: Any = None,
        allow_groups: Iterable[Any] | None = None,
        block_groups: Iterable[Any] | None = None,
        per_group: int | None = None,
        unknown: Unknown = "error",
        diversify: float = 0.0,
    ) -> Table:
        """Recommend the k best items to new users, from the items of their histories.

        Nothing is trained: COMET encodes each history with one pass through the user tower.

        Parameters
        ----------
        histories : list of lists of item ids
            One history per new user, oldest item first. A repeated item counts once, at its first
            place.
        k, include_seen, allow, block, groups, allow_groups, block_groups, per_group, diversify
            As in `recommend`. Seen items are those of the history.
        unknown : {"error", "skip", "popular"}
            For an item outside the log: raise an error, or ignore the item ("skip", "popular").
            With "popular", a history without known items gets the most popular items. Otherwise
            the model scores the empty history; EASE and ItemKNN list popular items for it.

        Returns
        -------
        Table
            Columns as in `recommend`; user_id is the position of the history, from 0.

        Raises
        ------
        UnknownIdError
            When an item is not in the log and `unknown` is "error".
        ConfigError
            When the model cannot score new users, such as MF.
        NotFittedError
            When the model is not trained yet.
        InputError
            When an argument is not a list of ids, or `k` is not a whole number above 0.
        """
        rules = Rules(
            k=k, include_seen=include_seen, allow=allow, block=block, groups=groups,
            allow_groups=allow_groups, block_groups=block_groups, per_group=per_group,
            unknown=unknown, diversify=diversify,
        )  # fmt: skip
        return lists.for_histories(self.run, histories, rules, self.device).table(self.run)

    @undisturbed
    def write_lists(
        self,
        path: str | PathLike[str],
        k: int = 10,
        *,
        shard: tuple[int, int] | None = None,
        **rules: Any,
    ) -> bool:
        """Write the lists of all users to a Parquet file, in bounded memory.

        The file has the columns and rows of ``recommend(None, k, **rules)``. It is replaced when it
        is complete.

        Parameters
        ----------
        path : str or Path
            File to write.
        k : int
            Items per user.
        shard : (int, int), optional
            (i, n): only the i-th of n parts of the users, from 1. A file that holds exactly these
            lists already is left as it is, so a call that was interrupted can be repeated.
        **rules
            Other arguments of `recommend`, such as ``block=[…]``.

        Returns
        -------
        bool
            False if the file was complete already.

        Raises
        ------
        InputError
            When an argument is wrong, the file cannot be written, or the file of a shard holds
            something else.
        NotFittedError
            When the model is not trained yet.
        """
        file = folder_path(path, "write_lists", "a file to write")
        return write_lists(self.run, file, Rules(k=k, **rules), shard)

    @undisturbed
    def score(self, users: Iterable[Any], items: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Scores of (user, item) pairs, as `recommend` ranks by them.

        For MLP, NeuMF and ConvNCF the last bits depend on how many pairs one call scores.

        Parameters
        ----------
        users, items : list of ids [B]
            The user and the item of each pair. Items that the user has seen are scored too.

        Returns
        -------
        float32 [B]
            One score per pair; higher is better.

        Raises
        ------
        UnknownIdError
            When a user or an item is not in the log.
        InputError
            When the two lists differ in length, or are not lists of ids.
        NotFittedError
            When the model is not trained yet.
        """
        log = self.run.interactions
        user_indices = lookup.known(log.user_ids, users, "user")
        item_indices = lookup.known(log.item_ids, items, "item")
        if len(user_indices) != len(item_indices):
            raise InputError(
                f"score: {len(user_indices)} users and {len(item_indices)} items; "
                "give an item for each user"
            )
        # One candidate per user: [B], [B, 1] -> [B, 1].
        scores = run_scores(self.run).score_pairs(user_indices, item_indices[:, None])
        return checked(scores)[:, 0]

    @undisturbed
    def similar_items(self, items: Iterable[Any], k: int = 10) -> Table:
        """Find the k most similar items to each given item.

        Similarity is the cosine of the items' vectors, without biases.

        Parameters
        ----------
        items : list of ids
            Item ids of the log.
        k : int
            Number of similar items per given item. It is smaller if the log has fewer items.

        Returns
        -------
        Table
            Columns item_id, similar_item_id, similarity (−1 to 1) and rank (from 1).

        Raises
        ------
        ConfigError
            When the model has no vectors: EASE, ItemKNN, MLP, NeuMF, ConvNCF, Popularity, Random.
        UnknownIdError
            When an item is not in the log.
        InputError
            When `items` is not a list of ids, or `k` is not a whole number above 0.
        NotFittedError
            When the model is not trained yet.
        """
        return similar.neighbours(self.run, "item", items, k)

    @undisturbed
    def similar_users(self, users: Iterable[Any], k: int = 10) -> Table:
        """Find the k most similar users to each given user, by the cosine of user vectors.

        As `similar_items`, but the columns are user_id, similar_user_id, similarity and rank.
        """
        return similar.neighbours(self.run, "user", users, k)

    @undisturbed
    def explain(self, user: Any, item: Any) -> Table:
        """Explain the score of an item by the contribution of each item of the user's history.

        The contributions add up to the score minus the score with an empty history. For FISM,
        SVD++, ItemKNN and EASE they are exact. For SASRec and COMET with layers they are the
        changes of the score as items join, from the latest to the oldest. For other COMETs they
        are integrated gradients (Sundararajan et al. 2017), whose sum is accurate to 1e-3.

        Parameters
        ----------
        user, item
            Id of the user, and id of the item whose score is explained.

        Returns
        -------
        Table
            Columns item_id (an item of the history), contribution, rank (1 for the largest
            contribution), score, and without_history (the score with an empty history). The last
            two are the same in all rows.

        Raises
        ------
        ConfigError
            When the model reads no history.
        UnknownIdError
            When the user or the item is not in the log.
        NotFittedError
            When the model is not trained yet.
        """
        log = self.run.interactions
        user_index = lookup.known(log.user_ids, [user], "user")[0]
        item_index = lookup.known(log.item_ids, [item], "item")[0]
        found = explanation.of_user(self.run, int(user_index), int(item_index))
        return found.table(self.run)

    @undisturbed
    def explain_for_history(self, history: Iterable[Any], item: Any) -> Table:
        """Explain the score of an item for a new user with this history; see `explain`.

        Parameters
        ----------
        history : list of item ids
            Oldest first. A repeated item counts once, at its first place.
        item
            Id of the item whose score is explained.

        Returns
        -------
        Table
            As `explain` returns it.

        Raises
        ------
        ConfigError
            When the model reads no history.
        UnknownIdError
            When an item is not in the log.
        NotFittedError
            When the model is not trained yet.
        """
        ids = self.run.interactions.item_ids
        items = lookup.distinct(lookup.known(ids, history, "item"))
        item_index = lookup.known(ids, [item], "item")[0]
        return explanation.of_history(self.run, items, int(item_index)).table(self.run)

    def user_vectors(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Ids and vectors of all users, e.g. for your own search index.

        The score of a pair is the inner product of its user vector and its item vector.

        Returns
        -------
        array [U]
            User ids.
        float32 [U, W]
            User vectors. W is K, plus columns for biases (a constant 1 on the other side) and for
            the second model of a blend.

        Raises
        ------
        ConfigError
            When scores are not inner products: EASE, ItemKNN, MLP, NeuMF, ConvNCF.
        NotFittedError
            When the model is not trained yet.
        """
        return self._vectors(self.run.user_vectors, self.run.interactions.user_ids)

    def item_vectors(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Ids [I] and vectors [I, W] of all items; see `user_vectors`."""
        return self._vectors(self.run.item_vectors, self.run.interactions.item_ids)

    def _vectors(
        self, vectors: Tensor | None, ids: Ids
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        if vectors is None:
            raise ConfigError(f"{self.name} has no vectors: its scores are not inner products")
        return ids.external(np.arange(len(ids))), vectors.numpy().copy()

    def describe(self, source: str, titles: Mapping[str, str], reading: Mapping[str, Any]) -> None:
        """Store facts about the log: its source, item titles by id, and the options of `read`."""
        self._run = replace(self.run, source=source, titles=dict(titles), reading=dict(reading))

    @undisturbed
    def save(self, folder: str | Path, *, pictures: Mapping[str, bytes] | None = None) -> None:
        """Save the model to a folder, which `load_model` reads; an earlier run is replaced.

        A model that was fitted on a split is evaluated first, and its metrics are saved too. The
        folder is replaced atomically. If several processes trained the model, all of them must
        call this method, and the first one writes.

        Parameters
        ----------
        folder : path
        pictures : mapping of bytes, optional
            More files for the folder, by name, such as the curves of the training.

        Raises
        ------
        NotFittedError
            When the model is not trained yet.
        ArtefactError
            When the folder cannot be written, or holds files that are not part of a run.
        InputError
            When `folder` is not a path.
        """
        path = folder_path(folder, "save")
        self._run = measured(self.run)
        if processes.rank() == 0:
            save_run(self._run, path, pictures)
        processes.wait()

    def __repr__(self) -> str:
        state = "not fitted" if self._run is None else f"{self.run.epochs} epochs"
        return f"{type(self).__name__}(preset={self.preset!r}, seed={self.seed}, {state})"
