"""Given splits: test rows, candidates, and NCF's wide candidates."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comet_rec.data.ids import Ids
from comet_rec.errors import DataError
from comet_rec.reading.pairs import is_wide, read_pairs, read_wide_candidates
from comet_rec.reading.readers import read


def test_pairs_stand_in_the_order_of_the_file_with_repeats(tmp_path: Path) -> None:
    path = tmp_path / "test"
    path.write_text("item,user,note\nb,2,x\na,1,\nb,2,z\n")
    pairs = read_pairs(path)
    assert pairs.users.tolist() == [2, 1, 2]
    assert pairs.users.dtype == np.int64
    assert pairs.items.tolist() == ["b", "a", "b"]
    assert pairs.notes == ()


def test_pairs_of_ncf(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.test.rating"
    path.write_text("0\t25\t5\t978824351\n1\t133\t3\t978300174\n")
    pairs = read_pairs(path)
    assert (pairs.users.tolist(), pairs.items.tolist()) == ([0, 1], [25, 133])


def test_pairs_take_the_kinds_of_their_log(tmp_path: Path) -> None:
    log, test = tmp_path / "log", tmp_path / "test"
    log.write_text("user,item\n1,a\n007,b\n")
    test.write_text("user,item\n1,a\n")
    ids = read(log).user_ids
    assert ids.index(read_pairs(test).users).tolist() == [1]  # the integer 1 stands for "1"
    pairs = read_pairs(test, user_kind=ids.kind)
    assert ids.index(pairs.users).tolist() == [1]
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4]})
    assert read_pairs(frame, user_kind="text").users.tolist() == ["1", "2"]


def test_pairs_need_no_times(tmp_path: Path) -> None:
    path = tmp_path / "test"
    path.write_text("user,item,time\n1,a,never\n")
    assert len(read_pairs(path).users) == 1


def test_bad_pairs(tmp_path: Path) -> None:
    path = tmp_path / "test"
    path.write_text("user,item\n1,a\n2\n3,\n")
    with pytest.raises(DataError, match=r"line 3: has fewer than 2 columns; 2 rows are bad"):
        read_pairs(path)
    pairs = read_pairs(path, skip_bad=2)
    assert pairs.users.tolist() == [1]
    assert pairs.notes[0].startswith("2 bad rows skipped: line 3: has fewer than 2 columns; line 4")


WIDE = "(0,25)\t1064\t174\n(1,133)\t1072\n(2,7)\n"


@pytest.mark.parametrize("packed", [False, True])
def test_wide_candidates(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "ml-1m.test.negative"
    path.write_bytes(gzip.compress(WIDE.encode(), mtime=0) if packed else WIDE.encode())
    wide = read_wide_candidates(path)
    assert is_wide(path)
    assert wide.users.tolist() == [0, 1, 2]
    assert wide.positives.tolist() == [25, 133, 7]
    assert wide.candidate_users.tolist() == [0, 0, 1]
    assert wide.candidates.tolist() == [1064, 174, 1072]
    assert wide.candidates.dtype == wide.users.dtype == np.int64


def test_wide_candidates_by_text(tmp_path: Path) -> None:
    path = tmp_path / "wide"
    path.write_text("\ufeff(u 1,007)\t1\té\r\n\r\n(2,3)\t4\r\n", newline="")
    wide = read_wide_candidates(path)
    assert wide.users.tolist() == ["u 1", "2"]
    assert wide.positives.tolist() == ["007", "3"]
    assert wide.candidate_users.tolist() == ["u 1", "u 1", "2"]
    assert wide.candidates.tolist() == ["1", "é", "4"]
    as_text = tmp_path / "digits"
    as_text.write_text(WIDE)
    assert read_wide_candidates(as_text, item_kind="text").candidates.tolist()[0] == "1064"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no rows"),
        (b"(0,1)\t2\n0,1\t2\n", "line 2: is not"),
        (b"(0,1,2)\t2\n", "line 1: is not"),
        (b"(0,1)\t2\t\t3\n", "line 1: is not"),
        (b"(0,1)\t2\n(1,\xff)\t2\n", "line 2: is not UTF-8"),
        (gzip.compress(b"(0,1)\t2\n", mtime=0)[:-6], "truncated gzip"),
    ],
)
def test_bad_wide_candidates(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "wide"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_wide_candidates(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["007", "x", "9" * 20, "-0"])
@pytest.mark.parametrize("line", ["(0,1)\t4\t{}", "(0,{})\t4", "({},1)\t4"])
def test_wide_candidates_of_a_log_of_integers_are_integers(
    tmp_path: Path, wrong: str, line: str
) -> None:
    path = tmp_path / "wide"
    path.write_text("(2,3)\t4\t5\n\n" + line.format(wrong) + "\n")
    with pytest.raises(DataError, match=f"line 3: {wrong!r} is no plain integer"):
        read_wide_candidates(path, user_kind="int", item_kind="int")


def test_what_is_not_wide(tmp_path: Path) -> None:
    assert not is_wide(tmp_path / "none")
    path = tmp_path / "pairs"
    path.write_text("user\titem\n(0,1)\t2\n")
    assert not is_wide(path)
    with pytest.raises(DataError, match="no such file"):
        read_wide_candidates(tmp_path / "none")


def test_arrays_of_integers_are_found_as_lists_of_them_are() -> None:
    ids = Ids("int", np.array([-3, 0, 7, 2**62]))
    asked = np.array([7, 8, -3, 2**62, -(2**63), 2**63 - 1])
    for given in (asked, asked.tolist(), asked.astype(object)):
        assert ids.index(given).tolist() == [2, -1, 0, 3, -1, -1]
    assert ids.index([2**64, "7", 7.0, "07", None]).tolist() == [-1, 2, 2, -1, -1]
    assert Ids("int", np.arange(0)).index(asked).tolist() == [-1] * 6
    for extra in (np.array([7, 9]), [7, 9]):
        assert ids.union(extra).values.tolist() == [-3, 0, 7, 9, 2**62]
