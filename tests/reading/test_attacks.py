"""Inputs that broke the reader: each is read right, or refused, or warned about."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import comet_rec as cr
from comet_rec.data.interactions import Interactions
from comet_rec.errors import CometWarning
from tests.reading.helpers import refusal, write


def pairs(log: Interactions) -> list[tuple[Any, Any]]:
    users = log.user_ids.external(log.users).tolist()
    return list(zip(users, log.item_ids.external(log.items).tolist(), strict=True))


class TestQuotes:
    @pytest.mark.parametrize("user", ["{n}", "u{n}"])
    def test_an_open_quote_and_a_stray_one_swallow_no_rows(self, tmp_path: Path, user: str) -> None:
        lines = [f"{user.format(n=n)},{n + 100},t{n}" for n in range(1, 1001)]
        lines[10] = f'{user.format(n=11)},111,"Weird Al'
        lines[300] = f"{user.format(n=301)},401,a,b"
        lines[600] = f'{user.format(n=601)},701,Vinyl 12"'
        path = write(tmp_path / "log.csv", "user_id,item_id,title\n" + "\n".join(lines) + "\n")
        assert "line 302: has more than 3 columns; fix it" in refusal(path)
        assert len(cr.read(path, skip_bad=1)) == 999

    @pytest.mark.parametrize("text", ["a\nb,c,d", "a\n3,4,d"])
    def test_a_quoted_field_whose_lines_look_like_rows_stays_a_field(
        self, tmp_path: Path, text: str
    ) -> None:
        path = write(tmp_path / "log.csv", f'user_id,item_id,title\n1,2,"{text}"\n5,6,e\n')
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            log = cr.read(path)
        assert pairs(log) == [(1, 2), (5, 6)]
        if "3,4" in text:
            assert "spans the lines 2 to 3" in str(caught[0].message)

    def test_a_record_over_lines_of_a_wrong_width_is_one_bad_row(self, tmp_path: Path) -> None:
        text = 'item_id,title,user_id\n1,x,2\n3,"a\n666,fake,777\nend"\n5,y,6\n'
        path = write(tmp_path / "log.csv", text)
        assert "line 3: has fewer than 3 columns (in a record that ends in line 5)" in refusal(path)
        assert pairs(cr.read(path, skip_bad=1)) == [(2, 1), (6, 5)]

    def test_an_escape_counts_without_any_quote(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", "user_id,item_id,t\n1,a\\,b,x\n3,4,c\n")
        assert pairs(cr.read(path, escape="\\")) == [(1, "a,b"), (3, "4")]
        assert pairs(cr.read(path, escape="\\", quote="")) == [(1, "a,b"), (3, "4")]

    def test_long_escaped_text_takes_little_memory(self, tmp_path: Path) -> None:
        rows = '1,2,"a\\"b"\n3,4,' + "x\\y" * 200_000 + "\n"
        path = write(tmp_path / "log.csv", "user_id,item_id,t\n" + rows)
        assert pairs(cr.read(path, escape="\\")) == [(1, 2), (3, 4)]


class TestHeaders:
    @pytest.mark.parametrize(
        "text",
        [
            "\ufeffuser_id,item_id\na,x\nb,y\n\ufeffuser_id,item_id\nc,x\n",
            "\ufeffuser_id,item_id\n1,2\n1,3\n\ufeffuser_id,item_id\n2,2\n",
            "#user_id\titem_id\na\tb\nc\td\n#user_id\titem_id\ne\tf\n",
            "user_id , item_id\na,x\nb,y\nuser_id , item_id\nc,x\n",
        ],
    )
    def test_every_form_of_a_repeated_header_is_refused(self, tmp_path: Path, text: str) -> None:
        path = write(tmp_path / "log.csv", text)
        assert "line 4: repeats the header" in refusal(path)
        assert len(cr.read(path, skip_bad=1)) == 3

    def test_a_mark_within_is_told(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", "user,item\na,x\n\ufeffc,x\n")
        with pytest.warns(CometWarning, match="begins with a byte-order mark"):
            cr.read(path)

    @pytest.mark.parametrize(
        ("text", "rows"),
        [
            ("#a\tx\nb\ty\nc\tx\n", 3),
            ("# ratings by user and item\nuser_id,item_id\n1,2\n", 1),
            ("# user item data from 2020\n1\t2\n", 1),
            ("\n# a comment\nuser_id,item_id\n1,2\n", 1),
            ("# user_id,item_id\n1,2\n", 1),
        ],
    )
    def test_comments_are_told_from_rows_and_headers(
        self, tmp_path: Path, text: str, rows: int
    ) -> None:
        assert len(cr.read(write(tmp_path / "log.csv", text))) == rows

    def test_a_header_in_another_encoding_names_the_option(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.csv", "usér,item\n1,2\n".encode("latin-1"))
        assert "encoding=" in refusal(path, user="usér")
        assert len(cr.read(path, user="usér", encoding="latin-1")) == 1


class TestValues:
    def test_columns_without_names_are_told_by_their_values(self, tmp_path: Path) -> None:
        plays = write(tmp_path / "plays.tsv", "u1\ta1\tBlur\t50\nu1\ta2\tMuse\t7\n")
        assert cr.read(plays).times is None
        rows = [(1, 2, 1_600_000_000, 5.0), (1, 3, 1_500_000_000, 4.0)]
        assert cr.read(rows).times.tolist() == [1_500_000_000, 1_600_000_000]
        turned = [(user, item, rating, time) for user, item, time, rating in rows]
        assert cr.read(turned).times.tolist() == [1_500_000_000, 1_600_000_000]

    def test_structured_arrays_keep_their_names(self) -> None:
        array = np.array([(10, 1), (20, 3)], dtype=[("item_id", "i8"), ("user_id", "i8")])
        assert pairs(cr.read(array)) == [(1, 10), (3, 20)]

    def test_floats_of_mixed_sizes_are_refused(self) -> None:
        told = refusal({"user": [np.float32(1), 16777217], "item": [1, 2]})
        assert "mixes types" in told

    def test_missing_values_among_lists_are_bad_rows(self) -> None:
        columns = {
            "user": [1, None, 3], "item": [1, 2, 3],
            "time": [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02"), pd.NaT],
        }  # fmt: skip
        assert "2 rows are bad" in refusal(columns)
        assert pairs(cr.read(columns, skip_bad=2)) == [(1, 1)]

    @pytest.mark.parametrize(
        "source", [{"user": 5, "item": 6}, {"user": [10**5000], "item": [1]}, np.array(5)]
    )
    def test_odd_values_are_refused_in_one_line(self, source: Any) -> None:
        refusal(source)

    @pytest.mark.parametrize(
        ("rows", "form"),
        [
            (["01/02/17", "31/01/17", "15/03/17"], ""),
            (["2024-05-01 10:00:00,123", "2024-05-02 10:00:00,001"], ""),
            (["01.01.17 00:00", "31.12.17 10:00"], ""),
            (["Jan 01 2017", "Dec 31 2017"], ""),
            (["2017.01.01", "2017.12.31"], ""),
            (["01-Jan-17 00:00", "31-Dec-17 10:00"], ""),
            (["10/11/12", "09/10/11"], "%y/%m/%d"),
            (["17-07-14", "16-06-13"], "%y-%m-%d"),
        ],
    )
    def test_dates_are_of_this_age(self, tmp_path: Path, rows: list[str], form: str) -> None:
        path = tmp_path / "log.tsv"
        write(path, "user\titem\ttime\n" + "".join(f"1\t{n}\t{r}\n" for n, r in enumerate(rows)))
        if form:
            assert "could be read in two ways" in refusal(path)
        log = cr.read(path, time_format=form or None)
        assert 10**15 < log.times.min() < log.times.max() < 2 * 10**15

    @pytest.mark.parametrize(
        "rows",
        [
            "user,item\n3e8a10b2,1\n12345e67,2\n",
            f"user,item\n{10**29},1\n{2 * 10**29},2\n",
            "user,item,time\n1,1,1972-05-01\n1,2,1990-05-01\n1,3,1991-05-01\n",
            "user,item,time\n1,1,0.5\n1,2,150.5\n1,3,250.5\n",
            "user,item,time\n1,1,20240501100000\n1,2,20240501100001\n",
            "user,item,time\n1,1,45000.5\n1,2,45001.5\n",
            '{"user":1,"item":5,"meta":{"item":3.0}}\n{"user":2,"item":6,"meta":{"item":3.0}}\n',
        ],
    )
    def test_an_ordinary_log_gives_no_warning(self, tmp_path: Path, rows: str) -> None:
        cr.read(write(tmp_path / "log", rows))  # a warning is an error in these tests

    @pytest.mark.parametrize("member", ["9007199254740993.0", "9007199254740994.0"])
    def test_json_floats_beyond_exactness_are_refused_by_their_digits(
        self, tmp_path: Path, member: str
    ) -> None:
        path = write(tmp_path / "log.jsonl", f'{{"user":{member},"item":1}}\n' * 2)
        assert "is no exact integer" in refusal(path)

    def test_the_largest_exact_float_warns(self, tmp_path: Path) -> None:
        path = write(tmp_path / "log.jsonl", '{"user":9007199254740992.0,"item":1}\n' * 2)
        with pytest.warns(CometWarning, match="largest exact float"):
            assert cr.read(path).user_ids.values.tolist() == [2**53]
        frame = pd.DataFrame({"user": np.array([5, 2**24 + 1], dtype=np.float32), "item": [1, 2]})
        with pytest.warns(CometWarning, match="largest exact float"):
            cr.read(frame)

    def test_the_first_of_a_repeated_member_counts(self, tmp_path: Path) -> None:
        text = '{"user":1,"user":2,"item":5}\n'
        assert pairs(cr.read(write(tmp_path / "a.jsonl", text))) == [(1, 5)]
        assert pairs(cr.read(write(tmp_path / "b.jsonl", text + "x\n"), skip_bad=1)) == [(1, 5)]


class TestFiles:
    @pytest.mark.parametrize(("pack", "at"), [(bz2.compress, 1), (bz2.compress, 12)])
    def test_a_damaged_later_stream_is_refused(self, tmp_path: Path, pack: Any, at: int) -> None:
        first, second = pack(b"user_id,item_id\n1,2\n"), bytearray(pack(b"3,4\n"))
        assert len(cr.read(write(tmp_path / "good", first + bytes(second)))) == 2
        second[at] ^= 1
        assert "is a damaged bzip2 file" in refusal(write(tmp_path / "bad", first + bytes(second)))

    def test_padded_streams_of_xz_are_read(self, tmp_path: Path) -> None:
        first, second = lzma.compress(b"user_id,item_id\n1,2\n"), lzma.compress(b"3,4\n")
        data = first + bytes(4) + second + bytes(8)
        assert len(cr.read(write(tmp_path / "log", data))) == 2
        broken = bytearray(second)
        broken[20] ^= 1
        refusal(write(tmp_path / "log", first + bytes(broken)))

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "Git LFS"),
            (b"%%MatrixMarket matrix coordinate real general\n3 3 1\n1 2 5\n", "Matrix Market"),
            (bz2.compress(bz2.compress(b"user,item\n1,2\n")), "compressed twice"),
            (b"(dp0\nVuser\np1\nI1\ns.", "a pickle"),
        ],
    )
    def test_what_is_no_log_is_named(self, tmp_path: Path, data: bytes, what: str) -> None:
        assert what in refusal(write(tmp_path / "log", data))

    @pytest.mark.parametrize("text", ["PAR1\tx\nPAR2\ty\n", "BZhang\tx\nb\ty\n", "ORC1\tx\nb\ty\n"])
    def test_text_that_begins_like_a_binary_file_is_text(self, tmp_path: Path, text: str) -> None:
        assert len(cr.read(write(tmp_path / "log.tsv", text))) == 2

    @pytest.mark.parametrize(
        "text",
        ["1  2\n1  3\n2  3\n", "1 2 \n1 3 \n2 3 \n", " 1 2\n 1 3\n 2 3\n", "1 2\n1\t3\n2 3\n"],
    )
    def test_runs_of_blanks_are_one_delimiter(self, tmp_path: Path, text: str) -> None:
        assert pairs(cr.read(write(tmp_path / "log", text))) == [(1, 2), (1, 3), (2, 3)]

    def test_two_numbers_in_a_field_warn_and_three_are_a_list(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "log.csv", "user,item\n" + "".join(f"{n},10 {n}\n" for n in range(9))
        )
        with pytest.warns(CometWarning, match="holds pairs"):
            assert cr.read(path).n_items == 9
        cr.read(write(path, "user,item\n1,(A)\n2,(B)\n3,(C)\n"))
        cr.read(write(path, "1\t2\t\t1600000000\n1\t3\t5\t1600000001\n"), user=1, item=2)

    def test_long_lines_of_one_letter_take_no_time(self, tmp_path: Path) -> None:
        refusal(write(tmp_path / "a.csv", "user_id,item_id\n" + "-" * 200_000 + "x\n1,2\n"))
        log = cr.read(write(tmp_path / "b.csv", "user_id,item_id\n" + "1" * 100_000 + "x,2\n3,4\n"))
        assert len(log) == 2

    def test_the_first_line_may_be_long(self, tmp_path: Path) -> None:
        first = '{"text": "' + "x" * 400_000 + '", "user": 1, "item": 2}\n'
        path = write(tmp_path / "log.jsonl", first + '{"user": 1, "item": 3}\n')
        assert len(cr.read(path)) == 2

    @pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_a_mark_names_both_orders(self, tmp_path: Path, codec: str) -> None:
        path = write(tmp_path / "log.csv", "user,item\n1,2\n".encode(codec))
        assert f"encoding='{codec}'" in refusal(path)
        assert "utf-16-le" in refusal(path, encoding="utf-16")

    def test_folders_follow_links_and_leave_out_what_is_empty(self, tmp_path: Path) -> None:
        write(tmp_path / "other" / "b.csv", "user,item\n2,2\n")
        write(tmp_path / "log" / "a.csv", "user,item\n1,2\n")
        write(tmp_path / "log" / "_SUCCESS", "")
        (tmp_path / "log" / "more").symlink_to(tmp_path / "other")
        (tmp_path / "log" / "loop").symlink_to(tmp_path / "log")
        assert len(cr.read(tmp_path / "log")) == 2
        assert len(cr.read(str(tmp_path / "log" / "*.csv"))) == 1
        assert len(cr.read(str(tmp_path / "log" / "**" / "*.csv"))) == 2
        os.mkfifo(tmp_path / "log" / "pipe")
        assert "is not a regular file" in refusal(tmp_path / "log")

    def test_partitions_may_be_user_and_item(self, tmp_path: Path) -> None:
        write(tmp_path / "user_id=1" / "item_id=7" / "p.csv", "a,b\n1,2\n")
        assert pairs(cr.read(tmp_path)) == [(1, 7)]

    def test_open_files_of_others_fail_in_one_line(self, tmp_path: Path) -> None:
        cut = bz2.compress(b"user,item\n" + os.urandom(99))[:50]
        with bz2.open(io.BytesIO(cut)) as file:
            assert "cannot be read" in refusal(file)
        assert len(cr.read(io.StringIO("user,item\né,x\n"), encoding="latin-1")) == 1
        assert (
            cr.read(io.StringIO("user,item\né,x\n"), encoding="latin-1").user_ids.values[0] == "é"
        )
        assert "cannot be collected" in refusal(pl.scan_csv("/nowhere.csv"))

    def test_half_floats_of_a_stream_are_read(self) -> None:
        table = pa.table({"user_id": pa.array([1, 2], pa.float16()), "item_id": [3, 4]})
        assert pairs(cr.read(table.to_reader())) == [(1, 3), (2, 4)]

    def test_a_form_that_is_none_is_told(self) -> None:
        columns = {"user": [1], "item": [2], "time": ["2020"]}
        assert "time_format is '%Q'" in refusal(columns, time_format="%Q")
