"""Bad rows and unreadable files: one line that says what, where and what to do."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest

from comet_rec.errors import DataError
from comet_rec.reading import bad_rows
from comet_rec.reading.files import zstd
from comet_rec.reading.readers import read

# These logs are odd on purpose; their warnings have tests of their own.
pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")

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
        path.write_bytes(zstd.compress(path.read_bytes()))
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


@pytest.mark.parametrize("size", [1, 30, 200])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "odd", ["", "u1,i1,3\n\n", '"u\n1",i1,3\n', '"u1",i1,3\n', "u1,i1\n", "u1,i1,2,3\n", "\n\n"]
)
@pytest.mark.parametrize("bad", ["u1,i1,never\n", "u1\n", "u1,,4\n", 'u1,i1,"4\n'])
def test_passing_over_plain_lines_changes_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, end: str, odd: str, bad: str
) -> None:
    plain = "".join(f"u{n % 7},i{n % 11},{n}\n" for n in range(100))
    text = f"user_id,item_id,timestamp\n{plain}{odd}{plain}{bad}{plain}"
    path = tmp_path / "log.csv"
    path.write_bytes(text.replace("\n", end).encode())
    with pytest.raises(DataError) as usual:  # the file is smaller than a block
        read(path)
    monkeypatch.setattr(bad_rows, "BLOCK_BYTES", size)
    with pytest.raises(DataError) as blocks:
        read(path)
    assert str(blocks.value) == str(usual.value)
