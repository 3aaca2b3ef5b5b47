"""Files of a log: find them, unpack them and recode them to UTF-8."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeGuard
from urllib.parse import unquote

from comet_rec.errors import DataError, argument

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PARTITION = re.compile(r"([^=/\\]+)=(.*)")
_PATTERN = re.compile(r"[*?\[]")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Parameters
    ----------
    path : Path
    name : str
        Name in messages.
    partition : mapping of str to str
        Columns that the names of the file's folders stand for, such as `day=2024-05-01` (Hive).
    """

    path: Path
    name: str
    partition: Mapping[str, str] = field(default_factory=dict)


def is_path(source: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a source is a single path."""
    return isinstance(source, (str, os.PathLike))


def is_path_list(source: Any) -> TypeGuard[Sequence[str | os.PathLike[str]]]:
    """Whether a source is a list of paths, not a list of rows."""
    return isinstance(source, (list, tuple, set, frozenset)) and any(map(is_path, source))


def shown(path: str | os.PathLike[str]) -> str:
    """A path as messages show it, with `~` expanded."""
    return os.path.expanduser(os.fsdecode(path))


def log_files(source: Any) -> list[LogFile]:
    """Find the files of a log; they are sorted by path, whatever the order of a list in `source`.

    Parameters
    ----------
    source : path or list of paths
        A file, a folder, a pattern with `*`, `?` or `[…]`, or a list of them. The pattern `**`
        matches folders at any depth. In a folder, empty files and names that start with "." or
        "_" are skipped.

    Raises
    ------
    DataError
        When a path does not exist, is remote or is not a regular file; when a file is given
        twice; or when the folder names of the files stand for different columns.
    """
    paths = [source] if is_path(source) else list(source)
    files: list[LogFile] = []
    for path in paths:
        if not is_path(path):
            raise DataError(f"a list of files holds a {type(path).__name__}; give only paths")
        files += _files_of(shown(path))
    files.sort(key=lambda file: file.name)
    seen: dict[str, str] = {}
    for file in files:
        other = seen.setdefault(os.path.realpath(file.path), file.name)
        if other is not file.name:
            raise DataError(f"{file.name}: is given twice; name each file once")
    keys = {tuple(sorted(file.partition)) for file in files}
    if len(keys) > 1:
        raise DataError(
            f"{files[0].name}: the folders of the files have different partition columns; give "
            "files of one layout"
        )
    return files


def _files_of(name: str) -> list[LogFile]:
    """Files that a path stands for: the file itself, or the files of a folder or a pattern."""
    if _REMOTE.match(name):
        raise DataError(f"{name}: remote paths are not supported; download the file first")
    try:
        if os.path.isdir(name):
            return _files_in(name)
        if not os.path.exists(name) and _PATTERN.search(name):
            return _files_like(name)
        return [regular_file(name)]
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name!r}: cannot be opened: {error}") from error


def regular_file(name: str, partition: Mapping[str, str] | None = None) -> LogFile:
    """Check that `name` is a readable file on disk, and return it as a `LogFile`.

    Raises
    ------
    DataError
        When the file does not exist, cannot be read, or is a device, a pipe or a folder.
    """
    path = Path(name)
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise DataError(f"{name!r}: the name is not UTF-8; rename the file")
    if path.is_dir():
        raise DataError(f"{name}: is a directory; give a file")
    if not path.exists():
        raise DataError(f"{name}: no such file")
    if not path.is_file():
        raise DataError(f"{name}: is not a regular file; give a file on disk")
    if not os.access(path, os.R_OK):
        raise DataError(f"{name}: cannot be opened: permission denied")
    return LogFile(path, name, partition or {})


def _files_in(folder: str) -> list[LogFile]:
    """All files below a folder, except the hidden and empty files that Spark adds."""
    if os.path.isfile(os.path.join(folder, "manifest.json")):
        raise DataError(f"{folder}: is a run of a trained model; give the log")
    data_files = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder that was visited before
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(files):
            path = os.path.join(place, name)
            if name[0] not in "._" and not _is_empty(path):
                data_files.append(regular_file(path, _partition(path, folder)))
    if not data_files:
        raise DataError(f"{folder}: has no files with data")
    return data_files


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _files_like(pattern: str) -> list[LogFile]:
    """All files that match a pattern, except hidden and empty ones."""
    matches = {
        os.path.realpath(name): name
        for name in sorted(glob.glob(pattern, recursive=True), reverse=True)
        if not os.path.isdir(name) and os.path.basename(name)[0] not in "._" and not _is_empty(name)
    }
    if not matches:
        raise DataError(f"{pattern}: matches no file with data; check the pattern")
    # Folders before the first wildcard only locate the log; they are no partitions.
    fixed = os.path.dirname(pattern[: _PATTERN.search(pattern).start()])  # type: ignore[union-attr]
    return [regular_file(name, _partition(name, fixed)) for name in sorted(matches.values())]


def _partition(path: str, folder: str) -> dict[str, str]:
    """Columns that the names of the folders between `folder` and a file stand for."""
    between = os.path.relpath(os.path.dirname(path) or ".", folder or ".").split(os.sep)
    columns: dict[str, str] = {}
    for part in between:
        if match := _PARTITION.fullmatch(part):
            value = unquote(match[2])
            columns[match[1]] = "" if value == _NO_VALUE else value
    return columns


Compression = Literal["none", "gzip", "bzip2", "xz", "zstd"]
CHUNK_BYTES = 1 << 20

# A compressed file is refused if it unpacks to more than BOMB_BYTES and more than BOMB_RATIO times
# its size, or to a longer line than BOMB_BYTES: it may be meant to fill the disk. Real logs shrink
# at most to a fiftieth.
BOMB_BYTES = 64 << 20
BOMB_RATIO = 200
ZSTD_WINDOW_LOG = 27
"""Largest window that the command `zstd` accepts by default: 128 MB."""

_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)

# A text may also start with "BZh", so the mark of a block, or of an empty file's end, must follow.
_BZIP2 = re.compile(rb"BZh[1-9](1AY|\x17rE)")


def compression_of(magic: bytes) -> Compression:
    """Detect the compression of a file from its first bytes."""
    if _BZIP2.match(magic):
        return "bzip2"
    for start, name in _MAGIC:
        if magic.startswith(start):
            return name
    # A zstd file may start with a skippable frame (RFC 8878, section 3.1.2).
    if magic[1:4] == b"\x2a\x4d\x18" and magic[:1] and magic[0] >> 4 == 5:
        return "zstd"
    return "none"


def text_encoding(encoding: str | None, name: str) -> str | None:
    """Python's name of a text encoding; None for UTF-8.

    Parameters
    ----------
    encoding : str or None
        Encoding that the user gave; None stands for UTF-8.
    name : str
        Name of the file in messages.

    Raises
    ------
    DataError
        When Python has no such text encoding.
    """
    if encoding is None:
        return None
    try:
        "".encode(encoding)  # a codec of bytes, such as base64, is refused here
        codec = codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError):
        raise DataError(
            f"{name}: {encoding!r} is no encoding; "
            "common ones are utf-8, latin-1, cp1252, utf-16, gbk, shift_jis"
        ) from None
    return None if codec in ("utf-8", "utf-8-sig") else codec


def chunks(path: Path, name: str, compression: Compression) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file in chunks; damage may show only at the last chunk.

    Raises
    ------
    DataError
        When the file is truncated or damaged, or unpacks to far more bytes than a log would.
    """
    try:
        with path.open("rb") as raw:
            packed, size, since_line_end = path.stat().st_size, 0, 0
            for chunk in _unpacked(raw, compression):
                yield chunk
                if compression == "none":
                    continue
                size += len(chunk)
                at = chunk.rfind(b"\n")
                since_line_end = since_line_end + len(chunk) if at < 0 else len(chunk) - at - 1
                endless = since_line_end > BOMB_BYTES
                if endless or size > max(BOMB_BYTES, BOMB_RATIO * packed):
                    raise DataError(
                        f"{name}: {packed:,} bytes of {compression} unpack to over {size:,} bytes"
                        f"{' without a line end' if endless else ''}; if that is right, unpack it"
                        " yourself"
                    )
    except EOFError as error:
        raise DataError(f"{name}: is a truncated {compression} file; fetch it again") from error
    except (zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
        if "memory" in str(error).lower():  # a window above the limit is no damage
            raise DataError(f"{name}: needs too much memory; unpack it yourself") from error
        raise DataError(f"{name}: is a damaged {compression} file; fetch it again") from error
    except OSError as error:
        if compression != "none" and error.errno is None:
            raise DataError(f"{name}: is a damaged {compression} file; fetch it again") from error
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _unpacked(raw: IO[bytes], compression: Compression) -> Iterator[bytes]:
    """Unpack an open file in chunks; the errors are those of the compression library."""
    if compression in ("bzip2", "xz"):
        yield from _streams(raw, bz2.BZ2Decompressor if compression == "bzip2" else _xz)
        return
    opened: Any = raw
    if compression == "gzip":
        opened = gzip.GzipFile(fileobj=raw)
    elif compression == "zstd":
        window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        opened = zstd.ZstdFile(raw, options=window)
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ)


def _streams(raw: IO[bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file that may hold several compressed streams.

    Python's own file objects silently drop a damaged later stream: they take it for trailing
    garbage. `make` creates the decompressor of one stream.
    """
    data = raw.read(CHUNK_BYTES)
    while data:
        unpacker = make()
        while not unpacker.eof:
            chunk = unpacker.decompress(data, CHUNK_BYTES)
            if chunk:
                yield chunk
            data = b""
            if unpacker.needs_input and not unpacker.eof:
                data = raw.read(CHUNK_BYTES)
                if not data:
                    raise EOFError
        data = unpacker.unused_data or raw.read(CHUNK_BYTES)
        # Zeros may follow a stream of xz as padding; a stream of bzip2 never starts with zeros.
        while data and not data.strip(b"\0"):
            data = raw.read(CHUNK_BYTES)
        data = data.lstrip(b"\0")


def plain_file(
    path: Path, name: str, compression: Compression, codec: str | None, place: Path
) -> Path:
    """Path of an uncompressed UTF-8 version of a file: the file itself, or a copy at `place`.

    Raises
    ------
    DataError
        When the file is damaged, its bytes do not fit the encoding `codec`, or the disk is full.
    """
    if compression == "none" and codec is None:
        return path
    try:
        with place.open("wb") as out:
            source = chunks(path, name, compression)
            out.writelines(source if codec is None else _recoded(source, name, codec))
    except OSError as error:
        raise DataError(f"{name}: cannot be unpacked to {place}: {error.strerror}") from error
    return place


def _recoded(source: Iterator[bytes], name: str, codec: str) -> Iterator[bytes]:
    """Recode chunks of bytes from the encoding `codec` to UTF-8."""
    decoder = codecs.getincrementaldecoder(codec)()
    line = 1
    for chunk in source:
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            # The chunk may start inside a character, so lines are counted in the decoder's input.
            line += error.object[: error.start].decode(codec, errors="ignore").count("\n")
            raise _not_encoded(name, line, codec) from error
        except UnicodeError as error:  # UTF-16 or UTF-32 without a byte-order mark
            raise DataError(
                f"{name}: has no byte-order mark; pass {argument('encoding', codec + '-le')} or "
                f"{argument('encoding', codec + '-be')}"
            ) from error
        line += text.count("\n")
        yield text.encode("utf-8", errors="surrogatepass")
    try:
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        raise _not_encoded(name, line, codec) from error


def _not_encoded(name: str, line: int, codec: str) -> DataError:
    """Error for bytes that are no text in the encoding `codec`."""
    return DataError(
        f"{name}, line {line:,}: is not {codec} text; pass the right {argument('encoding')}"
    )
