"""Checks of lists for users whom the training log lacks, from their histories."""

from __future__ import annotations

from typing import Any

import numpy as np

from comet_rec.testing.subject import (
    Subject,
    by_user,
    check,
    equal,
    kind,
    offered,
    one_below_the_other,
    plain,
    refused,
)


def for_history(subject: Subject, histories: Any, k: int = 5, **rules: Any) -> Any:
    """Lists for histories, if the recommender offers them."""
    with offered():
        return subject.fitted.recommend_for_history(histories, k=k, **rules)


@check
def a_history_gets_its_own_kind(subject: Subject) -> None:
    """A new user with five items of one kind gets items of that kind: two thirds or more."""
    histories = [[f"i{n:02}" for n in range(first, first + 10, 2)] for first in (0, 1, 10, 11)]
    table = by_user(for_history(subject, histories, k=3))
    same_kind = [kind(item) == place % 2 for place, items in table.items() for item in items]
    assert np.mean(same_kind) >= 2 / 3, f"{np.mean(same_kind):.0%} of the items"


@check
def a_known_history_gets_the_list_of_its_user(subject: Subject) -> None:
    """The history of a user of the log gets that user's list."""
    users = subject.users[:6]
    found = plain(for_history(subject, [subject.seen(user) for user in users]))
    expected = plain(subject.fitted.recommend(users, k=5))
    expected["user_id"] = found["user_id"]
    equal(expected, found, tolerance=1e-4)


@check
def users_of_histories_are_places(subject: Subject) -> None:
    """The users of the lists are the places of the histories, from 0."""
    table = for_history(subject, [["i00", "i02"], ["i01", "i03"]], k=2)
    assert list(table["user_id"]) == [0, 0, 1, 1]


@check
def histories_in_one_call_equal_single_calls(subject: Subject) -> None:
    """Lists do not depend on which histories share a call."""
    histories = [["i00", "i02"], ["i01"], ["i05", "i03", "i07", "i09"]]
    together = plain(for_history(subject, histories))
    singles = [plain(for_history(subject, [history])) for history in histories]
    joined = one_below_the_other(singles)
    joined["user_id"] = together["user_id"]
    equal(together, joined, tolerance=1e-5)


@check
def items_of_the_history_are_left_out(subject: Subject) -> None:
    """A list holds no item of its history."""
    history = subject.seen(subject.users[7])
    assert not set(for_history(subject, [history], k=40)["item_id"]) & set(history)


@check
def items_of_the_history_come_on_request(subject: Subject) -> None:
    """With include_seen, items of the history may be listed."""
    history = subject.seen(subject.users[7])
    table = for_history(subject, [history], k=100, include_seen=True)
    assert sorted(table["item_id"]) == subject.items


@check
def a_repeated_item_counts_once(subject: Subject) -> None:
    """An item that a history repeats counts at its first place."""
    once = plain(for_history(subject, [["i00", "i02", "i04"]]))
    twice = plain(for_history(subject, [["i00", "i02", "i00", "i04", "i04"]]))
    equal(once, twice)


@check
def an_empty_history_gets_a_list(subject: Subject) -> None:
    """A new user without items gets a list."""
    table = for_history(subject, [[]], k=4)
    assert len(set(table["item_id"])) == 4
    assert np.isfinite(np.asarray(table["score"])).all()


@check
def no_histories_give_no_rows(subject: Subject) -> None:
    """Without histories, the table has no rows."""
    assert len(np.asarray(for_history(subject, [])["item_id"])) == 0


@check
def a_history_of_all_items_gets_an_empty_list(subject: Subject) -> None:
    """A new user who took every item gets no rows."""
    assert len(np.asarray(for_history(subject, [subject.items])["item_id"])) == 0


@check
def unknown_items_of_a_history_are_refused(subject: Subject) -> None:
    """An item that the log lacks is refused, by name."""
    for_history(subject, [["i00"]])  # offered at all?
    with refused("no item"):
        subject.fitted.recommend_for_history([["i00", "no item"]], k=2)


@check
def unknown_items_of_a_history_are_skipped_on_request(subject: Subject) -> None:
    """With unknown="skip", an item that the log lacks changes nothing."""
    known = plain(for_history(subject, [["i00", "i02"]]))
    equal(known, plain(for_history(subject, [["i00", "no item", "i02"]], unknown="skip")))


@check
def a_flat_history_is_refused(subject: Subject) -> None:
    """A list of items where a list of histories belongs is refused."""
    for_history(subject, [["i00"]])
    with refused():
        subject.fitted.recommend_for_history(["i00", "i02"], k=2)


@check
def histories_are_not_changed(subject: Subject) -> None:
    """The caller's histories stay as they were."""
    histories = [["i04", "i02", "i04"], []]
    for_history(subject, histories)
    assert histories == [["i04", "i02", "i04"], []]


@check
def blocked_items_of_new_users(subject: Subject) -> None:
    """With block, new users get the best of the other items."""
    history = [["i00", "i02", "i04"]]
    every = list(for_history(subject, history, k=100)["item_id"])
    assert list(for_history(subject, history, k=4, block=every[:3])["item_id"]) == every[3:7]
