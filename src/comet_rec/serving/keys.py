"""API keys: stored as SHA-256 digests, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path

from comet_rec.errors import InputError
from comet_rec.files import read_lines

VARIABLE = "COMET_REC_API_KEYS"
"""Environment variable with keys, separated by commas or blanks."""
SHORTEST = 16
"""Fewest characters of a key."""
_PREFIX = "sha256:"


class Keys:
    """The keys that a request may carry; without keys, every request is let in.

    Parameters
    ----------
    entries : iterable of str
        Keys, or their digests as ``sha256:`` and 64 hexadecimal digits.

    Raises
    ------
    InputError
        When a key is too short or holds characters that no header can hold.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._digests = [self._digest(number, text) for number, text in enumerate(entries, 1)]

    @staticmethod
    def _digest(number: int, text: str) -> bytes:
        if text.lower().startswith(_PREFIX):
            # A digest with a misprint must not become a key, because digests are no secrets.
            digits = text[len(_PREFIX) :]
            if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
                raise InputError(f"API key {number}: sha256: must be followed by 64 hex digits")
            return bytes.fromhex(digits)
        if len(text) < SHORTEST or not re.fullmatch(r"[!-~]+", text):
            # The message must not show the key.
            raise InputError(
                f"API key {number}: must be at least {SHORTEST} printable ASCII characters "
                "without blanks; make one with `openssl rand -hex 32`"
            )
        return hashlib.sha256(text.encode()).digest()

    @classmethod
    def read(cls, path: Path | None) -> Keys:
        """Keys of a file, one per line (# begins a comment), and of the environment.

        Raises
        ------
        InputError
            When the file cannot be read or holds no key, or a key is not usable.
        """
        text = os.environ.get(VARIABLE)
        entries = (text or "").replace(",", " ").split()
        if text is not None and not entries and path is None:
            # A secret that did not arrive must not open the service to everybody.
            raise InputError(f"{VARIABLE}: holds no key; unset it to let every request in")
        if path is not None:
            lines = [line.strip() for line in read_lines(path, f"--keys {path}")]
            of_file = [line for line in lines if line and not line.startswith("#")]
            if not of_file:
                raise InputError(f"--keys {path}: holds no key; write one per line")
            entries += of_file
        return cls(entries)

    def __len__(self) -> int:
        return len(self._digests)

    def admit(self, authorization: bytes | None) -> bool:
        """Whether a request with this `Authorization` header is let in."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # All keys are compared, so the time tells nothing about which one is near.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(matches)
