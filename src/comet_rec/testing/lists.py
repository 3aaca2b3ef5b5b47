"""Checks of lists and scores of users whom the training log has."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np

from comet_rec.testing.subject import (
    Subject,
    by_user,
    check,
    equal,
    log_of,
    offered,
    one_below_the_other,
    plain,
    refused,
)


@check
def columns_and_types(subject: Subject) -> None:
    """A list has the columns user_id, item_id, score and rank, of equal length."""
    table = subject.fitted.recommend(subject.users[:3], k=4)
    columns = [np.asarray(table[name]) for name in ("user_id", "item_id", "score", "rank")]
    assert {len(column) for column in columns} == {12}
    assert columns[2].dtype.kind == "f"
    assert columns[3].dtype.kind in "iu"


@check
def ranks_count_from_one(subject: Subject) -> None:
    """The ranks of a list are 1 to k."""
    table = subject.fitted.recommend(subject.users[:3], k=4)
    assert list(table["rank"]) == [1, 2, 3, 4] * 3


@check
def scores_fall(subject: Subject) -> None:
    """The scores of a list never rise from rank to rank."""
    table = subject.fitted.recommend(subject.users[:9], k=8)
    scores = np.asarray(table["score"]).reshape(9, 8)
    assert (np.diff(scores, axis=1) <= 0).all()


@check
def scores_are_finite(subject: Subject) -> None:
    """All scores are finite."""
    assert np.isfinite(np.asarray(subject.fitted.recommend(k=5)["score"])).all()


@check
def equal_scores_are_ordered_by_id(subject: Subject) -> None:
    """Items with equal scores stand in the order of their ids."""
    users = [f"u{n:02}" for n in range(12)]  # each item has the same number of users
    items = [f"i{n % 6}" for n in range(12)]
    model = subject.fit(log_of(users, items, list(range(12))))
    table = model.recommend(k=5)
    rows = list(zip(table["user_id"], table["score"], table["item_id"], strict=True))
    for (user, score, item), (next_user, next_score, next_item) in itertools.pairwise(rows):
        if user == next_user and score == next_score:
            assert item < next_item, f"{item} before {next_item} with equal scores"


@check
def seen_items_are_left_out(subject: Subject) -> None:
    """No list holds an item that its user took."""
    for user, items in by_user(subject.fitted.recommend(k=20)).items():
        assert not set(items) & set(subject.seen(user))


@check
def seen_items_come_on_request(subject: Subject) -> None:
    """With include_seen a list of all items holds all items."""
    with offered():
        table = subject.fitted.recommend(subject.users[:2], k=len(subject.items), include_seen=True)
    assert [sorted(items) for items in by_user(table).values()] == [subject.items] * 2


@check
def no_item_twice(subject: Subject) -> None:
    """No list holds an item twice."""
    for items in by_user(subject.fitted.recommend(k=20)).values():
        assert len(set(items)) == len(items)


@check
def items_are_of_the_log(subject: Subject) -> None:
    """Every item of a list occurs in the log, with the id that it has there."""
    assert set(subject.fitted.recommend(k=20)["item_id"]) <= set(subject.items)


@check
def k_above_the_catalogue(subject: Subject) -> None:
    """A list that should be longer than the catalogue holds all unseen items, and no more."""
    table = by_user(subject.fitted.recommend(subject.users[:4], k=1000))
    for user in subject.users[:4]:
        assert sorted(table[user]) == sorted(set(subject.items) - set(subject.seen(user)))


@check
def short_lists_begin_long_ones(subject: Subject) -> None:
    """A list of 3 items is the beginning of the list of 10."""
    short = by_user(subject.fitted.recommend(subject.users, k=3))
    long = by_user(subject.fitted.recommend(subject.users, k=10))
    assert all(short[user] == long[user][:3] for user in subject.users)


@check
def k_zero_is_refused(subject: Subject) -> None:
    """Lists of no items, k = 0, are refused."""
    with refused():
        subject.fitted.recommend(subject.users[:1], k=0)


@check
def negative_k_is_refused(subject: Subject) -> None:
    """A negative k is refused."""
    with refused():
        subject.fitted.recommend(subject.users[:1], k=-1)


@check
def fractional_k_is_refused(subject: Subject) -> None:
    """A fraction as k is refused."""
    with refused():
        subject.fitted.recommend(subject.users[:1], k=2.5)


@check
def text_for_k_is_refused(subject: Subject) -> None:
    """A text as k is refused."""
    with refused():
        subject.fitted.recommend(subject.users[:1], k="3")


@check
def users_keep_their_order(subject: Subject) -> None:
    """Lists come in the order in which the users were given."""
    users = subject.users[5:0:-1]
    assert list(by_user(subject.fitted.recommend(users, k=3))) == users


@check
def a_user_named_twice_gets_two_lists(subject: Subject) -> None:
    """A user who is given twice gets the same list twice."""
    table = subject.fitted.recommend([subject.users[4]] * 2, k=3)
    items = list(table["item_id"])
    assert len(items) == 6
    assert items[:3] == items[3:]


@check
def one_call_for_all_equals_single_calls(subject: Subject) -> None:
    """Lists do not depend on which users share a call."""
    together = subject.fitted.recommend(subject.users[:8], k=5)
    singles = [plain(subject.fitted.recommend([user], k=5)) for user in subject.users[:8]]
    equal(plain(together), one_below_the_other(singles), tolerance=1e-5)


@check
def no_users_means_all_users(subject: Subject) -> None:
    """Without users, every user of the log gets a list."""
    assert sorted(by_user(subject.fitted.recommend(k=2))) == subject.users


@check
def an_empty_list_of_users(subject: Subject) -> None:
    """An empty list of users gives a table without rows."""
    assert len(np.asarray(subject.fitted.recommend([], k=2)["item_id"])) == 0


@check
def asking_twice_gives_the_same(subject: Subject) -> None:
    """The same call gives the same lists again."""
    equal(plain(subject.fitted.recommend(k=5)), plain(subject.fitted.recommend(k=5)))


@check
def threads_that_ask_at_once_get_the_same(subject: Subject) -> None:
    """Four threads that ask at the same time get the lists of a single thread."""
    model, expected, found = subject.fitted, plain(subject.fitted.recommend(k=5)), []

    def ask() -> None:
        found.append(plain(model.recommend(k=5)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    for table in found:
        equal(expected, table)


@check
def unknown_users_are_refused(subject: Subject) -> None:
    """A user whom the log lacks is refused, by name."""
    with refused("nobody"):
        subject.fitted.recommend([subject.users[0], "nobody"], k=2)


@check
def unknown_users_are_skipped_on_request(subject: Subject) -> None:
    """With unknown="skip", a user whom the log lacks gets no rows."""
    with offered():
        table = subject.fitted.recommend([subject.users[0], "nobody"], k=2, unknown="skip")
    assert list(by_user(table)) == subject.users[:1]


@check
def unknown_users_get_popular_items_on_request(subject: Subject) -> None:
    """With unknown="popular", a user whom the log lacks gets the items with most users."""
    with offered():
        table = subject.fitted.recommend(["nobody"], k=3, unknown="popular")
    log = subject.planted
    counts = np.bincount(log.items, minlength=log.n_items)
    by_count = sorted(zip(-counts, subject.items, strict=True))
    assert by_user(table) == {"nobody": [item for _, item in by_count[:3]]}


@check
def a_single_id_is_no_list(subject: Subject) -> None:
    """A text where a list of users belongs is refused, not read letter by letter."""
    with refused():
        subject.fitted.recommend("u01", k=2)


@check
def missing_values_are_no_ids(subject: Subject) -> None:
    """NaN and None are refused as users."""
    for value in (float("nan"), None):
        with refused():
            subject.fitted.recommend([subject.users[0], value], k=2)


@check
def ids_in_any_container(subject: Subject) -> None:
    """A list, a tuple, a NumPy array and an iterator of users give the same lists."""
    users = subject.users[:3]
    expected = plain(subject.fitted.recommend(users, k=3))
    for container in (tuple(users), np.array(users), np.array(users, dtype=object), iter(users)):
        equal(expected, plain(subject.fitted.recommend(container, k=3)))


@check
def the_list_of_users_is_not_changed(subject: Subject) -> None:
    """The caller's list of users stays as it was."""
    users = subject.users[3:0:-1]
    subject.fitted.recommend(users, k=2)
    assert users == subject.users[3:0:-1]


@check
def allowed_items_alone(subject: Subject) -> None:
    """With allow, lists hold allowed items alone, in the order of the full list."""
    user = subject.users[2]
    every = by_user(subject.fitted.recommend([user], k=100))[user]
    with offered():
        table = subject.fitted.recommend([user], k=5, allow=every[::2])
    assert by_user(table)[user] == every[::2][:5]


@check
def blocked_items_never(subject: Subject) -> None:
    """With block, lists hold the best of the other items."""
    user = subject.users[2]
    every = by_user(subject.fitted.recommend([user], k=100))[user]
    with offered():
        table = subject.fitted.recommend([user], k=5, block=every[:4])
    assert by_user(table)[user] == every[4:9]


@check
def unknown_items_in_filters_are_ignored(subject: Subject) -> None:
    """Filters may name items that the log lacks."""
    user = subject.users[2]
    with offered():
        table = subject.fitted.recommend([user], k=5, block=["no item"])
    equal(plain(subject.fitted.recommend([user], k=5)), plain(table))


@check
def pairs_are_blocked_for_their_user_alone(subject: Subject) -> None:
    """A blocked pair changes the list of its user, and of nobody else."""
    users = subject.users[:2]
    before = by_user(subject.fitted.recommend(users, k=6))
    first = before[users[0]][0]
    with offered():
        pairs = {"user_id": [users[0]], "item_id": [first]}
        after = by_user(subject.fitted.recommend(users, k=5, block_pairs=pairs))
    assert after == {users[0]: before[users[0]][1:], users[1]: before[users[1]][:5]}


@check
def groups_are_limited(subject: Subject) -> None:
    """With per_group = 2, a list holds two items of a group, the best ones."""
    user = subject.users[3]
    groups = {item: int(item[1:]) % 4 for item in subject.items}
    every = by_user(subject.fitted.recommend([user], k=100))[user]
    with offered():
        table = subject.fitted.recommend([user], k=6, groups=groups, per_group=2)
    counts: dict[Any, int] = {}
    expected = []
    for item in every:
        counts[groups[item]] = counts.get(groups[item], 0) + 1
        if counts[groups[item]] <= 2:
            expected.append(item)
    assert by_user(table)[user] == expected[:6]


@check
def scores_of_lists_are_scores_of_pairs(subject: Subject) -> None:
    """The scores of a list are those of its pairs."""
    table = subject.fitted.recommend(subject.users[:5], k=4)
    with offered():
        scores = subject.fitted.score(table["user_id"], table["item_id"])
    np.testing.assert_allclose(scores, table["score"], rtol=1e-4, atol=1e-5)


@check
def scores_of_pairs_keep_their_order(subject: Subject) -> None:
    """Pairs in reverse order have their scores in reverse order."""
    users, items = subject.users[:6], subject.items[:6]
    with offered():
        scores = subject.fitted.score(users, items)
        reverse = subject.fitted.score(users[::-1], items[::-1])
    np.testing.assert_allclose(scores, reverse[::-1], rtol=1e-4, atol=1e-5)


@check
def seen_pairs_have_scores(subject: Subject) -> None:
    """A pair that the log holds has a finite score."""
    user = subject.users[0]
    with offered():
        scores = subject.fitted.score([user] * 3, subject.seen(user)[:3])
    assert np.isfinite(scores).all()


@check
def pairs_of_unequal_length_are_refused(subject: Subject) -> None:
    """Two users and one item are no pairs."""
    with refused(), offered():
        subject.fitted.score(subject.users[:2], subject.items[:1])


@check
def unknown_items_are_refused(subject: Subject) -> None:
    """An item that the log lacks is refused, by name."""
    with refused("no item"), offered():
        subject.fitted.score(subject.users[:1], ["no item"])
