"""A verified run, ready to answer: lists, similar items, explanations, search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.artefact.run import Run, load_with_version
from comet_rec.data.ids import NoIdError
from comet_rec.errors import ArtefactError, CometError
from comet_rec.estimators import explanation, lists, lookup, similar
from comet_rec.estimators.newcomers import folds_in
from comet_rec.estimators.registry import model_of
from comet_rec.estimators.rules import Rules
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.experiments.jobs import kernels_of
from comet_rec.serving.catalogue import Catalogue
from comet_rec.serving.forms import ExplainRequest, HistoriesRequest, SimilarRequest, UsersRequest
from comet_rec.serving.sessions import Sessions

TOLERANCE = 5e-3
"""Largest error of the sum of an explanation's contributions, in each model."""
LIGHT_PRODUCTS, LIGHT_PLACES = 100_000_000, 2_000
"""Multiply-adds, and places in lists, of a batch that takes about 5 ms."""
ListsRequest = UsersRequest | HistoriesRequest
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """What one request asked for, for the metrics."""

    users: int = 0
    unknown: int = 0
    popular: int = 0


class Served:
    """A run that answers requests; its methods may be called from several threads.

    Parameters
    ----------
    run : Run
    version : str
    titles : mapping of str to str, optional
        Titles of items, by id as text, that replace those of the run.
    """

    def __init__(self, run: Run, version: str, titles: Mapping[str, str] | None = None) -> None:
        self.model, self.run, self.version = model_of(run), run, version
        self.catalogue = Catalogue(run.known, titles or run.titles)
        self._check()

    @classmethod
    @undisturbed
    def load(cls, folder: Path, titles: Mapping[str, str] | None = None) -> Served:
        """Read a run, verify it, and ask it for lists once.

        Raises
        ------
        ArtefactError
            When the run is damaged, or gives no usable lists.
        """
        run, version = load_with_version(folder)
        try:
            return cls(run, version, titles)
        except ArtefactError:
            raise
        except (CometError, ArithmeticError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"{folder}: gives no lists: {error}") from error

    def _check(self) -> None:
        """Compute everything once that later answers need: errors must show before the swap."""
        for name, tensor in self.run.tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ArtefactError(f"the parameter {name} holds NaN or infinite numbers")
        for vectors in (self.run.user_vectors, self.run.item_vectors):
            if vectors is not None and not bool(vectors.isfinite().all()):
                raise ArtefactError("the vectors hold NaN or infinite numbers")
        found = lists.for_users(self.run, self.run.interactions.user_ids.external([0]), Rules())
        if not np.isfinite(found.scores[found.items >= 0]).all():
            raise ArtefactError("the scores of the first user are not finite")
        if self.folds_in:
            history = self.run.interactions.item_ids.external([0])
            lists.for_histories(self.run, [history.tolist()], Rules(), self.model.device)
        self.answer("runs", [self.about("main")])  # raises for NaN, which JSON lacks

    @property
    def folds_in(self) -> bool:
        """Whether the run scores new users by their histories."""
        return folds_in(self.run)

    def is_light(self, requests: Sequence[ListsRequest]) -> bool:
        """Whether lists for these requests are ranked and written in a few milliseconds.

        That is so for users with stored vectors and a catalogue that is not large.
        """
        if self.run.item_vectors is None:
            return False
        users = places = 0
        for request in requests:
            plain = isinstance(request, UsersRequest) and request.diversify == 0
            if not plain or request.allow is not None or request.block is not None:
                return False
            users += len(request.members)
            places += len(request.members) * request.k
        return users * self.run.item_vectors.numel() <= LIGHT_PRODUCTS and places <= LIGHT_PLACES

    @undisturbed
    def answers(self, requests: Sequence[ListsRequest], sessions: Sessions) -> list[Any]:
        """Answers to several requests, each a JSON text with its `Counts`, or an error.

        Requests with equal rules are ranked together, which costs hardly more than one of them.
        """
        answers: list[Any] = [None] * len(requests)
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_group(request, place), []).append(place)
        for places in groups.values():
            try:
                answers_of_group = self._group([requests[place] for place in places], sessions)
            except Exception as error:
                answers_of_group = [error]
                if len(places) > 1:  # the error of one request must not become that of all
                    answers_of_group = [
                        self.answers([requests[place]], sessions)[0] for place in places
                    ]
            for place, answer in zip(places, answers_of_group, strict=True):
                answers[place] = answer
        return answers

    def _group(self, requests: list[ListsRequest], sessions: Sessions) -> list[Any]:
        """Answers to requests of one kind with equal rules."""
        first = requests[0]
        if first.allow is None and first.block is None:
            rules = _plain_rules(first.k, first.include_seen, first.diversify, first.unknown)
        else:
            rules = Rules(
                k=first.k, include_seen=first.include_seen, diversify=first.diversify,
                unknown=first.unknown, allow=first.allow, block=first.block,
            )  # fmt: skip
        members = [member for request in requests for member in request.members]
        known = np.full(len(members), True)
        if isinstance(first, UsersRequest):
            recent = self._recent(members, sessions)
            found = lists.for_users(self.run, members, rules, recent=recent)
            known = self.run.interactions.user_ids.index(members) >= 0
        else:
            found = lists.for_histories(self.run, members, rules, self.model.device)
        answers: list[Any] = []
        end = 0
        for request in requests:
            begin, end = end, end + len(request.members)
            unknown = int((~known[begin:end]).sum())
            entries = self._entries(found, begin, end, request)
            popular = int(found.popular[begin:end].sum())
            text = self.answer("lists", entries)
            answers.append((text, Counts(end - begin, unknown, popular)))
        return answers

    def _entries(
        self, found: lists.Lists, begin: int, end: int, request: ListsRequest
    ) -> list[dict[str, Any]]:
        """The lists `begin` to `end` − 1, as they are in an answer."""
        is_users = isinstance(request, UsersRequest)
        entries = []
        for place in range(begin, end):
            items = found.items[place]
            items = items[items >= 0]  # a list may be shorter than k
            rows = self._rows(items, "score", found.scores[place, : len(items)], request.titles)
            source = "popular" if found.popular[place] else "model" if rows else "none"
            # An unknown user has the id that was asked for.
            user = found.users[place] if is_users else place - begin
            if is_users and not rows:
                user = request.members[place - begin]
            entries.append({"user_id": _plain(user), "source": source, "items": rows})
        return entries

    def _recent(self, users: list[Any], sessions: Sessions) -> list[Int64] | None:
        """Recent items of each user, as indices; None if no user has any."""
        if len(sessions) == 0:
            return None
        log = self.run.interactions
        recent = []
        for user in users:
            try:
                items = sessions.of(log.user_ids.stored(user))
            except NoIdError:  # `for_users` refuses it
                items = []
            indices = log.item_ids.index(items)
            recent.append(indices[indices >= 0])
        return recent if any(len(items) > 0 for items in recent) else None

    @undisturbed
    def similar(self, request: SimilarRequest) -> str:
        """Answer with similar items."""
        ids = self.run.interactions.item_ids
        asked = lookup.known(ids, request.item_ids, "item")
        found, cosines = similar.nearest(self.run, "item", asked, request.k)
        entries = [
            {"item_id": _plain(name), "items": self._rows(items, "similarity", row, request.titles)}
            for name, items, row in zip(ids.external(asked).tolist(), found, cosines, strict=True)
        ]
        return self.answer("lists", entries)

    @undisturbed
    def explain(self, request: ExplainRequest, sessions: Sessions) -> str:
        """Answer with the contributions of a history, or of a user's history."""
        log = self.run.interactions
        items = lookup.known(log.item_ids, request.item_ids, "item").tolist()
        user, history = -1, None
        if request.history is not None:
            history = lookup.distinct(lookup.known(log.item_ids, request.history, "item"))
        else:
            asked = [request.user_id]
            user = int(log.user_ids.index(asked)[0])
            recent = self._recent(asked, sessions)
            if recent is not None:
                known = log.items[:0] if user < 0 else self.run.known.items_of(user)
                history = lookup.distinct(np.concatenate([known, recent[0]]))
            elif user < 0:
                lookup.known(log.user_ids, asked, "user")  # raises
        entries = []
        for item in items:
            if history is None:
                found = explanation.of_user(self.run, user, item, TOLERANCE)
            else:
                owner = None if user < 0 else user
                found = explanation.of_history(self.run, history, item, owner, TOLERANCE)
            rows = self._rows(found.items, "contribution", found.contributions, request.titles)
            entries.append(
                {"item_id": _plain(log.item_ids.external([item])[0]), "score": found.score,
                 "without_history": found.without_history, "history": rows}
            )  # fmt: skip
        return self.answer("explanations", entries)

    def items(self, search: str, limit: int) -> str:
        """Answer with the items that a search finds."""
        return self.answer("items", self.catalogue.search(search, limit))

    def about(self, name: str) -> dict[str, Any]:
        """Facts about the run, for the page."""
        run, log = self.run, self.run.interactions
        figures = run.metrics or {}
        # One line for each epoch.
        curves = [
            {
                "stage": line["stage"], "epoch": line["epoch"], "loss": line["loss"],
                "NDCG@10": (line["validation"] or {}).get("NDCG@10"),
            }
            for line in run.log
        ]  # fmt: skip
        return {
            "run": name, "version": self.version, "model": run.config.name,
            "preset": run.config.preset, "users": log.n_users, "items": log.n_items,
            "rows": len(log), "epochs": run.epochs,
            "metrics": {key: figures.get(key) for key in ("sampled", "full")} if figures else None,
            "curves": curves, "filters": _filters(run), "explains": self.folds_in,
            "folds_in": self.folds_in, "similar": run.item_vectors is not None,
        }  # fmt: skip

    def answer(self, key: str, value: Any) -> str:
        """JSON text of an answer."""
        if not isinstance(value, list):
            return _json({"version": self.version, key: value})
        # One call would keep all other threads waiting until megabytes are written.
        entries = ",".join(_json(entry) for entry in value)
        return f'{{"version":{_json(self.version)},{_json(key)}:[{entries}]}}'

    def _rows(
        self, items: Int64, key: str, values: npt.NDArray[Any], titles: bool
    ) -> list[dict[str, Any]]:
        """A row for each item: its value as `key`, its rank and, if asked for, its title."""
        names = self.run.interactions.item_ids.external(items).tolist()
        pairs = enumerate(zip(names, values.tolist(), strict=True), 1)
        rows = [
            {"item_id": _plain(name), key: value, "rank": rank} for rank, (name, value) in pairs
        ]
        if titles:
            for row, name in zip(rows, names, strict=True):
                row["title"] = self.catalogue.title(name)
        return rows


def check_events(served: Served, events: Sequence[Any]) -> list[tuple[int | str, int | str]]:
    """Users and items of events, by their ids in the type of the log.

    Raises
    ------
    UnknownIdError
        When a user cannot be one of this log, or an item is not in the log.
    """
    log = served.run.interactions
    users, _ = log.user_ids.lookup([event.user_id for event in events], "user_id")
    items = lookup.known(log.item_ids, [event.item_id for event in events], "item")
    names = log.item_ids.values[items].tolist()
    return list(zip(users.tolist(), names, strict=True))


@lru_cache(maxsize=256)
def _plain_rules(k: int, include_seen: bool, diversify: float, unknown: Any) -> Rules:
    return Rules(k=k, include_seen=include_seen, diversify=diversify, unknown=unknown)


def _group(request: ListsRequest, place: int) -> Any:
    """Key of the requests that are ranked together."""
    if request.allow is not None or request.block is not None:
        return place
    kind = type(request).__name__
    return kind, request.k, request.include_seen, request.diversify, request.unknown


def _filters(run: Run) -> list[dict[str, Any]]:
    """Some filters of a COMET as heat maps; empty for other models."""
    if run.config.name != "comet":
        return []
    return [
        {
            "tower": tower,
            "name": name,
            "width": weights.shape[1],
            "weights": np.round(weights, 4).tolist(),
        }
        for tower in ("user", "item")
        for name, weights in kernels_of(run.state, f"{tower}_tower").items()
    ]


def _plain(value: Any) -> Any:
    """An id as a JSON number or text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, (int, str)) else str(value)


def _json(value: Any) -> str:
    # ASCII only: an id may hold half of a surrogate pair, which UTF-8 cannot encode.
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=str)
