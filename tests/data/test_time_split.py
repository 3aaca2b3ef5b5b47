"""A split at one moment: boundaries, targets, candidates, and what it hashes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import comet_rec as cr
from comet_rec.config import ProtocolConfig
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import (
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    leave_one_out,
    validation_target,
)
from comet_rec.data.time_split import counts_of, time_split
from comet_rec.errors import CometError, ConfigError, DataError, InputError

TARGETS = ("first", "last", "random", "successive", "all")


def log_of(rows: list[tuple[int, int, int]], n_users: int = 0, n_items: int = 0) -> Interactions:
    """Log of (user, item, time) rows, sorted by user and time as reading does it."""
    users, items, times = np.array(rows, dtype=np.int64).T
    order = np.lexsort((times, users))
    return Interactions(
        users=users[order].astype(np.int32),
        items=items[order].astype(np.int32),
        times=times[order],
        time_scope="global",
        user_ids=Ids("int", np.arange(max(int(users.max()) + 1, n_users)) + 1000),
        item_ids=Ids("int", np.arange(max(int(items.max()) + 1, n_items)) + 5000),
    )


def random_log(seed: int = 0, users: int = 30, items: int = 40, each: int = 12) -> Interactions:
    """Random rows with times from 0 to 999; users begin at different times."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        start = rng.integers(0, 900)
        chosen = rng.permutation(items)[:each]
        times = rng.integers(start, 1000, size=each)
        rows += [(user, int(i), int(t)) for i, t in zip(chosen, times, strict=True)]
    return log_of(rows, users, items)


pairs = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 8)), st.integers(0, 12), min_size=1, max_size=40
)


def test_rows_at_the_boundary_time_are_test_rows_and_none_is_lost():
    rows = [(0, 0, 400), (0, 1, 450), (0, 2, 499), (0, 3, 500), (0, 4, 500), (0, 5, 501)]
    rows += [(1, item, 300 + item) for item in range(6)]
    rows += [(2, item, 310 + item) for item in range(4, 10)]
    split = time_split(log_of(rows), at=500, validation=450, negatives=2)
    times = split.interactions.times
    assert (split.part == TEST).tolist() == (times >= 500).tolist()
    assert (split.part == TRAIN).tolist() == (times < 450).tolist()
    assert sorted(times[split.interactions.users == 0][split.part[:6] == TEST]) == [500, 500, 501]


@settings(max_examples=150, deadline=None)
@given(pairs, st.sampled_from(TARGETS), st.integers(1, 12), st.integers(1, 12))
def test_every_row_has_one_part_and_every_list_knows_only_earlier_rows(found, target, at, earlier):
    assume(earlier < at)
    log = log_of([(u, i, t) for (u, i), t in found.items()])
    try:
        split = time_split(log, at=at, validation=earlier, target=target, negatives=3)
    except CometError:
        return
    log, part = split.interactions, split.part
    assert (part == np.where(log.times < earlier, 0, np.where(log.times < at, 1, 2))).all()
    assert len(split.train) + int((part == VALIDATION).sum()) == len(split.known)
    for held, moment, code in ((split.validation, earlier, VALIDATION), (split.test, at, TEST)):
        exists = set(log.items[log.times < moment].tolist())
        queries = held.queries
        rule = "last" if target == "successive" and code == VALIDATION else target
        for row, (user, item) in enumerate(zip(held.users, held.positives, strict=True)):
            place = np.flatnonzero((log.users == user) & (log.items == item))
            assert part[place].tolist() == [code]
            assert item in exists
            candidates = {int(c) for c in held.candidates[row] if c < log.n_items}
            assert candidates <= exists
            later = log.times < (at if code == VALIDATION else 99)
            assert not candidates & set(log.items[(log.users == user) & later].tolist())
            _, history = queries.histories(queries.of_rows[[row]])
            assert len(history) > 0
            assert set(history.tolist()) <= exists - {int(item)}
            times = [log.times[(log.users == user) & (log.items == i)][0] for i in history]
            assert times == sorted(times)
            own = log.times[place[0]]
            assert all(t < moment if rule == "all" else t <= own for t in times)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_equal_a_loop(target):
    log = random_log(3)
    split = time_split(log, at=700, validation=500, target=target, negatives=5)
    log = split.interactions
    exists = set(log.items[log.times < 700].tolist())
    wanted = {}
    for user in range(log.n_users):
        own = np.flatnonzero(log.users == user)
        ranked = [r for r in own if log.times[r] >= 700 and log.items[r] in exists]
        first = own[0] if target != "all" else None

        def known(row, own=own, first=first):
            before = [r for r in own if (r < row if first is not None else log.times[r] < 700)]
            return any(log.items[r] in exists for r in before)

        if target == "first":
            ranked = [r for r in ranked[:1] if known(r)]
        ranked = [r for r in ranked if known(r)]
        if target == "last":
            ranked = ranked[-1:]
        if ranked:
            wanted[user] = [int(log.items[r]) for r in ranked]
    found = {}
    for user, item in zip(split.test.users.tolist(), split.test.positives.tolist(), strict=True):
        found.setdefault(user, []).append(item)
    if target == "random":
        assert found.keys() == wanted.keys()
        assert all(len(v) == 1 and v[0] in wanted[u] for u, v in found.items())
    else:
        assert found == wanted


def test_all_is_one_list_a_user_and_successive_one_list_a_row():
    log = random_log(1)
    together = time_split(log, at=700, target="all").test
    alone = time_split(log, at=700, target="successive").test
    assert len(together.queries) == len(np.unique(together.users)) < len(together)
    assert len(alone.queries) == len(alone)
    lengths = [len(alone.queries.histories(np.array([q]))[1]) for q in range(len(alone.queries))]
    steps = np.diff(lengths)[np.diff(alone.users) == 0]
    assert (steps >= 1).all()  # the history grows with each earlier test item


def test_a_quantile_is_a_share_of_the_rows_and_ties_stay_on_one_side():
    log = random_log(2)
    split = time_split(log, quantile=0.8, validation=0.5)
    ordered = np.sort(log.times)
    assert split.protocol.at == ordered[int(0.8 * len(log))]
    before = ordered[ordered < split.protocol.at]
    assert split.protocol.validation_at == before[int(0.5 * len(before))]
    assert time_split(log).hash == time_split(log, quantile=0.9, validation=0.9).hash


def test_dates_without_a_zone_are_utc():
    start = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    plain = random_log(4)
    log = replace(plain, times=start + plain.times * 86_400 // 10)
    noon = datetime(2020, 3, 1, 12, tzinfo=UTC)
    wanted = time_split(log, at=int(noon.timestamp()))
    same = [
        "2020-03-01T12:00:00", "2020-03-01 12:00", "2020-03-01T13:00:00+01:00", noon,
        noon.replace(tzinfo=None), noon.astimezone(timezone(timedelta(hours=9))),
        np.datetime64("2020-03-01T12:00"), str(int(noon.timestamp())), float(noon.timestamp()),
    ]  # fmt: skip
    assert {time_split(log, at=at).hash for at in same} == {wanted.hash}
    assert time_split(log, at=date(2020, 3, 1)).protocol.at == wanted.protocol.at - 43_200
    exact = replace(log, times=log.times * 1_000_000, dated=True)
    assert time_split(exact, at=noon).protocol.at == wanted.protocol.at * 1_000_000
    # A moment between two seconds: rows of the earlier second come before it.
    assert time_split(log, at="2020-03-01T12:00:00.5").protocol.at == wanted.protocol.at + 1


ZONE = """
import sys, comet_rec as cr
log = cr.read(sys.argv[1], user="u", item="i", time="t")
for target in ("last", "random", "successive", "all"):
    print(cr.time_split(log, at="2021-03-28T02:30:00", target=target, negatives=5).hash)
"""


def test_neither_the_zone_of_the_machine_nor_the_order_of_rows_changes_the_hash(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(20):
        start = rng.integers(0, 40)
        for item in rng.permutation(30)[:10]:
            # Half hours around the hour that Berlin skips, with many ties.
            moment = datetime(2021, 3, 27) + timedelta(minutes=30 * int(rng.integers(start, 80)))
            rows.append(f"{user},{item},{moment.isoformat(sep=' ')}")
    hashes = set()
    for name, zone in (("a", "UTC"), ("b", "Asia/Tokyo"), ("c", "Europe/Berlin")):
        rng.shuffle(rows)
        path = tmp_path / f"{name}.csv"
        path.write_text("u,i,t\n" + "\n".join(rows) + "\n")
        environment = {**os.environ, "TZ": zone}
        call = [sys.executable, "-c", ZONE, str(path)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_old_protocols_hash_as_before():
    log = leave_one_out(random_log(0), negatives=5)
    assert log.protocol.recorded() == {
        "split": "leave_one_out", "negatives": 5, "ties": "expected", "seed": 0,
    }  # fmt: skip
    assert log.hash == "8a825d24dd2d6ae87f36762886fd3cff68a2898dd0d4a391a9a747ec1ee7decb"


@pytest.mark.parametrize(
    "change",
    [{"at": 701}, {"validation": 401}, {"target": "all"}, {"repeats": "keep"}, {"seed": 1}],
)
def test_every_option_is_hashed(change):
    log = random_log(0)
    options = {"at": 700, "validation": 400}
    assert time_split(log, **options).hash != time_split(log, **{**options, **change}).hash


@pytest.mark.parametrize("target", TARGETS)
def test_arrays_bring_the_split_back(target):
    split = time_split(random_log(5), target=target, negatives=5)
    log = split.interactions
    again = Split.from_arrays(log, split.part, split.arrays(), split.protocol)
    assert again.hash == split.hash
    for one, other in ((split.test, again.test), (split.validation, again.validation)):
        for name in ("of_rows", "users", "ends", "exists"):
            found, wanted = getattr(other.queries, name), getattr(one.queries, name)
            np.testing.assert_array_equal(found, wanted)
        assert other.queries.hide_seen is one.queries.hide_seen is True
    kept = time_split(random_log(5), target=target, negatives=5, repeats="keep")
    again = Split.from_arrays(log, kept.part, kept.arrays(), kept.protocol)
    assert again.test.queries.hide_seen is again.validation.queries.hide_seen is False


def test_arrays_that_do_not_fit_the_times_are_refused():
    split = time_split(random_log(5), negatives=5)
    log, arrays = split.interactions, split.arrays()
    late = replace(split.protocol, at=split.protocol.at + 50)
    with pytest.raises(ValueError, match="moment of the split"):
        Split.from_arrays(log, split.part, arrays, late)
    wrong = arrays | {"test.positives": np.roll(arrays["test.positives"], 1)}
    with pytest.raises(ValueError, match="no row of its part"):
        Split.from_arrays(log, split.part, wrong, split.protocol)
    row = np.flatnonzero((split.part == 0) & (log.users == arrays["test.users"][0]))[0]
    earlier = arrays["test.positives"].copy()
    earlier[0] = log.items[row]  # a row of the user, but a training row
    with pytest.raises(ValueError, match="no row of its part"):
        Split.from_arrays(log, split.part, arrays | {"test.positives": earlier}, split.protocol)
    per_user = replace(log, time_scope="per_user")
    with pytest.raises(ValueError, match="compare across users"):
        Split.from_arrays(per_user, split.part, arrays, split.protocol)


def test_users_and_items_from_the_future_are_counted():
    rows = [(user, 2 * user + item, 10 + 7 * item) for user in range(4) for item in range(6)]
    rows += [(user, 20 + user, 100) for user in range(4)]  # items of the future
    rows += [(4, 0, 110), (4, 1, 120), (5, 2, 115)]  # users of the future
    split = time_split(log_of(rows), at=100, validation=30, negatives=3)
    assert split.test.users.tolist() == [4]  # user 5 has no row before the target
    assert split.test.positives.tolist() == [1]
    assert split.notes == (
        "7 rows from 100 on are test rows; 12 rows from 30 on validate",
        "4 test rows (57.1%) are of items without an earlier row: nobody could have recommended "
        "them, so they are not ranked",
        "2 of 6 users of the test rows have no row before; 1 of them are ranked, by their rows "
        "before the item",
        "only 3 users have a validation item, so chance chooses the epochs; give an earlier "
        "validation moment",
    )
    exists = split.test.queries.exists
    counts = counts_of(split.interactions, split.part, split.test.users, exists)
    assert counts == {
        "rows": 7, "users": 6, "future_rows": 4, "future_share": 4 / 7, "new_users": 2,
        "new_users_ranked": 1, "users_not_ranked": 5,
    }  # fmt: skip
    none = np.zeros(len(split.part), dtype=np.uint8)
    assert counts_of(split.interactions, none, split.test.users[:0], exists)["future_share"] == 0


def test_one_row_before_the_test_makes_a_user_known():
    log = log_of([(0, 0, 1), (0, 1, 9), (1, 2, 9)])
    part = np.array([0, 2, 2], dtype=np.uint8)
    counts = counts_of(log, part, np.array([0]), np.array([True, True, False]))
    assert (counts["new_users"], counts["new_users_ranked"]) == (1, 0)
    assert (counts["users_not_ranked"], counts["future_rows"]) == (1, 1)


def test_moments_are_noted_as_dates_where_times_are_dates():
    start = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    plain = random_log(4)
    log = replace(plain, times=start + plain.times * 86_400)
    split = time_split(log, at="2022-03-01", validation="2021-03-01T12:00")
    assert "from 2022-03-01 00:00:00 UTC on are test rows" in split.notes[0]
    assert "from 2021-03-01 12:00:00 UTC on validate" in split.notes[0]
    dated = replace(log, times=log.times * 1_000_000, dated=True)
    again = time_split(dated, at="2022-03-01", validation="2021-03-01T12:00")
    assert again.notes[0] == split.notes[0]


def test_a_list_for_each_row_validates_on_the_last_row_of_each_user():
    for target in TARGETS:
        protocol = ProtocolConfig(split="time", at=2, validation_at=1, target=target)
        assert validation_target(protocol) == ("last" if target == "successive" else target)
    split = time_split(random_log(7), target="successive")
    assert len(np.unique(split.validation.users)) == len(split.validation)
    assert split.protocol.negatives == 99


def test_few_validation_users_and_users_with_every_item_are_noted():
    rows = [(user, (user + 3 * j) % 13, 10 * j + user) for user in range(6) for j in range(8)]
    rows += [(6, item, 5 + 6 * item) for item in range(13)]  # every item
    split = time_split(log_of(rows), at=65, validation=45, negatives=2, target="successive")
    assert 6 not in split.test.users
    assert split.notes == (
        "10 rows from 65 on are test rows; 15 rows from 45 on validate",
        "3 test items are not ranked: their users had every item",
        "only 7 users have a validation item, so chance chooses the epochs; give an earlier "
        "validation moment",
    )


NO_DATE = "is no date and no number; write it as 2024-01-31"
LOG_ENDS = "the log's rows run from 59 to 998; give another moment"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at": 700, "quantile": 0.5}, InputError, "at = 700 and quantile = 0.5: give one of them"),
        (
            {"quantile": 1.5},
            InputError,
            "quantile = 1.5: must be a number between 0 and 1, e.g. 0.9",
        ),
        ({"at": "soon"}, InputError, f"at = 'soon': {NO_DATE} or 2024-01-31T18:00:00+01:00"),
        ({"validation": "soon"}, InputError, f"validation = 'soon': {NO_DATE} or 2024"),
        ({"at": True}, InputError, f"at = True: {NO_DATE}"),
        ({"at": float("nan")}, InputError, "at = nan: must be finite"),
        (
            {"at": "2020-01-31"},
            InputError,
            "at = 2020-01-31: the times of this log are no dates but "
            "numbers from 59 to 998; give such a number, or a quantile",
        ),
        ({"at": 5_000}, DataError, f"at = 5000: no row is that late, since {LOG_ENDS}"),
        ({"at": 999}, DataError, f"at = 999: no row is that late, since {LOG_ENDS}"),
        ({"at": -5}, DataError, f"at = -5: no row is earlier, since {LOG_ENDS}"),
        ({"at": 59}, DataError, f"at = 59: no row is earlier, since {LOG_ENDS}"),
        (
            {"quantile": 0.0001},
            DataError,
            f"quantile = 0.0001: no row is earlier, since {LOG_ENDS}",
        ),
        (
            {"at": 700, "validation": 800},
            DataError,
            "validation = 800: no row is that late, since "
            "the rows before the test run from 59 to 699; give another moment",
        ),
        (
            {"at": 700, "validation": -1},
            DataError,
            "validation = -1: no row is earlier, since "
            "the rows before the test run from 59 to 699; give another moment",
        ),
        (
            {"target": "next"},
            InputError,
            "target = 'next': must be one of first, last, random, successive, all",
        ),
        ({"repeats": "maybe"}, ConfigError, "must be one of"),
        ({"negatives": 0}, ConfigError, "above 0"),
    ],
)
def test_a_wrong_option_is_one_line(options, error, message):
    with pytest.raises(error, match=re.escape(message)) as raised:
        time_split(random_log(0), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scope", ["per_user", "none"])
def test_times_that_do_not_compare_are_refused(scope):
    log = random_log(0)
    log = replace(log, time_scope=scope, times=None if scope == "none" else log.times)
    with pytest.raises(DataError) as raised:
        time_split(log)
    has = "no times" if scope == "none" else "times within each user only"
    assert str(raised.value) == (
        f"a split by time needs times that compare across users, and this log has {has}; use "
        "leave-one-out, or read it with time_scope=global if its times do compare"
    )


def test_what_is_no_log_is_refused():
    with pytest.raises(InputError, match="time_split: list is no log"):
        time_split([])  # type: ignore[arg-type]


def test_a_protocol_by_time_needs_its_moment():
    with pytest.raises(ConfigError, match="use time_split"):
        ProtocolConfig(split="time")
    with pytest.raises(ConfigError, match="use time_split"):
        cr.Popularity(**{"protocol.split": "time"})


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 1)],
        [(0, 0, 1), (1, 1, 1)],
        [(0, 0, 1), (1, 1, 2), (2, 2, 3)],  # each user has one row
        [(0, 0, 1), (0, 1, 2), (0, 2, 3)],  # each item has one row
        [(0, 0, 5), (0, 1, 5), (1, 1, 5), (1, 0, 5)],
    ],
)
def test_tiny_logs_are_refused_in_one_line(rows):
    with pytest.raises(DataError) as raised:
        time_split(log_of(rows))
    assert "\n" not in str(raised.value)


def test_one_user_alone_has_nothing_that_others_made_exist():
    with pytest.raises(DataError, match="no validation item to rank"):
        time_split(log_of([(0, item, item) for item in range(20)]))


def test_rows_after_the_boundary_change_nothing_of_training_and_validation():
    log = random_log(6)
    one = time_split(log, at=700, validation=500, negatives=5)
    # The same users, times and catalogue; later rows have other items.
    rng = np.random.default_rng(1)
    items = log.items.copy()
    for user in range(log.n_users):
        own = np.flatnonzero(log.users == user)
        later = own[log.times[own] >= 700]
        free = np.setdiff1d(np.arange(log.n_items), items[own])
        items[later] = rng.permutation(free)[: len(later)]
    other = time_split(replace(log, items=items), at=700, validation=500, negatives=5)
    assert one.hash != other.hash
    np.testing.assert_array_equal(one.known.items, other.known.items)
    for name in ("users", "positives", "candidates"):
        found = getattr(other.validation, name)
        np.testing.assert_array_equal(found, getattr(one.validation, name))
    np.testing.assert_array_equal(one.validation.queries.exists, other.validation.queries.exists)


def test_rows_of_one_time_have_an_order_of_their_own():
    """That of a hash of their items, and not of the file."""
    log = random_log(3)
    log = replace(log, times=log.times // 100)
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(log)), log.times, log.users))
    shuffled = replace(log, items=log.items[order])
    assert (shuffled.items != log.items).any()
    for target in TARGETS:
        one, other = (time_split(each, target=target, negatives=5) for each in (log, shuffled))
        assert one.hash == other.hash
        np.testing.assert_array_equal(one.interactions.items, other.interactions.items)


def test_a_user_with_one_item_left_to_compare_with_is_ranked():
    rows = [(0, item, 10 + item) for item in range(4)] + [(0, 4, 100)]
    rows += [(user, item, 5 + item + user) for user in range(1, 8) for item in range(6)]
    rows += [(user, 6, 30) for user in range(1, 8)]
    split = time_split(log_of(rows), at=100, validation=12, negatives=3)
    assert split.test.users.tolist() == [0]
    listed = split.test.candidates[0]
    assert sorted(listed[listed < 7].tolist()) == [5, 6]
    rows += [(0, 5, 50)]
    split = time_split(log_of(rows), at=100, validation=12, negatives=3)
    listed = split.test.candidates[0]
    assert listed[listed < 7].tolist() == [6]
