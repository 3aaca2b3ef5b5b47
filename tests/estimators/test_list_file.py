"""Lists of all users in a file: the rows of `recommend`, in blocks that do not grow with users."""

from __future__ import annotations

import os

import duckdb
import numpy as np
import pandas as pd
import pytest

import comet_rec as cr
from comet_rec.data.tables import Table
from comet_rec.errors import InputError
from comet_rec.estimators import list_file
from tests.conftest import make_log, random_pairs


@pytest.fixture(scope="module")
def mf():
    log = make_log(random_pairs(np.random.default_rng(0), 500, 60, 7), n_items=60)
    return cr.MF(embedding_dim=4, full_epochs=1).fit(log)


@pytest.fixture
def written(monkeypatch):
    """Number of rows of each table that is written."""
    sizes, write = [], Table.write

    def spy(table, path, form):
        sizes.append(len(table))
        write(table, path, form)

    monkeypatch.setattr(Table, "write", spy)
    return sizes


def rows_of(path) -> list[tuple]:
    return duckdb.connect().execute(f"SELECT * FROM '{path}'").fetchall()


def as_rows(table: Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.rows()]


def test_a_file_holds_the_rows_of_recommend_in_blocks_of_bounded_size(
    mf, tmp_path, written, monkeypatch
):
    monkeypatch.setattr(list_file, "ROWS", 90)
    rules = {"block": [3, 5], "groups": {item: item % 4 for item in range(60)}, "per_group": 2}
    assert mf.write_lists(tmp_path / "lists.parquet", 6, **rules)
    assert len(written) == 34  # blocks of 15 users
    assert max(written) == 90
    assert rows_of(tmp_path / "lists.parquet") == as_rows(mf.recommend(k=6, **rules))
    assert os.listdir(tmp_path) == ["lists.parquet"]
    assert mf.write_lists(tmp_path / "lists.parquet", 2)  # without a shard it is replaced
    assert rows_of(tmp_path / "lists.parquet") == as_rows(mf.recommend(k=2))


def test_shards_are_written_once(mf, tmp_path, written):
    pairs = pd.DataFrame({"user_id": [1, 400], "item_id": [2, 3]})
    paths = [tmp_path / f"{number}.parquet" for number in range(1, 4)]
    for number, path in enumerate(paths, 1):
        assert mf.write_lists(path, 4, shard=(number, 3), block_pairs=pairs)
    count = len(written)
    assert not mf.write_lists(paths[1], 4, shard=(2, 3), block_pairs=pairs)
    assert len(written) == count
    rows = [row for path in paths for row in rows_of(path)]
    assert rows == as_rows(mf.recommend(k=4, block_pairs=pairs))


PAIR = {"user": [1], "item": [1]}


@pytest.mark.parametrize(
    "changed", [{"k": 5}, {"shard": (3, 3)}, {"block": [1]}, {"block_pairs": PAIR}]
)
def test_a_shard_of_something_else_is_not_taken_for_complete(mf, tmp_path, changed):
    path = tmp_path / "lists.parquet"
    arguments = {"k": 4, "shard": (2, 3)}
    mf.write_lists(path, **arguments)
    with pytest.raises(InputError, match="holds something else than these lists"):
        mf.write_lists(path, **{**arguments, **changed})
    other = cr.MF(embedding_dim=4, full_epochs=1, seed=1).fit(mf.run.interactions)
    with pytest.raises(InputError, match="holds something else than these lists"):
        other.write_lists(path, **arguments)
    path.write_text("no Parquet file")
    with pytest.raises(InputError, match="holds something else than these lists"):
        mf.write_lists(path, **arguments)


def test_a_shard_is_not_complete_after_new_rows(tmp_path):
    """The parameters are equal, but a list may hold an item that its user has taken since."""
    log = cr.read(pd.DataFrame({"user": ["a", "a", "b", "b"], "item": ["x", "y", "y", "z"]}))
    model = cr.MF(embedding_dim=4, full_epochs=1).fit(log)
    path = tmp_path / "lists.parquet"
    assert model.write_lists(path, 2, shard=(1, 1))
    model.update([("a", "z")], epochs=0)
    with pytest.raises(InputError, match="something else"):
        model.write_lists(path, 2, shard=(1, 1))


def test_an_interrupted_shard_leaves_nothing(mf, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_file, "join_parquet", stop)
    with pytest.raises(KeyboardInterrupt):
        mf.write_lists(tmp_path / "lists.parquet", shard=(1, 2))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shard", [(0, 1), (2, 1), (1.5, 2), (True, 2), "1/2", 1, (1, 2, 3)])
def test_a_shard_that_cannot_be_is_refused(mf, tmp_path, shard):
    with pytest.raises(InputError, match="must be"):
        mf.write_lists(tmp_path / "lists.parquet", shard=shard)


def test_what_is_no_path_is_refused(mf):
    with pytest.raises(InputError, match="write_lists: 7 is not a path; give a file to write"):
        mf.write_lists(7)


def test_a_shard_without_users_has_the_columns(mf, tmp_path):
    path = tmp_path / "lists.parquet"
    assert mf.write_lists(path, shard=(1, 1000))
    found = duckdb.connect().execute(f"SELECT * FROM '{path}'")
    assert [column[0] for column in found.description] == ["user_id", "item_id", "score", "rank"]
    assert found.fetchall() == []
