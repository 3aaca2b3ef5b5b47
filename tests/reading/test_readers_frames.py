"""Reading frames, Arrow tables and sparse matrices."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from comet_rec.data.split import leave_one_out
from comet_rec.errors import DataError
from comet_rec.reading import table
from comet_rec.reading.given import read_pairs
from comet_rec.reading.readers import read

# These logs are odd on purpose; their warnings have tests of their own.
pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")

COLUMNS: dict[str, list[Any]] = {
    "user_id": [3, 1, 1, 2],
    "item_id": ["b", "007", "b", "ü"],
    "timestamp": [5, 9, 7, 3],
}
EXPECTED = [(1, "b", 7), (1, "007", 9), (2, "ü", 3), (3, "b", 5)]


class OnlyStream:
    """An Arrow stream that can be read once and has nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.reader = table.to_reader()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader.__arrow_c_stream__(requested_schema)


MAKERS = {
    "pandas": pd.DataFrame,
    "pandas with a strange index": lambda c: pd.DataFrame(c, index=[7, 7, 0, 1]),
    "pandas object": lambda c: pd.DataFrame(c).astype({"item_id": object}),
    "pandas category": lambda c: pd.DataFrame(c).astype(
        {"user_id": "category", "item_id": "category"}
    ),
    "pandas nullable": lambda c: pd.DataFrame(c).astype({"user_id": "Int32"}),
    "pandas pyarrow": lambda c: pd.DataFrame(c).convert_dtypes(dtype_backend="pyarrow"),
    "pandas float": lambda c: pd.DataFrame(c).astype({"user_id": float, "timestamp": float}),
    "polars": pl.DataFrame,
    "polars category": lambda c: pl.DataFrame(c, schema_overrides={"item_id": pl.Categorical}),
    "arrow": pa.table,
    "arrow reader": lambda c: pa.table(c).to_reader(),
    "arrow stream": lambda c: OnlyStream(pa.table(c)),
    "arrow dictionary": lambda c: pa.table(
        {**c, "item_id": pa.array(c["item_id"]).dictionary_encode()}
    ),
}  # fmt: skip


def rows_of(log: Any) -> list[tuple[Any, ...]]:
    times = [None] * len(log) if log.times is None else log.times.tolist()
    users, items = log.user_ids.external(log.users), log.item_ids.external(log.items)
    return list(zip(users.tolist(), items.tolist(), times, strict=True))


@pytest.mark.parametrize("maker", MAKERS)
def test_one_log_in_every_frame_is_the_same_log(maker: str) -> None:
    log = read(MAKERS[maker](COLUMNS))
    assert rows_of(log) == EXPECTED
    assert (log.user_ids.kind, log.item_ids.kind) == ("int", "text")
    assert log.user_ids.values.dtype == np.int64
    assert log.notes == ()


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_the_frame_is_left_as_it_was(make: Any) -> None:
    frame = make(COLUMNS)
    read(frame)
    read(frame)
    assert frame.equals(make(COLUMNS))


def test_the_order_of_a_large_frame_is_kept() -> None:
    rng = np.random.default_rng(0)
    items = rng.permutation(400_000)
    columns = {"user": np.zeros(400_000, dtype=np.int64), "item": items}
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        log = read(make(columns))
        assert np.array_equal(log.items, items)


def test_uuids() -> None:
    ids = [uuid.UUID(int=int(k) << 100) for k in np.random.default_rng(0).permutation(20)]
    log = read(pd.DataFrame({"user": ids, "item": range(20)}))
    assert log.user_ids.kind == "uuid"
    assert log.user_ids.external([0, 1]).tolist() == sorted(ids)[:2]
    assert log.user_ids.index([ids[0]]).tolist() == [sorted(ids).index(ids[0])]
    assert read_pairs(pd.DataFrame({"user": ids, "item": range(20)})).users.tolist() == ids


def test_uuids_of_parquet(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=k) for k in (2**127 + 1, 5)]
    table = pa.table({"user": pa.array([i.bytes for i in ids], pa.uuid()), "item": [1, 2]})
    pq.write_table(table, tmp_path / "log")
    assert read(tmp_path / "log").user_ids.kind == "uuid"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pd.to_datetime(["1970-01-02", "1970-01-01"]), [86_400_000_000, 0]),
        (pd.to_datetime(["1970-01-02", "1970-01-01"]).astype("datetime64[s]"), [86_400_000_000, 0]),
        (pd.to_datetime(["1970-01-01T01:00:00+01:00"] * 2, utc=True), [0, 0]),
        (np.array([1.5, 2.25]), [1_500_000, 2_250_000]),
        (np.array([1.0, 2.0]), [1, 2]),
        (np.array([1, 2], dtype=np.uint8), [1, 2]),
        ([date(1970, 1, 2), date(1970, 1, 1)], [86_400_000_000, 0]),
        ([datetime(1970, 1, 1, 0, 0, 1), datetime(1970, 1, 1)], [1_000_000, 0]),
        (["1970-01-02", "1970-01-01"], [86_400_000_000, 0]),
        ([2**63 - 1, 2**53 + 1], [2**63 - 1, 2**53 + 1]),
    ],
)
def test_times(times: Any, expected: list[int]) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "time": times})
    assert [row[2] for row in rows_of(read(frame))] == expected
    if not isinstance(times, list):
        assert [row[2] for row in rows_of(read(pl.from_pandas(frame)))] == expected


@pytest.mark.parametrize("as_text", [False, True])
def test_fractions_of_times_may_come_late(as_text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the rows that the kinds are guessed from, and rows in any order."""
    monkeypatch.setattr(table, "SAMPLE_ROWS", 5)
    times = [float(t) for t in range(10)] + [20.4, 20.3, 20.2]
    frame = pd.DataFrame({"user": [*range(10), 10, 10, 10], "item": range(13), "time": times})
    if as_text:
        frame["time"] = [f"{t:.1f}" for t in times]
    logs = [read(frame), read(frame.iloc[::-1])]
    assert logs[0].fingerprint == logs[1].fingerprint
    assert rows_of(logs[0])[-3:] == [
        (10, 12, 20_200_000), (10, 11, 20_300_000), (10, 10, 20_400_000)
    ]  # fmt: skip


@pytest.mark.parametrize("as_text", [False, True])
def test_fractions_of_microseconds_are_rounded(
    as_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SAMPLE_ROWS", 5)
    times = [1.6e15 + n for n in range(8)] + [1.6e15 + 8.75]
    frame = pd.DataFrame({"user": range(9), "item": range(9), "time": times})
    if as_text:
        frame["time"] = [f"{t:.2f}" for t in times]
    expected = [1_600_000_000_000_000 + n for n in (*range(8), 9)]
    assert [row[2] for row in rows_of(read(frame))] == expected


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ({"user": [True, False], "item": [1, 2]}, "column 'user' is of type BOOLEAN"),
        ({"user": [1.5, 2], "item": [1, 2]}, "row 1, column 'user': '1.5'"),
        ({"user": [1, None], "item": [1, 2]}, "row 2, column 'user': is empty"),
        ({"user": [1, float("inf")], "item": [1, 2]}, "row 2, column 'user': 'inf'"),
        ({"user": ["a", ""], "item": [1, 2]}, "row 2, column 'user': is empty"),
        ({"user": [2**70, 1], "item": [1, 2]}, "column 'user' holds numbers .*; make it text"),
        ({"user": [1, "a"], "item": [1, 2]}, "column 'user' mixes types"),
        ({"user": [1, 2], "item": [[1], [2]]}, "column 'item'"),
        ({"user": [1, 2], "item": ["a\0", "b"]}, "NUL"),
        ({"user": [1, 2], "item": [1, 2], "time": [True, False]}, "cannot be a time"),
        ({"user": [1, 2], "item": [1, 2], "time": [1.5, np.nan]}, "row 2, column 'time'"),
        ({"user": [1, 2], "item": [1, 2], "time": [1e300, 1.0]}, "row 1, column 'time'"),
        ({"user": [1, 2], "item": [1, 2], "time": ["x", "1"]}, "row 1, column 'time': 'x' is not"),
        ({"user": [], "item": []}, "is empty"),
        ({"who": [1], "item": [1]}, "no user column among 'who', 'item'; name it with user="),
    ],
)
def test_refusals(frame: dict[str, Any], error: str) -> None:
    with pytest.raises(DataError, match="(?s).*" + error.replace("[", r"\[")) as caught:
        read(pd.DataFrame(frame))
    assert "\n" not in str(caught.value)


def test_nan_ratings_count_only_when_asked_for() -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [np.nan, 5]})
    assert len(read(frame)) == 2
    with pytest.raises(DataError, match="row 1, column 'rating'"):
        read(frame, min_rating=1)
    assert len(read(frame, min_rating=1, skip_bad=1)) == 1


def test_columns_need_not_have_text_for_names() -> None:
    frame = pd.DataFrame([[1, 2, 3]])
    assert rows_of(read(frame, user="2", item="0")) == [(3, 1, None)]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.lil_matrix])
def test_sparse(kind: Any) -> None:
    dense = np.array([[0, 2.5, 0, 1], [0, 0, 0, 0], [4, 0, 0, 0]])
    log = read(kind(dense))
    assert rows_of(log) == [(0, 1, None), (0, 3, None), (2, 0, None)]
    assert rows_of(read(kind(dense), min_rating=2)) == [(0, 1, None), (2, 0, None)]


@pytest.mark.parametrize("kind", [sp.csr_array, sp.coo_array])
def test_what_is_held_out_of_a_matrix_is_not_its_highest_column(kind: Any) -> None:
    """A matrix has no order: in that of its columns, scoring by item id would be right."""
    rng = np.random.default_rng(0)
    matrix = kind(sp.random_array((200, 500), density=0.03, rng=rng))
    log = read(matrix)
    split = leave_one_out(log)
    last = np.array([log.items[log.users == user].max() for user in split.test.users])
    assert (split.test.positives == last).mean() < 0.2
    assert any("no order" in note for note in log.notes)
    again = leave_one_out(read(matrix))
    np.testing.assert_array_equal(again.test.positives, split.test.positives)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"min_rating": "3"}, "min_rating is '3'; give a number"),
        ({"skip_bad": -5}, "skip_bad is -5; give a whole number, 0 or more"),
        ({"skip_bad": "1"}, "skip_bad is '1'; give a whole number"),
        ({"min_user_interactions": None}, "min_user_interactions is None; give a whole number"),
        ({"min_item_interactions": float("nan")}, "min_item_interactions is nan"),
        ({"threads": 1.5}, "threads is 1.5; give a whole number"),
        ({"threads": "2"}, "threads is '2'; give a whole number"),
        ({"min_rating": Decimal("nan")}, "give a number"),
    ],
)
def test_numbers_that_are_none_are_refused(given: dict[str, Any], error: str) -> None:
    with pytest.raises(DataError, match=error):
        read(pd.DataFrame({"user": [1], "item": [2], "rating": [3]}), **given)


def test_columns_named_by_numbers_and_categories_without_a_value() -> None:
    frame = pd.DataFrame({0: [1, 2], 1: [3, 4]})
    assert len(read(frame, user=0, item=1)) == 2
    assert read_pairs(frame, user=0, item=1).items.tolist() == [3, 4]
    kinds = pd.DataFrame({"user": [1, 2, 3], "item": pd.Categorical([5, None, 6])})
    with pytest.raises(DataError, match="row 2, column 'item': is empty"):
        read(kinds)
    assert read(kinds, skip_bad=1).item_ids.values.tolist() == [5, 6]
    large = pd.Categorical.from_codes([0, -1, 0], np.array([2**63 + 1], dtype=np.uint64))
    log = read(pd.DataFrame({"user": [1, 2, 3], "item": large}), skip_bad=1)
    assert log.item_ids.values.tolist() == [str(2**63 + 1)]
    exact = pd.DataFrame(
        {"user": [1, 2, 3], "item": pd.Categorical([2**53 + 1, None, 7])}, index=[9, 9, 4]
    )
    assert read(exact, skip_bad=1).item_ids.values.tolist() == [7, 2**53 + 1]


@pytest.mark.parametrize("value", [7, "x", 1.0, date(1970, 1, 1)])
def test_objects_may_begin_with_many_nothings(value: Any) -> None:
    column = pd.Series([None] * 5000 + [value], dtype=object)
    frame = pd.DataFrame({"user": 1, "item": range(5001), "time": column})
    if value == "x":
        frame = frame.rename(columns={"user": "time", "time": "user"})
    log = read(frame, skip_bad=5000)
    assert len(log) == 1
    assert log.notes[0].startswith("5,000 bad rows skipped: row 1, column")


def test_sparse_zeros_that_are_stored_are_none() -> None:
    matrix = sp.csr_array((np.array([0.0, 1.0]), (np.array([0, 1]), np.array([1, 1]))))
    assert rows_of(read(matrix)) == [(1, 1, None)]
    assert matrix.nnz == 2
    with pytest.raises(DataError, match="is empty"):
        read(matrix * 0)
    with pytest.raises(DataError, match="no named columns"):
        read(matrix, user="a")


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "arrow reader", "parquet"])
def test_names_that_differ_in_case_alone_are_two_columns(kind: str, tmp_path: Path) -> None:
    columns = {
        "user": [1, 2, 3],
        "of": [{"User": 0, "deep": [{"User": 1}]}] * 3,
        "User": [7, 8, 9],
        "Item": ["a", "b", "c"],
        "item": ["d", "e", "f"],
    }
    if kind == "parquet":
        source: Any = tmp_path / "log.parquet"
        pq.write_table(pa.table(columns), source)
    else:
        source = MAKERS[kind](columns)
    log = read(source, user="User", item="item")
    assert log.user_ids.values.tolist() == [7, 8, 9]
    assert log.item_ids.values.tolist() == ["d", "e", "f"]


def test_what_is_no_source() -> None:
    with pytest.raises(DataError, match="cannot read an object of type int; give a path"):
        read(5)


FRAME = "{'user': ['a', 'b'], 'item': [1, 2], 'time': [2, 3]}"
ALONE = {
    "polars": f"import polars as pl; f = pl.DataFrame({FRAME})",
    "pandas": f"import pandas as pd; f = pd.DataFrame({FRAME})",
    "scipy": "import scipy.sparse as sp; f = sp.eye_array(2)",
}


@pytest.mark.parametrize("library", ALONE)
def test_only_the_library_of_the_frame_is_needed(library: str) -> None:
    block = [name for name in ("pandas", "polars", "pyarrow", "pytz") if name != library]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({block!r}))\n{ALONE[library]}\n"
        "from comet_rec.reading.readers import read\nassert len(read(f)) == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ODD = {
    "complex": lambda: pd.DataFrame({"user": [1j, 2], "item": [1, 2]}),
    "period": lambda: pd.DataFrame({"user": pd.period_range("2020", periods=2), "item": [1, 2]}),
    "interval": lambda: pd.DataFrame({"user": pd.interval_range(0, 2), "item": [1, 2]}),
    "timedelta": lambda: pd.DataFrame({"user": pd.to_timedelta([1, 2]), "item": [1, 2]}),
    "objects": lambda: pd.DataFrame({"user": [object(), object()], "item": [1, 2]}),
    "bytes": lambda: pd.DataFrame({"user": [b"a", b"b"], "item": [1, 2]}),
    "surrogates": lambda: pd.DataFrame({"user": ["\ud800", "b"], "item": [1, 2]}, dtype=object),
    "huge": lambda: pd.DataFrame({"user": [10**50, 1], "item": [1, 2]}, dtype=object),
    "none": lambda: pd.DataFrame({"user": [None, None], "item": [1, 2]}, dtype=object),
    "dates": lambda: pd.DataFrame({"user": pd.to_datetime(["2020", "2021"]), "item": [1, 2]}),
    "polars object": lambda: pl.DataFrame({"user": [object()], "item": [1]}, strict=False),
    "polars null": lambda: pl.DataFrame({"user": [None, None], "item": [1, 2]}),
    "polars binary": lambda: pl.DataFrame({"user": [b"a", b"b"], "item": [1, 2]}),
    "polars struct": lambda: pl.DataFrame({"user": [{"a": 1}], "item": [1]}),
    "polars empty": lambda: pl.DataFrame({"user": [], "item": []}),
    "arrow list": lambda: pa.table({"user": [[1], [2]], "item": [1, 2]}),
    "sparse of one dimension": lambda: sp.coo_array(np.array([1, 2])),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_frames_are_refused_in_one_line(kind: str) -> None:
    with pytest.raises(DataError) as caught:
        read(ODD[kind]())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [0, 1_000_000])
def test_threads_are_positive_and_not_without_end(threads: int) -> None:
    with pytest.raises(DataError, match=f"threads is {threads}; give 1 to 1024"):
        read(sp.eye_array(2), threads=threads)


def test_ids_above_an_int64_are_read_as_their_text(tmp_path):
    """Hashes: unsigned in Parquet and frames, where a CSV has text of the same digits."""
    big = [2**64 - 1, 2**63, 5, 5]
    frame = {"user": np.array(big, dtype=np.uint64), "item": [1, 2, 3, 4]}
    log = read(pd.DataFrame(frame))
    assert sorted(log.user_ids.values.tolist()) == sorted({str(value) for value in big})
    pq.write_table(pa.table(frame), tmp_path / "hash.parquet")
    same = read(tmp_path / "hash.parquet")
    assert rows_of(same) == rows_of(log)
    small = {"user": np.array([7, 7, 9], dtype=np.uint64), "item": [1, 2, 3]}
    assert read(pd.DataFrame(small)).user_ids.kind == "int"


def test_times_above_an_int64_are_no_times():
    frame = {"user": [1, 1], "item": [1, 2], "ts": np.array([2**63, 5], dtype=np.uint64)}
    with pytest.raises(DataError, match=r"beyond 64 bits|is not a time"):
        read(pd.DataFrame(frame))
    small = read(pd.DataFrame(frame | {"ts": np.array([9, 5], dtype=np.uint64)}))
    assert small.times.tolist() == [5, 9]


@pytest.mark.parametrize("of", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas])
def test_numbers_without_a_good_row_are_refused_in_a_line(of):
    good = {"user_id": [1, 2], "item_id": [3, 4], "timestamp": [5, 6]}
    for bad in ({"timestamp": ["31 of 12, 2024"] * 2}, {"user_id": [np.nan] * 2}):
        with pytest.raises(DataError):
            read(of(pd.DataFrame(good | bad)))
    with pytest.raises(DataError, match=r"no interaction|is empty|no rows"):
        read(of(pd.DataFrame(good).head(0)))
