"""A log joined with new rows is the log of all rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comet_rec as cr
from comet_rec.data.joined import joined
from comet_rec.errors import CometWarning, DataError

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 30)), min_size=1, max_size=30
)


def log_of(rows, **options):
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    return cr.read(frame, time_scope="global", **options)


@settings(deadline=None, max_examples=30)
@given(ROWS, ROWS, st.sampled_from(["first", "last"]))
def test_joining_two_logs_is_reading_their_rows_together(old, new, repeats):
    whole = joined(log_of(old, repeats=repeats), log_of(new, repeats=repeats), repeats)
    together = log_of(old + new, repeats=repeats)
    assert whole.log.fingerprint == together.fingerprint


@settings(deadline=None, max_examples=30)
@given(ROWS, ROWS)
def test_old_indices_point_to_the_same_ids_and_new_rows_are_marked(old, new):
    before, whole = log_of(old), joined(log_of(old), log_of(new))
    log = whole.log
    assert np.array_equal(log.user_ids.values[whole.users], before.user_ids.values)
    assert np.array_equal(log.item_ids.values[whole.items], before.item_ids.values)
    pairs = {(user, item) for user, item, _ in old}
    users = log.user_ids.values[log.users].tolist()
    items = log.item_ids.values[log.items].tolist()
    expected = [pair not in pairs for pair in zip(users, items, strict=True)]
    assert whole.new_rows.tolist() == expected
    new_items = set(log.item_ids.values[whole.new_items].tolist())
    assert new_items == {item for _, item, _ in new} - {item for _, item, _ in old}


def test_a_pair_that_the_log_has_keeps_its_time():
    whole = joined(log_of([(1, 1, 5), (1, 2, 9)]), log_of([(1, 1, 20)]))
    assert whole.log.times.tolist() == [5, 9]
    assert not whole.new_rows.any()


def test_an_earlier_row_of_a_known_pair_moves_the_pair():
    whole = joined(log_of([(1, 1, 5), (1, 2, 9)]), log_of([(1, 2, 1)]))
    assert whole.log.times.tolist() == [1, 5]
    assert not whole.new_rows.any()


def test_positions_that_begin_again_are_reported():
    positions = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "time": [1, 2, 1]})
    old = cr.read(positions)
    again = cr.read(pd.DataFrame({"user": [1, 3], "item": [3, 1], "time": [1, 1]}))
    with pytest.warns(CometWarning, match="^1 new rows are not later"):
        joined(old, again)
    further = cr.read(
        pd.DataFrame({"user": [1, 3], "item": [3, 1], "time": [3, 1]}), time_scope="per_user"
    )
    joined(old, further)  # no warning


def test_without_times_new_rows_come_last():
    old = cr.read(pd.DataFrame({"user": [1, 1], "item": [5, 3]}))
    whole = joined(old, cr.read(pd.DataFrame({"user": [1], "item": [4]})))
    assert whole.log.item_ids.values[whole.log.items].tolist() == [5, 3, 4]


def test_a_removed_pair_that_is_a_new_row_is_no_longer_removed():
    frame = pd.DataFrame(
        {"user": [1, 1, 2], "item": [1, 2, 1], "time": [1, 2, 3], "rating": [5, 1, 5]}
    )
    extra = pd.DataFrame({"user": [3], "item": [2], "time": [4], "rating": [5]})
    old = cr.read(pd.concat([frame, extra]), min_rating=3)
    assert len(old.dropped_users) == 1
    new = log_of([(1, 2, 9)])
    assert len(joined(old, new).log.dropped_users) == 0
    assert len(joined(old, log_of([(9, 9, 9)])).log.dropped_users) == 1


def test_numbers_join_a_log_of_text_ids_and_text_does_not_join_numbers():
    text = cr.read(pd.DataFrame({"user": ["a", "7"], "item": ["x", "y"]}))
    numbers = cr.read(pd.DataFrame({"user": [7, 8], "item": [1, 2]}))
    whole = joined(text, numbers)
    assert whole.log.user_ids.values.tolist() == ["7", "8", "a"]
    with pytest.raises(DataError, match="user 'a' is no plain integer"):
        joined(numbers, text)


def test_a_number_does_not_join_its_other_spelling():
    old = cr.read(pd.DataFrame({"user": ["007", "b"], "item": ["x", "y"]}))
    new = cr.read(pd.DataFrame({"user": [7], "item": ["x"]}))
    with pytest.raises(DataError, match="write new ids alike"):
        joined(old, new)


def test_rows_without_times_or_in_another_unit_are_refused():
    old = log_of([(1, 1, 1_500_000_000), (1, 2, 1_500_000_100)])
    with pytest.raises(DataError, match="the new rows have none"):
        joined(old, cr.read(pd.DataFrame({"user": [1], "item": [3]})))
    milliseconds = [(1, 3, 1_500_000_200_000)]
    with pytest.raises(DataError, match="cannot be the same unit"):
        joined(old, log_of(milliseconds))
