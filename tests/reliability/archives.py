"""Archives that attack the one who unpacks them: nothing outside the folder, and one line.

    python -m tests.reliability.archives --out results/reliability/archives.json

An archive holds the members that are asked for and some others. It then gets faults: names that
lead out of the folder, absolute names, links, members twice, contents that are a thousand times as
long as their compressed form, sizes that lie, checksums that are wrong, flags of encryption,
unknown methods of compression, and flipped or missing bytes.
"""

from __future__ import annotations

import io
import random
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

from comet_rec.datasets import cache
from comet_rec.errors import DataError
from tests.reliability.recorded import Tried, program

NAMES = (
    "../evil", "/etc/evil", "in/../../evil", "..\\evil", "C:\\evil", "evil\0", ".", "..", "a/",
    "in/one", "ONE", "one ", "one.", "con", "e\u202evil", "x" * 300,
)  # fmt: skip
WANTED = {"in/one": b"1,2\n" * 50, "two": bytes(range(256)) * 8}
MOST = 100_000
"""Bytes that a member may have here, in place of `cache.MAX_BYTES`."""


def archive(rng: random.Random) -> bytes:
    """A hostile archive."""
    out = io.BytesIO()
    members = list(WANTED.items())
    for _ in range(rng.randint(0, 4)):
        members.insert(rng.randint(0, len(members)), (rng.choice(NAMES), b"evil"))
    bomb = rng.random() < 0.2
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as opened:
        warnings.simplefilter("ignore")  # duplicate names
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.compress_type = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            if rng.random() < 0.15:  # a link to somewhere else
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            if bomb and name == "two":
                info.compress_type = zipfile.ZIP_DEFLATED
                content = bytes(MOST * 10)
            opened.writestr(info, content)
    data = bytearray(out.getvalue())
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        spoil(data, rng)
    return bytes(data)


def spoil(data: bytearray, rng: random.Random) -> None:
    """Make one field of a header lie, or change some bytes."""
    if not data:
        return
    way = rng.randrange(5)
    heads = [at for at in range(len(data) - 46) if data[at : at + 4] in (b"PK\1\2", b"PK\3\4")]
    if way < 3 and heads:
        at = rng.choice(heads)
        central = data[at + 2] == 1
        # Offsets of the flags, the method, the checksum and both sizes in a header.
        field = rng.choice([(8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I")])
        offset = at + field[0] - (0 if central else 2)
        value = rng.choice([0, 1, 9, 99, 2**16 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
        size = struct.calcsize(field[1])
        data[offset : offset + size] = struct.pack(f"<{field[1]}", value % 2 ** (8 * size))
    elif way == 3:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data)) :]


def tried(data: bytes, home: Path) -> tuple[bool, str | None]:
    """Unpack an archive; whether it was refused, and what went wrong, None for nothing."""
    folder = home / "in" / "folder"
    folder.mkdir(parents=True)
    path = home / "a.zip"
    path.write_bytes(data)
    try:
        cache.unpack(path, list(WANTED), folder)
        complete = True
    except DataError as error:
        complete = False
        if "\n" in str(error):
            return True, f"several lines: {error}"
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
    return not complete, _left(home, complete)


def _left(home: Path, complete: bool) -> str | None:
    """What is wrong with the files that an archive has left; None for nothing."""
    path, folder = home / "a.zip", home / "in" / "folder"
    outside = sorted(
        str(p.relative_to(home)) for p in home.rglob("*")
        if p not in (path, folder, folder.parent) and folder not in p.parents
    )  # fmt: skip
    if outside:
        return f"outside the folder: {outside}"
    for file in folder.iterdir():
        if file.name not in ("one", "two") or file.is_symlink():
            return f"a file that nobody asked for: {file.name!r}"
        if file.stat().st_size > MOST:
            return f"{file.name} has {file.stat().st_size} bytes"
    if complete and {p.name for p in folder.iterdir()} != {"one", "two"}:
        return "no error, and a member is missing"
    return None


def run_archives(tries: int, seed: int) -> list[Tried]:
    """Unpack `tries` hostile archives."""
    rng = random.Random(seed)
    outcome = Tried("A hostile archive writes nothing but the files asked for, or is refused.")
    refused = 0
    real, cache.MAX_BYTES = cache.MAX_BYTES, MOST
    try:
        with tempfile.TemporaryDirectory() as name:
            for number in range(tries):
                home = Path(name) / "home"
                home.mkdir()
                data = archive(rng)
                was_refused, fault = tried(data, home)
                outcome.add(fault and f"archive {number}: {fault}")
                refused += was_refused
                shutil.rmtree(home)
    finally:
        cache.MAX_BYTES = real
    outcome.note = f"{refused:,} refused"
    return [outcome]


if __name__ == "__main__":
    program("tests.reliability.archives", run_archives, tries=10_000)
