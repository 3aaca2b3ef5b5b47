"""The audit: each planted fault is found, nothing else is, and clean data give silence."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.config import Config
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.pairs import Pairs
from comet_rec.data.readers import read
from comet_rec.data.split import TEST, TRAIN, VALIDATION, Split
from comet_rec.errors import DataError
from comet_rec.evaluation.audit import Finding, as_data, as_text, audit, audit_files

N_USERS, N_ITEMS, ROWS = 40, 60, 12


def clean_log(seed: int = 0) -> Interactions:
    """Random items; every round of all users is over before the next one begins."""
    rng = np.random.default_rng(seed)
    items = rng.random((N_USERS, N_ITEMS)).argsort(axis=1)[:, :ROWS]
    users = np.repeat(np.arange(N_USERS), ROWS)
    rounds = np.tile(np.arange(ROWS), N_USERS)
    return Interactions(
        users=users.astype(np.int32),
        items=items.ravel().astype(np.int32),
        times=1_500_000_001 + rounds * 100_003 + users * 7,
        time_scope="global",
        user_ids=Ids("int", np.arange(N_USERS) + 1000),
        item_ids=Ids("int", np.arange(N_ITEMS) + 5000),
    )


def clean() -> Split:
    return cr.leave_one_out(clean_log(), negatives=20)


def config(**settings: object) -> Config:
    model = cr.COMET(preset="static", embedding_dim=16, history_length=15, **settings)
    return model.config_for(clean_log())


def of_test(split: Split, **changes: object) -> Split:
    return replace(split, test=replace(split.test, **changes))


def with_row(split: Split, user: int, item: int) -> Split:
    """A training row more, as the user's first."""
    log = split.interactions
    at = int(log.user_starts[user])
    assert log.times is not None
    more = replace(
        log,
        users=np.insert(log.users, at, user),
        items=np.insert(log.items, at, item),
        times=np.insert(log.times, at, log.times[at] - 1),
    )
    return replace(split, interactions=more, part=np.insert(split.part, at, TRAIN))


def with_times(split: Split, change: Callable[[np.ndarray], np.ndarray]) -> Split:
    times = split.interactions.times
    assert times is not None
    return replace(split, interactions=replace(split.interactions, times=change(times.copy())))


def with_candidate(split: Split, row: int, item: int) -> Split:
    candidates = split.test.candidates.copy()
    candidates[row, 0] = item
    return of_test(split, candidates=candidates)


# The faults, each a function of a clean split.


def item_of_test_in_training(split: Split) -> Split:
    return with_row(split, 3, int(split.test.positives[3]))


def validation_item_in_training(split: Split) -> Split:
    return with_row(split, 3, int(split.validation.positives[3]))


def candidate_of_training(split: Split) -> Split:
    return with_candidate(split, 3, int(split.train.items[split.train.user_starts[3]]))


def candidate_of_dropped_row(split: Split) -> Split:
    log = replace(
        split.interactions,
        dropped_users=np.array([3], dtype=np.int32),
        dropped_items=split.test.candidates[3, :1],
    )
    keep = split.validation.candidates.copy()
    keep[3][keep[3] == split.test.candidates[3, 0]] = log.n_items
    protocol = replace(split.protocol, negatives=19)
    validation = replace(split.validation, candidates=keep)
    return replace(split, interactions=log, validation=validation, protocol=protocol)


def candidate_is_the_positive(split: Split) -> Split:
    return with_candidate(split, 3, int(split.test.positives[3]))


def candidate_twice(split: Split) -> Split:
    return with_candidate(split, 3, int(split.test.candidates[3, 1]))


def no_candidate(split: Split) -> Split:
    candidates = split.test.candidates.copy()
    candidates[3] = N_ITEMS
    return of_test(split, candidates=candidates)


def few_candidates(split: Split) -> Split:
    return with_candidate(split, 3, N_ITEMS)


def candidate_no_index(split: Split) -> Split:
    return with_candidate(split, 3, N_ITEMS + 1)


def candidate_in_no_row(split: Split) -> Split:
    log = split.interactions
    more = replace(log, item_ids=Ids("int", np.arange(N_ITEMS + 1) + 5000))
    keep = split.validation.candidates
    assert not (keep == N_ITEMS).any()
    return with_candidate(replace(split, interactions=more), 3, N_ITEMS)


def tie_at_test(split: Split) -> Split:
    def tie(times: np.ndarray) -> np.ndarray:
        test, validation = split.part == TEST, split.part == VALIDATION
        times[np.flatnonzero(validation)[3]] = times[np.flatnonzero(test)[3]]
        return times

    return with_times(split, tie)


def tie_at_validation(split: Split) -> Split:
    def tie(times: np.ndarray) -> np.ndarray:
        at = np.flatnonzero(split.part == VALIDATION)[3]
        times[at] = times[at - 1]
        return times

    return with_times(split, tie)


def future_item(split: Split) -> Split:
    """The whole life of user 3 is before everybody else's."""

    def early(times: np.ndarray) -> np.ndarray:
        times[split.interactions.users == 3] -= 10**9
        return times

    return with_times(split, early)


def cold_user(split: Split) -> Split:
    keep = (split.interactions.users != 3) | (split.part != TRAIN)
    return replace(split, interactions=split.interactions.select(keep), part=split.part[keep])


def cold_item(split: Split) -> Split:
    """The test item of user 3 leaves the training rows of all others."""
    log = split.interactions
    keep = (log.items != split.test.positives[3]) | (split.part != TRAIN)
    return replace(split, interactions=log.select(keep), part=split.part[keep])


def repeated_row(split: Split) -> Split:
    return with_row(split, 3, int(split.train.items[split.train.user_starts[3]]))


def repeated_row_that_reading_removed(split: Split) -> Split:
    notes = ("1 repeated (user, item) rows removed",)
    return replace(split, interactions=replace(split.interactions, notes=notes))


def times_as_floats(split: Split) -> Split:
    return with_times(split, lambda times: times.astype(np.float32).astype(np.int64))


def equal_times(split: Split) -> Split:
    return with_times(split, np.zeros_like)


def order_of_ids(split: Split) -> Split:
    log = split.interactions
    items = np.sort(log.items.reshape(N_USERS, ROWS), axis=1).ravel()
    return cr.leave_one_out(replace(log, items=items), negatives=20)


PLANTED: list[tuple[Callable[[Split], Split], str, str, int, int]] = [
    (item_of_test_in_training, "test-in-training", "error", 1, 40),
    (validation_item_in_training, "validation-in-training", "error", 1, 40),
    (candidate_of_training, "test-candidates-touched", "error", 1, 40),
    (candidate_of_dropped_row, "test-candidates-touched", "error", 1, 40),
    (candidate_is_the_positive, "test-positive-among-candidates", "error", 1, 40),
    (candidate_twice, "test-candidates-repeated", "error", 1, 40),
    (no_candidate, "test-without-candidates", "error", 1, 40),
    (few_candidates, "test-few-candidates", "warning", 1, 40),
    (candidate_no_index, "test-candidates-outside", "error", 1, 800),
    (candidate_in_no_row, "test-candidates-outside", "warning", 1, 61),
    (tie_at_test, "test-ties", "warning", 1, 40),
    (tie_at_validation, "validation-ties", "warning", 1, 40),
    (future_item, "test-future-items", "warning", 1, 40),
    (cold_user, "test-users-cold", "warning", 1, 40),
    (cold_item, "test-items-cold", "warning", 1, 40),
    (repeated_row, "repeated-rows", "warning", 1, 401),
    (repeated_row_that_reading_removed, "repeated-rows", "warning", 1, 481),
    (times_as_floats, "times-truncated", "warning", 480, 480),
    (equal_times, "times-equal", "warning", 480, 480),
    (order_of_ids, "order-follows-ids", "warning", 440, 440),
]

COLD = {
    f"{part}-{what}-cold" for part in ("test", "validation") for what in ("items", "candidates")
}
FOLLOWS = {
    "tie_at_test": {"tied-steps"},
    "tie_at_validation": {"tied-steps"},
    "future_item": {"future-users"},
    "cold_user": {"validation-users-cold"},
    "cold_item": {"test-candidates-cold", "validation-candidates-cold"},
    # The other copy of a repeated pair stays in the history.
    "repeated_row": {"target-in-history"},
    # The highest id is always the last, so never in training.
    "order_of_ids": COLD,
}
"""What a fault is by its nature besides."""


def test_clean_data_give_silence():
    split = clean()
    assert audit(split, config()) == []
    assert audit(split.interactions) == []


@pytest.mark.parametrize(("plant", "check", "severity", "count", "of"), PLANTED)
def test_a_planted_fault_is_found_and_only_it(plant, check, severity, count, of):
    found = {finding.check: finding for finding in audit(plant(clean()), config())}
    assert set(found) - FOLLOWS.get(plant.__name__, set()) == {check}
    finding = found[check]
    assert (finding.severity, finding.count, finding.of) == (severity, count, of)


@pytest.mark.parametrize("plant", [p[0] for p in PLANTED[:9]])
def test_examples_are_external_ids(plant):
    split = plant(clean())
    example = audit(split)[0].example
    assert example is not None
    assert example["user"] == 1003
    if plant is item_of_test_in_training:
        assert example["item"] == 5000 + split.test.positives[3]


@pytest.mark.parametrize("policy", ["sampled", "recent", "causal"])
def test_the_target_in_the_history_is_found_by_drawing_batches(policy):
    """Where the setting hides it, nothing; where it does not, most are seen (N exceeds the rows).

    A causal history of a user ends before the target, so the user in N(i) is what is seen.
    """
    split = clean()
    assert audit(split, config(history=policy)) == []
    (finding,) = audit(split, config(history=policy, exclude_target=False))
    assert (finding.check, finding.severity) == ("target-in-history", "error")
    assert finding.count == finding.of == int((split.part == TRAIN).sum())
    assert finding.example is not None
    user, item = finding.example["user"] - 1000, finding.example["item"] - 5000
    rows = split.train
    assert ((rows.users == user) & (rows.items == item)).any()


@pytest.mark.parametrize("name", ["FISM", "SVDpp"])
def test_models_of_whole_bags_are_judged_by_their_setting(name):
    estimator = getattr(cr, name)
    log = clean_log()
    assert audit(clean(), estimator().config_for(log)) == []
    (finding,) = audit(clean(), estimator(exclude_target=False).config_for(log))
    assert finding.check == "target-in-history"
    assert audit(clean(), cr.MF().config_for(log)) == []  # nothing is shown, nothing to find


def test_ties_in_the_order_of_ids_are_a_pattern():
    log = clean_log()
    assert log.times is not None
    sessions = np.repeat(np.arange(N_USERS * ROWS // 6), 6)  # six rows at one time
    items = np.sort(log.items.reshape(-1, 6), axis=1).ravel()
    tied = replace(log, items=items, times=10**9 + 1 + sessions * 977)
    (finding,) = [f for f in audit(tied) if f.check == "order-follows-ids"]
    assert (finding.count, finding.of) == (400, 400)
    assert "between equal times" in finding.message
    untied = replace(tied, items=log.items)
    assert [f.check for f in audit(untied)] == ["tied-steps"]


def test_a_matrix_without_times_is_in_the_order_of_ids():
    log = clean_log()
    bare = read(log.matrix)
    checks = {f.check for f in audit(cr.leave_one_out(bare, negatives=20))}
    assert checks - COLD == {"order-follows-ids", "no-times"}


def test_times_of_days_are_coarse_and_not_truncated():
    """86,400 is a multiple of 128, so whole days survive 32-bit floats."""
    log = clean_log()
    days = replace(log, times=(17_000 + np.tile(np.arange(ROWS), N_USERS) * 13) * 86_400)
    assert audit(replace(days, times=days.times + log.users * 86_400)) == []


def test_the_share_of_later_rows_and_users():
    """User 0 lives wholly after the others: 10 rows of 400 are later than the median test."""
    split = clean()
    users = split.interactions.users
    late = with_times(split, lambda times: times + (users == 0) * 10**8)
    found = {f.check: f for f in audit(late)}
    assert (found["future-rows"].count, found["future-rows"].of) == (10, 400)
    assert (found["future-users"].count, found["future-users"].of) == (39, 40)
    assert found["future-rows"].severity == "note"


def test_positions_within_users_say_nothing_of_the_future():
    log = replace(clean_log(), times=np.tile(np.arange(ROWS), N_USERS), time_scope="per_user")
    assert [f.check for f in audit(cr.leave_one_out(log, negatives=20))] == ["times-per-user"]


def test_reading_says_what_the_audit_counts(tmp_path):
    """The count of removed rows comes from a note of the reader."""
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"1,{i},{100 + i}\n" for i in (1, 2, 3, 2, 1)))
    found = {f.check: f for f in audit(read(path))}
    assert (found["repeated-rows"].count, found["repeated-rows"].of) == (2, 5)


def test_files_are_seen_before_they_are_mended():
    """Positive, training row, repeat, other user, foreign item, cold user, all in one go."""
    log = read_rows([(u, i, 10 * u + i) for u in (1, 2, 3) for i in (u, u + 1, u + 2)])
    test = Pairs(np.array([1, 2, 2, 9]), np.array([5, 2, 1, 4]))
    candidates = Pairs(
        np.array([1, 1, 1, 2, 2, 9, 9, 9, 3]), np.array([5, 4, 4, 3, 77, 1, 2, 3, 1])
    )
    found = {f.check: f for f in audit_files(log, test, candidates)}
    counts = {check: (f.severity, f.count, f.of) for check, f in found.items()}
    assert counts == {
        "test-users-repeated": ("error", 1, 3),
        "test-in-training": ("error", 1, 3),
        "test-positive-among-candidates": ("error", 1, 3),
        "test-candidates-touched": ("error", 1, 3),
        "test-candidates-repeated": ("error", 1, 3),
        "candidates-without-test": ("warning", 1, 9),
        "test-candidates-outside": ("warning", 1, 6),
        "test-few-candidates": ("warning", 1, 3),
        "test-users-cold": ("warning", 1, 3),
    }
    assert found["test-positive-among-candidates"].example == {"user": 1, "item": 5}
    assert found["candidates-without-test"].example == {"user": 3}


def test_times_of_a_test_file_are_looked_at_where_they_are_known():
    log = read_rows([(u, i, 1000 + 100 * u + i) for u in (1, 2) for i in (1, 2, 3)])
    test = Pairs(np.array([1, 2]), np.array([4, 4]))
    assert [f.check for f in audit_files(log, test)] == ["test-items-cold"]
    checks = {f.check for f in audit_files(log, test, times={(1, 4): 1103, (2, 4): 1999})}
    assert {"test-ties", "tied-steps", "future-users"} <= checks
    assert [f.check for f in audit_files(log, test, times={(1, 4): 1103})] == ["test-items-cold"]


def test_ids_of_another_kind_are_refused():
    log = read_rows([(1, 1, 1), (1, 2, 2)])
    with pytest.raises(DataError, match="'x' is no integer, and the ids of the log are"):
        audit_files(log, Pairs(np.array([1]), np.array(["x"], dtype=object)))


def test_uuids_become_text():
    values = sorted(str(uuid.UUID(int=n)) for n in range(N_USERS))
    ids = np.empty(N_USERS, dtype=object)
    ids[:] = values
    split = item_of_test_in_training(clean())
    split = replace(split, interactions=replace(split.interactions, user_ids=Ids("uuid", ids)))
    example = audit(split)[0].example
    assert example is not None
    assert example["user"] == values[3]


def test_text_and_data():
    error = Finding("a", "error", 1, 2, "one of two", {"user": 7, "item": "x"})
    note = Finding("b", "note", 2, 2, "both")
    assert as_text([error, note]) == (
        "error    a: one of two; e.g. user 7, item x\nnote     b: both\n1 error, 0 warnings, 1 note"
    )
    assert as_data([note]) == {
        "findings": [{"check": "b", "severity": "note", "count": 2, "of": 2, "message": "both",
                      "example": None}],
        "ok": True,
    }  # fmt: skip
    assert as_data([error, note])["ok"] is False


def read_rows(rows: list[tuple[int, int, int]]) -> Interactions:
    import pandas as pd

    return read(pd.DataFrame(rows, columns=["user", "item", "time"]))
