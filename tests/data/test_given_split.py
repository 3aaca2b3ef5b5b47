"""Given test rows and candidates, against loops over users; what is told, word by word."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import Pairs, given_split
from comet_rec.data.ids import Ids
from comet_rec.data.sampling import unobserved_items
from comet_rec.errors import DataError
from comet_rec.random import generator
from tests.conftest import make_log

PROTOCOL = ProtocolConfig(negatives=3, seed=5)


def log_of(rows, **changes):
    """Log whose user ids begin at 100 and whose item ids are tens from 10 on."""
    log = make_log(np.array(rows), times=changes.pop("times", True))
    return replace(
        log, user_ids=Ids("int", np.arange(log.n_users) + 100),
        item_ids=Ids("int", 10 * np.arange(log.n_items) + 10), **changes,
    )  # fmt: skip


def pairs(rows, notes=()) -> Pairs:
    users, items = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs(users, items, tuple(notes))


LOG = log_of([(0, 0), (0, 1), (0, 2), (1, 3), (1, 0), (2, 4), (2, 5), (2, 1), (3, 6)])
TEST = [(102, 20 + 5), (100, 40), (999, 10), (103, 80), (998, 20)]
CANDIDATES = [(100, 50), (100, 60), (100, 50), (102, 10), (102, 20), (102, 70), (103, 15),
              (101, 10), (999, 10), (100, 40)]  # fmt: skip


def test_rows_items_and_notes_are_those_of_the_files():
    split = given_split(LOG, pairs(TEST, ["a note of the file"]), pairs(CANDIDATES), PROTOCOL)
    log = split.interactions
    test = split.test
    assert log.user_ids.external(test.users).tolist() == [100, 102, 103]
    assert log.item_ids.external(test.positives).tolist() == [40, 25, 80]
    listed = [[i for i in row if i < log.n_items] for row in test.candidates.tolist()]
    found = [log.item_ids.external(np.array(row)).tolist() for row in listed]
    assert found == [[50, 60], [10, 70], [15]]
    assert test.candidates.shape == (3, 2)
    assert test.candidates.dtype == np.int32
    assert split.protocol == replace(PROTOCOL, split="given", negatives=2)
    assert split.notes == (
        "a note of the file",
        "2 test users have no training row and are left out",
        "2 test items have no training row",
        "1 candidate rows are of items without a training row",
        "2 candidates of users without a test row dropped",
        "1 repeated candidates dropped",
        "2 candidates that are positives of their user dropped (2 users)",
    )


def test_rows_of_the_log_keep_their_order_and_the_test_row_comes_last():
    split = given_split(LOG, pairs(TEST), pairs(CANDIDATES), PROTOCOL)
    log = split.interactions
    assert log.item_ids.values.tolist() == sorted({*range(10, 80, 10), 25, 80, 15})
    names = log.item_ids.external(log.items).tolist()
    assert names == [10, 20, 30, 40, 40, 10, 50, 60, 20, 25, 70, 80]
    assert log.users.tolist() == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 2
    assert split.part.tolist() == [0, 0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 2]
    assert split.part.dtype == np.uint8
    latest = {user: LOG.times[LOG.users == user].max() for user in range(4)}
    for user, row in ((0, 3), (2, 9), (3, 11)):
        assert log.times[row] == latest[user] + 1
    assert (log.users.dtype, log.items.dtype) == (np.int32, np.int32)
    assert log.time_scope == "global"
    plain = given_split(replace(LOG, times=None, time_scope="none"), pairs(TEST), None, PROTOCOL)
    assert plain.interactions.times is None


def test_candidates_are_drawn_as_their_streams_say():
    split = given_split(LOG, pairs(TEST), None, PROTOCOL)
    unobserved = unobserved_items(split.interactions)
    for name, held in (("validation", split.validation), ("test", split.test)):
        rng = generator(5, f"candidates.{name}")
        wanted = unobserved.draw_distinct(held.users, 3, rng)
        np.testing.assert_array_equal(held.candidates, wanted)
    assert split.protocol == replace(PROTOCOL, split="given")
    assert split.validation.users.tolist() == [0, 1, 2]
    assert split.validation.positives.tolist() == [
        split.interactions.item_ids.index(np.array([item]))[0] for item in (30, 10, 20)
    ]
    many = given_split(LOG, pairs(TEST), None, ProtocolConfig(negatives=50))
    assert many.test.candidates.shape == (3, many.interactions.n_items)
    assert "4 users have fewer than 50 items left to sample from" in many.notes


def test_rows_that_reading_dropped_are_known_unless_they_are_held_out():
    dropped = replace(
        LOG, dropped_users=np.array([0, 0], dtype=np.int32),
        dropped_items=np.array([3, 4], dtype=np.int32),
        zero_users=np.array([1], dtype=np.int32), zero_items=np.array([6], dtype=np.int32),
    )  # fmt: skip
    split = given_split(dropped, pairs(TEST), pairs(CANDIDATES), PROTOCOL)
    log = split.interactions
    assert "1 test pairs are rows that the filter of ratings dropped" in split.notes
    assert log.item_ids.external(log.dropped_items).tolist() == [50]
    assert log.dropped_users.tolist() == [0]
    assert log.item_ids.external(log.zero_items).tolist() == [70]
    assert "3 candidates that are positives of their user dropped (2 users)" in split.notes


@pytest.mark.parametrize(
    ("test", "candidates", "message"),
    [
        ([(999, 10)], None, "no test user occurs in the training part; check the files"),
        ([(100, 40), (101, 50), (100, 50)], None, "test user 100 has more than one row; give one"),
        ([(101, 30), (100, 20), (102, 50)], None,
         "2 test pairs, (100, 20) for one, are training rows too; take them out of one file"),
        ([(100, 40), (102, 10)], [(100, 50)],
         "1 test users have no candidate item, such as 102; give candidates for every test user"),
        ([(100, 40), (102, 10)], [(101, 50)], "2 test users have no candidate item, such as 100"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_told(test, candidates, message):
    given = None if candidates is None else pairs(candidates)
    with pytest.raises(DataError, match=re.escape(message)):
        given_split(LOG, pairs(test), given, PROTOCOL)


def test_users_with_every_item_cannot_be_ranked():
    log = log_of([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)])
    message = (
        "test user 100 (2 in all) interacted with every item, so there is nothing to rank the "
        "test item against; leave these users out of the test file"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        given_split(log, pairs([(102, 30), (100, 30), (101, 30)]), None, PROTOCOL)
    short = log_of([(0, 0), (1, 1), (2, 2)])
    with pytest.raises(DataError, match="no user has two training rows and an item left"):
        given_split(short, pairs([(100, 20)]), None, PROTOCOL)
