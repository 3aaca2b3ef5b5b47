"""Fetching one file safely: resumed, verified, unpacked by name only."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from comet_rec.errors import DataError

Progress = Callable[[int, int | None], None]

MAX_BYTES = 4 * 2**30
ATTEMPTS = 5
PAUSE = 1.0
CHUNK = 2**16


class SourceUnavailableError(DataError):
    """The place that a file comes from cannot be reached, refuses, or keeps breaking off."""


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes, as ``algorithm:hex``."""
    with path.open("rb") as stream:
        state = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{state.hexdigest()}"


def is_intact(path: Path, digest: str) -> bool:
    """Whether a file has this digest (``md5:…`` or ``sha256:…``)."""
    return digest_of(path, digest.partition(":")[0]) == digest


def download(
    url: str,
    target: Path,
    *,
    digest: str | None = None,
    part: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 10.0,
) -> None:
    """Fetch `url` into `target`, going on from where an earlier attempt broke off.

    Parameters
    ----------
    url : str
        An http or https address.
    target : Path
        Appears only once it is whole and verified.
    digest : str, optional
        ``md5:…`` or ``sha256:…`` of the whole file.
    part : Path, optional
        What has arrived so far, kept between runs; ``target`` with ``.part`` by default.
    progress : callable, optional
        Called with the bytes that are there and the bytes of the whole (None when not told).
    timeout : float
        Seconds to wait for a connection, and for each piece of data.

    Raises
    ------
    SourceUnavailableError
        When the source cannot be reached, answers with an error or a web page, or the connection
        breaks off again and again.
    DataError
        When the file is not what the digest says, or is larger than any data set here.
    """
    part = part or target.with_name(target.name + ".part")
    state = part.with_name(part.name + ".json")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        if _transfer(url, part, state, progress, timeout):
            break
    else:
        raise SourceUnavailableError(
            f"{url}: the connection broke off {ATTEMPTS} times; run the same again to go on"
        )
    state.unlink(missing_ok=True)
    if digest is not None and not is_intact(part, digest):
        part.unlink()
        raise DataError(f"{url}: the file that came does not have the digest {digest}; fetch again")
    os.replace(part, target)


def _transfer(url: str, part: Path, state: Path, progress: Progress | None, timeout: float) -> bool:
    """One request, appended to what is there; whether the whole file is there now."""
    known = _read_state(state, url)
    have = part.stat().st_size if known and part.exists() else 0
    headers = {"User-Agent": "comet-rec", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known["validator"]:
            headers["If-Range"] = known["validator"]
    response = _open(urllib.request.Request(url, headers=headers), timeout)
    if response is None:  # no such range: what we have is not a piece of this file
        part.unlink()
        return False
    with response:
        start, total = _extent(response)
        said = {"url": url, "validator": _validator(response), "total": total}
        if start != have or (have and said != known):
            if start:  # a piece of another version, or not the piece that we asked for
                part.unlink(missing_ok=True)
                return False
            have = 0  # the server sends the whole file: start anew
        if not have:
            part.unlink(missing_ok=True)
            state.write_text(json.dumps(said), encoding="utf-8")
        with part.open("ab" if have else "wb") as out:
            return _copy(response, out, have, total, progress)


def _read_state(state: Path, url: str) -> dict[str, Any]:
    """What the server said about the file that the partial one belongs to; {} if unusable."""
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    # Without a validator, the length is all that tells one version from another.
    if known.get("url") == url and (known.get("validator") or known.get("total")):
        return dict(known)
    return {}


def _open(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse | None:
    """The response, or None where the range that was asked for does not exist."""
    url = request.full_url
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and request.has_header("Range"):
            return None
        raise SourceUnavailableError(f"{url} answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise SourceUnavailableError(f"{url} cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceUnavailableError(f"{url} cannot be reached: {error!r}") from None
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise SourceUnavailableError(f"{url} answers with a web page in place of the file")
    return response


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where this answer begins in the file, and the length of the whole file, if told."""
    if response.status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers["Content-Range"] or "")
        if said is None:
            return -1, None
        return int(said[1]), None if said[2] == "*" else int(said[2])
    length = response.headers["Content-Length"]
    return 0, int(length) if length and length.isdigit() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What tells this version of the file from others; a weak ETag does not."""
    etag: str | None = response.headers["ETag"]
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers["Last-Modified"]
    return modified


def _copy(
    response: http.client.HTTPResponse,
    out: IO[bytes],
    have: int,
    total: int | None,
    progress: Progress | None,
) -> bool:
    """Append the answer's body; whether it came to its end."""
    while total is None or have < total:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException):
            return False
        if not chunk:
            return total is None
        have += len(chunk)
        if have > MAX_BYTES:
            out.truncate(0)
            raise DataError(f"{response.url}: more than {MAX_BYTES} bytes, no data set here is")
        out.write(chunk)
        if progress is not None:
            progress(have, total)
    return True


def unpack(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Take the named members of a zip archive, and nothing else, into one flat folder.

    Raises
    ------
    DataError
        When the archive is damaged, lacks a member, holds one that is too large, or holds any
        path that leads out of the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                path = PureWindowsPath(name)  # reads / and \\ alike
                if path.drive or path.root or ".." in path.parts:
                    raise DataError(f"{archive}: refused, as it holds the unsafe path {name!r}")
            for member in members:
                _unpack_one(opened, member, folder)
    except KeyError as error:
        raise DataError(f"{archive}: {error.args[0]}; fetch the data set again") from None
    # RuntimeError: encrypted; NotImplementedError: a compression that Python does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; fetch it again") from None


def _unpack_one(opened: zipfile.ZipFile, member: str, folder: Path) -> None:
    info = opened.getinfo(member)
    if info.file_size > MAX_BYTES:  # reading stops at this size, whatever the archive unpacks to
        raise DataError(f"{opened.filename}: {member} unpacks to {info.file_size} bytes; refused")
    name = PurePosixPath(member).name
    part = folder / f".{name}.{uuid.uuid4().hex}"
    try:
        with opened.open(info) as source, part.open("xb") as out:
            shutil.copyfileobj(source, out)
        os.replace(part, folder / name)
    finally:
        part.unlink(missing_ok=True)


def download_wheel(requirement: str, folder: Path) -> Path:
    """Fetch one wheel through pip, without installing it or running any of its code.

    Raises
    ------
    SourceUnavailableError
        When pip is missing or cannot fetch the wheel.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--timeout", "15"]
    command += ["--retries", "1", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceUnavailableError(f"pip cannot fetch {requirement}: {error}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise SourceUnavailableError(f"pip cannot fetch {requirement}: {lines[-1]}")
    return wheels[0]
