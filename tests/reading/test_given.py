"""Splits that come as files: test rows, candidates, and the NCF trio with its wide file."""

from __future__ import annotations

import gzip
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import comet_rec as cr
from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import given_split
from comet_rec.data.ids import Ids
from comet_rec.data.split import TEST, TRAIN, VALIDATION, Split
from comet_rec.errors import DataError, InputError
from comet_rec.evaluation.audit import audit
from comet_rec.reading.given import is_wide, read_given, read_pairs, read_wide_candidates
from comet_rec.reading.readers import read

TRAINING = [
    "1\t10\t5\t1",
    "1\t11\t5\t2",
    "1\t12\t4\t3",
    "2\t10\t3\t1",
    "2\t13\t3\t2",
    "3\t11\t1\t1",
]


def ncf(folder: Path, test: list[str], negative: list[str] | None) -> Split:
    for name, lines in (("train", TRAINING), ("test", test), ("negative", negative or [])):
        (folder / name).write_text("\n".join(lines) + "\n")
    log = read(folder / "train")
    held, candidates = read_given(
        folder / "test", folder / "negative" if negative is not None else None, log
    )
    return given_split(log, held, candidates, ProtocolConfig(negatives=2))


def externally(split: Split, items: np.ndarray) -> list:
    known = items[items < split.interactions.n_items]
    return split.interactions.item_ids.external(known).tolist()


def test_candidates_in_rows_that_a_filter_dropped_are_touched_and_few_are_told(tmp_path):
    rows = [f"{user},{item},5,{item}" for user in (1, 2, 3) for item in (10, 11, 12)]
    rows = ["user,item,rating,time", *rows, "3,13,5,8", "3,16,5,9", "1,13,1,9"]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    (tmp_path / "test.csv").write_text("user,item\n1,14\n2,14\n")
    (tmp_path / "candidates.csv").write_text("user,item\n1,13\n1,15\n2,13\n2,15\n")
    log = read(tmp_path / "log.csv", min_rating=4)
    split = given_split(
        log, *read_given(tmp_path / "test.csv", tmp_path / "candidates.csv", log),
        ProtocolConfig(negatives=2),
    )  # fmt: skip
    assert externally(split, split.test.candidates[0]) == [15]
    assert externally(split, split.test.candidates[1]) == [13, 15]
    assert "1 candidates that are positives of their user dropped (1 users)" in split.notes
    drawn = given_split(
        log, *read_given(tmp_path / "test.csv", None, log), ProtocolConfig(negatives=99)
    )
    assert "3 users have fewer than 99 items left to sample from" in drawn.notes


def test_the_ncf_trio_is_read(tmp_path):
    split = ncf(
        tmp_path,
        ["1\t13\t5\t9", "2\t14\t5\t9"],
        ["(1,13)\t14\t15\t13\t10", "(2,14)\t11\t12\t15\t15"],
    )
    assert split.protocol.split == "given"
    assert split.interactions.user_ids.external(split.test.users).tolist() == [1, 2]
    assert externally(split, split.test.positives) == [13, 14]
    assert externally(split, split.test.candidates[0]) == [14, 15]
    assert externally(split, split.test.candidates[1]) == [11, 12, 15]
    assert "2 candidates that are positives of their user dropped (1 users)" in split.notes
    assert "1 repeated candidates dropped" in split.notes
    assert "1 test items have no training row" in split.notes
    assert split.protocol.negatives == 3
    assert split.part.tolist() == [TRAIN, TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TEST, TRAIN]
    assert externally(split, split.validation.positives) == [12, 13]


def test_ncfs_wide_file_goes_with_a_log_of_uuids(tmp_path):
    user, items = UUID(int=1), [UUID(int=10 + i) for i in range(6)]
    touched = [(user, item, t) for t, item in enumerate(items[:4])]
    rows = pd.DataFrame([*touched, (UUID(int=2), items[5], 1)], columns=["user", "item", "time"])
    test = pd.DataFrame({"user": [user], "item": [items[4]]})
    (tmp_path / "negative").write_text(f"({user},{items[4]})\t{items[5]}\n")
    log = read(rows)
    held, candidates = read_given(test, tmp_path / "negative", log)
    split = given_split(log, held, candidates, ProtocolConfig(negatives=1))
    assert externally(split, split.test.candidates[0]) == [items[5]]
    (tmp_path / "negative").write_text(f"({user},{items[4]})\tsong\n")
    with pytest.raises(DataError, match="negative, line 1: 'song' is no UUID"):
        read_given(test, tmp_path / "negative", log)


def test_an_audit_asks_validation_for_what_was_drawn_not_for_the_test_files_width(tmp_path):
    rows = [f"{user}\t{10 + (user + i) % 40}\t5\t{i}" for user in range(5) for i in range(8)]
    (tmp_path / "train").write_text("\n".join(rows) + "\n")
    (tmp_path / "test").write_text("\n".join(f"{u}\t{30 + u}\t5\t9" for u in range(5)) + "\n")
    wide = "\t".join(str(i) for i in range(100, 130))
    pairs = [f"({u},{30 + u})\t{wide}" for u in range(5)]
    (tmp_path / "negative").write_text("\n".join(pairs) + "\n")
    log = read(tmp_path / "train")
    held, candidates = read_given(tmp_path / "test", tmp_path / "negative", log)
    split = given_split(log, held, candidates, ProtocolConfig(negatives=5))
    assert (split.test.candidates.shape[1], split.validation.candidates.shape[1]) == (30, 5)
    assert "validation-few-candidates" not in {finding.check for finding in audit(split)}
    items = [*range(10, 50), *range(100, 130)]
    nearly_all = [f"7\t{item}\t5\t{t}" for t, item in enumerate(items[:-3])]
    (tmp_path / "train").write_text("\n".join([*rows, *nearly_all]) + "\n")
    log = read(tmp_path / "train")
    held, candidates = read_given(tmp_path / "test", tmp_path / "negative", log)
    split = given_split(log, held, candidates, ProtocolConfig(negatives=5))
    (few,) = [found for found in audit(split) if found.check == "validation-few-candidates"]
    assert few.count == 1


def test_candidates_are_drawn_where_none_are_given(tmp_path):
    with pytest.raises(DataError, match=r"test user 1 \(1 in all\) interacted with every item"):
        ncf(tmp_path, ["1\t13\t5\t9"], None)
    split = ncf(tmp_path, ["2\t14\t5\t9"], None)
    assert set(externally(split, split.test.candidates[0])) == {11, 12}


def test_a_test_pair_that_the_filter_of_ratings_dropped_is_not_known(tmp_path):
    """Else its item could be a hit, and never be in a list."""
    lines = ["1\t14\t1\t9", "2\t14\t1\t9", "3\t14\t5\t1", "3\t15\t5\t2"]
    (tmp_path / "log").write_text("\n".join([*TRAINING, *lines]) + "\n")
    log = read(tmp_path / "log", min_rating=3)
    split = cr.given_test(log, pd.DataFrame({"user": [1], "item": [14]}), negatives=1)
    assert "1 test pairs are rows that the filter of ratings dropped" in split.notes
    whole = split.interactions
    users = whole.user_ids.external(whole.dropped_users).tolist()
    items = whole.item_ids.external(whole.dropped_items).tolist()
    assert sorted(zip(users, items, strict=True)) == [(2, 14), (3, 11)]
    assert 14 in cr.Popularity().fit(split).recommend([1], k=9)["item_id"]


def test_test_users_without_a_training_row_are_left_out_and_counted(tmp_path):
    split = ncf(tmp_path, ["2\t14\t5\t9", "99\t13\t5\t9"], None)
    assert len(split.test) == 1
    assert "1 test users have no training row and are left out" in split.notes


@pytest.mark.parametrize(
    ("test", "negative", "text"),
    [
        (["1\t12\t5\t9"], None, r"1 test pairs, \(1, 12\) for one, are training rows too"),
        (["1\t13\t5\t9", "1\t14\t5\t9"], None, "test user 1 has more than one row"),
        (["99\t13\t5\t9"], None, "no test user occurs in the training part"),
        (["1\t13\t5\t9"], ["(1,14)\t15"], "give the two files of one split"),
        (["1\t13\t5\t9"], ["(1,13)\t10"], "1 test users have no candidate item, such as 1"),
        (["1\t13\t5\t9"], ["1\tabc"], "'abc' is no plain integer, unlike the ids of the log"),
    ],
)
def test_splits_that_cannot_be_are_refused(tmp_path, test, negative, text):
    with pytest.raises(DataError, match=text):
        ncf(tmp_path, test, negative)


@pytest.mark.parametrize(
    ("role", "bad", "shown"),
    [("item", "2,abc", "abc"), ("user", "abc,13", "abc"), ("item", "2,013", "013")],
)
def test_an_id_that_no_log_of_integers_has_is_a_bad_row_and_takes_no_other_with_it(
    tmp_path, role, bad, shown
):
    (tmp_path / "train").write_text("\n".join(TRAINING) + "\n")
    (tmp_path / "test.csv").write_text(f"user,item\n3,10\n{bad}\n")
    log = read(tmp_path / "train")
    with pytest.raises(DataError, match=f"line 3, column '{role}': '{shown}' is no plain integer"):
        cr.given_test(log, tmp_path / "test.csv", negatives=2)
    split = cr.given_test(log, tmp_path / "test.csv", negatives=2, skip_bad=1)
    assert len(split.test) == 1


def test_a_test_file_may_have_the_logs_names_or_common_ones(tmp_path):
    theirs = pd.DataFrame(
        {"uid": [1, 1, 1, 2, 2, 3], "sku": [7, 8, 9, 7, 9, 20], "ts": [1, 2, 3, 1, 2, 1]}
    )
    log = cr.read(theirs, user="uid", item="sku", time="ts")
    same, common = (
        pd.DataFrame({u: [1, 2], i: [5, 8]}) for u, i in (("uid", "sku"), ("user", "item"))
    )
    wanted = cr.given_test(log, common).hash
    assert cr.given_test(log, same, user="uid", item="sku").hash == wanted
    for test in (same, common):
        held, _ = read_given(test, None, log, user="uid", item="sku", or_common=True)
        assert (held.users.tolist(), held.items.tolist()) == ([1, 2], [5, 8])
    other = pd.DataFrame({"a": [1], "b": [5]})
    with pytest.raises(DataError, match="no column 'uid'"):
        read_given(other, None, log, user="uid", item="sku", or_common=True)
    with pytest.raises(DataError, match="no column 'uid'"):  # said of the test itself
        cr.given_test(log, common, user="uid", item="sku")


def test_only_a_missing_column_leads_to_common_names(tmp_path):
    """A bad row in the named column is an error, not a reason to take another column."""
    log = read(pd.DataFrame({"uid": [1, 1, 2, 2], "sku": [7, 8, 7, 9]}), user="uid", item="sku")
    (tmp_path / "test.csv").write_text("uid,sku,item_id\n1,5,21\n2,,22\n")
    names = {"user": "uid", "item": "sku"}
    with pytest.raises(DataError, match="line 3, column 'sku'"):
        read_given(tmp_path / "test.csv", None, log, **names, or_common=True)


def test_frames_give_the_split_that_files_give(tmp_path):
    lines = ["1\t13\t5\t9", "2\t14\t5\t9"]
    split = ncf(tmp_path, lines, ["(1,13)\t14\t15", "(2,14)\t11\t12"])
    log = read(tmp_path / "train")
    test = pd.DataFrame({"user_id": [1, 2], "item_id": [13, 14], "more": ["a", "b"]})
    rows = pa.table({"user_id": [1, 1, 2, 2], "item_id": [14, 15, 11, 12]})
    assert cr.given_test(log, test, rows, negatives=2).hash == split.hash
    wide = tmp_path / "negative"
    assert cr.given_test(log, tmp_path / "test", str(wide), negatives=2).hash == split.hash
    drawn = cr.given_test(log, test, negatives=2, seed=1)
    assert drawn.test.candidates.shape == (2, 2)
    assert cr.evaluate(cr.EASE().fit(drawn))["HR@10"] == 1
    with pytest.raises(DataError, match="test user 1 has more than one row"):
        cr.given_test(log, pd.concat([test, test]))
    with pytest.raises(InputError, match="given_test: DataFrame is no log"):
        cr.given_test(test, test)


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
    pairs = read_pairs(test, id_kinds={"user": ids.kind})
    assert ids.index(pairs.users).tolist() == [1]
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4]})
    assert read_pairs(frame, id_kinds={"user": "text"}).users.tolist() == ["1", "2"]


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
    positives, negatives = read_wide_candidates(path)
    assert is_wide(path)
    assert positives.users.tolist() == [0, 1, 2]
    assert positives.items.tolist() == [25, 133, 7]
    assert negatives.users.tolist() == [0, 0, 1]
    assert negatives.items.tolist() == [1064, 174, 1072]
    assert negatives.items.dtype == positives.users.dtype == np.int64


def test_wide_candidates_by_text(tmp_path: Path) -> None:
    path = tmp_path / "wide"
    path.write_text("\ufeff(u 1,007)\t1\té\r\n\r\n(2,3)\t4\r\n", newline="")
    positives, negatives = read_wide_candidates(path)
    assert positives.users.tolist() == ["u 1", "2"]
    assert positives.items.tolist() == ["007", "3"]
    assert negatives.users.tolist() == ["u 1", "u 1", "2"]
    assert negatives.items.tolist() == ["1", "é", "4"]
    as_text = tmp_path / "digits"
    as_text.write_text(WIDE)
    _, negatives = read_wide_candidates(as_text, {"item": "text"})
    assert negatives.items.tolist()[0] == "1064"


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
        read_wide_candidates(path, {"user": "int", "item": "int"})


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
