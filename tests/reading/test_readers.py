"""Reading files: formats, columns, ids, times, filters, and the canonical order."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest

from comet_rec.data.interactions import Interactions
from comet_rec.errors import DataError
from comet_rec.reading import bad_rows, indexing, readers, table
from comet_rec.reading.files import zstd as zstd_library
from comet_rec.reading.readers import read

# These logs are odd on purpose; their warnings have tests of their own.
pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")

ROWS = [(3, 10, 5, 978300760), (1, 20, 4, 978302109), (1, 10, 3, 978301968), (2, 30, 1, 978300275)]


def rows_of(log: Interactions) -> list[tuple[object, object, int | None]]:
    times = [None] * len(log) if log.times is None else log.times.tolist()
    users = log.user_ids.external(log.users).tolist()
    return list(zip(users, log.item_ids.external(log.items).tolist(), times, strict=True))


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def zstd(path: Path, source: Path) -> Path:
    """`source`, compressed as it is by DuckDB's own writer."""
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT line FROM read_csv('{source}', auto_detect=false, header=false, "
            "delim='\x1f', quote='', escape='', columns={'line': 'VARCHAR'})) "
            f"TO '{path}' (FORMAT csv, HEADER false, DELIMITER '\x1f', QUOTE '', ESCAPE '', "
            "COMPRESSION zstd)"
        )
    return path


def delimited(delimiter: str, *, header: bool, end: str = "\n") -> str:
    names = [["userId", "movieId", "rating", "timestamp"]] if header else []
    return "".join(
        delimiter.join(map(str, row)) + end for row in [*names, *(list(row) for row in ROWS)]
    )


NDJSON = "".join(
    f'{{"user_id": {u}, "item_id": {i}, "rating": {r}.0, "timestamp": {t}}}\n'
    for u, i, r, t in ROWS
)
TEXTS = {
    "csv": delimited(",", header=True),
    "semicolon": delimited(";", header=True),
    "bar": delimited("|", header=True),
    "tab": delimited("\t", header=True),
    "movielens": delimited("::", header=False),
    "movielens with names": delimited("::", header=True),
    "u.data": delimited("\t", header=False),
    "amazon": delimited(",", header=False),
    "crlf": delimited(",", header=True, end="\r\n"),
    "bom": "\ufeff" + delimited(",", header=True),
    "bom without names": "\ufeff" + delimited("\t", header=False),
    "blank lines": "\n" + delimited(",", header=True) + "\n\n",
    "no last line end": delimited(",", header=True).rstrip(),
    "recbole": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    + delimited("\t", header=False),
    "quoted": delimited('","', header=True).replace("\n", '"\n"').removesuffix('"').join('"'),
    "ndjson": NDJSON,
    "ndjson with blank lines": NDJSON.replace("\n", "\n \n"),
}
TEXTS["quoted"] = "".join(f'"{line}"\n' for line in delimited('","', header=True).split())


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        # A packed file is unpacked before anything looks at its text.
        pytest.param(
            kind,
            packed,
            marks=[] if packed == "none" or kind in ("csv", "bom", "ndjson") else pytest.mark.slow,
        )
        for kind in TEXTS
        for packed in ("none", "gzip", "zstd")
    ],
)
def test_one_log_in_every_format_is_the_same_log(tmp_path: Path, kind: str, packed: str) -> None:
    path = write(tmp_path / "some.parquet", TEXTS[kind])  # names say nothing
    if packed == "gzip":
        path = write(tmp_path / "log.csv", gzip.compress(TEXTS[kind].encode(), mtime=0))
    elif packed == "zstd":
        path = zstd(tmp_path / "log.txt", path)
    log = read(path)
    assert rows_of(log) == [(1, 10, 978301968), (1, 20, 978302109), (2, 30, 978300275),
                            (3, 10, 978300760)]  # fmt: skip
    assert log.time_scope == "global"
    if kind in ("movielens", "u.data", "amazon", "bom without names"):
        columns = "column 1 is the user, column 2 is the item, column 4 is the time"
        assert log.notes == (f"{path}: no header row: {columns}",)
    else:
        assert log.notes == ()
    assert log.users.dtype == log.items.dtype == np.int32
    assert log.times is not None
    assert log.times.dtype == np.int64
    kept = read(path, min_rating=3)
    assert rows_of(kept) == [row for row in rows_of(log) if row[0] != 2]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(tmp_path / "log.csv", TEXTS["csv"])
    duckdb.sql(f"COPY (FROM '{tmp_path}/log.csv') TO '{path}' (FORMAT parquet)")
    assert read(path).fingerprint == read(tmp_path / "log.csv").fingerprint


@pytest.mark.parametrize("folder", ["d[1]*?", "user_id=7", "it's", "/*options*/".replace("/", "")])
def test_a_path_is_no_pattern(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = write(tmp_path / folder / "x[ab].csv", TEXTS["csv"])
    assert len(read(str(path))) == len(read(path)) == 4


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0", str(2**63 - 1), str(-(2**63))], "int"),
        (["1", "007"], "text"),
        (["1", "+1"], "text"),
        (["1", "1.0"], "text"),
        (["1", " 1"], "text"),
        (["1", "-0"], "text"),
        (["1", "1_0"], "text"),
        (["1", "0x1"], "text"),
        (["1", str(2**63)], "text"),
        (["1", "é"], "text"),
    ],
)
def test_text_is_integers_only_if_every_value_survives(
    tmp_path: Path, values: list[str], kind: str
) -> None:
    lines = "".join(f"{value},7\n" for value in values)
    log = read(write(tmp_path / "log.csv", "user,item\n" + lines))
    assert log.user_ids.kind == kind
    assert set(map(str, log.user_ids.values.tolist())) == set(values)
    assert log.item_ids.kind == "int"


def test_the_whole_column_decides_and_not_its_beginning(tmp_path: Path) -> None:
    lines = "".join(f"{k},{k},{k}\n" for k in range(1, 12_000))
    log = read(write(tmp_path / "log.csv", f"user,item,ts\n{lines}x,007,1.5\n"))
    assert (log.user_ids.kind, log.item_ids.kind) == ("text", "text")
    assert rows_of(log)[-1] == ("x", "007", 1_500_000)
    assert rows_of(log)[0] == ("1", "1", 1_000_000)


def test_ids_are_sorted_by_number_or_code_point(tmp_path: Path) -> None:
    text = "user,item\n" + "".join(f"{u},{i}\n" for u, i in zip((10, 9, -1), "aZé", strict=True))
    log = read(write(tmp_path / "log.csv", text))
    assert log.user_ids.values.tolist() == [-1, 9, 10]
    assert log.item_ids.values.tolist() == ["Z", "a", "é"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["5", "-3"], [5, -3]),
        (["5", "007"], [5, 7]),
        (["5.0", "7"], [5, 7]),
        (["1e9", "7"], [10**9, 7]),
        (["1700000000.123456", "2"], [1700000000123456, 2000000]),
        (["1970-01-01", "1970-01-02"], [0, 86_400_000_000]),
        (["1970-01-01T00:00:01Z", "1970-01-01 02:00:00.5+01:00"], [1_000_000, 3_600_500_000]),
        ([str(2**63 - 1), str(2**53 + 1)], [2**63 - 1, 2**53 + 1]),
    ],
)
def test_times(tmp_path: Path, times: list[str], expected: list[int]) -> None:
    text = "user,item,time\n" + "".join(f"{k},1,{t}\n" for k, t in enumerate(times))
    log = read(write(tmp_path / "log.csv", text))
    assert [row[2] for row in rows_of(log)] == expected


def test_the_users_clock_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log.csv", "user,item,time\n1,1,1970-01-01 00:00:01\n")
    monkeypatch.setenv("TZ", "America/New_York")
    assert rows_of(read(path)) == [(1, 1, 1_000_000)]


def test_repeated_pairs_count_once_at_their_earliest_time(tmp_path: Path) -> None:
    text = "user,item,time\n1,a,9\n1,b,5\n1,a,3\n1,c,5\n1,b,5\n"
    log = read(write(tmp_path / "log.csv", text))
    assert rows_of(log) == [(1, "a", 3), (1, "b", 5), (1, "c", 5)]
    assert log.notes == ("2 repeated (user, item) rows removed",)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ids_with_one_hash_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    rows = "".join(f"u{n % 7},item {n % 11},{n}\n" for n in range(100))
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\n" + rows)
    if suffix == "parquet":
        with duckdb.connect() as con:
            con.execute(f"COPY (FROM '{path}') TO '{tmp_path / 'log.parquet'}'")
        path = tmp_path / "log.parquet"
    usual = read(path)
    failed = []

    class Counted(indexing.HashError):
        def __init__(self) -> None:
            failed.append(1)

    monkeypatch.setattr(table, "HASH", "len({0})")
    monkeypatch.setattr(indexing, "HASH", "len({0})")
    monkeypatch.setattr(indexing, "HashError", Counted)
    monkeypatch.setattr(readers, "HashError", Counted)
    log = read(path)
    assert failed
    assert log.fingerprint == usual.fingerprint
    assert log.notes == usual.notes


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"u{n % 7},i{n % 11},{n * 37 % 20},{n % 5}\n" for n in range(100))
    text = "user_id,item_id,timestamp,rating\n" + rows + "u1,i1,x,3\n" + rows
    path = write(tmp_path / "log.csv", text)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(text.encode(), mtime=0))
    usual = read(path, min_rating=2, skip_bad=1)
    monkeypatch.setattr(indexing, "CHUNK_ROWS", 1)  # the number of ids is the least
    for form in (path, packed):
        log = read(form, min_rating=2, skip_bad=1)
        assert log.fingerprint == usual.fingerprint
        assert log.notes == usual.notes


def test_without_times_the_order_is_the_files(tmp_path: Path) -> None:
    text = "user,item\n1,c\n2,x\n1,a\n1,b\n1,c\n"
    log = read(write(tmp_path / "log.csv", text))
    assert rows_of(log) == [(1, "c", None), (1, "a", None), (1, "b", None), (2, "x", None)]
    assert log.time_scope == "none"
    assert "no time column" in log.notes[0]


@pytest.mark.parametrize(
    ("rows", "scope"),
    [
        ("1,a,1\n1,b,0\n2,a,0\n", "per_user"),
        ("1,a,2\n1,b,1\n2,a,1\n", "per_user"),
        ("1,a,0\n1,a,1\n2,a,0\n", "per_user"),  # a repeated pair has its own position
        ("1,a,0\n1,b,1\n2,a,1\n", "global"),  # one user from 0, another from 1
        ("1,a,0\n1,b,0\n2,a,0\n", "global"),
        ("1,a,0\n1,b,2\n2,a,0\n", "global"),
        ("1,a,5\n2,b,6\n", "global"),
    ],
)
def test_positions_are_told_from_clocks(tmp_path: Path, rows: str, scope: str) -> None:
    path = write(tmp_path / "log.csv", "user,item,time\n" + rows)
    assert read(path).time_scope == scope
    assert read(path, time_scope="global").time_scope == "global"
    assert read(path, time_scope="per_user").time_scope == "per_user"
    assert read(path, time_scope="none").times is None


def test_positions_are_those_of_the_raw_rows(tmp_path: Path) -> None:
    text = "user,item,rating,time\n1,a,1,0\n1,b,5,1\n2,a,5,0\n"
    assert read(write(tmp_path / "log.csv", text), min_rating=3).time_scope == "per_user"


def test_low_ratings_are_kept_apart(tmp_path: Path) -> None:
    text = (
        "user,item,rating\n1,a,5\n1,b,2\n1,b,1\n2,b,4\n2,a,1\n2,a,4\n3,a,1\n1,z,1\n2,c,5\n1,c,3.9\n"
    )
    log = read(write(tmp_path / "log.csv", text), min_rating=4)
    assert rows_of(log) == [(1, "a", None), (2, "b", None), (2, "a", None), (2, "c", None)]
    assert log.user_ids.values.tolist() == [1, 2]
    assert log.item_ids.values.tolist() == ["a", "b", "c"]
    assert log.dropped_users.tolist() == [0, 0]
    assert log.dropped_items.tolist() == [1, 2]
    assert "6 rows rated below 4 removed" in log.notes


def test_limits_hold_together(tmp_path: Path) -> None:
    pairs = ["1,a", "1,b", "2,a", "2,b", "2,b", "3,a", "3,c", "4,c"]
    path = write(tmp_path / "log.csv", "user,item\n" + "\n".join(pairs))
    log = read(path, min_user_interactions=2, min_item_interactions=2)
    # user 4 goes, then item c, then user 3
    assert rows_of(log) == [(1, "a", None), (1, "b", None), (2, "a", None), (2, "b", None)]
    assert "2 users and 1 items" in log.notes[-1]
    with pytest.raises(DataError, match="no interaction is left"):
        read(path, min_user_interactions=9)


def test_limits_apply_to_dropped_pairs(tmp_path: Path) -> None:
    text = "user,item,rating\n1,a,5\n1,b,5\n2,a,5\n2,b,1\n1,c,1\n2,c,5\n3,b,5\n3,a,1\n3,c,5\n"
    log = read(write(tmp_path / "log.csv", text), min_rating=4, min_item_interactions=2)
    ids = log.user_ids.external(log.dropped_users), log.item_ids.external(log.dropped_items)
    assert [list(side) for side in ids] == [[1, 2, 3], ["c", "b", "a"]]


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = np.column_stack(
        [rng.integers(0, 50, 3000), rng.integers(0, 80, 3000), rng.permutation(3000)]
    )
    prints = set()
    for _ in range(3):
        lines = "".join(f"u{u},{i},{t}\n" for u, i, t in rng.permutation(table).tolist())
        prints.add(read(write(tmp_path / "log.csv", "user,item,time\n" + lines)).fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize("row", ["1,7", "x,y"])
def test_one_user_or_one_item_is_a_log(tmp_path: Path, row: str) -> None:
    log = read(write(tmp_path / "log.csv", f"user,item\n{row}\n"))
    assert (log.n_users, log.n_items, len(log)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("header", "asked", "chosen"),
    [
        ("UserID,SKU,ts", {}, "010203"),
        ("customer_id,ASIN,Unix-Review-Time", {}, "010203"),
        ("a,b,c", {"user": "a", "item": "b", "time": "c"}, "010203"),
        ("A,b,C", {"user": "a", "item": "B", "time": "c"}, "010203"),
        ("c,user_id,item_id", {"user": "C"}, "0103"),
        ("user_id,uid,item_id", {}, "0103"),
        ("timestamp,item_id:token,user_id:token", {"item": "item_id"}, "030201"),
    ],
)
def test_columns(tmp_path: Path, header: str, asked: dict[str, str], chosen: str) -> None:
    log = read(write(tmp_path / "log.csv", f"{header}\n01,02,03\n"), **asked)  # type: ignore[arg-type]
    (row,) = rows_of(log)
    told = f"{row[0]}{row[1]}" + ("" if row[2] is None else f"{row[2]:02d}")
    assert told == chosen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\t2\n3\t4\n", [(1, 2, None), (3, 4, None)]),
        ("a::b\nc::d\n", [("a", "b", None), ("c", "d", None)]),
        ("1,2\n", [(1, 2, None)]),
        ("1\t2\t4.5\n3\t4\t1\n", [(1, 2, None), (3, 4, None)]),
        ("1\t2\t978300760\n3\t4\t978300761\n", [(1, 2, 978300760), (3, 4, 978300761)]),
        ("a,b,2020-01-01\n", [("a", "b", 1577836800000000)]),
        ("A1,B2,5.0,1019865600\n", [("A1", "B2", 1019865600)]),
    ],
)
def test_without_a_header_row(
    tmp_path: Path, text: str, expected: list[tuple[object, ...]]
) -> None:
    assert rows_of(read(write(tmp_path / "log", text))) == expected


def test_columns_of_a_file_without_header_row_go_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "log", "9,1,2,3,4\n9,3,4,5,6\n")
    assert rows_of(read(path, user="3", item="2")) == [(2, 1, None), (4, 3, None)]


def test_what_was_guessed_about_columns_is_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log", "customer,product,sku,date\n1,7,3,2020-01-01\n2,7,4,2020-01-02\n"
    )
    (note,) = read(path).notes
    assert note == (
        f"{path}: the item is column 'product'; 'sku' could be it too: name it with item=…"
    )
    assert read(path, item="sku").notes == ()
    rated = write(tmp_path / "rated", "user,item,rating,score,time\n1,7,3,4,5\n")
    assert read(rated).notes == ()  # no rating is read
    assert "'score' could be it too" in read(rated, min_rating=1).notes[0]
    swapped = write(tmp_path / "swapped", "a,1,5,978301968\nb,2,4,978301969\n")
    assert read(swapped).notes == (
        f"{swapped}: no header row: column 1 is the user, column 2 is the item, column 4 is the "
        "time",
    )
    told = read(swapped, user="2", item="1").notes
    assert told == (f"{swapped}: no header row: column 4 is the time",)


def test_text_without_a_header_row_can_be_had_by_number(tmp_path: Path) -> None:
    path = write(tmp_path / "log", "alice,apple,red\nbob,pear,green\n")
    log = read(path, user="1", item="2")
    assert log.user_ids.values.tolist() == ["alice", "bob"]
    assert log.item_ids.values.tolist() == ["apple", "pear"]
    assert "its first row was taken as data" in log.notes[0]
    named = write(tmp_path / "named", "who,what\n1,2\n3,4\n")
    with pytest.raises(DataError, match="no column '1'; known: who, what"):
        read(named, user="1", item="2")


def test_an_id_may_be_a_well_known_name_where_columns_are_asked_for_by_number(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "log", "alice,movie,1600000000\nbob,song,1600000001\n")
    log = read(path, user=1, item=2, time=3)
    assert rows_of(log) == [("alice", "movie", 1600000000), ("bob", "song", 1600000001)]


def test_a_blank_behind_each_delimiter_is_no_part_of_an_id(tmp_path: Path) -> None:
    padded = read(write(tmp_path / "log", "user_id, item_id, time\n1, 10, 5\n2, 11, 6\n"))
    assert rows_of(padded) == [(1, 10, 5), (2, 11, 6)]
    some = read(write(tmp_path / "some", "user_id,item_id\n1, a\n2,a\n"))
    assert some.item_ids.values.tolist() == [" a", "a"]
    first = read(write(tmp_path / "first", "user_id, item_id\n a, x\na, y\n"))
    assert first.user_ids.values.tolist() == [" a", "a"]
    text = '"user_id", "item_id", "time"\n"1", "10", "5"\n"2", "1,1", "6"\n'
    quoted = read(write(tmp_path / "quoted", text))
    assert rows_of(quoted) == [(1, "10", 5), (2, "1,1", 6)]


def test_json_members(tmp_path: Path) -> None:
    lines = [
        '{"user": {"x": 1}, "uid": "7", "a/b~c\'s": 1.0, "ts": "2020-01-01"}',
        '{"uid": 8, "extra": [1], "a/b~c\'s": "2", "ts": "2020-01-01T00:00:00"}',
    ]
    path = write(tmp_path / "log", "\n".join(lines))
    log = read(path, user="uid", item="a/b~c's")
    assert rows_of(log) == [(7, 1, 1577836800000000), (8, 2, 1577836800000000)]


def test_quotes_hold_delimiters_and_line_ends(tmp_path: Path) -> None:
    text = 'user,item,time\n"a,""b""","x\ny",1\n"c","z",2\n'
    log = read(write(tmp_path / "log.csv", text))
    assert rows_of(log) == [('a,"b"', "x\ny", 1), ("c", "z", 2)]


def test_threads_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = "".join(f"{u},{i}\n" for u, i in rng.integers(0, 999, (300_000, 2)).tolist())
    path = write(tmp_path / "log.csv", "user,item\n" + lines)
    one, two = read(path, threads=1), read(path, threads=2)
    assert one.fingerprint == two.fingerprint
    seen: dict[int, dict[int, None]] = {}
    for line in lines.split():
        u, i = line.split(",")
        seen.setdefault(int(u), {})[int(i)] = None
    assert rows_of(one) == [(u, i, None) for u in sorted(seen) for i in seen[u]]


@pytest.mark.parametrize("name", ["bought_on", "paidAt", "purchase-date", "Sent Day", "seen_ts"])
def test_a_column_that_may_hold_times_is_named(tmp_path, name):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,{name}\n1,2,5\n1,3,6\n")
    (note,) = (note for note in read(path).notes if "no time column" in note)
    assert note.endswith(f"if '{name}' holds times, name it with time=…")
    assert not [note for note in read(path, time=name).notes if "time" in note]


@pytest.mark.parametrize("name", ["station", "concert", "format", "on"])
def test_other_columns_are_not_taken_for_times(tmp_path, name):
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,{name}\n1,2,5\n1,3,6\n")
    assert "no time column: rows count in the order of the file" in read(path).notes


# These logs are odd on purpose; their warnings have tests of their own.

HEAD = b"user,item,ts\n1,a,10\n2,b,20\n"


def refused(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "log.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"3,c,xx", "log.csv, line 4, column 'ts': 'xx' is not a time"),
        (b"3,c,", "log.csv, line 4, column 'ts': is empty"),
        (b"3,,30", "log.csv, line 4, column 'item': is empty"),
        (b",c,30", "log.csv, line 4, column 'user': is empty"),
        (b'"",c,30', "log.csv, line 4, column 'user': is empty"),
        (b"3,c", "log.csv, line 4: has fewer than 3 columns"),
        (b"3,c,30,40", "log.csv, line 4: has more than 3 columns"),
        (b"3,\xff\xfe,30", "log.csv, line 4, column 'item': is not UTF-8"),
        (b"3,c,99999999999999999999", "'99999999999999999999' is beyond 64 bits"),
        (b"3,c,nan", "log.csv, line 4, column 'ts': 'nan' is not a time"),
        (b"3,c,2020-01-01", "log.csv, line 4, column 'ts': '2020-01-01' is not a time"),
        (b'3,"c"x,30', "log.csv, line 4: has a quote that is not closed"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path: Path, row: bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD + row + b"\n4,d,40\n")
    told = refused(path)
    assert told.startswith(message) or message in told
    assert "; fix it" in told
    assert told.endswith("or pass skip_bad=1")
    log = read(path, skip_bad=1)
    assert log.user_ids.values.tolist() == [1, 2, 4]
    assert len(log.notes) == 1
    assert log.notes[0].startswith("1 bad row skipped: line 4")


def test_a_word_for_no_id_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item\n1,a\nNULL,b\n2,\\N\nNULL,c\n2,Nullify\n")
    log = read(path)
    assert log.user_ids.values.tolist() == ["1", "2", "NULL"]
    assert log.notes[:2] == (
        "'NULL' counts as user id, with 2 rows; if it means a missing id, drop these rows",
        "'\\N' counts as item id, with 1 rows; if it means a missing id, drop these rows",
    )


def test_the_number_of_bad_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD + b"x,y\n3,c,xx\n4,d,,\n5,e,50\n")
    assert refused(path) == (
        "log.csv, line 4: has fewer than 3 columns; 3 rows are bad; fix them, or pass skip_bad=3"
    )
    assert refused(path, skip_bad=2).endswith("skip_bad=3")
    assert len(read(path, skip_bad=3)) == 3


def test_a_bad_row_does_not_decide_the_type_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item,ts\n1,5,10\nuser,item,ts\n2,6,20\n")
    log = read(path, skip_bad=1)
    assert (log.user_ids.kind, log.item_ids.kind) == ("int", "int")


@pytest.mark.parametrize("packed", ["none", "gzip", "zstd"])
def test_lines_are_physical_lines(tmp_path: Path, packed: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\nuser,item,ts\n\n1,"a\nb",10\n\n2,b,20\n3,"c\n\nd",xx\n')
    if packed == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    elif packed == "zstd":
        path.write_bytes(zstd_library.compress(path.read_bytes()))
    assert "line 8, column 'ts': 'xx'" in refused(path)


def test_lines_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [f"{k},{k % 7},{k}" for k in range(1, 300_001)]
    lines[234_567] = "5,6"
    path.write_text("user,item,ts\n" + "\n".join(lines))
    assert "line 234569: has fewer than 3 columns" in refused(path)
    lines[123_456] = "5,6,seven"
    path.write_text("user,item,ts\n" + "\n".join(lines))
    told = refused(path)
    assert "line 123458, column 'ts': 'seven' is not a time; 2 rows are bad" in told


def test_line_ends_may_be_mixed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD + b"3,c,30\r\n")
    assert read(path).item_ids.values.tolist() == ["a", "b", "c"]
    path.write_bytes(HEAD.replace(b"\n", b"\r\n") + b"3,c,30\n")
    assert read(path).times.tolist() == [10, 20, 30]


def test_a_bare_cr_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD + b"3,c\rd,30\n4,e,40\n")
    assert "line 4: holds a CR that does not end the line; fix it" in refused(path)
    assert read(path, skip_bad=1).item_ids.values.tolist() == ["a", "b", "e"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_quoted_line_ends_may_differ(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD.replace(b"\n", end) + b'3,"c\nd\r\ne\rf",30' + end)
    assert read(path).item_ids.values.tolist() == ["a", "b", "c\nd\r\ne\rf"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"user": 3, "item": "c", "ts": 3', "line 3: is not a JSON object"),
        (b"nonsense", "line 3: is not a JSON object"),
        (b'{"user": 3, "item": "c"}', "line 3, column 'ts': is missing"),
        (b'{"user": null, "item": "c", "ts": 3}', "line 3, column 'user': is missing"),
        (b'{"user": [3], "item": "c", "ts": 3}', "line 3, column 'user': is missing"),
        (b'{"user": 3.5, "item": "c", "ts": 3}', "line 3, column 'user': 3.5 has a fraction"),
        (b'{"user": true, "item": "c", "ts": 3}', "line 3, column 'user'"),
        (b'{"user": 3, "item": "", "ts": 3}', "line 3, column 'item': is"),
        (b'{"user": 3, "item": "\xff", "ts": 3}', "line 3, column 'item': is not UTF-8"),
        (b'{"user": 3, "item": "c", "ts": "xx"}', "line 3, column 'ts': 'xx' is not a time"),
        (b'[{"user": 3, "item": "c", "ts": 3}]', "line 3: is not a JSON object"),
        (b'{"user": 3, "item": "\x1f", "ts": 3}', "line 3: is not a JSON object"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "log.csv"
    good = b'{"user": %d, "item": "a", "ts": 1}\n'
    path.write_bytes(good % 1 + b"\n" + line + b"\n" + good % 2)
    assert refused(path).startswith("log.csv, " + message)
    log = read(path, skip_bad=1)
    assert log.user_ids.values.tolist() == [1, 2]


def test_an_unclosed_quote_spoils_its_own_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD + b'3,"c,30\n' + b"4,d,40\n" * 50 + b"5,e,50\n")
    assert "line 4: has a quote that is not closed; fix it, say how quotes" in refused(path)
    log = read(path, skip_bad=1)
    assert log.user_ids.values.tolist() == [1, 2, 4, 5]
    assert log.notes[0] == "1 bad row skipped: line 4: has a quote that is not closed"


FILES = {
    "empty": (b"", "log.csv: is empty"),
    "blank": (b" \n\n", "log.csv: is empty"),
    "header only": (b"user_id,item_id\n", "log.csv: has no rows"),
    "one column": (b"user\n1\n2\n", "log.csv: has one column"),
    "utf-16": ("user,item\n1,2\n".encode("utf-16"), "log.csv: is UTF-16"),
    "utf-16 without a mark": ("user,item\n1,2\n".encode("utf-16-le"), "log.csv: holds NUL"),
    "binary": (bytes(range(256)) * 9, "log.csv: holds NUL"),
    "late NUL": (b"user,item\n1,2\n3,\x00\n", "log.csv: holds NUL"),
    "later NUL": (b"user,item\n" + b"1,2\n" * 99_999 + b"3,\x00\n", "NUL"),
    "zip": (b"PK\x03\x04....", "log.csv: is a zip archive"),
    "bzip2": (b"BZh91AY", "log.csv: is a truncated bzip2 file"),
    "parquet magic": (b"PAR1" + bytes(50), "log.csv: cannot be read"),
    "truncated gzip": (gzip.compress(HEAD, mtime=0)[:-9], "log.csv: is a truncated gzip file"),
    "gzip without its end": (
        gzip.compress(HEAD, mtime=0)[:-4],
        "log.csv: is a truncated gzip file",
    ),
    "gzip magic": (b"\x1f\x8b", "gzip file"),
    "damaged gzip": (
        gzip.compress(HEAD, mtime=0)[:-6] + b"xxxxxx",
        "log.csv: is a damaged gzip file",
    ),
    "gzip of nothing": (gzip.compress(b"", mtime=0), "log.csv: is empty"),
    "zstd magic": (b"\x28\xb5\x2f\xfd", "log.csv: is a truncated zstd file"),
    "JSON array": (b'[{"user": 1, "item": 2}]', "log.csv: is a JSON array"),
    "JSON list of lines": (b'[\n{"user": 1, "item": 2}\n]', "log.csv: is a JSON array"),
    "pretty JSON": (b'{\n  "user": 1,\n  "item": 2\n}', "log.csv, line 1: is not a JSON object"),
    "carriage returns": (b"user,item\r1,2\r3,4\r", "log.csv: lines end in CR alone"),
    "five columns": (b"1\t2\t3\t4\t5\n", "log.csv: has 5 columns and no header row"),
    "third column": (b"1\t2\t12345\n", "log.csv: has 3 columns and no header row"),
    "text only": (b"alice,bread\nbob,milk\n", "log.csv: cannot tell whether its first row"),
    "prose": (b"Dear all,\nthis is a letter.\nRegards\n", "log.csv"),
    "bad UTF-8 alone": (b"\xff\xff\n\xff\n", "log.csv"),
}


@pytest.mark.parametrize("kind", FILES)
def test_unreadable_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.csv"
    data, message = FILES[kind]
    path.write_bytes(data)
    assert message in refused(path)


def test_a_truncated_zstd_file_is_refused_at_every_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT range AS user, hash(range) AS item FROM range(30_000)) TO '{path}' "
            "(FORMAT csv, COMPRESSION zstd)"
        )
    whole = path.read_bytes()
    assert len(read(path)) == 30_000
    for cut in [*range(4, 30), len(whole) // 2, *range(len(whole) - 9, len(whole))]:
        path.write_bytes(whole[:cut])
        assert "truncated zstd" in refused(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path).endswith("has no files with data")
    assert "cannot be opened" in refused(tmp_path / ("x" * 300))
    assert refused(tmp_path / "a\0b").endswith(r"a\x00b: no such file")
    assert refused(tmp_path / "none.csv") == "log.csv: no such file"


@pytest.mark.parametrize("doubled", ["user,item,item,ts", "user,user,item,ts"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, doubled: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{doubled}\n1,2,3,4\n")
    assert "two columns are named '" in refused(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user": "usr"}, "no column 'usr'; did you mean 'user'?"),
        ({"item": "zzzzzz"}, "no column 'zzzzzz'; known: user, item, ts"),
        ({"user": "item", "item": "item"}, "column 'item' is both user and item"),
        ({"min_rating": 3}, "has no rating column for min_rating=…; name it with rating=…"),
        ({"min_rating": float("nan")}, "min_rating is nan"),
        ({"rating": "item", "item": "ts", "min_rating": 3}, "line 2, column 'item': 'a' is not a"),
        ({"time_scope": "sometimes"}, "time_scope is 'sometimes'"),
        ({"min_rating": 9, "rating": "ts", "time_scope": "none", "min_user_interactions": 2},
         "no interaction is left"),
        ({"min_rating": 99, "rating": "ts"}, "no interaction is left"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEAD)
    assert re.search(re.escape(message), refused(path, **options))


def test_numbers_of_columns_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"1\t2\n")
    assert "without a header row; columns are numbered" in refused(path, user="name")
    np.testing.assert_equal(read(path, user="2", item="1").user_ids.values, [2])


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    duckdb.sql(
        "COPY (FROM (VALUES (1, 'a', 1.5), (2, NULL, 2.5), (3, 'c', 'NaN'::DOUBLE)) "
        f"v(user_id, item_id, ts)) TO '{path}' (FORMAT parquet)"
    )
    assert refused(path) == (
        "log.csv, row 2, column 'item_id': is empty; 2 rows are bad; fix them, or pass skip_bad=2"
    )
    assert len(read(path, skip_bad=2)) == 1
    data = path.read_bytes()
    for cut in (8, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        refused(path)


def test_a_broken_quote_hides_no_line_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [b'"user","item"', b'"0","0"', b'"1","1"\r","0"', b'"2","2"', b'"x","3"']
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    told = refused(path)
    count = int(told.rpartition("=")[2])
    assert len(read(path, skip_bad=count)) >= 3


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "odd", ["", "u1,i1,3\n\n", '"u\n1",i1,3\n', '"u1",i1,3\n', "u1,i1\n", "u1,i1,2,3\n", "\n\n"]
)
@pytest.mark.parametrize("bad", ["u1,i1,never\n", "u1\n", "u1,,4\n", 'u1,i1,"4\n'])
def test_passing_over_plain_lines_changes_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, odd: str, bad: str
) -> None:
    plain = "".join(f"u{n % 7},i{n % 11},{n}\n" for n in range(100))
    text = f"user_id,item_id,timestamp\n{plain}{odd}{plain}{bad}{plain}"
    path = tmp_path / "log.csv"
    path.write_bytes(text.replace("\n", end).encode())
    compared = []

    def told(rows: table.LogTable) -> DataError:
        usual = bad_rows.too_many(rows)  # the file is smaller than a block
        for size in (1, 30, 200):
            with monkeypatch.context() as blocks:
                blocks.setattr(bad_rows, "BLOCK_BYTES", size)
                assert str(bad_rows.too_many(rows)) == str(usual), size
            compared.append(size)
        return usual

    monkeypatch.setattr(readers, "too_many", told)
    refused(path)
    assert compared == [1, 30, 200]
