"""The life of a model as its user sees it, on data whose right answer is known."""

from __future__ import annotations

import copy
import math
import uuid
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import comet_rec as cr
from comet_rec.data.histories import input_histories
from comet_rec.data.ids import Ids
from comet_rec.errors import (
    ArtefactError,
    ConfigError,
    InputError,
    NonFiniteError,
    NotFittedError,
    UnknownIdError,
)
from comet_rec.estimators import evaluate
from comet_rec.estimators.audit import audit_run
from comet_rec.estimators.evaluate import measured
from comet_rec.evaluation.scoring import run_scores
from comet_rec.models import base, comet
from comet_rec.training.fit import Validation
from comet_rec.training.trainer import Trainer
from tests.conftest import checkerboard_log

SMALL = {"preset": "static", "embedding_dim": 8, "history_length": 8, "hidden": (16,), "epochs": 2}


@pytest.fixture(scope="module")
def trained():
    return cr.COMET(**SMALL).fit(cr.leave_one_out(checkerboard_log(), negatives=30))


@pytest.fixture
def fitted(trained):
    """A copy of the trained model, which a test may change."""
    return copy.deepcopy(trained)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    a, b, c = (measured(cr.COMET(**SMALL, seed=seed).fit(split).run) for seed in (0, 0, 1))
    assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)
    assert a.metrics == b.metrics
    assert not torch.equal(a.item_vectors, c.item_vectors)
    assert a.metrics["protocol"] == c.metrics["protocol"]


def test_the_order_of_rows_in_the_file_changes_no_bit(checkerboard):
    frame = pd.DataFrame(
        {"user": checkerboard.users, "item": checkerboard.items, "time": checkerboard.times}
    )
    vectors = []
    for order in (frame, frame.sample(frac=1, random_state=1)):
        split = cr.leave_one_out(cr.read(order.reset_index(drop=True)), negatives=30)
        vectors.append(cr.COMET(**SMALL).fit(split).run.user_vectors)
    assert torch.equal(*vectors)


def test_the_two_matrices_equal_eq_8_pair_by_pair(fitted):
    run = fitted.run
    log = run.interactions
    model = base.build("comet", run.config.model, log.n_users, log.n_items, 0)
    model.load_state_dict(run.state)
    of_users, of_items = input_histories(run.split.known, model.histories)
    users, items = np.arange(0, log.n_users, 7), np.arange(0, log.n_items, 5)
    for user in users:
        for item in items:
            with torch.no_grad():
                z_user = model.encode_users(torch.tensor([user]), of_users[user : user + 1])
                z_item = model.encode_items(torch.tensor([item]), of_items[item : item + 1])
                pair = float((model.h * z_user * z_item).sum())
            assert float(run.user_vectors[user] @ run.item_vectors[item]) == pytest.approx(
                pair, abs=1e-5
            )


def test_save_load_recommend_gives_identical_lists(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    for a, b in (
        (fitted.recommend(k=7), again.recommend(k=7)),
        (fitted.recommend_for_history([[1, 2]]), again.recommend_for_history([[1, 2]])),
    ):
        for name in ("user_id", "item_id", "score", "rank"):
            assert np.array_equal(a[name], b[name])
    assert cr.evaluate(again).to_dict() == cr.evaluate(fitted).to_dict() == again.run.metrics


def test_lists_leave_out_what_is_known_unless_asked(fitted, checkerboard):
    table = fitted.recommend([4], k=100)
    *seen, held_out = checkerboard.items[checkerboard.users == 4].tolist()
    assert held_out in table["item_id"]  # as of the split, the test item is still to come
    assert len(table) == checkerboard.n_items - len(seen)
    assert not set(seen) & set(table["item_id"].tolist())
    assert len(fitted.recommend([4], k=100, include_seen=True)) == checkerboard.n_items
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert (np.diff(table["score"]) <= 0).all()


def test_a_batch_equals_one_by_one(fitted):
    together = fitted.recommend([3, 5, 8], k=4)
    alone = [fitted.recommend([user], k=4) for user in (3, 5, 8)]
    assert together["item_id"].tolist() == [i for t in alone for i in t["item_id"].tolist()]


def test_allow_and_block(fitted):
    found = fitted.recommend([0], allow=[1, 3, 5, 999], block=[3], include_seen=True)
    assert sorted(found["item_id"].tolist()) == [1, 5]
    assert len(fitted.recommend([0], allow=[])) == 0


def test_unknown_users_by_policy(fitted):
    with pytest.raises(UnknownIdError, match=r"unknown user 777 \(1 of 2 unknown"):
        fitted.recommend([0, 777])
    assert set(fitted.recommend([777, 0], unknown="skip")["user_id"].tolist()) == {0}
    popular = fitted.recommend([777, 0], k=3, unknown="popular")
    assert popular["user_id"].tolist() == [777, 777, 777, 0, 0, 0]
    counts = np.bincount(fitted.run.split.known.items)
    assert popular["score"][:3].tolist() == sorted(counts.tolist(), reverse=True)[:3]
    with pytest.raises(ConfigError, match="did you mean 'skip'"):
        fitted.recommend([0], unknown="skp")  # type: ignore[arg-type]


def test_the_model_is_built_once_for_all_lists_of_new_users(fitted, monkeypatch):
    built, restored = [], base.restored

    def spy(*arguments):
        built.append(arguments)
        return restored(*arguments)

    monkeypatch.setattr(base, "restored", spy)
    for _ in range(3):
        fitted.recommend_for_history([[1, 3]], k=5)
    assert len(built) == 1


def test_histories_of_new_users(fitted):
    once = fitted.recommend_for_history([[2, 4, 6]], k=3)
    again = fitted.recommend_for_history([[2, 4, 2, 6, 4]], k=3)
    assert once["item_id"].tolist() == again["item_id"].tolist()
    assert not {2, 4, 6} & set(once["item_id"].tolist())
    with pytest.raises(UnknownIdError, match="unknown item 999 in history 0"):
        fitted.recommend_for_history([[999]])
    skipped = fitted.recommend_for_history([[2, 999, 4, 6]], k=3, unknown="skip")
    assert skipped["score"].tolist() == once["score"].tolist()
    popular = fitted.recommend_for_history([[999], [2, 4, 6]], k=3, unknown="popular")
    assert popular["item_id"].tolist()[3:] == once["item_id"].tolist()
    assert len(fitted.recommend_for_history([], k=3)) == 0


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (np.array([f"üser {i:03d}" for i in range(120)], dtype=object), "text"),
        (np.array(sorted(str(uuid.UUID(int=7919 * i)) for i in range(120)), dtype=object), "uuid"),
    ],
)
def test_ids_come_back_as_they_were_given(checkerboard, tmp_path, ids, kind):
    log = replace(checkerboard, user_ids=Ids(kind, ids))
    model = cr.COMET(**SMALL | {"epochs": 1}).fit(cr.leave_one_out(log, negatives=5))
    model.save(tmp_path / "run")
    external = log.user_ids.external([3]).tolist()[0]
    table = cr.load_model(tmp_path / "run").recommend([external], k=1)
    assert table["user_id"].tolist() == [external]
    frame = table.to_pandas(), table.to_polars(), table.to_arrow()
    assert [len(f) for f in frame] == [1, 1, 1]


def test_fit_on_everything_measures_nothing(checkerboard):
    model = cr.COMET(**SMALL, full_epochs=1).fit(checkerboard)
    assert model.run.metrics is None
    assert len(model.recommend([0], k=3)) == 3
    with pytest.raises(ConfigError, match="no test items are held out"):
        cr.evaluate(model)


def test_refit_trains_on_validation_rows_for_the_chosen_epochs(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    plain = cr.COMET(**SMALL).fit(split)
    refit = cr.COMET(**SMALL).fit(split, refit=True)
    stages = [line["stage"] for line in refit.run.log]
    assert stages == ["validation"] * 2 + ["refit"] * refit.run.epochs
    assert refit.run.epochs == plain.run.epochs
    assert refit.run.log[-1]["positives"] == len(split.known)
    assert not torch.equal(refit.run.item_vectors, plain.run.item_vectors)


def test_a_refit_ends_with_the_chosen_epoch_on_the_rates_that_chose_it(checkerboard, monkeypatch):
    falling = iter([0.3, 0.2, 0.1])
    monkeypatch.setattr(Validation, "figures", lambda *_: {"NDCG@10": next(falling)})
    rates, update = [], Trainer._set_learning_rate

    def spy(self, *where):
        update(self, *where)
        rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Trainer, "_set_learning_rate", spy)
    split = cr.leave_one_out(checkerboard, negatives=30)
    settings = SMALL | {"epochs": 3, "patience": 0, "schedule": "cosine", "batch_size": 100}
    run = cr.COMET(**settings).fit(split, refit=True).run
    stages = [line["stage"] for line in run.log]
    assert stages == ["validation"] * 3 + ["refit"]
    assert run.epochs == 1
    first, refit = -(-len(split.train) // 100), -(-len(split.known) // 100)
    assert len(rates) == 3 * first + refit
    # The last rate of a refit of one epoch would be next to 0 on a line of its own.
    done = (refit - 1) / (3 * refit)
    assert rates[-1] == pytest.approx(rates[0] * (1 + math.cos(math.pi * done)) / 2)


def test_evaluate_refuses_a_split_that_the_model_was_trained_on(fitted, random_log):
    other = cr.leave_one_out(random_log(120, 80, 16), negatives=30)
    with pytest.raises(ConfigError, match="another log or split"):
        cr.evaluate(fitted, other)
    same_rows = cr.leave_one_out(fitted.run.interactions, negatives=30, seed=5)
    assert cr.evaluate(fitted, same_rows).protocol["seed"] == 5


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: cr.COMET(embeding_dim=3), "did you mean 'embedding_dim'"),
        (lambda: cr.COMET(preset="papr"), "did you mean 'paper'"),
        (lambda: cr.COMET(device="gpu"), "unknown device 'gpu'"),
        (lambda: cr.COMET(device=None), "unknown device 'None'"),
        (lambda: cr.COMET(device="cuda:"), "unknown device 'cuda:'"),
        (lambda: cr.COMET(device="cuda:99"), "device 'cuda:99' is not available"),
        (lambda: cr.COMET(preset=None), "unknown preset 'None'"),
        (lambda: cr.COMET(seed=-1), "seed = -1"),
        (lambda: cr.COMET(widths=8), "must be a list"),
        (lambda: cr.COMET(learning_rate=float("inf")), "must be above 0"),
        (lambda: cr.COMET(epochs=0), "train.epochs = 0: must be above 0"),
        (lambda: cr.COMET(history="future"), "must be one of 'sampled', 'recent'"),
    ],
)
def test_bad_settings_are_told_at_once(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_a_device_may_be_torchs():
    assert cr.MF(device=torch.device("cpu")).device == torch.device("cpu")


def test_another_loss_needs_no_more_than_its_name(checkerboard):
    """The preset's settings of a softmax go with it."""
    for loss in ("bce", "bpr"):
        train = cr.COMET(preset="best", loss=loss).config_for(checkerboard).train
        assert (train.loss, train.mask_known_positives, train.softmax_items) == (loss, False, 0)
        with pytest.raises(ConfigError, match="mask_known_positives = True needs"):
            cr.COMET(preset="best", loss=loss, mask_known_positives=True)


def test_the_splits_protocol_is_not_an_estimators_to_change(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    same = {"protocol.negatives": 30, "epochs": 1, "embedding_dim": 4}
    assert cr.MF(**same).fit(split).run.split is not None
    for key, value in {"protocol.ties": "pessimistic", "protocol.negatives": 5}.items():
        with pytest.raises(ConfigError, match=f"{key} = {value}: the split was made with"):
            cr.MF(**{key: value}).fit(split)


def test_misuse_is_told(fitted):
    with pytest.raises(NotFittedError, match="call fit first"):
        cr.COMET().recommend([1])
    with pytest.raises(InputError, match=r"no list of ids; give \['196'\]"):
        fitted.recommend("196")
    for k in (0, True, 2.0):
        with pytest.raises(InputError, match=f"k = {k}"):
            fitted.recommend([0], k=k)


def test_other_widths_batches_and_policies_train(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    for changes in (
        {"history": "recent"}, {"history": "causal"}, {"convolution": "direct"},
        {"reduction": "sum"}, {"loss": "bpr"}, {"exclude_target": False},
        {"weight_decay": 1e-4, "decay_on": "embeddings"},
        {"widths": (1,), "channels": 1, "hidden": ()},
    ):  # fmt: skip
        run = cr.COMET(**SMALL | {"epochs": 1} | changes).fit(split).run
        assert np.isfinite(run.log[0]["loss"])


def test_rows_that_a_filter_dropped_are_neither_listed_nor_negatives(checkerboard):
    dropped = np.array([0, 7], dtype=np.int32), np.array([1, 40], dtype=np.int32)
    log = replace(checkerboard, dropped_users=dropped[0], dropped_items=dropped[1])
    model = cr.COMET(**SMALL | {"epochs": 1}).fit(cr.leave_one_out(log, negatives=5))
    assert 1 not in model.recommend([0], k=80)["item_id"]
    assert 40 not in model.recommend([7], k=80)["item_id"]
    assert 1 in model.recommend([7], k=80)["item_id"]


def test_lists_as_of_the_split_reproduce_the_full_ranking(fitted):
    table = fitted.recommend(k=10)
    test = fitted.run.split.test
    pairs = set(zip(table["user_id"].tolist(), table["item_id"].tolist(), strict=True))
    hits = [
        pair in pairs for pair in zip(test.users.tolist(), test.positives.tolist(), strict=True)
    ]
    assert np.mean(hits) == pytest.approx(cr.evaluate(fitted).full["HR@10"])


def test_a_loaded_model_fits_again_with_its_own_settings(fitted, checkerboard, tmp_path):
    fitted.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert again.config_for(checkerboard).model == fitted.config.model
    assert again.config_for(checkerboard).train == fitted.config.train


def test_a_batch_of_new_users_equals_one_by_one(fitted):
    long, short = list(range(0, 40, 2)), list(range(1, 30, 2))
    together = fitted.recommend_for_history([long, short], k=3)["item_id"].tolist()
    alone = [fitted.recommend_for_history([h], k=3)["item_id"].tolist() for h in (long, short)]
    assert together == alone[0] + alone[1]


def test_iterators_of_ids_are_read_once(fitted):
    table = fitted.recommend([0, 999], block=iter(range(70)), unknown="popular", k=20)
    assert (table["item_id"] >= 70).all()


def test_saving_replaces_runs_and_nothing_else(fitted, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ArtefactError, match="exists and is not a run"):
        fitted.save(tmp_path)
    with pytest.raises(ArtefactError, match="exists and is not a run"):
        fitted.save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "three years"
    fitted.save(tmp_path / "run")
    fitted.save(tmp_path / "run")


def test_auto_is_causal_where_there_is_an_order(checkerboard):
    assert cr.COMET().config_for(checkerboard).model.history == "causal"
    no_order = replace(checkerboard, times=None, time_scope="none")
    assert cr.COMET().config_for(no_order).model.history == "sampled"
    assert cr.COMET(preset="static").config_for(checkerboard).model.history == "sampled"
    assert cr.COMET(preset="paper").config_for(checkerboard).model.history == "sampled"


def test_any_other_model_is_measured_as_ours_are(checkerboard):
    """A function of external ids with our model's own scores: the same figures."""
    log = replace(checkerboard, user_ids=Ids("int", checkerboard.user_ids.values * 7 + 3))
    split = cr.leave_one_out(log, negatives=30)
    model = cr.EASE().fit(split)
    scores = run_scores(model.run)

    def other(user, items):
        return scores.score_pairs(log.user_ids.index([user]), log.item_ids.index(items)[None])[0]

    ours, theirs = cr.evaluate(model, split), cr.evaluate(other, split)
    assert theirs.protocol == ours.protocol
    assert np.array_equal(theirs.ranks, ours.ranks)
    assert theirs.full == ours.full
    assert cr.evaluate(other, split, full=False).full is None


def test_another_models_scores_are_told_apart_by_value_and_by_nothing_else(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)

    def position(user, items):  # whoever is asked first
        return [-place for place in range(len(items))]

    by_place = cr.evaluate(position, split)
    chance, error = 10 / 31, np.sqrt(10 / 31 * 21 / 31 / len(split.test))
    assert abs(by_place["HR@10"] - chance) < 4 * error

    def score(user, items):
        return [(user * 31 + item * 17) % 101 for item in items]

    plain = cr.evaluate(score, split)
    for other in (
        lambda user, items: [1.7e9 + value for value in score(user, items)],  # beyond a float32
        lambda user, items: [1e300 * value for value in score(user, items)],
        lambda user, items: torch.tensor(score(user, items)),
    ):
        assert np.array_equal(cr.evaluate(other, split).ranks, plain.ranks)
    for wrong in ("a", 10**400):
        with pytest.raises(InputError, match="are not numbers"):
            cr.evaluate(lambda user, items, wrong=wrong: [wrong] * len(items), split)
    with pytest.raises(NonFiniteError, match="NaN or infinite; give finite numbers"):
        cr.evaluate(lambda user, items: [float("-inf")] * len(items), split)


def test_what_is_no_model_or_gives_no_scores_is_refused(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    with pytest.raises(InputError, match="give a fitted model, or a function"):
        cr.evaluate(lambda user, items: items)
    with pytest.raises(InputError, match="give a fitted model, or a function"):
        cr.evaluate("runs/first", split)
    with pytest.raises(InputError, match="is not a split"):
        cr.evaluate(cr.EASE().fit(split), checkerboard)
    with pytest.raises(InputError, match=r"scores of shape \(1,\) for 31 items of user 0"):
        cr.evaluate(lambda user, items: [1.0], split)
    with pytest.raises(NonFiniteError):
        cr.evaluate(lambda user, items: [float("nan")] * len(items), split)
    with pytest.raises(NotFittedError):
        cr.evaluate(cr.EASE(), split)
    with pytest.raises(InputError, match="EASE is a class; give a fitted model of it"):
        cr.evaluate(cr.EASE, split)
    for start in ("runs/mf", [cr.MF]):
        with pytest.raises(InputError, match=r"init_from: give fitted models, not .*load_model"):
            cr.GMF(epochs=1).fit(split, init_from=start)
    with pytest.raises(InputError, match="fit: str is no log; give what leave_one_out or load"):
        cr.EASE().fit("log.csv")


def test_a_model_that_is_solved_takes_no_settings_of_a_training(checkerboard):
    for settings in ({"epochs": 3}, {"train.loss": "softmax"}):
        with pytest.raises(ConfigError, match=r"train\.(epochs|loss): ease is not trained in"):
            cr.EASE(**settings)
    split = cr.leave_one_out(checkerboard, negatives=30)
    model = cr.EASE(refit=True, matmul_precision="medium").fit(split)
    assert cr.EASE(**model.chosen).fit(checkerboard).run.split is None


def test_training_measures_nothing_and_saving_measures_once(checkerboard, tmp_path, monkeypatch):
    asked = []

    def counted(run, split, measure=evaluate.measure, **more):
        asked.append(run.config.name)
        return measure(run, split, **more)

    monkeypatch.setattr(evaluate, "measure", counted)
    model = cr.EASE().fit(cr.leave_one_out(checkerboard, negatives=30))
    assert (asked, model.run.metrics) == ([], None)
    model.save(tmp_path / "run")
    model.save(tmp_path / "run")
    assert asked == ["ease"]
    assert cr.load_model(tmp_path / "run").run.metrics == cr.evaluate(model).to_dict()


def test_a_sample_of_users_can_be_paired_with_another_models(checkerboard, monkeypatch):
    split = cr.leave_one_out(checkerboard, negatives=30)
    whole = cr.evaluate(cr.Popularity().fit(split))
    monkeypatch.setattr(base.model_class("popularity"), "full_ranking_users", 7)
    some = cr.evaluate(cr.Popularity().fit(split))
    assert len(some.full_users) == 7
    assert whole.full_users.tolist() == whole.users.tolist()
    mine = whole.of_users("NDCG@10", full=True)[np.isin(whole.full_users, some.full_users)]
    assert mine.tolist() == some.of_users("NDCG@10", full=True).tolist()


@pytest.mark.parametrize("wrong", [["3.0"], [3.5], [None], {"a": 1}, [True]])
def test_a_list_of_items_of_another_type_is_refused(fitted, wrong):
    """Passed over, an item that must not be listed would be."""
    for name in ("allow", "block"):
        with pytest.raises(InputError, match=rf"^{name}: "):
            fitted.recommend([0], **{name: wrong})


def test_ids_come_as_frames_hand_them_out(fitted):
    pyarrow = pytest.importorskip("pyarrow")
    expected = fitted.recommend([4, 7], k=3, block=[1, 2])
    users, items = pyarrow.array([4, 7]), pyarrow.array([1, 2])
    for found in (
        fitted.recommend(np.array([4.0, 7.0]), k=3, block=[1.0, np.float64(2)]),
        fitted.recommend(users, k=3, block=items),
        fitted.recommend(users, k=3, block=items, unknown="popular"),
        fitted.recommend([4, 7, 999], k=3, block=items, unknown="skip"),
        fitted.recommend(["4", "7"], k=3, block=["1", "2"], unknown="popular"),
    ):
        assert found["user_id"].dtype == np.int64
        for name in expected.columns:
            assert found[name].tolist() == expected[name].tolist()
    new = fitted.recommend_for_history([pyarrow.array([2, 4])], k=3)
    assert new["score"].tolist() == fitted.recommend_for_history([[2, 4]], k=3)["score"].tolist()
    with pytest.raises(InputError, match="a set has no order"):
        fitted.recommend_for_history([{2, 4}])
    with pytest.raises(InputError, match="include_seen = 'no': must be True or False"):
        fitted.recommend([4], include_seen="no")


@pytest.mark.parametrize("name", ["EASE", "ItemKNN"])
def test_an_empty_history_gets_popular_items_from_a_closed_form(checkerboard, name):
    model = getattr(cr, name)().fit(checkerboard)
    counts = np.bincount(checkerboard.items, minlength=checkerboard.n_items)
    for policy, history in (("error", []), ("skip", [999]), ("popular", [])):
        found = model.recommend_for_history([history, [2, 4]], k=3, unknown=policy)
        assert found["score"][:3].tolist() == sorted(counts.tolist(), reverse=True)[:3]
        assert found["score"][3] < 3


@pytest.mark.parametrize("name", ["COMET", "EASE", "MF"])
def test_scores_and_vectors_are_what_lists_are_made_of(fitted, checkerboard, name):
    model = fitted
    if name != "COMET":
        model = getattr(cr, name)(**({"epochs": 1} if name == "MF" else {})).fit(checkerboard)
    table = model.recommend([3, 5], k=4)
    scores = model.score(table["user_id"], table["item_id"].tolist())
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(table["score"].tolist(), rel=1e-5)
    if name == "EASE":
        with pytest.raises(ConfigError, match="ease has no vectors"):
            model.user_vectors()
    else:
        (users, left), (items, right) = model.user_vectors(), model.item_vectors()
        assert (left[list(users).index(3)] @ right[list(items).index(table["item_id"][0])]) == (
            pytest.approx(table["score"][0], rel=1e-5)
        )
    with pytest.raises(UnknownIdError, match="unknown item 999"):
        model.score([3], [999])
    with pytest.raises(InputError, match="1 users and 2 items"):
        model.score([3], [1, 2])


def test_texts_of_objects_are_short(fitted):
    split = fitted.run.split
    assert repr(split).startswith("Split(leave_one_out, ")
    assert "Interactions(" in repr(split)
    assert repr(cr.evaluate(fitted)).startswith("Report(comet, ")
    lines = repr(fitted.recommend([3], k=20)).splitlines()
    assert lines[0] == f"Table({len(fitted.recommend([3], k=20))} rows)"
    assert lines[1].split() == ["user_id", "item_id", "score", "rank"]
    assert lines[2].split()[0] == "3"
    assert lines[-1] == "…"
    assert next(iter(fitted.recommend([3])))["user_id"] == 3


def test_figures_at_any_k(fitted):
    report = cr.evaluate(fitted)
    assert report["HR@10"] == pytest.approx(report.sampled["HR@10"])
    assert report["HR@1"] <= report["HR@5"] <= report["HR@100"] == pytest.approx(1)
    assert report.of_users("NDCG@3", full=True).shape == report.users.shape
    for name in ("HR", "NDCG"):  # from the last place on nothing more is counted
        assert report[f"{name}@{10**30}"] == report[f"{name}@31"] > report[f"{name}@3"]
    for wrong in ("Recall@10", "HR", "hr@10", "HR@0"):
        with pytest.raises(KeyError, match="use HR@k or NDCG@k"):
            report[wrong]


def test_refit_is_a_truth_value_in_words_too(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=20)
    assert not cr.MF(epochs=1).fit(split, refit="no").config.train.refit  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="refit"):
        cr.MF(epochs=1).fit(split, refit="perhaps")  # type: ignore[arg-type]


def test_what_validation_chose_goes_into_a_training_on_everything(checkerboard, monkeypatch):
    seen = []
    init = Trainer.__init__

    def spy(self, model, *arguments, **named):
        if isinstance(model, comet.COMET):  # and not the FISM of its blend
            seen.append(named["horizon"])
        init(self, model, *arguments, **named)

    monkeypatch.setattr(Trainer, "__init__", spy)
    split = cr.leave_one_out(checkerboard, negatives=20)
    model = cr.COMET(
        preset="best", seed=3, embedding_dim=8, epochs=4, blend_model="fism", blend_embedding_dim=4
    ).fit(split)
    live = cr.COMET(**model.chosen).fit(checkerboard)
    assert live.run.epochs == model.run.epochs
    assert set(seen) == {4}  # also on everything: the schedule that chose
    assert live.config.model.embedding_dim == 8
    assert (live.config.preset, live.config.seed) == ("best", 3)
    weight = model.run.blend.weight
    assert live.config.blend.weight == pytest.approx(weight)
    of_fism = [line for line in model.run.log if line["stage"] == "fism validation"]
    merit = model.run.config.train.merit
    best = max(of_fism, key=lambda line: merit(line["validation"]))["epoch"]
    assert [line["epoch"] for line in live.run.log if line["stage"] == "fism all"][-1] == best
    assert cr.EASE(l2=9).fit(split).chosen == {
        "preset": "auto", "seed": 0, "device": "cpu", "l2": 9
    }  # fmt: skip
    with pytest.raises(ConfigError, match="validation chose nothing"):
        _ = live.chosen


def test_progress_is_told_where_it_is_asked_for(checkerboard, capsys):
    split = cr.leave_one_out(checkerboard, negatives=20)
    cr.MF(epochs=2).fit(split)
    assert capsys.readouterr().err == ""
    cr.MF(epochs=2).fit(split, progress=True, refit=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == [f"validation epoch {n}/2" for n in (1, 2)]
    assert "NDCG@10 0." in lines[0] or "NDCG@10 1." in lines[0]
    assert lines[2].startswith("refit epoch 1/")


SHORT = {"embedding_dim": 8, "history_length": 6, "hidden": (8,), "widths": (1, 4), "epochs": 3}
MODELS = {
    "comet": lambda: cr.COMET(preset="static", **SHORT),
    "blend": lambda: cr.COMET(preset="best", **SHORT, blend_model="fism", blend_epochs=2),
    "mf": lambda: cr.MF(embedding_dim=8, epochs=3),
    "ease": cr.EASE,
}


@pytest.fixture(scope="module")
def split(random_pairs_log):
    return cr.leave_one_out(random_pairs_log, negatives=30)


@pytest.fixture(scope="module")
def random_pairs_log():
    from tests.conftest import make_log, random_pairs

    return make_log(random_pairs(np.random.default_rng(0), 40, 60, 9))


@pytest.fixture(scope="module", params=MODELS)
def pair(request, split):
    """A measured model and the same one made final."""
    return MODELS[request.param]().fit(split), MODELS[request.param]().fit(split).final()


def test_its_figures_are_those_of_the_measured_model(pair):
    measured, final = pair
    assert final.run.metrics == cr.evaluate(measured).to_dict()
    assert final.run.split.hash == measured.run.split.hash
    with pytest.raises(ConfigError, match="trained once more on every row"):
        cr.evaluate(final)


def test_its_weights_are_those_of_the_two_trainings_by_hand(pair):
    measured, final = pair
    by_hand = type(measured)(**measured.chosen).fit(measured.run.interactions)
    assert final.run.epochs == by_hand.run.epochs
    for name, value in by_hand.run.tensors.items():
        assert torch.equal(final.run.tensors[name], value), name
    assert any(
        not torch.equal(final.run.tensors[name], value)
        for name, value in measured.run.tensors.items()
    )


def test_its_lists_hold_no_item_of_the_log(pair, split):
    measured, final = pair
    log = split.interactions
    seen = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
    table = final.recommend(k=60)
    assert not seen & set(zip(table["user_id"].tolist(), table["item_id"].tolist(), strict=True))
    assert len(table) == 40 * 60 - len(seen)  # all that is left of the catalogue
    open_lists = measured.recommend(k=60)
    assert len(open_lists) == len(table) + len(split.test)  # a measured model lists the test items


def test_it_is_saved_and_read_back(pair, tmp_path):
    _, final = pair
    final.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert again.run.final
    assert again.run.metrics == final.run.metrics
    assert [line["stage"] for line in again.run.log][-1].endswith("all")
    assert np.array_equal(again.recommend(k=5)["item_id"], final.recommend(k=5)["item_id"])
    assert again.final() is again  # once is enough
    assert not [f for f in audit_run(again.run) if f.severity == "error"]


def test_what_cannot_be_made_final_is_refused(split):
    log = split.interactions
    with pytest.raises(ConfigError, match="knows all rows already"):
        cr.MF(embedding_dim=4, epochs=1).fit(log).final()
    start = cr.MF(embedding_dim=8, epochs=1).fit(split)
    model = cr.ConvNCF(embedding_dim=8, channels=2, epochs=1).fit(split, init_from=start)
    with pytest.raises(ConfigError, match="started from trained models"):
        model.final()
    model.final(init_from=start.final())
    assert model.run.final
