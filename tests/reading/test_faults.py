"""Files of real people that went wrong, a folder each in `faults.zip`: read right, or refused."""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.data.interactions import Interactions
from comet_rec.errors import CometWarning, DataError
from comet_rec.evaluation.audit import audit

_UNPACKED = tempfile.TemporaryDirectory(prefix="comet-rec-faults-")
FAULTS = Path(_UNPACKED.name)
"""The files of `faults.zip`, in a folder for each case. In the archive every byte stays as it was,
line ends and encodings included. ``ZipFile.writestr(ZipInfo(name), bytes)`` stored sorted names."""
zipfile.ZipFile(Path(__file__).with_name("faults.zip")).extractall(FAULTS)


def whole(log: Interactions) -> tuple[int, int, int]:
    return len(log), log.n_users, log.n_items


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        cr.read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


@pytest.fixture(scope="module")
def plain() -> Interactions:
    """The log that most of the files were made from."""
    return cr.read(FAULTS / "07" / "log.csv")


def same(log: Interactions, plain: Interactions) -> bool:
    return bool(np.array_equal(log.users, plain.users) and np.array_equal(log.items, plain.items))


def test_01_labels_of_0_and_1_warn_and_name_min_rating() -> None:
    path = FAULTS / "01" / "ratings_final.txt"
    with pytest.warns(CometWarning, match=r"only 0 and 1.*720 of 1,440 rows.*min_rating=1"):
        cr.read(path)
    log = cr.read(path, min_rating=1)
    assert len(log) == 720
    assert "column 3 is the rating" in log.notes[0]


@pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")
def test_01_the_audit_reports_held_out_items_of_rating_0_as_an_error() -> None:
    split = cr.leave_one_out(cr.read(FAULTS / "01" / "ratings_final.txt"), negatives=20)
    found = {finding.check: finding for finding in audit(split)}
    assert found["test-rated-zero"].severity == "error"
    assert found["test-rated-zero"].count == 60
    clean = cr.leave_one_out(
        cr.read(FAULTS / "01" / "ratings_final.txt", min_rating=1), negatives=20
    )
    assert "test-rated-zero" not in {finding.check for finding in audit(clean)}


def test_01_a_scale_with_zeros_warns_too(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating\n1,2,5\n1,3,0\n2,2,4\n")
    with pytest.warns(CometWarning, match=r"'rating' has zeros: 1 of 3 rows"):
        cr.read(path)


@pytest.mark.parametrize(
    ("name", "columns"), [("log.csv", {}), ("lastfm.tsv", {"user": 1, "item": 3, "time": 2})]
)
def test_02_unescaped_quotes_in_titles_lose_no_row(name: str, columns: dict[str, int]) -> None:
    log = cr.read(FAULTS / "02" / name, **columns)
    assert whole(log) == (240, 30, 25)
    line = 12 if name == "log.csv" else 11
    assert any(f"taken as text (line {line}, " in note for note in log.notes)


def test_03_json_floats_above_2_to_the_53_are_refused() -> None:
    told = refusal(FAULTS / "03" / "log.jsonl")
    assert "line 1, column 'user_id': 76561197960265744.0 is no exact integer" in told


def test_05_a_repeated_header_is_refused_with_its_line(plain: Interactions) -> None:
    path = FAULTS / "05" / "cat.csv"
    assert "line 122: repeats the header" in refusal(path)
    log = cr.read(path, skip_bad=1)
    assert (log.user_ids.kind, log.item_ids.kind) == ("int", "int")
    assert whole(log) == whole(plain)


def test_05_a_repeated_header_among_text_ids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,x\nb,y\nuser,item\nc,x\n")
    assert "line 4: repeats the header" in refusal(path)
    assert cr.read(path, skip_bad=1).user_ids.values.tolist() == ["a", "b", "c"]


def test_05_a_rule_under_the_header_is_no_row_and_told() -> None:
    with pytest.warns(CometWarning, match=r"line 2 \('-------,-------'\) is a rule"):
        log = cr.read(FAULTS / "05" / "sqlcmd.csv")
    assert (log.user_ids.kind, len(log)) == ("int", 240)


def test_05_a_handful_of_odd_values_is_shown_with_lines() -> None:
    with pytest.warns(CometWarning, match=r"read as text because of 'Total' \(line 242\)"):
        cr.read(FAULTS / "05" / "total.csv")


def test_09_nanoseconds_with_a_zone_are_read(plain: Interactions) -> None:
    log = cr.read(FAULTS / "09" / "ns_utc.parquet")
    assert same(log, plain)
    assert log.times is not None
    assert plain.times is not None
    assert np.array_equal(log.times, plain.times * 1_000_000)


def test_14_the_values_decide_which_column_is_the_time(plain: Interactions) -> None:
    for name in ("log.tsv", "three.tsv"):
        log = cr.read(FAULTS / "14" / name)
        assert same(log, plain)
        assert np.array_equal(log.times, plain.times)


def test_14_two_columns_that_look_like_times_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("1\t2\t1500000000\t1500000500\n1\t3\t1500000001\t1500000200\n")
    told = refusal(path)
    assert "columns 3 and 4 both look like times; name one with time=3 or time=4" in told
    assert cr.read(path, time=4).items.tolist() == [1, 0]


def test_16_ids_that_a_spreadsheet_rounded_warn() -> None:
    with pytest.warns(CometWarning, match=r"'user_id'.*exponent \('7.65612E\+16'\)"):
        cr.read(FAULTS / "16" / "excel.csv")


@pytest.mark.parametrize(
    ("name", "unit"),
    [("goodreads", 1), ("iso_basic", 1), ("mind", 1), ("excel_de", 60), ("tafeng", 86_400),
     ("tianchi", 3600)],
)  # fmt: skip
def test_17_common_dates_are_read(name: str, unit: int, plain: Interactions) -> None:
    log = cr.read(FAULTS / "17" / f"{name}.csv", time="when")
    assert log.times is not None
    assert plain.times is not None
    assert sorted(log.times // 1_000_000) == sorted(plain.times // unit * unit)


def test_17_unknown_dates_show_the_accepted_forms_and_no_advice_to_skip(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "1,2,the 14th of 7\n" * 20 + "1,3,the 15th of 7\n")
    told = refusal(path)
    assert "skip" not in told
    assert "2017-07-14 02:51:17 (ISO 8601)" in told
    assert "time_format=" in told
    assert len(cr.read(path, time_format="the %dth of %m")) == 2


def test_17_dates_with_day_or_month_in_front_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,2,03/04/2017\n1,3,05/04/2017\n")
    assert "time_format='%m/%d/%Y' or time_format='%d/%m/%Y'" in refusal(path)
    assert cr.read(path, time_format="%d/%m/%Y").times.tolist() == [
        1491177600000000, 1491350400000000
    ]  # fmt: skip
    path.write_text("user,item,time\n1,2,03/04/2017\n1,3,25/04/2017\n")  # the second one decides
    assert cr.read(path).times.tolist() == [1491177600000000, 1493078400000000]


def test_18_quotes_that_are_text_lose_no_row() -> None:
    for options in ({}, {"quote": ""}):
        log = cr.read(FAULTS / "18" / "lastfm.tsv", user=1, item=3, time=2, **options)
        assert whole(log) == (240, 30, 25)


def test_19_backslashes_before_quotes_are_recognised_or_named(plain: Interactions) -> None:
    path = FAULTS / "19" / "part-00000.csv"
    assert same(cr.read(path), plain)
    assert same(cr.read(path, escape="\\"), plain)


def test_a_broken_quote_in_an_id_advises_to_say_how_quotes_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = "".join(f"{n % 9},item {n},{n}\n" for n in range(60))
    path.write_text(f'user,item,time\n{rows}3,"half,61\n{rows}')
    told = refusal(path)
    assert "line 62: has a quote that is not closed" in told
    assert "quote=" in told
    assert "escape=" in told
    assert len(cr.read(path, skip_bad=1)) == 60
    assert '"half' in cr.read(path, quote="").item_ids.values.tolist()


def test_21_lines_of_python_dicts_are_named() -> None:
    told = refusal(FAULTS / "21" / "steam_reviews.json")
    assert "Python dicts, not JSON (single quotes, u'…')" in told
    assert "ast.literal_eval" in told


def test_25_padded_ids_are_noted() -> None:
    with pytest.warns(CometWarning, match=r"30 user ids begin or end with blanks \('00000001  '\)"):
        cr.read(FAULTS / "25" / "D01", user="Customer ID", item="Product ID")


def test_25_the_columns_of_psql_are_read_without_their_padding(plain: Interactions) -> None:
    path = FAULTS / "25" / "psql.txt"
    assert "line 243: has fewer than 3 columns" in refusal(path)  # "(240 rows)"
    with pytest.warns(CometWarning, match="line 2 .* is a rule under the header"):
        log = cr.read(path, skip_bad=1)
    assert whole(log) == whole(plain)
    assert log.user_ids.kind == "int"
    assert any("padded with blanks" in note for note in log.notes)


def test_27_pairs_between_blanks_are_read(plain: Interactions) -> None:
    log = cr.read(FAULTS / "27" / "ml-1m.txt")
    assert whole(log) == whole(plain)


def test_27_konect_is_read_below_its_comment(plain: Interactions) -> None:
    log = cr.read(FAULTS / "27" / "out.konect")
    assert same(log, plain)
    assert np.array_equal(log.times, plain.times)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("otto.jsonl", "OTTO"), ("combined_data_1.txt", "Netflix"), ("behaviors.tsv", "MIND"),
     ("train.txt", "LightGCN")],
)  # fmt: skip
def test_27_other_layouts_are_named_with_a_conversion(name: str, layout: str) -> None:
    told = refusal(FAULTS / "27" / name)
    assert layout in told
    assert "for line in open('FILE')" in told


@pytest.mark.parametrize("value", ["N5 N6 N7", "[5, 6, 7]", "5|6|7"])
def test_27_a_list_in_an_item_column_is_never_one_item(tmp_path: Path, value: str) -> None:
    path = tmp_path / "log.csv"
    rows = "".join(f'{n},"{value.replace("5", str(10 + n))}"\n' for n in range(9))
    path.write_text("user_id,item_id\n" + rows)
    assert "column 'item_id' holds lists" in refusal(path)


def test_28_several_files_are_one_log(tmp_path: Path, plain: Interactions) -> None:
    a, b = FAULTS / "28" / "a.csv", FAULTS / "28" / "b.csv"
    logs = [
        cr.read([a, b]),
        cr.read([str(b), str(a)]),
        cr.read(str(FAULTS / "28" / "?.csv")),
    ]
    assert len({log.fingerprint for log in logs}) == 1
    assert same(logs[0], plain)
    (tmp_path / "log").mkdir()
    half = plain_lines = (FAULTS / "07" / "log.csv").read_text().splitlines(keepends=True)
    (tmp_path / "log" / "2.csv").write_text("".join(half[:1] + half[100:]))
    (tmp_path / "log" / "1.csv").write_text("".join(plain_lines[:100]))
    (tmp_path / "log" / "_SUCCESS").touch()
    assert cr.read(tmp_path / "log").fingerprint == plain.fingerprint


def test_28_hive_partitions_are_columns(tmp_path: Path, plain: Interactions) -> None:
    assert same(cr.read(FAULTS / "28" / "hive"), plain)
    for day, rows in (("2024-05-02", "a,x\nb,y\n"), ("2024-05-01", "a,y\n")):
        folder = tmp_path / f"day={day}"
        folder.mkdir()
        (folder / "part-0.csv").write_text("user,item\n" + rows)
    log = cr.read(tmp_path, time="day")
    assert [log.item_ids.values[item] for item in log.items] == ["y", "x", "y"]


def test_28_a_bad_row_of_several_files_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user,item,ts\n1,2,3\n")
    (tmp_path / "2.csv").write_text("user,item,ts\n1,3,4\n1,4,never\n")
    with pytest.raises(DataError, match=r"2\.csv, line 3, column 'ts': 'never' is not a time"):
        cr.read(tmp_path)


def test_28_a_frame_with_ids_in_its_index_gets_the_hint() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": [1], "item": [2], "n": [3]}).set_index(["user", "item"])
    with pytest.raises(DataError, match=r"reset_index\(\)"):
        cr.read(frame)


@pytest.mark.parametrize("path", ["s3://bucket/log.csv", "https://host/log.csv", "gs://b/x"])
def test_28_remote_paths_are_refused(path: str) -> None:
    with pytest.raises(DataError, match=re.escape(path) + ": remote paths are not supported"):
        cr.read(path)
