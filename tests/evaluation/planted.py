"""A clean split, and one function for each fault that makes it unclean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

import comet_rec as cr
from comet_rec.config import Config
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import TEST, TRAIN, VALIDATION, Split

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
"""Other findings that a fault causes by its nature."""
