"""Filters of lists against a loop over all items: exactly k items wherever k are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comet_rec as cr
from comet_rec.data.tables import Table
from comet_rec.errors import InputError
from tests.conftest import make_log, random_pairs

N_USERS, N_ITEMS = 12, 400
"""Enough items that lists of few items are found by the maxima of runs."""


@pytest.fixture(scope="module")
def log():
    return make_log(random_pairs(np.random.default_rng(0), N_USERS, N_ITEMS, 9), n_items=N_ITEMS)


@pytest.fixture(scope="module")
def models(log):
    return {
        "mf": cr.MF(embedding_dim=4, full_epochs=1).fit(log),
        "ease": cr.EASE().fit(log),
    }


def reference(model, user: int | None, rules: dict[str, Any]) -> list[int]:
    """List of one user by a loop over all items, best first; None is a user outside the log."""
    log = model.run.interactions
    if user is None:
        scores = np.bincount(log.items, minlength=N_ITEMS).astype(float)
        seen, name = set(), 99
    else:
        scores = model.score([user] * N_ITEMS, np.arange(N_ITEMS))
        seen, name = set(log.items[log.users == user].tolist()), user
    group_of, found = rules.get("groups", {}), []
    counts: dict[Any, int] = {}
    for item in sorted(range(N_ITEMS), key=lambda item: (-scores[item], item)):
        group = group_of.get(item)
        left = (
            (rules.get("include_seen", False) or item not in seen)
            and ("allow" not in rules or item in rules["allow"])
            and item not in rules.get("block", ())
            and ("allow_pairs" not in rules or (name, item) in rules["allow_pairs"])
            and (name, item) not in rules.get("block_pairs", ())
            and ("allow_groups" not in rules or group in rules["allow_groups"])
            and (group is None or group not in rules.get("block_groups", ()))
        )
        if not left or (group is not None and counts.get(group, 0) >= rules.get("per_group", 9999)):
            continue
        counts[group] = counts.get(group, 0) + 1
        found.append(item)
        if len(found) == rules["k"]:
            break
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["mf", "ease"]))
def test_lists_are_those_of_a_loop_over_all_items(models, seed, name):
    rng = np.random.default_rng(seed)
    model = models[name]
    rules: dict[str, Any] = {
        "k": int(rng.integers(1, 30)),
        "include_seen": bool(rng.random() < 0.5),
    }
    if rng.random() < 0.4:
        rules["allow"] = set(rng.integers(0, N_ITEMS + 5, size=rng.integers(0, 300)).tolist())
    if rng.random() < 0.4:
        rules["block"] = set(rng.integers(0, N_ITEMS + 5, size=rng.integers(0, 300)).tolist())
    for pairs in ("allow_pairs", "block_pairs"):
        if rng.random() < 0.4:
            users = rng.choice([*range(N_USERS), 99, 77], size=rng.integers(0, 3000))
            items = rng.integers(0, N_ITEMS + 5, size=len(users))
            rules[pairs] = set(zip(users.tolist(), items.tolist(), strict=True))
    if rng.random() < 0.6:
        grouped = rng.permutation(N_ITEMS)[: rng.integers(5, N_ITEMS)]
        names = rng.integers(0, rng.integers(1, 40), size=len(grouped))
        rules["groups"] = dict(zip(grouped.tolist(), names.tolist(), strict=True))
        if rng.random() < 0.6:
            rules["per_group"] = int(rng.integers(1, 4))
        for groups in ("allow_groups", "block_groups"):
            if rng.random() < 0.3:
                rules[groups] = set(rng.choice(names, size=3).tolist())

    asked = [*range(N_USERS), 99, 3]
    given_rules = dict(rules)
    for pairs in ("allow_pairs", "block_pairs"):
        if pairs in rules:
            columns = np.array(sorted(rules[pairs]), dtype=np.int64).reshape(-1, 2)
            given_rules[pairs] = {"user_id": columns[:, 0], "item_id": columns[:, 1]}
    table = model.recommend(asked, unknown="popular", **given_rules)
    lists, last = [], 0
    for user in asked:
        expected = reference(model, None if user == 99 else user, rules)
        part = slice(last, last + len(expected))
        last = part.stop
        lists.append(expected)
        assert table["user_id"][part].tolist() == [user] * len(expected)
        assert table["item_id"][part].tolist() == expected
        assert table["rank"][part].tolist() == list(range(1, len(expected) + 1))
    assert last == len(table)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_diverse_lists_under_filters_hold_as_many_items_as_are_left(models, seed):
    rng = np.random.default_rng(seed)
    items = rng.permutation(N_ITEMS)
    rules: dict[str, Any] = {
        "k": 20,
        "block": items[: rng.integers(0, N_ITEMS)].tolist(),
        "groups": {int(item): int(item) % 7 for item in items},
        "per_group": int(rng.integers(1, 5)),
    }
    table = models["mf"].recommend(k=rules["k"], diversify=0.5, **{
        name: value for name, value in rules.items() if name != "k"
    })  # fmt: skip
    for user in range(N_USERS):
        mine = table["item_id"][table["user_id"] == user].tolist()
        assert len(mine) == len(set(mine)) == len(reference(models["mf"], user, rules))
        assert not set(mine) & set(rules["block"])
        assert max(np.bincount([item % 7 for item in mine]), default=0) <= rules["per_group"]


FRAMES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "lazy polars": pl.LazyFrame,
    "arrow": pa.table,
    "dict": dict,
    "table": lambda columns: Table({name: np.array(column) for name, column in columns.items()}),
    "structured array": lambda columns: np.array(
        list(zip(*columns.values(), strict=True)), dtype=[(name, int) for name in columns]
    ),
}


@pytest.mark.parametrize("form", FRAMES)
@pytest.mark.parametrize("names", [("user_id", "item_id"), ("user", "item"), ("uid", "sku")])
def test_pairs_come_in_frames_of_all_kinds(models, form, names):
    frame = FRAMES[form]({names[0]: [2, 2, 5], names[1]: [7, 8, 9]})
    table = models["mf"].recommend([2, 3, 5], allow_pairs=frame, include_seen=True)
    assert table["user_id"].tolist() == [2, 2, 5]  # user 3 has no row, so nothing is allowed
    assert set(table["item_id"][:2].tolist()) == {7, 8}
    backwards = FRAMES[form]({names[1]: [7, 8, 9], names[0]: [2, 2, 5]})
    if names[0] != "uid":  # columns are found by their names
        again = models["mf"].recommend([2, 3, 5], allow_pairs=backwards, include_seen=True)
        assert again["item_id"].tolist() == table["item_id"].tolist()


def test_groups_come_as_a_frame_too(models):
    of_items = {item: "even" if item % 2 == 0 else "odd" for item in range(N_ITEMS - 1)}
    columns = {"item_id": list(of_items), "group": list(of_items.values())}
    for groups in (of_items, pd.DataFrame(columns), pl.DataFrame(columns)):
        table = models["mf"].recommend([1], 10, groups=groups, per_group=2)
        kinds = [of_items.get(item) for item in table["item_id"].tolist()]
        assert kinds.count("even") == kinds.count("odd") == 2
        assert len(table) in (4, 5)  # one item has no group
        table = models["mf"].recommend([1], 10, groups=groups, allow_groups=["odd"])
        assert {item % 2 for item in table["item_id"].tolist()} == {1}
    missing = pd.DataFrame({"item_id": [1, 2], "group": ["a", None]})
    assert len(models["mf"].recommend([1], 10, groups=missing, block_groups=["a"])) == 10


def test_groups_limit_the_lists_of_new_users_too(models):
    of_items = {item: item % 3 for item in range(N_ITEMS)}
    histories = [[1, 2], []]
    table = models["ease"].recommend_for_history(histories, 10, groups=of_items, per_group=2)
    assert table["user_id"].tolist() == [0] * 6 + [1] * 6
    assert np.bincount(table["item_id"] % 3).tolist() == [4, 4, 4]


TWICE = pd.DataFrame({"item": [1, 1], "group": ["a", "b"]})


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"allow_pairs": [(1, 2)]}, "allow_pairs: .* has no columns; give a frame"),
        ({"block_pairs": {"user_id": [1]}}, "needs the columns user_id and item_id"),
        ({"block_pairs": {"user": [1], "item": [1], "user_id": [2]}}, "needs the columns"),
        ({"block_pairs": {"user": [1], "item": [1, 2]}}, "1 values in column 'user', 2 in"),
        ({"block_pairs": {"user": [1], "item": [None]}}, "block_pairs, items: None"),
        ({"block_pairs": {"user": ["one"], "item": [1]}}, "block_pairs, users: 'one'"),
        ({"per_group": 2}, "per_group: needs groups"),
        ({"groups": {1: ["a"]}, "per_group": 2}, "cannot be a group"),
        ({"groups": {1: "a"}, "per_group": 0}, "per_group = 0: must be a whole number above 0"),
        ({"groups": {1: "drama"}, "block_groups": ["drame"]}, "did you mean 'drama'"),
        ({"groups": {"one": "a"}, "per_group": 1}, "groups: 'one'"),
        ({"groups": TWICE, "per_group": 1}, "groups: item 1 has two groups"),
    ],
)  # fmt: skip
def test_filters_that_cannot_be_are_refused_in_a_line(models, rules, text):
    with pytest.raises(InputError, match=text) as error:
        models["mf"].recommend([1], **rules)
    assert "\n" not in str(error.value)
