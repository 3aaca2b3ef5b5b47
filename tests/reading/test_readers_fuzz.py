"""Random logs: read as a plain Python reference reads them, or refused in one line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from comet_rec.errors import DataError
from comet_rec.reading.files import zstd
from comet_rec.reading.readers import read
from tests.reading.helpers import INT64, Row, canonical, is_integer

# These logs are odd on purpose; their warnings have tests of their own.
pytestmark = pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")


any_text = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=8
)
awkward = st.sampled_from(
    ['"', "a,b", "a;b|c", "::", "\t", "007", "+1", "1.0", " 1", "-0", "é", "𝕏", "\ufeff", "'",
     "null", "NULL", "nan", "{", "[", "\\", "\\N", '""', "a\nb", "c\r\nd", "\x1f", "#", "(1,2)",
     str(2**63), str(-(2**63))]
)  # fmt: skip
digits = st.integers(-3, 30).map(str)
identifier = st.one_of(digits, digits, any_text, awkward)
ends = st.sampled_from([INT64[0], INT64[-1]])
clock = st.one_of(st.integers(0, 9), st.integers(10**9, 10**9 + 50), ends)
INSERTED = [
    b"\0", b"\xff", b'"', b"\n", b"\r", b",", b"\t", b"::", b"{", b"9" * 20, b"\n\n", b"x", b" ",
    b"\x1f", b"\xc3", b"\xed\xa0\x80",
]  # fmt: skip


PACKERS: list[Callable[[bytes], bytes]] = [
    bytes, lambda data: gzip.compress(data, 1, mtime=0), zstd.compress, bz2.compress, lzma.compress
]  # fmt: skip


class Log(NamedTuple):
    rows: list[Row]
    data: bytes


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A well-formed file in one of the formats, and what it holds."""
    kind = draw(st.sampled_from([",", ";", "|", "\t", "::", "ndjson"]))
    ids = draw(st.sampled_from([digits, identifier]))
    # A file of odd text without a header row is refused, rightly, as ambiguous.
    header = kind != "::" or draw(st.booleans())
    if kind == "::":  # no quotes there, so some cannot be written, and some look like columns
        odd = "\r\n:" if header else "\r\n:;|,\t"
        ids = ids.filter(lambda v: not any(c in v for c in odd))
    timed = draw(st.booleans())
    times = clock if timed else st.none()
    rows = draw(st.lists(st.tuples(ids, ids, times), min_size=1, max_size=12))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    if kind == "ndjson":
        text = _json_lines(rows, end, draw(st.booleans()))
    else:
        text = _delimited(rows, kind, end, header, timed, draw(st.booleans()))
    data = (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.encode()
    return Log(rows, draw(st.sampled_from(PACKERS))(data))


def _json_lines(rows: list[Row], end: str, numbers: bool) -> str:
    def one(row: Row) -> str:
        user: Any = int(row[0]) if numbers and is_integer(row[0]) else row[0]
        line = {"user_id": user, "item_id": row[1], "timestamp": row[2]}
        return json.dumps({k: v for k, v in line.items() if v is not None}) + end

    return "".join(one(row) for row in rows)


def _delimited(
    rows: list[Row], delimiter: str, end: str, header: bool, timed: bool, all_quoted: bool
) -> str:
    names = [["user_id", "item_id", "rating", "timestamp"][: 4 if timed else 2]] if header else []
    table = names + [[u, i] if t is None else [u, i, "5", str(t)] for u, i, t in rows]
    if delimiter == "::":
        return "".join("::".join(row) + end for row in table)
    out = io.StringIO(newline="")
    # csv.writer leaves a bare CR without quotes where lines end in LF.
    bare = any("\r" in field for row in table for field in row)
    quoting = csv.QUOTE_ALL if all_quoted or bare else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(table)
    return out.getvalue()


def read_bytes(data: bytes, **options: Any) -> list[tuple[Any, Any, int | None]] | str:
    """Rows that `read` makes of a file of these bytes, or its reason to refuse them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data)
        try:
            log = read(path, threads=1, **options)
        except DataError as error:
            message = str(error)
            assert "\n" not in message
            assert "\r" not in message
            assert message.startswith(str(path))
            assert len(message.replace(str(path), "")) < 400
            return message
    times = [None] * len(log) if log.times is None else log.times.tolist()
    users, items = log.user_ids.external(log.users), log.item_ids.external(log.items)
    assert sorted(set(users.tolist())) == log.user_ids.values.tolist()
    assert sorted(set(items.tolist())) == log.item_ids.values.tolist()
    return list(zip(users.tolist(), items.tolist(), times, strict=True))


def check_well_formed(log: Log) -> None:
    assert read_bytes(log.data) == canonical(log.rows)


def mutate(data: bytes, seed: int) -> bytes:
    """Damage of the kinds that files suffer."""
    rng = random.Random(seed)
    packed = data.startswith(b"\x1f\x8b")
    inside = packed and rng.random() < 0.7
    damaged = bytearray(gzip.decompress(data) if inside else data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        match rng.randrange(6):
            case 0:
                del damaged[at:]
            case 1:
                damaged[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                damaged[at:at] = rng.choice(INSERTED)
            case 3:
                del damaged[at : at + rng.randint(1, 5)]
            case 4:
                lines = damaged.split(b"\n")
                rng.shuffle(lines)
                damaged = bytearray(b"\n".join(lines))
            case _:
                damaged += damaged[at:]
    return gzip.compress(bytes(damaged), 1, mtime=0) if inside else bytes(damaged)


def check_damaged(log: Log, seed: int, skip_bad: int) -> None:
    data = mutate(log.data, seed)
    found = read_bytes(data, skip_bad=skip_bad)
    if isinstance(found, str) and (told := found.rpartition("skip_bad=")[2]).isdigit():
        # The advice must be true: that many skipped, nothing bad is left to complain of.
        again = read_bytes(data, skip_bad=int(told))
        assert not isinstance(again, str) or "skip_bad" not in again


quick = settings(
    max_examples=50, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
long = settings(quick, max_examples=1000, derandomize=False)
magics = st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1"])
seeds = st.integers(0, 2**32)


@quick
@given(logs())
def test_a_well_formed_log_is_read(log: Log) -> None:
    check_well_formed(log)


@quick
@given(logs(), seeds, st.integers(0, 2))
def test_a_damaged_log_is_read_or_refused(log: Log, seed: int, skip_bad: int) -> None:
    check_damaged(log, seed, skip_bad)


@quick
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1"])
)
@example(b"", b"")
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    read_bytes(magic + data)


@pytest.mark.slow
@long
@given(logs())
def test_well_formed_logs_are_read(log: Log) -> None:
    check_well_formed(log)


@pytest.mark.slow
@long
@given(logs(), seeds, st.integers(0, 2))
def test_damaged_logs_are_read_or_refused(log: Log, seed: int, skip_bad: int) -> None:
    check_damaged(log, seed, skip_bad)


@pytest.mark.slow
@long
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1"])
)
def test_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    read_bytes(magic + data)
