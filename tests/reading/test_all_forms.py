"""Logs of every format, packing, line end and alphabet, held against a plain Python parser.

As a program (`python -m tests.reading.test_all_forms FIRST COUNT`) it reads that many logs and
prints what it measured, so that the tests can watch the memory of a process of its own.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from comet_rec.errors import CometWarning, DataError
from comet_rec.reading.files import zstd
from comet_rec.reading.readers import read
from tests.reading.helpers import Row, canonical

FORMS = (",", ";", "|", "\t", "::", " ", "ndjson", "parquet")
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: zstd.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}
ENDS = ("\n", "\r\n")
ALPHABETS = {
    "ascii": "abcXYZ0189_-.+#'/\\",
    "utf-8": "aé日本řЖ😀\u00a0\u2028\ufeff7",
}
CASES = list(itertools.product(FORMS, PACKINGS, ENDS, ALPHABETS))
MOST_SECONDS, MOST_MEGABYTES = 5, 500


class Case(NamedTuple):
    rows: list[Row]
    data: bytes


def make(seed: int) -> Case:
    """The log of one seed; every combination comes up in turn."""
    form, packing, end, alphabet = CASES[seed % len(CASES)]
    rng = random.Random(seed)
    letters = ALPHABETS[alphabet]
    # What only quotes can hold, where the format has quotes.
    if form in (",", ";", "|", "\t"):
        letters += form + '"\n' + ("\r" if rng.random() < 0.3 else "")
    elif form == "ndjson":
        letters += '"\n\t,\r'
    numeric = [rng.random() < 0.4, rng.random() < 0.4]

    def identifier(side: int) -> str:
        if numeric[side] or rng.random() < 0.3:
            return str(rng.randint(-3, 40))
        return "".join(rng.choices(letters, k=rng.randint(1, 7)))

    def clean(value: str) -> str:
        # Blanks at the ends of a field are part of it, but a line of blanks alone is none; a file
        # without quotes can hold neither its delimiter nor its comment sign.
        if form in ("::", " "):
            value = "".join(x for x in value if x not in '": \u00a0\u2028"\n\r') or "x"
        return value.lstrip("#%\ufeff") or "y"

    timed = rng.random() < 0.6
    rows = [
        (
            clean(identifier(0)),
            clean(identifier(1)),
            rng.randint(10**9, 10**9 + 99) if timed else None,
        )
        for _ in range(rng.choice([1, 5, 40, 400]))
    ]
    if form == "parquet":
        return Case(rows, _parquet(rows))
    text = _json(rows, end) if form == "ndjson" else _delimited(rows, form, end, rng)
    if rng.random() < 0.2 and len(rows) > 1:
        text = text.removesuffix(end)
    mark = "\ufeff" if rng.random() < 0.1 else ""
    return Case(rows, PACKINGS[packing]((mark + text).encode()))


def _json(rows: list[Row], end: str) -> str:
    names = ("user_id", "item_id", "timestamp")
    records = [
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in rows
    ]
    text = end.join(json.dumps(record, ensure_ascii=len(rows) % 2 == 0) for record in records) + end
    parsed = [json.loads(line) for line in text.split("\n") if line.strip()]
    assert [(r["user_id"], r["item_id"], r.get("timestamp")) for r in parsed] == rows
    return text


def _delimited(rows: list[Row], form: str, end: str, rng: random.Random) -> str:
    names = ["user_id", "item_id", "timestamp"][: 2 if rows[0][2] is None else 3]
    table = [names, *([user, item, *([] if t is None else [str(t)])] for user, item, t in rows)]
    if form in ("::", " "):
        return "".join(form.join(row) + end for row in table)
    out = io.StringIO(newline="")
    # csv.writer leaves a bare CR without quotes where lines end in LF.
    bare = any("\r" in field for row in table for field in row)
    quoting = csv.QUOTE_ALL if bare or rng.random() < 0.3 else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=form, lineterminator=end, quoting=quoting).writerows(table)
    parsed = list(csv.reader(io.StringIO(out.getvalue(), newline=""), delimiter=form))
    assert parsed == table
    return out.getvalue()


def _parquet(rows: list[Row]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        path = Path(folder) / "log"
        kind = "user_id VARCHAR, item_id VARCHAR, timestamp BIGINT"
        con.execute(f"CREATE TABLE log ({kind})")
        con.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)
        columns = "user_id, item_id" if rows[0][2] is None else "*"
        con.execute(f"COPY (SELECT {columns} FROM log) TO '{path}' (FORMAT parquet)")
        return path.read_bytes()


def fault_of(seed: int, folder: Path) -> str:
    """Fault with the log of a seed; empty when the log was read as it is."""
    case = make(seed)
    path = folder / "log"
    path.write_bytes(case.data)
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CometWarning)
            log = read(path, threads=1)
    except DataError as error:
        return f"seed {seed} {CASES[seed % len(CASES)]}: refused: {error}"
    if time.monotonic() - began > MOST_SECONDS:
        return f"seed {seed}: took more than {MOST_SECONDS} s"
    times = [None] * len(log) if log.times is None else log.times.tolist()
    users, items = log.user_ids.external(log.users), log.item_ids.external(log.items)
    found = list(zip(users.tolist(), items.tolist(), times, strict=True))
    if found != canonical(case.rows):
        return f"seed {seed} {CASES[seed % len(CASES)]}: other rows"
    return ""


def main(first: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        faults = [fault_of(seed, Path(folder)) for seed in range(first, first + count)]
    found = [fault for fault in faults if fault]
    # ru_maxrss of a new process begins with what its parent had.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    sys.stdout.write(json.dumps({"faults": found, "megabytes": peak}))


def run(first: int, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.reading.test_all_forms", str(first), str(count)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def test_logs_of_all_forms_are_read_as_they_are() -> None:
    result = run(0, len(CASES))
    assert result["faults"] == []
    assert result["megabytes"] < MOST_MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_logs_are_read_as_they_are(part: int) -> None:
    result = run(1000 * (part + 1), 1000)
    sys.stdout.write(f"part {part}: peak {result['megabytes']:.0f} MB\n")
    assert result["faults"] == []
    assert result["megabytes"] < MOST_MEGABYTES


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
