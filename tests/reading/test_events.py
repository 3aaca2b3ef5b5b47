"""Rows of some events, and which row of a repeated pair counts, in every format."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import comet_rec as cr
from comet_rec.reading import parts
from tests.reading.helpers import refusal, write

EVENTS = ("view", "cart", "purchase")
SHOP = """user,item,ts,type
ada,tent,1,view
ada,tent,5,purchase
ada,mat,2,cart
bob,mat,3,view
bob,tent,4,purchase
bob,tent,9,purchase
"""


def triples(log: cr.Interactions) -> list[tuple[Any, Any, int | None]]:
    """Rows of a log by external ids."""
    users = log.user_ids.external(log.users).tolist()
    items = log.item_ids.external(log.items).tolist()
    times = [None] * len(log) if log.times is None else log.times.tolist()
    return list(zip(users, items, times, strict=True))


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function after which every text file is read line by line."""

    def switch() -> None:
        monkeypatch.setattr(parts, "scan", lambda *_: None)

    return switch


def records(seed: int) -> list[dict[str, Any]]:
    """Rows with repeated pairs and equal times."""
    rng = random.Random(seed)
    return [
        {
            "user": f"u{rng.randrange(6)}",
            "item": rng.randrange(5),
            "ts": 10**9 + rng.randrange(8),
            "kind of event": rng.choice(EVENTS),
        }
        for _ in range(120)
    ]


def expected(rows: list[dict[str, Any]], kept: list[str], repeats: str) -> list[tuple[Any, ...]]:
    """The rows that a log of these records must give."""
    rows = [row for row in rows if row["kind of event"] in kept]
    rows.sort(key=lambda row: (row["user"], row["ts"]))  # a stable sort
    found: dict[tuple[Any, Any], tuple[Any, ...]] = {}
    for row in rows:
        pair = row["user"], row["item"]
        if repeats == "last":
            found.pop(pair, None)
        found.setdefault(pair, (*pair, row["ts"]))
    return list(found.values())


def sources(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The same log in every form."""
    frame = pd.DataFrame(rows)
    made: dict[str, Any] = {
        "pandas": frame,
        "category": frame.astype({"kind of event": "category"}),
        "polars": pl.DataFrame(rows),
        "lazy": pl.LazyFrame(rows),
        "arrow": pa.Table.from_pylist(rows),
        "columns": {name: frame[name].tolist() for name in frame},
    }
    for mark, name in ((",", "csv"), ("\t", "tsv"), ("::", "dat")):
        text = "\n".join(
            mark.join(map(str, row)) for row in (rows[0], *(row.values() for row in rows))
        )
        made[name] = write(folder / f"log.{name}", text + "\n")
    made["gzip"] = write(folder / "log.csv.gz", gzip.compress(made["csv"].read_bytes()))
    made["ndjson"] = write(folder / "log.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    pl.DataFrame(rows).write_parquet(folder / "log.parquet")
    made["parquet"] = folder / "log.parquet"
    return made


@pytest.mark.parametrize("repeats", ["first", "last"])
@pytest.mark.parametrize("kept", [["purchase"], ["cart", "purchase"]])
def test_every_form_keeps_the_same_rows(kept, repeats, tmp_path, careful) -> None:
    rows = records(len(kept))
    want = expected(rows, kept, repeats)
    options: dict[str, Any] = {"events": {"kind of event": kept}, "repeats": repeats}
    made = sources(rows, tmp_path)
    for form, source in made.items():
        log = cr.read(source, **options)
        assert triples(log) == want, form
        note = f"rows: kind of event in {', '.join(kept)}"
        assert any(note in line for line in log.notes)
        assert log.origin is not None
        assert log.origin.rows == len(rows)
        assert log.origin.other_events == sum(row["kind of event"] not in kept for row in rows)
    careful()
    for form in ("csv", "tsv", "dat", "gzip", "ndjson"):
        assert triples(cr.read(made[form], **options)) == want, form


@pytest.mark.parametrize("repeats", ["first", "last"])
def test_the_order_of_rows_changes_nothing_where_times_differ(repeats) -> None:
    rows = [dict(row, ts=place) for place, row in enumerate(records(3))]
    want = expected(rows, list(EVENTS), repeats)
    random.Random(0).shuffle(rows)
    assert triples(cr.read(pd.DataFrame(rows), repeats=repeats)) == want


def test_the_first_row_of_a_pair_counts_by_default_and_the_last_on_request() -> None:
    frame = pd.DataFrame({"user": [1, 1, 1], "item": [7, 8, 7], "time": [30, 20, 10]})
    assert triples(cr.read(frame)) == triples(cr.read(frame, repeats="first"))
    assert triples(cr.read(frame)) == [(1, 7, 10), (1, 8, 20)]
    log = cr.read(frame, repeats="last")
    assert triples(log) == [(1, 8, 20), (1, 7, 30)]
    assert "1 repeated (user, item) rows removed, the last of each pair kept" in log.notes
    untimed = frame[["user", "item"]]
    assert triples(cr.read(untimed)) == [(1, 7, None), (1, 8, None)]
    assert triples(cr.read(untimed, repeats="last")) == [(1, 8, None), (1, 7, None)]
    assert "give first or last" in refusal(frame, repeats="both")


def test_rows_of_other_events_may_lack_ids_and_times(tmp_path, careful) -> None:
    """A log of events often holds searches without an item, and logins."""
    rows = [
        {"user": 1, "item": 7, "ts": 5, "type": "buy"},
        {"user": 1, "item": "a search", "ts": 6, "type": "search"},
        {"user": "", "item": "", "ts": "never", "type": "login"},
        {"user": 2, "item": 8, "ts": 7, "type": "buy"},
        {"user": 2, "item": 1.5, "ts": 7, "type": ""},
    ]
    text = "\n".join(",".join(map(str, row)) for row in (rows[0], *(r.values() for r in rows)))
    csv = write(tmp_path / "log.csv", text + "\n")
    ndjson = write(tmp_path / "log.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    for _ in range(2):
        for source in (csv, ndjson):
            log = cr.read(source, events={"type": ["buy"]})
            assert triples(log) == [(1, 7, 5), (2, 8, 7)]
            assert "kept 2 of 5 rows: type in buy" in log.notes
        careful()


def test_a_bad_row_of_a_kept_event_is_still_refused(tmp_path, careful) -> None:
    broken = SHOP + "bob,,10,purchase\nbob,tent\n"
    path = write(tmp_path / "log.csv", broken)
    for _ in range(2):
        line = refusal(path, events={"type": ["purchase"]})
        assert "log.csv, line 8, column 'item': is empty" in line
        log = cr.read(path, events={"type": ["purchase"]}, skip_bad=2)
        assert triples(log) == [("ada", "tent", 5), ("bob", "tent", 4)]
        assert log.origin is not None
        assert (log.origin.rows, log.origin.bad, log.origin.repeats) == (8, 2, 1)
        careful()


def test_lines_that_are_no_json_object_are_bad_whatever_the_event(tmp_path, careful) -> None:
    rows = '{"user": 1, "item": 2, "bought": true}\n[1]\n{"user": 1, "item": 3, "bought": false}\n'
    path = write(tmp_path / "log.jsonl", rows + '{"user": 2, "item": 2, "bought": true}\n')
    for _ in range(2):
        assert "line 2: is not a JSON object" in refusal(path, events={"bought": [True]})
        log = cr.read(path, events={"bought": [True]}, skip_bad=1)
        assert triples(log) == [(1, 2, None), (2, 2, None)]
        careful()


def test_an_event_that_is_not_utf_8_is_another_event(tmp_path) -> None:
    path = write(tmp_path / "log.csv", SHOP.encode() + b"caf\xe9,tent,7,view\n")
    log = cr.read(path, events={"type": ["purchase"]})
    assert [user for user, _, _ in triples(log)] == ["ada", "bob"]
    assert "is not UTF-8" in refusal(path, events={"type": ["view"]})


def test_an_unknown_column_or_event_is_refused_with_the_valid_ones(tmp_path, careful) -> None:
    path = write(tmp_path / "log.csv", SHOP)
    for _ in range(2):
        assert "no column 'tpye'; did you mean 'type'?" in refusal(path, events={"tpye": ["view"]})
        line = refusal(path, events={"type": ["view", "buy"]})
        assert "column 'type': no row has 'buy'" in line
        assert "its values are 'purchase', 'view', 'cart'" in line
        careful()
    assert "give one column" in refusal(path, events={"type": ["view"], "item": ["mat"]})
    assert "give one column" in refusal(path, events=["view"])
    assert "at least one value" in refusal(path, events={"type": []})
    assert "both item and event" in refusal(path, item="item", events={"item": ["mat"]})


def test_a_column_of_events_is_taken_for_nothing_else(tmp_path) -> None:
    """A column `click` would be the rating, and `asin` the item."""
    path = write(tmp_path / "log.csv", "user,item,asin,click\n1,2,a,1\n1,3,b,0\n2,3,a,1\n")
    log = cr.read(path, events={"click": [1]})
    assert triples(log) == [(1, 2, None), (2, 3, None)]
    log = cr.read(path, events={"asin": "a"})
    assert not any("asin" in note and "could be it too" in note for note in log.notes)
    assert len(log) == 2


def test_numbers_of_events_are_one_number_in_every_type() -> None:
    frame = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 2], "kind": [1, 2, 1]})
    want = [(1, 1, None), (2, 2, None)]
    for kind in ("int64", "float64", "float16", "string", "category", "Int64"):
        assert triples(cr.read(frame.astype({"kind": kind}), events={"kind": [1]})) == want
    flags = frame.assign(kind=frame["kind"] == 1)
    assert triples(cr.read(flags, events={"kind": [True]})) == want
    assert triples(cr.read(flags.to_dict("list"), events={"kind": ["true"]})) == want


def test_partitions_and_columns_by_number_may_hold_the_event(tmp_path) -> None:
    for event in ("view", "buy"):
        write(tmp_path / f"days/event={event}/a.csv", f"user,item\n1,{len(event)}\n2,9\n")
    log = cr.read(tmp_path / "days", events={"event": ["buy"]})
    assert triples(log) == [(1, 3, None), (2, 9, None)]
    path = write(tmp_path / "rows.tsv", "1\t5\t3\tbuy\n1\t6\t4\tview\n2\t5\t2\tbuy\n")
    log = cr.read(path, user=1, item=2, time=3, events={"4": ["buy"]})
    assert triples(log) == [(1, 5, 3), (2, 5, 2)]
    log = cr.read([(1, 5, "buy"), (1, 6, "view")], events={"3": ["buy"]})
    assert triples(log) == [(1, 5, None)]


def test_positions_within_a_user_are_found_before_other_events_are_left_out() -> None:
    rows = [(user, item, step) for user in range(4) for step, item in enumerate((3, 1, 2, 0))]
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame["type"] = np.where(frame["time"] % 2 == 0, "view", "buy")
    log = cr.read(frame, events={"type": ["buy"]})
    assert log.time_scope == "per_user"
    assert log.times is not None
    assert log.times.tolist() == [1, 3] * 4


def test_other_events_are_no_filtered_pairs() -> None:
    """What a user only viewed may be recommended, and may be a negative."""
    frame = pd.DataFrame(
        {"user": [1, 1, 2], "item": [7, 8, 8], "rating": [5, 1, 5], "type": ["buy", "view", "buy"]}
    )
    log = cr.read(frame, events={"type": ["buy"]}, min_rating=4)
    assert len(log.dropped_users) == 0
    assert log.origin is not None
    assert (log.origin.other_events, log.origin.low_ratings) == (1, 0)


def test_both_parsers_count_the_same_rows_of_broken_logs(tmp_path, careful) -> None:
    """The second time, every file is read line by line."""

    def broken_log(seed: int) -> tuple[dict[str, Any], list[Path]]:
        rng = random.Random(seed)
        rows = [
            {
                "user": rng.choice(["a", "b", "7", "", 8]),
                "item": rng.choice([1, 2, "", "x"]),
                "ts": rng.choice([5, 6, 7, "never"]),
                "type": rng.choice(["view", "buy", "", "1", "café"]),
            }
            for _ in range(30)
        ]
        rows.append({"user": "a", "item": 1, "ts": 3, "type": "buy"})
        lines = [",".join(map(str, row.values())) for row in rows]
        objects = list(map(json.dumps, rows))
        lines.insert(1 + seed, "a,b")
        objects.insert(1 + seed, "[1]")
        csv = write(tmp_path / f"{seed}.csv", "\n".join(["user,item,ts,type", *lines]) + "\n")
        ndjson = write(tmp_path / f"{seed}.jsonl", "\n".join(objects) + "\n")
        kept = rng.choice([["buy"], ["buy", "café"]])
        options = {"events": {"type": kept}, "repeats": rng.choice(["first", "last"])}
        return options, [csv, ndjson]

    def outcomes() -> list[Any]:
        found = []
        for seed in range(8):
            options, paths = broken_log(seed)
            for path in paths:
                log = cr.read(path, skip_bad=100, **options)
                found.append((triples(log), log.origin))
        return found

    direct = outcomes()
    careful()
    assert outcomes() == direct


def test_users_without_a_kept_event_are_counted(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,type\na,1,buy\na,2,view\nb,1,view\nb,3,view\nc,2,buy\n")
    log = cr.read(path, events={"type": ["buy"]})
    assert log.user_ids.values.tolist() == ["a", "c"]
    assert (
        "kept 2 of 5 rows: type in buy; users without such a row, who are left out: 1" in log.notes
    )
