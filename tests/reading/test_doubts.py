"""Numbers as ids, times of two units, encodings, packings: exact, told, or refused."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import json
import lzma
import os
import pickle
import random
import sqlite3
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import comet_rec as cr
from comet_rec.data.clock import doubtful_times
from comet_rec.errors import CometWarning
from comet_rec.evaluation.audit import audit
from comet_rec.reading.files import zstd
from tests.reading.helpers import refusal, write

CSV = b"user,item,ts\n1,a,10\n1,b,20\n2,a,30\n"


class TestNumbersAsIds:
    @pytest.mark.parametrize(
        ("bits", "dtype"), [(11, np.float16), (24, np.float32), (53, np.float64)]
    )
    @pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "parquet"])
    def test_floats_are_exact_up_to_their_bits(
        self, tmp_path: Path, bits: int, dtype: Any, form: str
    ) -> None:
        def source(values: list[float]) -> Any:
            table = pa.table({"user": np.array(values, dtype=dtype), "item": [1] * len(values)})
            if form == "arrow":
                return table
            if form == "polars":
                return pl.from_arrow(table)
            if form == "parquet":
                pq.write_table(table, tmp_path / "log.parquet")
                return tmp_path / "log.parquet"
            return pd.DataFrame({"user": np.array(values, dtype=dtype), "item": [1] * len(values)})

        most = float(2**bits)
        with pytest.warns(CometWarning, match="largest exact float"):
            log = cr.read(source([7.0, most]))
        assert log.user_ids.values.tolist() == [7, 2**bits]
        told = refusal(source([7.0, most * 2]))
        assert "row 2, column 'user'" in told
        assert f"2^{bits}" in told

    @pytest.mark.parametrize("value", [Decimal("7"), Decimal("7.00")])
    def test_decimals_are_exact_integers_of_any_size(self, tmp_path: Path, value: Decimal) -> None:
        table = pa.table({"user": pa.array([value, value + 1]), "item": [1, 2]})
        pq.write_table(table, tmp_path / "log.parquet")
        for source in (table, tmp_path / "log.parquet", table.to_pandas(), pl.from_arrow(table)):
            assert cr.read(source).user_ids.values.tolist() == [7, 8]
        big = pa.table({"user": pa.array([Decimal(10**30), Decimal(5)]), "item": [1, 2]})
        for source in (big, big.to_pandas()):
            assert cr.read(source).user_ids.values.tolist() == ["1" + "0" * 30, "5"]

    def test_a_decimal_with_a_fraction_is_refused(self) -> None:
        table = pa.table({"user": pa.array([Decimal("7.50"), Decimal("8.00")]), "item": [1, 2]})
        assert "'7.50': ids are integers or text" in refusal(table)

    def test_json_integers_of_any_size_are_exact(self, tmp_path: Path) -> None:
        rows = [{"user_id": 10**n, "item_id": n} for n in (3, 18, 19, 30)]
        path = write(tmp_path / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        assert set(cr.read(path).user_ids.values.tolist()) == {str(10**n) for n in (3, 18, 19, 30)}
        five_thousand = '{"user_id": ' + "9" * 5000 + ', "item_id": 1}\n'
        path = write(tmp_path / "log.jsonl", five_thousand * 2)
        assert cr.read(path).user_ids.values.tolist() == ["9" * 5000]

    def test_json_floats_that_are_integers_are_integers(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.jsonl", '{"user_id": 7.0, "item_id": 1e2}\n' * 2)
        log = cr.read(path)
        assert (log.user_ids.values.tolist(), log.item_ids.values.tolist()) == ([7], [100])
        path = write(tmp_path / "log.jsonl", '{"user_id": 7.5, "item_id": 1}\n' * 2)
        assert "line 1, column 'user_id': 7.5" in refusal(path)

    @pytest.mark.parametrize(
        ("name", "text", "shown"),
        [
            ("log.csv", "user,item\n7,a\n7.0,b\n8,c\n", "'7' and '7.0'"),
            ("log.csv", "user,item\n7,a\n007,b\n8.,c\n", "'007' and '7'"),
            (
                "log.jsonl",
                '{"user": 7, "item": 1}\n{"user": 7.0, "item": 2}\n',
                "integers and floats (7 and 7.0)",
            ),
        ],
    )
    def test_two_spellings_of_a_number_are_shown(
        self, tmp_path: Path, name: str, text: str, shown: str
    ) -> None:
        with pytest.warns(CometWarning) as caught:
            cr.read(write(tmp_path / name, text))
        assert any(shown in str(warning.message) for warning in caught)


class TestTimes:
    NOW = 1_700_000_000.0

    @pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
    def test_times_of_one_unit_are_in_order(self, unit: int) -> None:
        times = np.arange(1_400_000_000, 1_700_000_000, 10**6, dtype=np.int64) * unit
        assert doubtful_times(times, now=self.NOW) == []

    @pytest.mark.parametrize("unit", [10**3, 10**6, 10**9])
    def test_times_of_two_units_are_counted(self, unit: int) -> None:
        times = np.array([1_500_000_000] * 8 + [1_500_000_001 * unit] * 2, dtype=np.int64)
        (doubt,) = doubtful_times(times, now=self.NOW)
        assert (doubt.kind, doubt.count, doubt.example) == ("units", 2, 1_500_000_001 * unit)
        assert "8 in seconds" in doubt.message

    def test_the_future_and_the_past_are_counted(self) -> None:
        times = np.array([1_500_000_000] * 8 + [4_000_000_000, 0, -5], dtype=np.int64)
        future, past = doubtful_times(times, now=self.NOW)
        assert (future.kind, future.count, future.example) == ("future", 1, 4_000_000_000)
        assert (past.kind, past.count) == ("past", 2)

    @pytest.mark.parametrize("times", [[], [0, 1, 2], [-3, 4], [20240501, 20240502]])
    def test_small_numbers_are_no_unix_times(self, times: list[int]) -> None:
        assert doubtful_times(np.array(times, dtype=np.int64), now=self.NOW) == []

    def test_a_warning_at_reading_and_a_finding_in_the_audit(self, tmp_path: Path) -> None:
        rows = "".join(f"{n % 5},{n},{1_500_000_000 + n}\n" for n in range(40))
        rows += "".join(f"{n},{90 + n},{(1_500_000_050 + n) * 1000}\n" for n in range(5))
        path = write(tmp_path / "log.csv", "user,item,time\n" + rows + "0,99,-1\n")
        with pytest.warns(CometWarning) as caught:
            log = cr.read(path)
        told = [str(warning.message) for warning in caught]
        assert any("more than one unit: 40 in seconds" in text for text in told)
        assert any("1 of 46 times are before 1973" in text for text in told)
        found = {finding.check: finding for finding in audit(log)}
        assert (found["times-units"].severity, found["times-units"].count) == ("warning", 5)
        assert found["times-past"].count == 1

    def test_dates_of_another_century_warn(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "log.csv",
            "user,item,time\n1,1,2020-01-01\n1,2,1900-01-01\n1,3,2020-01-02\n1,4,9999-12-31\n",
        )
        with pytest.warns(CometWarning) as caught:
            cr.read(path)
        told = " ".join(str(warning.message) for warning in caught)
        assert "more than a year in the future" in told
        assert "before 1970" in told


class TestNothingVanishes:
    def test_a_line_above_8_mb_is_a_bad_row_with_its_line(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "log.csv",
            b"user,item,text\n1,a,x\n2,b," + b"y" * 40_000_000 + b"\n3,c,z\n",
        )
        assert "line 3: is longer than 8 MB; fix it, or pass skip_bad=1" in refusal(path)
        log = cr.read(path, skip_bad=1)
        assert log.user_ids.values.tolist() == [1, 3]
        assert log.notes[0] == "1 bad row skipped: line 3: is longer than 8 MB"

    def test_a_long_line_of_text_that_nobody_asked_for_is_a_row(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "log.csv", b"user,item,text\n1,a,x\n2,b," + b"y" * 3_000_000 + b"\n3,c,z\n"
        )
        assert cr.read(path).user_ids.values.tolist() == [1, 2, 3]

    def test_an_open_quote_before_many_rows_loses_one_row(self, tmp_path: Path) -> None:
        rows = "".join(f"{n},i{n},{n}\n" for n in range(200_000))
        path = write(tmp_path / "log.csv", f'user,item,ts\n0,"open,5\n{rows}')
        log = cr.read(path, skip_bad=1)
        assert len(log) == 200_000
        assert log.notes[0] == "1 bad row skipped: line 2: has a quote that is not closed"

    def test_skipped_rows_are_told_with_their_lines(self, tmp_path: Path) -> None:
        rows = "".join(f"{n},{n},{n}\n" for n in range(100))
        path = write(tmp_path / "log.csv", f"user,item,ts\n{rows}x\n5,6,never\n,7,8\n{rows}")
        log = cr.read(path, skip_bad=3)
        assert log.notes[0] == (
            "3 bad rows skipped: line 102: has fewer than 3 columns; line 103, column 'ts': "
            "'never' is not a time; line 104, column 'user': is empty"
        )

    @pytest.mark.parametrize("rows", [1, 30, 300_000])
    def test_every_line_is_a_row_or_a_bad_row(self, tmp_path: Path, rows: int) -> None:
        lines = [f"{n},{n}" if n % 7 else f"{n}" for n in range(1, rows + 1)]
        path = write(tmp_path / "log.csv", "user,item\n" + "\n".join(lines))
        short = sum("," not in line for line in lines)
        assert len(cr.read(path, skip_bad=short)) == rows - short
        if short:
            refusal(path, skip_bad=short - 1)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "two gzip members": lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]),
    "padded gzip": lambda data: gzip.compress(data) + b"\0" * 512,
    "named gzip": lambda data: _named_gzip(data),
    "zstd": lambda data: zstd.compress(data),
    "two zstd frames": lambda data: zstd.compress(data[:20]) + zstd.compress(data[20:]),
    "zstd behind a skippable frame": lambda data: (
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstd.compress(data)
    ),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}
ARCHIVES = {
    "tar": "a tar archive",
    "tar.gz": "a tar archive",
    "zip": "a zip archive",
    "xlsx": "an Excel workbook",
    "pickle": "a pickle",
    "npy": "a NumPy array",
    "sqlite": "an SQLite database",
    "arrow": "an Arrow IPC (Feather) file",
    "arrows": "an Arrow IPC stream",
}


class TestPackings:
    @pytest.mark.parametrize("packing", PACK)
    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    def test_what_the_ordinary_tools_unpack_is_read(
        self, tmp_path: Path, packing: str, end: bytes
    ) -> None:
        text = CSV + 'ř,"日\r本",40\n😀,"a ""b""",50\n'.encode()
        data = text.replace(b"\r\n", b"\n").replace(b"\n", end)
        plain = cr.read(write(tmp_path / "log.csv", data))
        log = cr.read(write(tmp_path / "log", PACK[packing](data)))
        assert log.fingerprint == plain.fingerprint
        assert "😀" in log.user_ids.values.tolist()

    @pytest.mark.parametrize("packing", ["gzip", "zstd", "bzip2", "xz"])
    @pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
    def test_a_cut_or_damaged_file_is_refused(
        self, tmp_path: Path, packing: str, where: float
    ) -> None:
        text = b"user,item\n" + random.Random(0).randbytes(3000).hex().encode() + b",1\n"
        data = _checked_zstd(text) if packing == "zstd" else PACK[packing](text)
        at = int(len(data) * where)
        assert f"is a truncated {packing}" in refusal(write(tmp_path / "log", data[:at]))
        broken = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        refusal(write(tmp_path / "log", broken))

    @pytest.mark.parametrize("packing", ["gzip", "zstd", "bzip2", "xz"])
    def test_a_bomb_is_refused_before_it_fills_a_disk(self, tmp_path: Path, packing: str) -> None:
        bomb = PACK[packing](bytes(100 << 20))
        assert "without a line end" in refusal(write(tmp_path / "log", bomb))

    def test_a_bomb_of_lines_is_refused(self, tmp_path: Path) -> None:
        bomb = zstd.compress(b"1,2\n" * (20 << 20))
        assert "unpack to over" in refusal(write(tmp_path / "log", bomb))

    @pytest.mark.parametrize("kind", ARCHIVES)
    def test_what_is_no_log_is_named(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"log.{kind}"
        _archive(path, kind)
        assert f"is {ARCHIVES[kind]}" in refusal(path)


def _checked_zstd(data: bytes) -> bytes:
    """With a checksum, without which a changed literal is no damage that anyone could see."""
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def _named_gzip(data: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(filename="ratings.csv", mode="wb", fileobj=out, mtime=1) as file:
        file.write(data)
    return out.getvalue()


def _archive(path: Path, kind: str) -> None:
    table = pa.table({"user": [1, 2], "item": [3, 4]})
    member = path.with_name("log.csv")
    member.write_bytes(CSV)
    if kind.startswith("tar"):
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(member, "log.csv")
    elif kind in ("zip", "xlsx"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(member, "xl/workbook.xml" if kind == "xlsx" else "log.csv")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"user": [1, 2], "item": [3, 4]}))
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), np.zeros((3, 2)))
    elif kind == "sqlite":
        with sqlite3.connect(path) as con:
            con.execute("CREATE TABLE log (user, item)")
    elif kind == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)


NAMES = {
    "latin-1": "Björk",
    "cp1252": "“Björk” €",
    "gbk": "中文歌曲",
    "shift_jis": "日本語",
    "utf-16": "日本 😀",
    "utf-16-le": "日本",
}


class TestEncodings:
    @pytest.mark.parametrize("encoding", NAMES)
    def test_a_named_encoding_is_read(self, tmp_path: Path, encoding: str) -> None:
        name = NAMES[encoding]
        text = "user,item\n" + f"1,{name}\n2,b\n" * 3
        path = write(tmp_path / "log.csv", text.encode(encoding))
        assert cr.read(path, encoding=encoding).item_ids.values.tolist() == sorted(["b", name])
        packed = write(tmp_path / "log.csv.gz", gzip.compress(text.encode(encoding)))
        assert cr.read(packed, encoding=encoding).item_ids.values.tolist() == sorted(["b", name])

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "utf-16", "utf-16-le"])
    def test_what_is_not_utf_8_names_the_option(self, tmp_path: Path, encoding: str) -> None:
        text = f"user,item\n1,{NAMES[encoding]}\n"
        assert "encoding=" in refusal(write(tmp_path / "log.csv", text.encode(encoding)))

    def test_a_wrong_encoding_is_told_with_its_line(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", b"user,item\n1,a\n2,\xff\xfe\x81\n")
        assert "line 3: is not shift_jis" in refusal(path, encoding="shift_jis")
        assert "'nonsense' is no encoding" in refusal(path, encoding="nonsense")
        assert "'base64' is no encoding" in refusal(path, encoding="base64")


class TestTextThatNobodyAskedFor:
    @pytest.mark.parametrize("member", ['"\\ud83d"', "NaN", "1e999", "[" * 500 + "]" * 500])
    def test_an_unread_json_member_spoils_no_row(self, tmp_path: Path, member: str) -> None:
        line = '{"user": %d, "text": ' + member + ', "item": 5}\n'
        path = write(tmp_path / "log.jsonl", "".join(line % n for n in range(3)))
        assert cr.read(path).user_ids.values.tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        "text", [b"\xf0\x9f\x98", b'"half', b'half"', b'a "b" c', b'"a" b', b"\x00", b"a\rb"]
    )
    def test_an_unread_field_spoils_no_row(self, tmp_path: Path, text: bytes) -> None:
        rows = b"".join(b"%d,%d,%s,%d\n" % (n, n, text if n == 5 else b"x", n) for n in range(9))
        if b"\x00" in text:
            rows = b"1,1,x,1\n" * 40_000 + rows  # behind what tells a text from a binary file
        path = write(tmp_path / "log.csv", b"user,item,text,ts\n" + rows)
        if text == b"a\rb":
            assert "line 7: holds a CR that does not end the line" in refusal(path)
        else:
            assert cr.read(path).user_ids.values.tolist() == list(range(9))

    def test_a_broken_character_in_an_id_is_a_bad_row(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "log.jsonl", '{"user": 1, "item": "\\ud83d"}\n{"user": 1, "item": 2}\n'
        )
        assert "line 1, column 'item': holds half a character" in refusal(path)


class TestSources:
    def test_a_bad_row_of_times_with_a_zone_is_shown(self, tmp_path: Path) -> None:
        times = pa.array([dt.datetime(2024, 5, 1), None], pa.timestamp("us", tz="Europe/Berlin"))
        table = pa.table({"user": [1, 2], "item": [3, 4], "time": times})
        pq.write_table(table, tmp_path / "log.parquet")
        assert "row 2, column 'time': is empty" in refusal(tmp_path / "log.parquet")

    def test_bytes_and_open_files_are_logs(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", CSV)
        plain = cr.read(path)
        packed = write(tmp_path / "log.csv.gz", gzip.compress(CSV))
        sources = [CSV, io.BytesIO(CSV), io.StringIO(CSV.decode()), packed.read_bytes()]
        for source in sources:
            assert cr.read(source).fingerprint == plain.fingerprint
        with path.open("rb") as binary, path.open() as text, gzip.open(packed) as unpacked:
            for file in (binary, text, unpacked):
                assert cr.read(file).fingerprint == plain.fingerprint
        pq.write_table(pa.table({"user": [1, 2], "item": [3, 4]}), tmp_path / "log.parquet")
        assert len(cr.read((tmp_path / "log.parquet").read_bytes())) == 2

    def test_rows_and_columns_of_python_are_logs(self) -> None:
        rows = [(1, "a", 1_500_000_010), (1, "b", 1_500_000_020), (2, "a", 1_500_000_030)]
        plain = cr.read(pd.DataFrame(rows, columns=["user", "item", "time"]))
        columns = dict(zip(("user", "item", "time"), zip(*rows, strict=True), strict=True))
        for source in (rows, iter(rows), (list(row) for row in rows), columns):
            assert cr.read(source).fingerprint == plain.fingerprint
        assert cr.read([(1, 2), (1, 3)]).times is None
        assert cr.read([(1, 2, 4.5), (1, 3, 2.0)], min_rating=4).items.tolist() == [0]
        assert cr.read([(uuid.UUID(int=1), 2)]).user_ids.kind == "uuid"
        assert "row 2" in refusal([(1, 2), (1,)])
        assert "mixes types" in refusal([(1, 2), ("a", 3)])

    def test_a_lazy_frame_is_collected(self) -> None:
        frame = pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "n": [1, 2]})
        assert cr.read(frame.lazy()).fingerprint == cr.read(frame).fingerprint

    def test_the_same_file_twice_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", CSV)
        assert "is given twice" in refusal([path, tmp_path / "." / "log.csv"])

    def test_files_of_two_layouts_are_refused_or_made_alike(self, tmp_path: Path) -> None:
        a = write(tmp_path / "a.csv", CSV)
        b = write(tmp_path / "b.tsv", CSV.replace(b",", b"\t").replace(b"b", b"c"))
        assert cr.read([a, b]).item_ids.values.tolist() == ["a", "b", "c"]
        c = write(tmp_path / "c.csv", b"user,item\n1,d\n")
        assert "has no time column" in refusal([a, c])

    @pytest.mark.parametrize("kind", ["fifo", "device", "link to nothing", "folder of nothing"])
    def test_what_is_no_file_is_refused_at_once(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "log"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "link to nothing":
            path.symlink_to(tmp_path / "nowhere")
        else:
            path.mkdir()
        refusal(path)
        refusal([path])

    def test_deep_json_is_a_bad_row(self, tmp_path: Path) -> None:
        deep = '{"user": 1, "item": 2, "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n"
        path = write(tmp_path / "log.jsonl", '{"user": 1, "item": 1}\n' + deep)
        assert len(cr.read(path, skip_bad=1)) in (1, 2)


def test_many_rows_of_a_wrong_width_are_counted_in_bounded_memory(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n}\n{n}\n" for n in range(500_000))
    path = write(tmp_path / "log.csv", "user,item\n" + rows)
    told = refusal(path)
    assert "line 3: has fewer than 2 columns; 500,000 of 1,000,000 rows are bad" in told
    assert len(cr.read(path, skip_bad=500_000)) == 500_000


def test_a_quoted_field_of_150_mb_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", b'user,item\n1,a\n2,"' + b"x" * 150_000_000 + b'"\n3,c\n')
    assert "line 3: is longer than 8 MB" in refusal(path)
    assert len(cr.read(path, skip_bad=1)) == 2
