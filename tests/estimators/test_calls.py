"""Arguments of the public calls: accepted when their meaning is clear, else refused in one line."""

from __future__ import annotations

import decimal
import inspect
import uuid
from collections import deque
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import ConfigError, InputError, UnknownIdError, UnknownNameError
from comet_rec.estimators.presets import bare
from comet_rec.estimators.registry import DEFAULT, ESTIMATORS

# Some of these logs have odd ids on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")

FRAME = pd.DataFrame({"user": [4, 7], "item": [2, 6]})


@pytest.fixture(scope="module")
def checkerboard_split():
    from tests.conftest import checkerboard_log

    return cr.leave_one_out(checkerboard_log(), negatives=20)


@pytest.fixture(scope="module")
def ease(checkerboard_split):
    return cr.EASE().fit(checkerboard_split)


@pytest.fixture(scope="module")
def with_text(checkerboard_split):
    """The same model of a log whose ids are text: "u4", "i2", and a user with blanks."""
    log = checkerboard_split.interactions
    users = [f"u{user}" if user else "zoe       " for user in log.users]
    frame = pd.DataFrame({"user": users, "item": [f"i{item}" for item in log.items]})
    return cr.EASE().fit(cr.read(frame))


LISTS = {
    "list": lambda: [4, 7],
    "tuple": lambda: (4, 7),
    "range": lambda: range(4, 8, 3),
    "generator": lambda: (user for user in (4, 7)),
    "deque": lambda: deque([4, 7]),
    "keys": lambda: {4: "a", 7: "b"}.keys(),
    "texts": lambda: ["4", "7"],
    "int8": lambda: np.array([4, 7], np.int8),
    "float16": lambda: np.array([4, 7], np.float16),
    "numpy text": lambda: np.array(["4", "7"]),
    "objects": lambda: np.array([4, "7"], object),
    "Series": lambda: FRAME["user"],
    "Series of float32": lambda: FRAME["user"].astype("float32"),
    "nullable Series": lambda: FRAME["user"].astype("Int64"),
    "categories": lambda: FRAME["user"].astype("category"),
    "Index": lambda: pd.Index([4, 7]),
    "polars": lambda: pl.Series([4, 7]),
    "polars text": lambda: pl.Series(["4", "7"]),
    "polars float32": lambda: pl.Series([4, 7], dtype=pl.Float32),
    "Arrow": lambda: pa.array([4, 7]),
    "Arrow chunks": lambda: pa.chunked_array([[4], [7]]),
    "Arrow dictionary": lambda: pa.array(["4", "7"]).dictionary_encode(),
    "Arrow scalars": lambda: list(pa.array([4, 7])),
    "tensor": lambda: torch.tensor([4, 7]),
    "tensor in bfloat16": lambda: torch.tensor([4, 7], dtype=torch.bfloat16),
}


@pytest.mark.parametrize("kind", LISTS)
def test_every_kind_of_list_is_a_list_of_ids_everywhere(ease, kind):
    give, plain = LISTS[kind], [4, 7]
    for unknown in ("error", "skip", "popular"):
        found = ease.recommend(give(), k=3, allow=give(), unknown=unknown, include_seen=True)
        wanted = ease.recommend(plain, k=3, allow=plain, include_seen=True)
        assert found["user_id"].dtype == np.int64
        for name in wanted.columns:
            assert found[name].tolist() == wanted[name].tolist()
        new = ease.recommend_for_history([give()], k=3, block=give(), unknown=unknown)
        wanted = ease.recommend_for_history([plain], k=3, block=plain)
        assert new["item_id"].tolist() == wanted["item_id"].tolist()
        assert new["score"].tolist() == wanted["score"].tolist()
    assert ease.score(give(), give()).tolist() == ease.score(plain, plain).tolist()


NO_LISTS = {
    "text": ("4", r"give \['4'\]"),
    "number": (4, r"give \[4\]"),
    "numpy number": (np.int64(4), r"give \[4\]"),
    "no dimensions": (np.array(4), r"give \[4\]"),
    "bytes": (b"4", "is no list of ids"),
    "dict": ({4: 7}, "a dict is no list of ids; give its keys or values"),
    "frame": (FRAME, r'a DataFrame is no list of ids; give one column, such as frame\["user_id"\]'),
    "polars frame": (pl.DataFrame({"user": [4]}), "give one column"),
    "lazy frame": (pl.DataFrame({"user": [4]}).lazy(), "give one column"),
    "Arrow table": (pa.table({"user": [4]}), "give one column"),
    "record batch": (pa.record_batch({"user": [4]}), "give one column"),
    "structured array": (np.array([(4,)], [("user", int)]), "give one column"),
    "matrix": (np.array([[4], [7]]), r"an array of shape \(2, 1\).*array\[:, 0\]"),
    "column of a frame": (FRAME[["user"]], "give one column"),
    "nested": ([[4, 7]], r"\[4, 7\] \(place 0\) is a list"),
    "missing": (pd.Series([4, None]), r"nan \(place 1\) is a missing value; leave it out"),
    "nullable": (pd.Series([4, None], dtype="Int64"), "missing value"),
    "null": (pa.array([4, None]), "missing value"),
    "masked": (np.ma.array([4, 7], mask=[0, 1]), r"masked \(place 1\) is a missing value"),
    "function": (len, "is no list of ids"),
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_is_no_list_of_ids_is_refused_with_a_hint(ease, kind):
    given, text = NO_LISTS[kind]
    calls = {
        "users": lambda: ease.recommend(given, unknown="popular"),
        "allow": lambda: ease.recommend([4], allow=given),
        "block": lambda: ease.recommend([4], block=given),
        "items": lambda: ease.score([4], given),
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match=rf"^{name}: .*{text}") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_table_of_one_call_is_no_list_of_ids_but_its_column_is(ease):
    table = ease.recommend([4], k=2)
    with pytest.raises(InputError, match="give one column"):
        ease.recommend(table)
    assert len(ease.recommend(table["user_id"], k=1)) == 2


def test_a_set_will_do_only_where_the_order_does_not_count(ease):
    wanted = ease.recommend([4], k=80, block=[0, 2])
    assert ease.recommend([4], k=80, block={0, 2})["item_id"].tolist() == wanted["item_id"].tolist()
    for call in (
        lambda: ease.recommend({4, 7}),
        lambda: ease.score({4}, [2]),
        lambda: ease.recommend_for_history([{4, 7}]),
    ):
        with pytest.raises(InputError, match="a set has no order; give a list"):
            call()


@pytest.mark.parametrize(
    "histories",
    [
        [["2", "6"], ["4"]], ((2, 6), (4,)), (row for row in ([2, 6], [4])),
        pd.Series([[2, 6], [4]]), pa.array([[2, 6], [4]]), pl.Series([[2, 6], [4]]),
        pl.Series([[2.0, 6.0], [4.0]], dtype=pl.List(pl.Float32)),
        [np.array([2, 6]), iter([4])],
    ],
)  # fmt: skip
def test_histories_come_in_every_kind_of_list(ease, histories):
    wanted = ease.recommend_for_history([[2, 6], [4]], k=3)
    found = ease.recommend_for_history(histories, k=3, unknown="skip")
    assert found["score"].tolist() == wanted["score"].tolist()


def test_a_matrix_holds_a_history_in_each_row(ease):
    wanted = ease.recommend_for_history([[2, 6], [4, 8]], k=3)["score"].tolist()
    for rows in (np.array([[2, 6], [4, 8]]), torch.tensor([[2, 6], [4, 8]])):
        assert ease.recommend_for_history(rows, k=3)["score"].tolist() == wanted


@pytest.mark.parametrize(
    ("histories", "text"),
    [
        ([2, 6], r"histories: 2 \(place 0\) is no history; .* such as \[\[2\]\]"),
        (["i2", "i6"], r"'i2' \(place 0\) is no history; .* such as \[\['i2'\]\]"),
        (np.array([2, 6]), r"2 \(place 0\) is no history"),
        ("2", "'2' is no list of histories"),
        (None, "None is no list of histories"),
        ([[2], None], r"None \(place 1\) is no history; .* such as \[\[\]\]"),
        (pa.array([[2], None]), r"None \(place 1\) is no history"),
        ({4: [2, 6]}, "a dict is no list of histories"),
        (FRAME, "a DataFrame is no list of histories"),
        ([{2: 6}], "history 0: a dict is no list of ids"),
        ([[2], ["x"]], r"history 1: 'x' \(place 0\) is no plain integer"),
        (pa.array([[2.0, 2.0**24 + 2]], pa.list_(pa.float32())), "float beyond 2"),
    ],
)
def test_what_are_no_histories_is_refused(ease, histories, text):
    for unknown in ("error", "skip", "popular"):
        with pytest.raises(InputError, match=text):
            ease.recommend_for_history(histories, unknown=unknown)


def test_a_known_user_never_gets_the_popular_list_for_the_type_of_an_id(ease, with_text):
    own = ease.recommend([4], k=3)["score"].tolist()
    for user in ("4", 4.0, np.float16(4)):
        for unknown in ("skip", "popular"):
            found = ease.recommend([user], k=3, unknown=unknown)
            assert (found["user_id"].tolist(), found["score"].tolist()) == ([4] * 3, own)
    for unknown in ("error", "skip", "popular"):
        for wrong in ("04", "x", True, None, 4.5):
            with pytest.raises(InputError, match=r"^users: "):
                ease.recommend([wrong], unknown=unknown)
        with pytest.raises(InputError, match=r"^users: "):
            with_text.recommend([4.5], unknown=unknown)


COLUMNS = {
    "int8": np.array([1, -2, 3], np.int8),
    "uint64": np.array([1, 2**63 + 1, 2**64 - 1], np.uint64),
    "float16": np.array([1, 2, 2**11], np.float16),
    "float32": np.array([1, 2, 2**24], np.float32),
    "float64": np.array([1, 2, 2**53], np.float64),
    "decimals": [decimal.Decimal(1), decimal.Decimal(2), decimal.Decimal(3)],
    "text of digits": ["1", "2", "3"],
    "text": ["1", "02", " x"],
    "UUIDs": [uuid.UUID(int=number) for number in (1, 2, 3)],
    "text of UUIDs": [str(uuid.UUID(int=number)) for number in (1, 2, 3)],
    "nullable": pd.array([1, 2, 3], dtype="Int64"),
    "categories": pd.Categorical(["a", "b", "c"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_what_a_log_was_read_from_is_accepted_again_and_comes_out_equal(kind):
    frame = pd.DataFrame({"user": COLUMNS[kind], "item": COLUMNS[kind]})
    model = cr.Popularity().fit(cr.read(frame))
    for unknown in ("error", "popular"):
        table = model.recommend(frame["user"], k=2, allow=frame["item"], unknown=unknown)
        out = list(dict.fromkeys(table["user_id"].tolist()))
        assert [str(user) for user in out] == [_written(user) for user in COLUMNS[kind]]
        assert (
            model.recommend(table["user_id"], k=1)["user_id"].tolist() == table["user_id"].tolist()
        )
    assert len(model.score(frame["user"], frame["item"])) == 3


def _written(value):
    return str(int(value)) if isinstance(value, np.floating) else str(value)


def test_unknown_users_have_their_ids_in_the_type_of_the_log(ease, with_text):
    found = ease.recommend(["999", 4.0, 2**70], k=1, unknown="popular")
    assert found["user_id"].tolist() == [999, 4, 2**70]
    assert ease.recommend([4, "999"], k=1, unknown="popular")["user_id"].dtype == np.int64
    assert ease.recommend([2**70], k=1, unknown="skip")["user_id"].dtype == np.int64
    assert with_text.recommend([999], k=1, unknown="popular")["user_id"].tolist() == ["999"]


@pytest.mark.parametrize(
    ("asked", "near"), [("zoe", "zoe       "), ("U4", "u4"), (" u4", "u4"), ("u04", "u4")]
)
def test_the_unknown_id_error_suggests_the_nearest_id(with_text, asked, near):
    text = f"unknown user {asked!r} .1 of 2 unknown.; did you mean '{near}'"
    with pytest.raises(UnknownIdError, match=text):
        with_text.recommend(["u7", asked])


def test_the_unknown_id_error_names_the_id_and_the_ways_out(ease):
    with pytest.raises(UnknownIdError) as caught:
        ease.recommend([4, 999, 998])
    assert str(caught.value) == (
        "unknown user 999 (2 of 3 unknown); the ids of the log are integers, such as 0, 1, 2 "
        "(unknown='skip' or unknown='popular' allows unknown ids)"
    )
    with pytest.raises(UnknownIdError, match=r"unknown item 999 in history 1"):
        ease.recommend_for_history([[2], [4, 999]])


def test_a_user_asked_for_twice_has_two_lists_and_nobody_none(ease):
    assert ease.recommend([4, 7, 4], k=2)["user_id"].tolist() == [4, 4, 7, 7, 4, 4]
    for nobody in ([], np.array([]), pd.Series([], dtype=object), ()):
        assert len(ease.recommend(nobody)) == 0


@pytest.mark.parametrize("k", [0, -1, "10", 1.5, 10.0, True, None, float("nan"), [3]])
def test_a_length_that_is_no_whole_number_above_zero_is_refused(ease, k):
    for call in (ease.recommend, ease.recommend_for_history):
        with pytest.raises(InputError, match=r"^k = .*must be a whole number above 0"):
            call([[4]] if call == ease.recommend_for_history else [4], k=k)


def test_a_length_beyond_the_catalogue_lists_what_there_is(ease):
    for k in (80, 10**30, np.int64(1000)):
        assert len(ease.recommend([4], k=k, include_seen=True)) == 80
        assert len(ease.recommend([999], k=k, unknown="popular")) == 80


@pytest.mark.parametrize("seed", [-1, True, np.True_, None, float("nan"), [1], "x"])
def test_a_seed_that_is_no_whole_number_is_refused(checkerboard, seed):
    with pytest.raises(ConfigError, match=r"^seed = "):
        cr.MF(seed=seed)
    with pytest.raises(ConfigError, match=r"^protocol.seed = "):
        cr.leave_one_out(checkerboard, seed=seed)


def test_seeds_may_be_numpys_and_of_any_size(checkerboard_split):
    vectors = []
    for seed in (3, np.int64(3), np.uint8(3), 2**80):
        model = cr.MF(seed=seed, epochs=1, embedding_dim=4).fit(checkerboard_split)
        vectors.append(model.item_vectors()[1].tobytes())
    assert vectors[0] == vectors[1] == vectors[2] != vectors[3]
    log = checkerboard_split.interactions
    assert cr.leave_one_out(log, seed=np.int64(3)).hash == cr.leave_one_out(log, seed=3).hash


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m, s: cr.leave_one_out(s.interactions, negatives=True), "must be a whole number"),
        (lambda m, s: cr.MF(epochs=True), "train.epochs = True: must be a whole number"),
        (lambda m, s: cr.MF(learning_rate=True), "must be a number"),
        (lambda m, s: cr.evaluate(m, s, full="no"), "full = 'no': must be True or False"),
        (lambda m, s: cr.evaluate(m, s.interactions), "Interactions is not a split"),
        (lambda m, s: cr.evaluate(cr.EASE(), s), "call fit first"),
        (lambda m, s: m.save(3), "save: 3 is not a path"),
        (lambda m, s: m.save(None), "save: None is not a path"),
        (lambda m, s: cr.load_model(None), "load_model: None is not a path"),
        (lambda m, s: m.recommend([4], unknown="skp"), "did you mean 'skip'"),
        (lambda m, s: m.recommend([4]).write("x.csv", "xls"), "must be csv, tsv or parquet"),
        (lambda m, s: m.recommend([4])["items"], "no column 'items'; there are user_id, item_id"),
    ],
)
def test_other_misuse_is_told_in_one_line(ease, checkerboard_split, call, text):
    with pytest.raises(InputError, match=text) as caught:
        call(ease, checkerboard_split)
    assert "\n" not in str(caught.value)


def test_numbers_may_be_given_as_text(checkerboard):
    assert cr.leave_one_out(checkerboard, negatives="5").protocol.negatives == 5


def test_a_table_is_a_mapping_of_columns_and_a_sequence_of_rows(ease):
    table = ease.recommend([4], k=3)
    assert "user_id" in table
    assert "user" not in table
    assert 4 not in table
    assert list(table.keys()) == ["user_id", "item_id", "score", "rank"]
    assert dict(table)["rank"].tolist() == [1, 2, 3]
    assert [row["rank"] for row in table] == [1, 2, 3]
    assert len(table) == 3
    assert pd.DataFrame(dict(table)).equals(table.to_pandas())
    for name in ("user", 0, slice(1)):
        with pytest.raises(UnknownNameError, match="no column"):
            table[name]


def test_ids_may_come_from_an_object_that_numpy_cannot_read(ease):
    odd = SimpleNamespace(__array__=None)
    with pytest.raises(InputError, match="is no list of ids"):
        ease.recommend(odd)
    wide = pl.Series([4, 7], dtype=pl.Int128)
    assert set(ease.recommend(wide, k=1)["user_id"].tolist()) == {4, 7}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_setting_of_a_signature_is_taken_and_no_other(name, random_log):
    estimator = ESTIMATORS[name]
    parameters = inspect.signature(estimator).parameters
    assert list(parameters)[:3] == ["preset", "seed", "device"]
    config = estimator().config_for(random_log(20, 30, 6))
    for key, parameter in list(parameters.items())[3:]:
        assert parameter.default is DEFAULT
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        full = next(name for name in config.setting_names() if bare(name) == key)
        assert estimator(**{key: config.get(full)}).config_for(random_log(20, 30, 6)) is not None
    with pytest.raises(ConfigError):
        estimator(no_such_setting=1)


def test_a_signature_shows_the_settings_of_its_own_model():
    comet = inspect.signature(cr.COMET).parameters
    assert {"embedding_dim", "history_dropout", "epochs", "blend_model", "refit"} <= set(comet)
    assert "blend_model" not in inspect.signature(cr.MLP).parameters
    assert "epochs" not in inspect.signature(cr.EASE).parameters
    assert repr(comet["embedding_dim"].default) == "<the preset's>"
