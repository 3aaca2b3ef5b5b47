"""Compressed files: told by magic bytes, checked to be whole, read from the start."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, cast

import duckdb

from comet_rec.errors import DataError
from comet_rec.reading.database import connect, quoted, reader_path

Compression = Literal["none", "gzip", "zstd"]
HEAD_BYTES = 1 << 18
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def compression_of(magic: bytes) -> Compression:
    """The compression that a file's first bytes announce."""
    if magic.startswith(_GZIP):
        return "gzip"
    return "zstd" if magic.startswith(_ZSTD) else "none"


def verify(path: Path, name: str, compression: Compression) -> None:
    """Refuse a damaged or truncated file.

    DuckDB reads a truncated zstd file to the cut and a gzip file with a wrong checksum to the
    end, and reports neither.

    Raises
    ------
    DataError
        When the file is not whole.
    """
    try:
        if compression == "gzip":
            with _opened(path, compression) as unpacked:
                while unpacked.read(1 << 20):
                    pass
        elif compression == "zstd":
            with path.open("rb") as file:
                _walk_zstd(file, path.stat().st_size)
    except EOFError as error:
        raise DataError(f"{name}: is a truncated {compression} file; fetch it again") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{name}: is a damaged {compression} file; fetch it again") from error


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _walk_zstd(file: IO[bytes], size: int) -> None:
    """Step over every block of every frame (RFC 8878, section 3.1) to the file's end."""
    while magic := file.read(4):
        if len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
            file.seek(int.from_bytes(_exactly(file, 4), "little"), 1)
        elif magic == _ZSTD:
            descriptor = _exactly(file, 1)[0]
            single = descriptor >> 5 & 1
            content_size = (single, 2, 4, 8)[descriptor >> 6]
            dictionary = (0, 1, 2, 4)[descriptor & 3]
            _exactly(file, (1 - single) + dictionary + content_size)
            last = 0
            while not last:
                block = int.from_bytes(_exactly(file, 3), "little")
                last, kind = block & 1, block >> 1 & 3
                if kind == 3:
                    raise OSError("reserved block type")
                file.seek(1 if kind == 1 else block >> 3, 1)
            _exactly(file, 4 if descriptor >> 2 & 1 else 0)
        else:
            raise OSError("not a zstd frame")
        if file.tell() > size:
            raise EOFError


def _opened(path: Path, compression: Compression) -> IO[bytes]:
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb")


def head_of(path: Path, name: str, compression: Compression) -> tuple[bytes, bool]:
    """The first bytes of the unpacked file, and whether they are all of it."""
    if compression == "zstd":
        kept = b""
        for line in _zstd_lines(path, name):
            kept += line
            if len(kept) > HEAD_BYTES:
                return kept, False
        return kept, True
    with _opened(path, compression) as file:
        head = file.read(HEAD_BYTES + 1)
    return head[:HEAD_BYTES], len(head) <= HEAD_BYTES


def lines_of(path: Path, name: str, compression: Compression, start: int = 0) -> Iterator[bytes]:
    """The physical lines of the unpacked file, with their line ends; a plain one from a byte."""
    if compression == "zstd":
        yield from _zstd_lines(path, name)
        return
    with _opened(path, compression) as file:
        file.seek(start)
        yield from file


def _zstd_lines(path: Path, name: str) -> Iterator[bytes]:
    """Lines through DuckDB: Python 3.11 has no zstd. As latin-1, so that every byte survives."""
    with connect(threads=1) as con:
        try:
            con.execute(
                f"SELECT line FROM read_csv({quoted(reader_path(path))}, auto_detect=false, "
                "header=false, delim='\x1f', quote='', escape='', columns={'line': 'VARCHAR'}, "
                "compression='zstd', encoding='latin-1', ignore_errors=true, "
                "hive_partitioning=false)"
            )
            while rows := con.fetchmany(1000):
                for (line,) in rows:
                    yield (line or "").encode("latin-1") + b"\n"
        except duckdb.Error as error:
            raise DataError(f"{name}: is not readable as lines of text") from error
