"""Scorers of models of every kind, in blocks, against loops over single users and items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import comet_rec as cr
from comet_rec.data.histories import fold_in, input_histories
from comet_rec.data.time_split import time_split
from comet_rec.errors import InputError, NonFiniteError
from comet_rec.evaluation import ranking, scoring
from comet_rec.models import base
from tests.data.test_time_split import random_log

SIZES = {"embedding_dim": 4, "epochs": 1, "full_epochs": 1}
READS = {"history_length": 5}
MODELS = {
    "mf": (cr.MF, SIZES), "fism": (cr.FISM, SIZES),
    "comet": (cr.COMET, SIZES | READS | {"preset": "static", "hidden": (8,)}),
    "sasrec": (cr.SASRec, SIZES | READS), "mlp": (cr.MLP, SIZES),
    "itemknn": (cr.ItemKNN, {}), "ease": (cr.EASE, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return time_split(random_log(7), at=650, validation=400, target="successive", negatives=8)


@pytest.fixture(scope="module")
def trained(split):
    """Name → finished run."""
    known = {}

    def run(name):
        if name not in known:
            kind, settings = MODELS[name]
            refit = {} if name in ("itemknn", "ease") else {"refit": False}
            known[name] = kind(**settings).fit(split, **refit).run
        return known[name]

    return run


@pytest.fixture
def small_blocks(monkeypatch):
    """Three users, items or rows in a block, four pairs."""
    monkeypatch.setattr(scoring, "ENCODED", 3)
    monkeypatch.setattr(scoring, "PAIRS", 4)
    monkeypatch.setattr(ranking, "BLOCK_BYTES", 300)


def some(n_users: int, n_items: int, width: int = 7):
    """Users [B] and items [B, C], with repetitions."""
    rng = np.random.default_rng(3)
    users = rng.integers(0, n_users, 11)
    return users, rng.integers(0, n_items, (11, width))


def assert_pairs_are_of_all(scores, n_users: int, width: int = 7) -> None:
    users, items = some(n_users, scores.n_items, width)
    every, pairs = scores.score_all(users), scores.score_pairs(users, items)
    assert every.shape == (11, scores.n_items)
    assert every.dtype == pairs.dtype == np.float32
    np.testing.assert_allclose(pairs, np.take_along_axis(every, items, axis=1), atol=2e-6)


# Vectors


def test_vectors_give_inner_products(small_blocks):
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 4)).astype(np.float32) for n in (9, 13))
    scores = scoring.VectorScores(torch.from_numpy(users), torch.from_numpy(items))
    assert scores.n_items == 13
    chosen, _ = some(9, 13)
    np.testing.assert_allclose(scores.score_all(chosen), users[chosen] @ items.T, rtol=1e-5)
    assert_pairs_are_of_all(scores, 9)


def test_items_of_equal_vectors_have_equal_scores():
    """Zeros of both signs are equal."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 3)).astype(np.float32)
    rows[0, 0] = 0.0
    place = np.array([0, 3, 1, 2, 0, 4, 3, 0])
    items = rows[place]
    items[4, 0] = -0.0
    scores = scoring.VectorScores(torch.from_numpy(rows), torch.from_numpy(items))
    found = scores.score_all(np.arange(5))
    for a in range(8):
        for b in range(8):
            assert (found[:, a] == found[:, b]).all() == (place[a] == place[b])
    np.testing.assert_allclose(found, rows @ items.T, rtol=1e-5)
    empty = scoring.VectorScores(torch.zeros(2, 0), torch.zeros(3, 0))
    assert (empty.score_all(np.arange(2)) == np.zeros((2, 3))).all()


def test_a_blend_sums_scores_with_a_weight():
    rng = torch.Generator().manual_seed(0)
    users, items, others, theirs = (torch.randn(n, k, generator=rng) for n, k in
                                    ((3, 2), (4, 2), (3, 5), (4, 5)))  # fmt: skip
    left, right = scoring.blended(users, items, others, theirs, 0.25)
    torch.testing.assert_close(left @ right.T, users @ items.T + 0.25 * (others @ theirs.T))
    assert left.dtype == torch.float32


# Functions


def test_a_function_is_asked_with_ids_once_for_each_item():
    log = random_log(7)
    asked = []

    def function(user, items):
        asked.append((user, items))
        return [-len(str(item)) * 10.0 + int(str(item)[-1]) for item in items]

    scores = scoring.FunctionScores(function, log)
    assert scores.n_items == log.n_items
    found = scores.score_pairs(np.array([2, 0]), np.array([[5, 1, 5], [0, 3, 2]]))
    assert found.dtype == np.float32
    users = log.user_ids.external(np.array([2, 0])).tolist()
    items = [log.item_ids.external(np.array(i)).tolist() for i in ([1, 5], [0, 2, 3])]
    assert asked == list(zip(users, items, strict=True))
    assert found[0, 0] == found[0, 2]
    wanted = np.array([function(users[1], [item])[0] for item in items[1]])[[0, 2, 1]]
    assert (np.argsort(found[1]) == np.argsort(wanted)).all()
    assert (np.sign(np.diff(found[1])) == np.sign(np.diff(wanted))).all()
    every = scores.score_all(np.array([1]))
    assert every.shape == (1, log.n_items)
    assert asked[-1][1] == log.item_ids.external(np.arange(log.n_items)).tolist()


def test_a_function_of_queries_is_asked_with_their_users():
    log = random_log(7)
    asked = []
    scores = scoring.FunctionScores(
        lambda user, items: asked.append(user) or [0.0] * len(items), log, np.array([4, 4, 1])
    )
    scores.score_all(np.array([2, 0]))
    assert asked == log.user_ids.external(np.array([1, 4])).tolist()


def test_scores_that_float32_would_make_equal_keep_their_order():
    log = random_log(7)
    values = 1.0 + np.arange(log.n_items) * 1e-12
    scores = scoring.FunctionScores(lambda _, items: values[: len(items)], log)
    assert (np.diff(scores.score_all(np.array([0]))[0]) > 0).all()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            ["a"] * 3,
            InputError,
            "the model's scores for user .+ are not numbers: could not convert",
        ),
        ([1.0, 2.0], InputError, r"scores of shape \(2,\) for 3 items of user .+; give one score"),
        ([1.0, float("nan"), 0.0], NonFiniteError, "gave user .+ a score that is NaN or infinite"),
        ([1.0, float("-inf"), 0.0], NonFiniteError, "NaN or infinite; give finite numbers"),
    ],
)
def test_answers_of_a_function_that_are_no_scores_are_refused(answer, error, message):
    scores = scoring.FunctionScores(lambda *_: answer, random_log(7))
    with pytest.raises(error, match=message):
        scores.score_pairs(np.array([0]), np.array([[0, 1, 2]]))


# Models that score pairs, and models without epochs


class OfPairs(torch.nn.Module):
    """Scores that tell users, items and the sizes of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.shapes: list[tuple[int, ...]] = []

    def score_pairs(self, users, items):
        self.shapes.append(tuple(items.shape))
        return users[:, None] * 100.0 + items


@pytest.mark.parametrize("width", [1, 3, 7])
def test_pairs_are_scored_in_blocks(small_blocks, width):
    model = OfPairs()
    users, items = some(9, 13, width)
    found = scoring.PairScores(model, 13).score_pairs(users, items)
    np.testing.assert_array_equal(found, users[:, None] * 100.0 + items)
    assert max(rows * columns for rows, columns in model.shapes) <= 4
    assert len(model.shapes) == {1: 3, 3: 11, 7: 22}[width]
    every = scoring.PairScores(model, 13).score_all(users)
    np.testing.assert_array_equal(every, users[:, None] * 100.0 + np.arange(13))
    owners = np.arange(9)[::-1].copy()
    found = scoring.PairScores(model, 13, owners).score_pairs(users, items)
    np.testing.assert_array_equal(found, owners[users][:, None] * 100.0 + items)


def test_a_model_without_epochs_reads_the_rows_of_the_users(small_blocks, split, trained):
    run = trained("itemknn")
    scores = scoring.NonIterativeScores(run.model, split.known.matrix, split.known.n_items)
    users = np.array([4, 1, 4])
    wanted = run.model.score_all(users, split.known.matrix[users])
    np.testing.assert_array_equal(scores.score_all(users), wanted)
    assert_pairs_are_of_all(scores, split.known.n_users)


def test_a_model_without_epochs_scores_queries_by_their_histories(small_blocks, split, trained):
    queries = split.test.queries
    model = trained("ease").model
    scores = scoring.QueryScores(model, queries)
    assert scores.n_items == split.interactions.n_items
    chosen = np.array([3, 0, 3])
    found = scores.score_all(chosen)
    for row, query in enumerate(chosen):
        _, items = queries.histories(np.array([query]))
        one = np.zeros((1, scores.n_items), dtype=np.float32)
        one[0, items] = 1
        wanted = model.score_all(queries.users[query : query + 1], csr_array(one))[0]
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-5)
    assert_pairs_are_of_all(scores, len(queries))


# Two-tower models


@pytest.mark.parametrize("name", ["mf", "fism", "comet", "sasrec"])
def test_vectors_are_those_of_single_users_and_items(small_blocks, split, trained, name):
    model, rows = trained(name).model, split.train
    users, items = scoring.vectors(model, rows)
    of_users, of_items = input_histories(rows, model.histories)
    given_histories = scoring.vectors(model, rows, (of_users, of_items))
    assert all(torch.equal(a, b) for a, b in zip(given_histories, (users, items), strict=True))
    assert (len(users), len(items)) == (rows.n_users, rows.n_items)
    with torch.no_grad():
        for one in (0, 4, rows.n_users - 1):
            index = torch.tensor([one])
            history = None if of_users is None else of_users[index]
            wanted = model.encode_users(index, history) * model.weight
            torch.testing.assert_close(users[index], wanted)
        for one in (0, 5, rows.n_items - 1):
            index = torch.tensor([one])
            history = None if of_items is None else of_items[index]
            torch.testing.assert_close(items[index], model.encode_items(index, history))
    assert not users.requires_grad
    assert not items.requires_grad


@pytest.mark.parametrize("name", ["fism", "comet", "sasrec"])
def test_vectors_of_histories_count_the_users_own_embeddings_if_they_are_given(
    small_blocks, split, trained, name
):
    model = trained(name).model
    histories = fold_in(
        [np.array(h, dtype=np.int64) for h in ([1, 2], [3], [], [4, 5, 6, 7, 8, 9])],
        model.histories, split.train.n_items,
    )  # fmt: skip
    owners = np.array([7, 1, 3, 5])
    for users in (None, owners):
        found = scoring.vectors_from_histories(model, histories, users)
        for row in range(4):
            index = torch.tensor([row])
            own = None if users is None else torch.from_numpy(users)[index]
            with torch.no_grad():
                wanted = model.encode_users(own, histories[index]) * model.weight
            torch.testing.assert_close(found[index], wanted)
    none = scoring.vectors_from_histories(model, histories[torch.arange(0)])
    assert none.shape == (0, len(model.weight))


def test_vectors_of_a_model_that_reads_no_histories_are_those_of_the_users(split, trained):
    model = trained("mf").model
    owners = np.array([3, 3, 0])
    found = scoring.vectors_from_histories(model, None, owners)
    users, _ = scoring.vectors(model, split.train)
    torch.testing.assert_close(found, users[torch.from_numpy(owners)])
    assert len(scoring.vectors_from_histories(model, None)) == 0


@pytest.mark.parametrize("name", ["fism", "comet", "sasrec"])
def test_vectors_of_queries_come_from_their_histories(small_blocks, split, trained, name):
    """Users without a trained embedding have vectors of the history alone."""
    model, queries = trained(name).model, split.test.queries
    trained_users = np.arange(split.train.n_users) % 2 == 0
    found = scoring.query_vectors(model, queries, trained_users)
    assert len(found) == len(queries)
    for query in range(len(queries)):
        _, items = queries.histories(np.array([query]))
        history = fold_in([items], model.histories, queries.log.n_items)
        user = queries.users[query : query + 1]
        own = user if trained_users[user[0]] else None
        wanted = scoring.vectors_from_histories(model, history, own)
        torch.testing.assert_close(found[query : query + 1], wanted)


@pytest.mark.parametrize("name", ["mf", "fism", "comet"])
def test_new_users_have_the_vector_of_an_empty_history(split, trained, name):
    model = trained(name).model
    rows = split.train.select(split.train.users > 2)
    is_new = torch.from_numpy(~scoring.has_rows(rows))
    assert is_new[:3].all()
    users, _ = scoring.vectors(model, rows)
    before = users.clone()
    found = scoring.with_new_users(model, users, rows)
    assert torch.equal(users, before)
    assert torch.equal(found[~is_new], users[~is_new])
    if name == "mf":
        assert torch.equal(found, users)
    else:
        empty = fold_in([np.empty(0, dtype=np.int64)], model.histories, rows.n_items)
        wanted = scoring.vectors_from_histories(model, empty)
        torch.testing.assert_close(found[is_new], wanted.expand(int(is_new.sum()), -1))
    every = np.arange(len(rows), dtype=np.int32) % rows.n_users
    all_known = replace(rows, users=np.sort(every))
    assert scoring.with_new_users(model, users, all_known) is users


def test_who_has_rows(split):
    rows = split.train.select(split.train.users % 3 == 1)
    known = set(rows.users.tolist())
    assert scoring.has_rows(rows).tolist() == [user in known for user in range(rows.n_users)]


# Which scorer


SCORERS = {
    "mf": scoring.VectorScores, "comet": scoring.VectorScores, "mlp": scoring.PairScores,
    "itemknn": scoring.NonIterativeScores,
}  # fmt: skip


@pytest.mark.parametrize("name", SCORERS)
def test_a_model_has_the_scorer_of_its_kind(split, trained, name):
    run = trained(name)
    scores = scoring.model_scores(run.model, split.train)
    assert type(scores) is SCORERS[name]
    assert scores.n_items == split.train.n_items
    assert_pairs_are_of_all(scores, split.train.n_users)
    if name == "itemknn":
        assert (scores.known != split.train.matrix).nnz == 0
    finished = scoring.run_scores(run)
    assert type(finished) is SCORERS[name]
    users = np.flatnonzero(scoring.has_rows(split.known))
    known = scoring.model_scores(run.model, run.known)
    np.testing.assert_allclose(finished.score_all(users), known.score_all(users), atol=2e-6)


@pytest.mark.parametrize("name", ["mf", "fism", "sasrec", "mlp", "itemknn", "ease"])
def test_scores_of_queries_are_those_of_the_finished_run(split, trained, name):
    run, held = trained(name), split.test
    during = scoring.held_scores(run.model, split.train, held)
    after = scoring.run_scores(run, held)
    numbers = np.arange(len(held.queries))
    a, b = during.score_all(numbers), after.score_all(numbers)
    assert a.shape == (len(numbers), split.interactions.n_items)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    if name == "mlp":
        assert (during.owners == held.queries.users).all()
    if name == "fism":
        histories = input_histories(split.train, run.model.histories)
        again = scoring.held_scores(run.model, split.train, held, histories)
        np.testing.assert_allclose(again.score_all(numbers), a, atol=2e-6)
        assert scoring.reads_histories(run.model)
    if name in ("mf", "mlp"):
        whole = scoring.model_scores(run.model, split.train)
        np.testing.assert_allclose(a, whole.score_all(held.queries.users), atol=2e-6)
    if name == "mf":
        assert not scoring.reads_histories(run.model)


def test_users_of_validation_rows_count_as_trained_after_a_refit(split):
    """Their own embeddings are trained then; before it, their histories alone count."""
    late = scoring.has_rows(split.known) & ~scoring.has_rows(split.train)
    queries = split.test.queries
    assert late[queries.users].any()
    for refit in (False, True):
        run = cr.FISM(**SIZES | {"refit": refit}).fit(split).run
        rows = split.known if refit else split.train
        wanted = scoring.query_vectors(run.model, queries, scoring.has_rows(rows))
        scores = scoring.run_scores(run, split.test)
        assert torch.equal(scores.users, wanted)
        assert scores.users.dtype == torch.float32


def test_held_items_without_queries_are_scored_as_users(random_log):
    log = random_log(20, 15, 5)
    split = cr.leave_one_out(log, negatives=5)
    model = cr.MF(**SIZES).fit(split, refit=False).run.model
    scores = scoring.held_scores(model, split.train, split.test)
    wanted = scoring.model_scores(model, split.train)
    users = np.arange(log.n_users)
    np.testing.assert_array_equal(scores.score_all(users), wanted.score_all(users))


def test_a_blend_scores_queries_with_both_models(split):
    settings = {"preset": "best", "embedding_dim": 8, "history_length": 6, "hidden": (8,),
                "epochs": 1, "full_epochs": 1, "refit": False, "blend_model": "fism",
                "blend_embedding_dim": 4, "blend_preset": "paper", "blend_epochs": 1}  # fmt: skip
    run = cr.COMET(**settings).fit(split).run
    queries = split.test.queries
    trained_users = scoring.has_rows(split.train)
    first = scoring.query_vectors(run.model, queries, trained_users)
    second = scoring.query_vectors(run.second_model, queries, trained_users)
    scores = scoring.run_scores(run, split.test)
    weight = run.blend.weight
    width = first.shape[1]
    items = run.item_vectors
    wanted = first @ items[:, :width].T + weight * (second @ items[:, width:].T)
    found = scores.score_all(np.arange(len(queries)))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_that_is_slow_on_pairs_ranks_few_users_fully():
    assert scoring.full_users("convncf") == base.model_class("convncf").full_ranking_users == 200
    assert scoring.full_users("mf") is None
