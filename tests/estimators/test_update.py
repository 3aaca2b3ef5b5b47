"""Updates: new rows, users and items in a trained model, on logs whose right answer is known."""

from __future__ import annotations

import copy
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import ConfigError, DataError, InputError
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.reading.item_table import feature_column
from comet_rec.training.item_features import HASHED, item_features

SMALL = {
    "comet": {"preset": "best", "embedding_dim": 16, "history_length": 8, "hidden": (16,),
              "full_epochs": 8, "blend_model": "fism", "blend_epochs": 4,
              "blend_embedding_dim": 16, "batch_size": 128, "learning_rate": 1e-2},
    "static": {"preset": "static", "embedding_dim": 16, "history_length": 8, "hidden": (16,),
               "full_epochs": 30, "batch_size": 128},
    "convncf": {"embedding_dim": 8, "channels": 4, "full_epochs": 1},
}  # fmt: skip
SHORT = {"embedding_dim": 8, "full_epochs": 2}
ITERATIVE = ("mf", "svdpp", "fism", "gmf", "mlp", "neumf")


def rows_of(users, per_user=6, first=0):
    """Rows of a log with two colours: even users take even items, odd users odd ones."""
    rows = []
    for user in users:
        rng = np.random.default_rng(user)
        colour = user % 2
        for place, item in enumerate(rng.permutation(20)[:per_user]):
            rows.append((f"u{user}", f"i{2 * item + colour:02d}", first + 100 * user + place))
    return rows


def frame(rows):
    return pd.DataFrame(rows, columns=["user", "item", "time"])


def later(*pairs):
    """Rows of (user, item) pairs after all rows of the log."""
    return frame([(user, item, 1_000_000 + place) for place, (user, item) in enumerate(pairs)])


@pytest.fixture(scope="module")
def log():
    return cr.read(frame(rows_of(range(120))))


_TRAINED = {}
"""Models that were trained already, by name and log: a test gets a copy."""


def trained(name, log):
    key = name, log.fingerprint
    if key not in _TRAINED:
        _TRAINED[key] = _trained(name, log)
    return copy.deepcopy(_TRAINED[key])


def _trained(name, log):
    if name == "static":
        return cr.COMET(**SMALL["static"]).fit(log)
    settings = SMALL.get(name, SHORT if name in ITERATIVE else {})
    starts = ()
    if name == "neumf":
        starts = [cr.GMF(**SHORT).fit(log), cr.MLP(**SHORT).fit(log)]
    if name == "convncf":
        starts = [cr.MF(embedding_dim=8, full_epochs=2).fit(log)]
    return ESTIMATORS[name](**settings).fit(log, init_from=starts)


@pytest.fixture(params=[*ESTIMATORS, "static"])
def model(request, log):
    return trained(request.param, log)


@pytest.fixture
def comet(log):
    return trained("comet", log)


NEW = later(("u3", "i40"), ("new", "i02"), ("new", "i04"), ("u5", "new item"), ("u7", "new item"))


def test_every_model_learns_new_rows_users_and_items(model):
    before = model.run.interactions
    assert model.update(NEW) is model
    log = model.run.interactions
    assert (log.n_users, log.n_items) == (before.n_users + 1, before.n_items + 2)
    lists = model.recommend(k=log.n_items)
    assert set(lists["user_id"].tolist()) == set(log.user_ids.values.tolist())
    listed = set(zip(lists["user_id"].tolist(), lists["item_id"].tolist(), strict=True))
    assert ("u1", "new item") in listed
    seen = set(zip(log.user_ids.values[log.users], log.item_ids.values[log.items], strict=True))
    assert len(seen) == len(before) + 5
    assert not listed & seen
    assert np.isfinite(lists["score"]).all()


def test_an_updated_model_survives_saving(model, tmp_path):
    model.update(NEW, epochs=1)
    model.save(tmp_path / "run")
    read = cr.load_model(tmp_path / "run")
    assert [*read.recommend(["new", "u7"]).rows()] == [*model.recommend(["new", "u7"]).rows()]
    read.update(later(("newer", "new item")))
    assert len(read.recommend(["newer"], k=3)) == 3


def test_known_users_and_items_keep_their_parameters_without_epochs(comet):
    state, before = comet.run.state, comet.run.interactions
    comet.update(NEW, epochs=0)
    now = comet.run.interactions
    for table, old, new in (
        ("user_embedding", before.user_ids, now.user_ids),
        ("item_embedding", before.item_ids, now.item_ids),
    ):
        if table in state:  # COMET over sequences has no table of users
            places = torch.from_numpy(new.index(old.values))
            assert torch.equal(comet.run.state[table][places], state[table])
    others = [name for name in state if not name.endswith("_embedding")]
    assert all(torch.equal(comet.run.state[name], state[name]) for name in others)


def test_a_new_user_without_epochs_is_folded_in(comet):
    """Its list is that of a new user with the same history."""
    folded = comet.recommend_for_history([["i02", "i04"]], k=5)
    comet.update(later(("new", "i02"), ("new", "i04")), epochs=0)
    assert comet.recommend(["new"], k=5)["item_id"].tolist() == folded["item_id"].tolist()


@pytest.mark.parametrize("name", ["comet", "mf", "fism", "ease", "itemknn"])
def test_a_new_user_gets_items_of_the_colour_of_their_rows(name, log):
    model = trained(name, log)
    if name == "mf":
        model = cr.MF(embedding_dim=8, full_epochs=30, learning_rate=1e-2).fit(log)
    even = [("new", f"i{item:02d}") for item in (0, 4, 10, 16)]
    model.update(later(*even), epochs=0)
    listed = model.recommend(["new"], k=5)["item_id"].tolist()
    assert sum(int(item[1:]) % 2 == 0 for item in listed) >= 4


@pytest.mark.parametrize("name", ["comet", "mf", "fism"])
def test_a_new_item_goes_to_users_of_the_colour_of_its_takers(name, log):
    model = trained(name, log)
    if name == "mf":
        model = cr.MF(embedding_dim=8, full_epochs=30, learning_rate=1e-2).fit(log)
    takers = [f"u{user}" for user in range(0, 24, 2)]
    model.update(later(*((user, "new item") for user in takers)), epochs=0)
    others = [f"u{user}" for user in range(30, 120)]
    scores = model.score(others, ["new item"] * len(others))
    even = np.arange(30, 120) % 2 == 0
    # The share of (even, odd) pairs of users in which the even one scores higher.
    assert (scores[even][:, None] > scores[~even]).mean() > 0.9


def test_a_new_item_gets_its_vector_anew_until_it_was_trained(comet, tmp_path):
    """Two updates without epochs are one with the rows of both, even after saving between them."""
    first = [(f"u{user}", "new item") for user in range(0, 4, 2)]
    more = [(f"u{user}", "new item") for user in range(4, 24, 2)]
    at_once = trained("comet", comet.run.interactions).update(later(*first, *more)).run
    comet.update(later(*first))
    comet.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    twice = again.update(frame([(u, i, 2_000_000) for u, i in more])).run
    place = at_once.interactions.item_ids.index(["new item"])
    torch.testing.assert_close(twice.item_vectors[place], at_once.item_vectors[place])
    assert twice.untrained_items.tolist() == place.tolist()
    trained_on = again.update(later(("u9", "i01")), epochs=1).run
    assert len(trained_on.untrained_items) == 0


def test_a_new_row_moves_the_list_of_its_user(comet):
    before = comet.recommend(["u3"], k=10)["item_id"].tolist()
    comet.update(later(("u3", before[0])), epochs=0)
    after = comet.recommend(["u3"], k=10)["item_id"].tolist()
    assert before[0] not in after
    assert after != before[1:]  # the history changed, and so did the scores


def test_rows_that_the_log_has_already_change_nothing(comet, log):
    state, vectors = comet.run.state, comet.run.user_vectors
    comet.update(log)
    assert all(torch.equal(comet.run.state[name], state[name]) for name in state)
    assert torch.equal(comet.run.user_vectors, vectors)


def test_the_same_update_gives_the_same_bits(log):
    one, two = (trained("comet", log).update(NEW).run for _ in range(2))
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_training_on_moves_the_parameters_and_writes_the_log(comet, log):
    untrained = trained("comet", log).update(NEW, epochs=0).run
    comet.update(NEW, epochs=2)
    moved = comet.run.state["item_embedding"] - untrained.state["item_embedding"]
    assert float(moved.abs().max()) > 0
    stages = [line["stage"] for line in comet.run.log][-4:]
    assert stages == ["fism update"] * 2 + ["update"] * 2


def test_a_measured_model_keeps_its_figures_and_knows_every_row(log):
    split = cr.leave_one_out(log, negatives=20)
    measured = cr.COMET(**SMALL["comet"], epochs=2).fit(split)
    figures = measured.run.metrics or cr.evaluate(measured).to_dict()
    measured.update(NEW)
    assert measured.run.metrics["sampled"] == figures["sampled"]
    lists = measured.recommend(k=5)
    held = zip(log.user_ids.values[split.test.users], split.test.positives, strict=True)
    held = {(user, log.item_ids.values[item]) for user, item in held}
    listed = set(zip(lists["user_id"].tolist(), lists["item_id"].tolist(), strict=True))
    assert not listed & held
    with pytest.raises(ConfigError, match="trained on the full log"):
        cr.evaluate(measured)


def test_new_rows_are_read_by_the_columns_of_the_log_or_by_common_names(log):
    names = {"user": "who", "item": "what", "time": "at"}
    read = cr.read(frame(rows_of(range(20))).rename(columns=names), **names)
    model = cr.FISM(**SHORT).fit(read)
    model.update(later(("u3", "i40")).rename(columns=names))
    model.update(later(("u5", "i40")))
    assert len(model.run.interactions) == len(read) + 2


def test_bad_rows_leave_the_model_as_it_was(comet):
    run = comet.run
    with pytest.raises(DataError, match="no user column"):
        comet.update(pd.DataFrame({"a": [1], "b": [2]}))
    with pytest.raises(DataError, match="has no time column"):
        comet.update(pd.DataFrame({"user": ["u1"], "item": ["i01"]}))
    with pytest.raises(InputError, match="epochs = -1"):
        comet.update(NEW, epochs=-1)
    assert comet.run is run


def test_new_rows_are_read_with_the_options_of_the_log():
    rows = frame(rows_of(range(20))).assign(event=["buy", "view", "buy"] * 40)
    names = {"user": "who", "item": "what", "time": "when"}
    log = cr.read(rows.rename(columns=names), **names, events={"event": ["buy"]})
    model = cr.FISM(**SHORT).fit(cr.leave_one_out(log, negatives=5))
    new = later(("u1", "i40"), ("u1", "i42")).assign(event=["view", "buy"])
    model.update(new.rename(columns=names), epochs=0)
    assert len(model.run.interactions) == len(log) + 1


def described(items):
    """Features of items: their colour as a word, in a title, and a number without meaning."""
    rng = np.random.default_rng(0)
    numbers = [int(item[-2:]) if item[-2:].isdecimal() else 0 for item in items]
    colours = ["even" if number % 2 == 0 else "odd" for number in numbers]
    titles = [f"Item {word.upper()}|{rng.integers(1000)}" for word in colours]
    return pd.DataFrame({"item_id": items, "title": titles, "size": rng.random(len(items))})


@pytest.mark.parametrize("name", ["comet", "static", "mf", "fism"])
def test_an_item_without_rows_gets_its_vector_from_its_features(name, log):
    model = cr.MF(embedding_dim=8, full_epochs=30, learning_rate=1e-2).fit(log)
    if name != "mf":
        model = trained(name, log)
    old = log.item_ids.values.tolist()
    model.update(later(("u3", "i40")), items=described([*old, "cold 98", "cold 99"]))
    users = [f"u{user}" for user in range(100)]
    even, odd = (model.score(users, [item] * 100) for item in ("cold 98", "cold 99"))
    of_even_users = np.arange(100) % 2 == 0
    # Users prefer the cold item of their own colour.
    assert ((even > odd) == of_even_users).mean() > 0.9
    lists = model.recommend(["u3"], k=100)
    assert {"cold 98", "cold 99"} <= set(lists["item_id"].tolist())


def test_training_leaves_the_vector_of_an_item_without_rows_alone(comet, log):
    old = log.item_ids.values.tolist()
    comet.update(None, items=described([*old, "cold 98"]))
    before = comet.run.item_vectors[comet.run.interactions.item_ids.index(["cold 98"])]
    comet.update(NEW, epochs=2)
    after = comet.run.item_vectors[comet.run.interactions.item_ids.index(["cold 98"])]
    assert torch.equal(before, after)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_features_come_from_a_file_or_a_frame_alike(suffix, log, tmp_path):
    table = described([*log.item_ids.values.tolist(), "cold 98"])
    table.loc[3, "title"], table.loc[5, "size"] = None, np.nan
    path = tmp_path / f"items.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    of_file = trained("fism", log).update(None, items=path)
    of_frame = trained("fism", log).update(None, items=table)
    torch.testing.assert_close(of_file.run.item_vectors, of_frame.run.item_vectors)


def test_ids_with_leading_zeros_stay_texts(log, tmp_path):
    path = tmp_path / "items[1].csv"
    path.write_text("item_id,title\n007,old\n008,new\ni00,old\n")
    model = trained("fism", log).update(None, items=path)
    assert {"007", "008"} <= set(model.run.interactions.item_ids.values.tolist())


def test_features_may_be_missing_in_every_kind_of_column():
    columns = {
        "text": pd.array(["a", None, "a"], dtype="string"),
        "truth": pd.array([True, None, True], dtype="boolean"),
        "list": [np.array(["a", "b"]), None, np.array(["a", "b"])],
        "ragged": [["a"], [], ["a"]],
        "date": pd.DatetimeIndex(["2020-01-01", None, "2020-01-01"]),
        "day": [date(2020, 1, 1), None, date(2020, 1, 1)],
        "number": [Decimal(3), None, 3.0],
        "category": pd.Categorical([7, None, 7]),
    }
    for name, values in columns.items():
        features = item_features({name: feature_column(values, name, 3)})
        assert np.isfinite(features).all(), name
        assert np.array_equal(features[0], features[2]), name
        assert features.shape[1] == 1 if name in ("date", "day", "number") else HASHED, name


def test_dates_are_amounts_and_integer_categories_are_names():
    dates = pd.DatetimeIndex(["2020-01-01", "2021-01-01", "2022-01-01"])
    assert np.all(np.diff(item_features({"x": feature_column(dates, "x", 3)}), axis=0) > 0)
    category = pd.Categorical([1, 2, 3])
    assert item_features({"x": feature_column(category, "x", 3)}).shape == (3, HASHED)


def test_tables_of_items_that_cannot_be_used_say_what_is_wrong(comet, log):
    with pytest.raises(InputError, match="no column item_id among 'a', 'b'"):
        comet.update(None, items={"a": [1], "b": [2]})
    with pytest.raises(InputError, match="describes no item that the model knows"):
        comet.update(None, items={"item_id": ["x", "y"], "title": ["a", "b"]})
    with pytest.raises(InputError, match="has no rows"):
        comet.update(None, items={"item_id": [], "title": []})
    with pytest.raises(InputError, match="an id is empty"):
        comet.update(None, items={"item_id": [""], "title": ["x"]})
    with pytest.raises(InputError, match="is a missing value"):
        comet.update(None, items={"item_id": ["x", None], "title": ["x", "y"]})
    with pytest.raises(InputError, match="'title': 1 values for 2 items"):
        comet.update(None, items={"item_id": ["x", "y"], "title": ["x"]})
    with pytest.raises(InputError, match="'title': a single value for 1 items"):
        comet.update(None, items={"item_id": ["x"], "title": "x"})
    with pytest.raises(InputError, match="item 'i01' has two rows"):
        comet.update(None, items={"item_id": ["i01", "i01"], "title": ["x", "y"]})
    with pytest.raises(InputError, match="no column describes the items"):
        comet.update(None, items={"item_id": ["i01"]})
    with pytest.raises(InputError, match="no such file"):
        comet.update(None, items="missing.csv")
    with pytest.raises(InputError, match="give new rows"):
        comet.update(None)
    with pytest.raises(ConfigError, match="ease learns nothing from features"):
        cr.EASE().fit(log).update(None, items=described(["i01", "cold"]))
