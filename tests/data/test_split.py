"""Leave-one-out and its candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comet_rec.config import ProtocolConfig
from comet_rec.data.arrays import Array
from comet_rec.data.ids import Ids
from comet_rec.data.split import TEST, TRAIN, VALIDATION, Split, leave_one_out
from comet_rec.errors import ConfigError, DataError, InputError
from tests.conftest import make_log, random_pairs


def test_the_latest_is_the_test_item_and_the_second_latest_validates():
    log = make_log(np.array([(0, 4), (1, 0), (0, 2), (1, 1), (0, 3), (1, 2), (0, 1), (2, 0)]))
    split = leave_one_out(log, negatives=2)
    assert split.test.users.tolist() == [0, 1]
    assert split.test.positives.tolist() == [1, 2]
    assert split.validation.positives.tolist() == [3, 1]
    assert split.part.tolist() == [TRAIN, TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TEST, TRAIN]
    assert split.train.items.tolist() == [4, 2, 0, 0]
    assert split.known.items.tolist() == [4, 2, 3, 0, 1, 0]
    assert "1 users with fewer than 3 interactions stay in training" in split.notes


def test_equal_times_are_told_and_the_later_row_of_the_file_is_the_later(random_log):
    log = random_log(4, 9, 5)
    tied = replace(log, times=np.zeros(len(log), dtype=np.int64))
    split = leave_one_out(tied, negatives=2)
    assert split.test.positives.tolist() == log.items[4::5].tolist()
    told = "4 of 4 users' two latest items have equal times: the order of the file decides"
    assert split.notes == (told,)
    once = np.arange(len(log))
    once[4] = once[3]
    split = leave_one_out(replace(log, times=once), negatives=2)
    assert split.notes == (told.replace("4 of 4", "1 of 4"),)
    plain = leave_one_out(replace(log, times=None, time_scope="none"), negatives=2)
    assert plain.notes == ("no time column: the latest item is the last in the order of the file",)


def test_candidates_are_unobserved_distinct_and_not_dropped_rows(random_log):
    log = random_log(30, 50, 6)
    dropped = (np.arange(30, dtype=np.int32), (log.items[::6] + 1) % 50)
    log = replace(log, dropped_users=dropped[0], dropped_items=dropped[1].astype(np.int32))
    split = leave_one_out(log, negatives=20, seed=3)
    for held in (split.validation, split.test):
        for user, row in zip(held.users, held.candidates, strict=True):
            assert len(set(row.tolist())) == 20
            known = {*log.items[log.users == user].tolist(), int(dropped[1][user])}
            assert not known & set(row.tolist())
    assert not np.array_equal(split.validation.candidates, split.test.candidates)


def test_fewer_items_left_than_asked_is_said(random_log):
    split = leave_one_out(random_log(5, 12, 8), negatives=6)
    assert (split.test.candidates == 12).sum() == 10
    assert "5 users have fewer than 6 items left to sample from" in split.notes


def test_the_hash_is_taken_over_external_ids(random_log):
    log = random_log(10, 30, 5)
    split = leave_one_out(log, negatives=9)
    assert split.hash == leave_one_out(log, negatives=9).hash
    assert split.hash != leave_one_out(log, negatives=9, seed=1).hash
    renamed = replace(log, item_ids=Ids("int", np.arange(30) + 100))
    assert split.hash != leave_one_out(renamed, negatives=9).hash


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize("field", ["users", "positives", "candidates"])
def test_the_hash_is_of_who_is_ranked_what_is_held_out_and_against_what(random_log, name, field):
    split = leave_one_out(random_log(10, 30, 5), negatives=9)
    held = getattr(split, name)
    rolled = np.roll(getattr(held, field), 1, axis=0)
    other = replace(split, **{name: replace(held, **{field: rolled})})
    assert other.hash != split.hash


def test_arrays_bring_the_split_back(random_log):
    split = leave_one_out(random_log(10, 30, 5), negatives=9)
    again = Split.from_arrays(split.interactions, split.part, split.arrays(), split.protocol)
    assert again.hash == split.hash
    np.testing.assert_array_equal(again.part, split.part)
    assert again.train.fingerprint == split.train.fingerprint


def test_a_log_too_short_for_it_is_refused(random_log):
    with pytest.raises(DataError, match=r"at least 3 interactions .+ \(fit\(log\)\)"):
        leave_one_out(random_log(5, 12, 2))


def test_users_with_every_item_are_not_ranked():
    rows = [[0, i] for i in range(6)] + [[1, i] for i in range(4)]
    split = leave_one_out(make_log(np.array(rows), n_items=6))
    assert split.test.users.tolist() == [1]
    assert (split.part[:6] == 0).all()
    assert any(
        "1 users who interacted with every item stay in training" in note for note in split.notes
    )
    with pytest.raises(DataError, match="every user interacted with all 6 items"):
        leave_one_out(make_log(np.array(rows[:6]), n_items=6))


@pytest.mark.parametrize("other", ["log.csv", {"user": [1]}, None])
def test_what_is_no_log_is_refused(other):
    with pytest.raises(InputError, match=r"is no log; give what load or read returns"):
        leave_one_out(other)


def test_settings_of_the_protocol_are_checked_when_it_is_made():
    log = make_log(random_pairs(np.random.default_rng(0), 9, 20, 4), n_items=20)
    for wrong in ({"ties": "pesimistic"}, {"ties": "optimistic"}, {"seed": None}, {"seed": 1.5}):
        with pytest.raises(ConfigError, match=f"protocol.{next(iter(wrong))} = "):
            leave_one_out(log, **wrong)
    split = leave_one_out(log, seed=np.int64(3), negatives=5.0)
    assert split.hash == leave_one_out(log, seed=3, negatives=5).hash


def test_all_unobserved_items_take_no_more_room_than_the_catalogue():
    log = make_log(random_pairs(np.random.default_rng(0), 9, 20, 4), n_items=20)
    assert leave_one_out(log, negatives=10**9).test.candidates.shape[1] <= 20


@pytest.mark.parametrize(
    ("kind", "order"), [("leave_one_out", "increasing"), ("time", "ascending")]
)
def test_stored_arrays_are_declared_with_their_limits(kind, order):
    """A user has one held-out item in leave-one-out, and may have several in a split by time."""
    more = {"at": 2, "validation_at": 1} if kind == "time" else {}
    declared = Split.declared(9, 20, ProtocolConfig(split=kind, **more))
    assert len(declared) == 6
    for name in ("validation", "test"):
        rows = (name,)
        users, positives = declared[f"{name}.users"], declared[f"{name}.positives"]
        assert users == Array(shape=rows, dtype="int64", low=0, high=9, order=order)
        assert positives == Array(shape=rows, dtype="int64", low=0, high=20)
        candidates = Array(shape=(name, f"candidates of {name}"), dtype="int32", low=0, high=21)
        assert declared[f"{name}.candidates"] == candidates
    assert Split.declared_part() == Array(shape=("rows",), dtype="uint8", low=0, high=3)


SORTED = "in the order of item ids, so the highest id is held out"


@pytest.mark.parametrize(
    ("order", "times", "note"),
    [
        ("down", "equal", None), ("any", "equal", None),
        ("up", "equal", "each user's rows are"), ("up", "distinct", None),
        ("up", "pairs", "each user's rows of one time are"), ("any", "pairs", None),
    ],
)  # fmt: skip
def test_rows_in_the_order_of_item_ids_are_noted(order, times, note):
    """Item 0 comes first in the log, so a comparison with the first row would find an order."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(30):
        items = np.sort(rng.permutation(np.arange(1, 40))[:12])
        items = {"up": items, "down": items[::-1], "any": rng.permutation(items)}[order]
        if user == 0:
            items[0] = 0
        rows += [(user, item) for item in items]
    log = make_log(np.array(rows), times=times is not None)
    if times == "equal":
        log = replace(log, times=np.zeros(len(log), dtype=np.int64))
    if times == "pairs":
        log = replace(log, times=np.arange(len(log)) // 2)
    noted = [line for line in leave_one_out(log, negatives=9).notes if SORTED in line]
    assert len(noted) == (note is not None)
    if note:
        assert noted[0].startswith(note)
        assert noted[0].endswith("figures mean little: give finer times, or shuffle the rows")


def test_without_times_an_order_of_item_ids_asks_for_a_time_column():
    rows = [(user, item) for user in range(30) for item in range(user % 3, 20, 2)]
    noted = leave_one_out(make_log(np.array(rows), times=False), negatives=3).notes[-1]
    assert noted.endswith("figures mean little: give a time column, or shuffle the rows")
