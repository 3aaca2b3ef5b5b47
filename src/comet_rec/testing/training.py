"""Checks of training: what `fit` reads, and what it leaves as it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import torch

from comet_rec.data.interactions import Interactions
from comet_rec.testing.subject import (
    Subject,
    assert_one_line,
    by_user,
    check,
    equal,
    in_fork,
    in_new_process,
    kind,
    lists_of_model,
    log_of,
    plain,
    planted_columns,
    refused,
)


def arrays(log: Interactions) -> dict[str, Any]:
    """Arrays of a log, by name."""
    every = {"users": log.users, "items": log.items, "user_starts": log.user_starts}
    if log.times is not None:
        every["times"] = log.times
    return every


@check
def fit_returns_the_recommender(subject: Subject) -> None:
    """`fit` returns the recommender itself."""
    model = copy.deepcopy(subject.model)
    assert model.fit(subject.planted) is model


@check
def fit_does_not_change_the_log(subject: Subject) -> None:
    """The arrays of the log are the same after training."""
    log = log_of(*planted_columns())
    before = {name: array.copy() for name, array in arrays(log).items()}
    subject.fit(log)
    for name, array in arrays(log).items():
        assert np.array_equal(array, before[name]), f"{name} changed"


@check
def read_only_arrays_are_enough(subject: Subject) -> None:
    """A log whose arrays cannot be written is trained on."""
    log = log_of(*planted_columns())
    for array in arrays(log).values():
        array.flags.writeable = False
    equal(plain(subject.fitted.recommend(k=5)), plain(subject.fit(log).recommend(k=5)))


@check
def the_same_seed_gives_the_same(subject: Subject) -> None:
    """Two copies that are trained on the same log have equal lists and scores."""
    equal(plain(subject.fitted.recommend(k=5)), plain(subject.fit(subject.planted).recommend(k=5)))


@check
def a_second_fit_equals_the_first(subject: Subject) -> None:
    """A recommender that is trained again on the same log does not go on from the first time."""
    model = subject.fit(subject.planted).fit(subject.planted)
    equal(plain(subject.fitted.recommend(k=5)), plain(model.recommend(k=5)))


@check
def a_second_fit_forgets_the_first_log(subject: Subject) -> None:
    """Trained again on another log, a recommender knows the users and items of that log alone."""
    other = log_of(["x", "x", "y", "y", "z"], ["a", "b", "b", "c", "a"], [1, 2, 3, 4, 5])
    model = subject.fit(subject.planted).fit(other)
    table = by_user(model.recommend(k=3))
    assert set(table) <= {"x", "y", "z"}
    assert {item for items in table.values() for item in items} <= {"a", "b", "c"}
    with refused():
        model.recommend([subject.users[0]], k=2)


@check
def the_order_of_rows_changes_nothing(subject: Subject) -> None:
    """A log whose rows are shuffled gives the same lists."""
    users, items, times = planted_columns()
    order = np.random.default_rng(1).permutation(len(users))
    shuffled = log_of(*(np.array(column)[order] for column in (users, items, times)))
    equal(plain(subject.fitted.recommend(k=5)), plain(subject.fit(shuffled).recommend(k=5)))


@check
def names_of_items_do_not_matter(subject: Subject) -> None:
    """Items with other ids in the same order get the same scores."""
    users, items, times = planted_columns()
    renamed = subject.fit(log_of(users, [f"film {item}" for item in items], times))
    expected = plain(subject.fitted.recommend(k=5))
    expected["item_id"] = [f"film {item}" for item in expected["item_id"]]
    equal(expected, plain(renamed.recommend(k=5)))


@check
def integer_ids(subject: Subject) -> None:
    """Integers, also large and negative ones, are ids, and come back as integers."""
    users, items, times = planted_columns()
    user_numbers = [int(user[1:]) - 5 for user in users]
    item_numbers = [int(item[1:]) + 2**40 for item in items]
    model = subject.fit(log_of(user_numbers, item_numbers, times))
    table = model.recommend([-5, 3], k=3)
    assert set(by_user(table)) == {-5, 3}
    assert all(2**40 <= int(item) < 2**40 + 32 for item in table["item_id"])


@check
def ids_in_any_script(subject: Subject) -> None:
    """Ids may hold letters of any script, spaces, quotes and commas."""
    names = ["Zoë", "名前", 'a "b", c', " x", "İ"]
    users = [name for name in names for _ in range(3)]
    items = [f"{names[(n + n // 3) % 5]}!" for n in range(15)]
    model = subject.fit(log_of(users, items, list(range(15))))
    table = by_user(model.recommend(names, k=2))
    assert list(table) == names
    assert {item for found in table.values() for item in found} <= set(items)


@check
def no_times(subject: Subject) -> None:
    """A log without times is trained on."""
    users, items, _ = planted_columns()
    assert len(by_user(subject.fit(log_of(users, items, None)).recommend(k=3))) == 48


@check
def one_user(subject: Subject) -> None:
    """A log of one user is trained on; nothing is left to recommend."""
    model = subject.fit(log_of(["u"] * 6, list("abcdef"), list(range(6))))
    assert len(np.asarray(model.recommend(k=3)["item_id"])) == 0


@check
def one_item(subject: Subject) -> None:
    """A log of one item is trained on; nothing is left to recommend."""
    model = subject.fit(log_of(list("abcdef"), ["i"] * 6, list(range(6))))
    assert len(np.asarray(model.recommend(k=3)["item_id"])) == 0


@check
def one_row(subject: Subject) -> None:
    """A log of one row is trained on, or refused in one line."""
    log = log_of(["u"], ["i"], [1])
    try:
        model = subject.fit(log)
    except ValueError as error:
        assert_one_line(error)
        return
    assert len(np.asarray(model.recommend(k=3)["item_id"])) == 0


@check
def a_user_with_all_items(subject: Subject) -> None:
    """A user who took every item gets an empty list; other lists stay whole."""
    users, items, times = planted_columns()
    extra = sorted(set(items))
    log = log_of([*users, *["all"] * len(extra)], [*items, *extra], [*times, *range(len(extra))])
    table = by_user(subject.fit(log).recommend(["all", "u00"], k=3))
    assert list(table) == ["u00"]
    assert len(table["u00"]) == 3


@check
def a_user_with_one_row(subject: Subject) -> None:
    """A user with one row gets a list."""
    users, items, times = planted_columns()
    log = log_of([*users, "new"], [*items, "i00"], [*times, 1_700_000_000])
    items_of_new = by_user(subject.fit(log).recommend(["new"], k=40))["new"]
    assert len(items_of_new) == 31


@check
def it_learns_the_planted_kinds(subject: Subject) -> None:
    """Lists hold the items of the user's own kind: 75 % or more, when chance is 27 %."""
    table = by_user(subject.fitted.recommend(k=3))
    same_kind = [kind(item) == kind(user) for user, items in table.items() for item in items]
    assert np.mean(same_kind) >= 0.75, f"{np.mean(same_kind):.0%} of the items"


@check
def the_global_random_state_has_no_influence(subject: Subject) -> None:
    """Seeds of NumPy's and PyTorch's global generators change no score."""
    kept = np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    try:
        np.random.seed(99)  # noqa: NPY002
        torch.manual_seed(99)
        model = subject.fit(subject.planted)
    finally:
        np.random.set_state(kept[0])  # noqa: NPY002
        torch.random.set_rng_state(kept[1])
    equal(plain(subject.fitted.recommend(k=5)), plain(model.recommend(k=5)))


@check
def the_global_random_state_stays(subject: Subject) -> None:
    """Training and recommending draw no number from NumPy's and PyTorch's global generators."""
    before = pickle.dumps(np.random.get_state()), torch.random.get_rng_state()  # noqa: NPY002
    subject.fit(subject.planted).recommend(k=2)
    assert before[0] == pickle.dumps(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[1], torch.random.get_rng_state())


@check
def the_number_of_threads_stays(subject: Subject) -> None:
    """Training and recommending leave PyTorch's number of threads as it was."""
    before = torch.get_num_threads()
    subject.fit(subject.planted).recommend(k=2)
    assert torch.get_num_threads() == before


@check
def threads_change_rounding_alone(subject: Subject) -> None:
    """One thread and two give the same scores, to 0.001."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = subject.fit(subject.planted).recommend(k=32)
        torch.set_num_threads(2)
        two = subject.fit(subject.planted).recommend(k=32)
    finally:
        torch.set_num_threads(before)
    equal(plain(one), plain(two), tolerance=1e-3)


@check
def before_training_lists_are_refused(subject: Subject) -> None:
    """A recommender that is not trained refuses to recommend."""
    with refused():
        copy.deepcopy(subject.model).recommend(["u00"], k=2)


@check
def a_path_is_no_log(subject: Subject) -> None:
    """`fit` refuses a text, which is no log."""
    with refused():
        subject.fit("log.csv")


@check
def nothing_is_no_log(subject: Subject) -> None:
    """`fit` refuses None."""
    with refused():
        subject.fit(None)


@check
def a_failed_fit_keeps_the_trained_state(subject: Subject) -> None:
    """A recommender that refused a log still recommends as before."""
    model = subject.fit(subject.planted)
    with refused():
        model.fit(None)
    equal(plain(subject.fitted.recommend(k=5)), plain(model.recommend(k=5)))


@check
def it_has_a_text(subject: Subject) -> None:
    """`repr` works before and after training, in one line."""
    for model in (subject.model, subject.fitted):
        assert "\n" not in repr(model)


@check
def a_copy_recommends_the_same(subject: Subject) -> None:
    """A deep copy of a trained recommender gives the same lists."""
    copied = copy.deepcopy(subject.fitted)
    equal(plain(subject.fitted.recommend(k=5)), plain(copied.recommend(k=5)))


@check
def a_pickled_copy_recommends_the_same(subject: Subject) -> None:
    """A trained recommender that was pickled gives the same lists."""
    copied = pickle.loads(pickle.dumps(subject.fitted))
    equal(plain(subject.fitted.recommend(k=5)), plain(copied.recommend(k=5)))


@check
def a_forked_process_recommends_the_same(subject: Subject) -> None:
    """A process that was forked after training gives the same lists."""
    expected = plain(subject.fitted.recommend(k=5))
    equal(expected, in_fork(lists_of_model, subject.fitted))


@check
def a_new_process_recommends_the_same(subject: Subject) -> None:
    """A new process that gets the recommender by pickle gives the same lists."""
    expected = plain(subject.fitted.recommend(k=5))
    equal(expected, in_new_process(lists_of_model, subject.fitted))
