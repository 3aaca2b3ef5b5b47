"""User ids and item ids as the user writes them, and their mapping to indices 0 … n − 1."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from comet_rec.data.arrays import Array, starts
from comet_rec.data.nearest import nearest, other_spellings, shown
from comet_rec.errors import DataError, UnknownIdError

IdKind = Literal["int", "text", "uuid"]
Indices = npt.NDArray[np.int64]
Stored = npt.NDArray[Any]

FEW = 1_000
"""Below this number of text ids, a lookup uses binary search instead of building a dict."""
LONGEST_NUMBER = 40
"""Integers with more digits are refused as ids at once; the ids of a log have at most 20 digits."""
UUID_TEXT = r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}"
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class NoIdError(Exception):
    """A value cannot be an id, e.g. a fraction or a missing value.

    The error's text completes a sentence that begins with the value, e.g. "is no UUID".
    """


class MissingIdError(NoIdError):
    """A value that should be an id is missing, e.g. None or NaN."""


def unwrapped(value: Any) -> Any:
    """The plain value of an Arrow scalar, a 0-dimensional array or a 0-dimensional tensor.

    Other values are returned unchanged.
    """
    if hasattr(value, "as_py"):
        width = {"halffloat": np.float16, "float": np.float32}.get(str(value.type))
        value = value.as_py()
        return value if width is None or value is None else width(value)
    if getattr(value, "ndim", None) == 0 and not isinstance(value, np.generic):
        return value[()] if isinstance(value, np.ndarray) else value.item()
    return value


def as_integer(value: Any) -> int | None:
    """The integer that `value` equals exactly; None if `value` is no number.

    Floats of 16, 32 and 64 bits represent integers exactly up to 2^11, 2^24 and 2^53. Larger floats
    are refused, because several integers are rounded to the same float.

    Raises
    ------
    NoIdError
        For a truth value, a fraction, a missing number or a float beyond its exact range.
    """
    if isinstance(value, (bool, np.bool_)):
        raise NoIdError("is a truth value")
    if isinstance(value, (int, np.integer)):
        if abs(int(value)) >= 10**LONGEST_NUMBER:
            raise NoIdError("is a number too large")
        return int(value)
    if isinstance(value, (float, np.floating)):
        bits = np.finfo(type(value)).nmant + 1
        if value != value:
            raise MissingIdError("is a missing value")
        if not np.isfinite(value) or value != np.trunc(value):
            raise NoIdError("is no whole number")
        if abs(float(value)) > 2.0**bits:
            raise NoIdError(f"is a float beyond 2^{bits}, which several integers are rounded to")
        return int(value)
    if isinstance(value, Decimal):
        if value.is_nan():
            raise MissingIdError("is a missing value")
        if not value:
            return 0
        # Check the size before any conversion: the digits of 1E+1000000 would fill the memory.
        if not value.is_finite() or not 0 <= value.adjusted() < LONGEST_NUMBER:
            raise NoIdError("is no whole number, or too large")
        value = Fraction(value)
    if isinstance(value, Fraction):
        if value.denominator != 1:
            raise NoIdError("is no whole number")
        return int(value.numerator)
    return None


def is_missing(value: Any) -> bool:
    """Whether `value` is None, `pandas.NA`, `pandas.NaT` or numpy's masked value."""
    return value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant")


def _whole(values: Iterable[Any]) -> TypeGuard[npt.NDArray[np.int64]]:
    """Whether `values` is an array of signed integers, so that no single value needs a check."""
    return isinstance(values, np.ndarray) and values.dtype.kind == "i"


@dataclass(frozen=True, eq=False)
class Ids:
    """All user ids or all item ids of a log, sorted; the position of an id is its index.

    Parameters
    ----------
    kind : {"int", "text", "uuid"}
        Type of the ids.
    values : ndarray [n], int64 for "int", object (of `str`) otherwise
        Strictly increasing; text in the order of its code points. A UUID is stored in its
        canonical text form and returned as `uuid.UUID`.

    Raises
    ------
    DataError
        When the values are not strictly increasing.
    """

    kind: IdKind
    values: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if len(self.values) > 1 and not bool(np.all(self.values[1:] > self.values[:-1])):
            raise DataError("ids must be distinct and sorted")

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {value: index for index, value in enumerate(self.values.tolist())}

    def _prepare(self, count: int) -> None:
        """Build the dict from text to index if `count` texts are to be looked up."""
        if self.kind != "int" and count >= FEW:
            _ = self._position

    def _at(self, text: str) -> int:
        """Index of a text id; −1 if it is unknown."""
        if "_position" in vars(self):
            return self._position.get(text, -1)
        place = bisect.bisect_left(self.values, text)
        return place if place < len(self.values) and self.values[place] == text else -1

    def stored(self, value: Any) -> int | str:
        """Convert an id from a caller to the type of `values`; the id need not be in the log.

        A value of another type is accepted if it equals an id exactly. For integer ids, 1, 1.0 and
        "1" are the same id, and "01" is refused. For text ids, the integer 1 is "1".

        Raises
        ------
        NoIdError
            When the value cannot be an id of this type.
        """
        value = unwrapped(value)
        if is_missing(value):
            raise MissingIdError("is a missing value")
        if isinstance(value, str):
            return self._of_text(str.__str__(value))  # a str enum gives its value, not its name
        if self.kind == "text" and isinstance(value, uuid.UUID):
            return self._of_object(value)
        if self.kind == "uuid" and isinstance(value, uuid.UUID):
            return str(value)
        number = as_integer(value)
        if number is None or self.kind == "uuid":
            raise NoIdError(f"is {_type_in_words(value)}")
        return number if self.kind == "int" else self._of_object(number)

    def _of_text(self, text: str) -> int | str:
        if self.kind == "int":  # stricter than int(), which accepts 1_0, ' 7', 07, +7 and ٣
            if not re.fullmatch(rf"0|-?[1-9][0-9]{{0,{LONGEST_NUMBER - 1}}}", text):
                raise NoIdError("is no plain integer")
            return int(text)
        if self.kind == "uuid":
            if not re.fullmatch(UUID_TEXT, text, re.ASCII | re.IGNORECASE):
                raise NoIdError("is no UUID")
            return str(uuid.UUID(text))
        return text

    def _of_object(self, value: int | uuid.UUID) -> str:
        """Text id that equals an integer or a UUID.

        It is refused if the log has the same number or UUID only in another spelling, e.g. "01".
        """
        text = str(value)
        if self._at(text) < 0 and any(self._at(way) >= 0 for way in other_spellings(text)):
            raise NoIdError("is no text")
        return text

    def lookup(self, given: Sequence[Any] | npt.NDArray[Any], what: str) -> tuple[Stored, Indices]:
        """Look up the indices of ids that a caller passes.

        Parameters
        ----------
        given : list or array
        what : str
            Name of the caller's argument, for error messages.

        Returns
        -------
        stored : ndarray [n], int64 or object
            The ids, converted to the type of this log's ids.
        indices : int64 [n]
            −1 where an id is unknown.

        Raises
        ------
        UnknownIdError
            When a value cannot be an id of this type.
        """
        if self.kind == "int" and _whole(given):
            numbers = given.astype(np.int64, copy=False)
            return numbers, self._found(numbers)
        self._prepare(len(given))
        stored: list[Any] = []
        for place, value in enumerate(given):
            try:
                stored.append(self.stored(value))
            except NoIdError as error:
                where = f"{what}: {shown(unwrapped(value))} (place {place}) {error}"
                raise UnknownIdError(f"{where}; {self._hint(value, error)}") from None
        return _column(stored, self.kind), self._index_stored(stored)

    def _hint(self, value: Any, error: NoIdError) -> str:
        """How to fix a value that cannot be an id, as the end of an error message."""
        if isinstance(error, MissingIdError):
            return "leave it out"
        similar = nearest(self, unwrapped(value))
        if similar is None:
            return f"the ids of the log are {self.in_words}"
        return f"did you mean {similar!r}?"

    @property
    def in_words(self) -> str:
        """The type of the ids in words, with examples, for error messages."""
        words = {"int": "integers", "text": "text", "uuid": "UUIDs"}[self.kind]
        examples = ", ".join(shown(value) for value in self.values[:3].tolist())
        return f"{words}, such as {examples}" if examples else words

    def index(self, external: Iterable[Any]) -> Indices:
        """Indices of the ids in `external`, int64 [len(external)]; −1 for an unknown id.

        A value that cannot be an id of this type also gets −1, while `lookup` refuses it.
        """
        if self.kind == "int" and _whole(external):
            return self._found(external)
        return self._index_stored([self._stored_or_none(value) for value in external])

    def _stored_or_none(self, value: Any) -> int | str | None:
        if self.kind == "text" and type(value) is str:  # the usual case, without the checks
            return value
        try:
            return self.stored(value)
        except NoIdError:
            return None

    def _index_stored(self, stored: list[Any]) -> Indices:
        if self.kind != "int":
            self._prepare(len(stored))
            indices = [-1 if value is None else self._at(value) for value in stored]
            return np.array(indices, dtype=np.int64)
        places = np.full(len(stored), -1, dtype=np.int64)
        fits = [value is not None and -(2**63) <= value < 2**63 for value in stored]
        numbers = [value for value, fit in zip(stored, fits, strict=True) if fit]
        places[np.array(fits, dtype=bool)] = self._found(np.array(numbers, dtype=np.int64))
        return places

    def _found(self, values: npt.NDArray[np.int64]) -> Indices:
        if len(self.values) == 0:
            return np.full(len(values), -1, dtype=np.int64)
        # The search gives the position where a value would stand. The value is known only if the
        # entry at that position equals it.
        place = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        return np.where(self.values[place] == values, place, -1)

    def external(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """Ids at `indices`, in the user's type: int64, or objects of type `str` or `uuid.UUID`."""
        return self.as_external(self.values[np.asarray(indices, dtype=np.int64)])

    def as_external(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Ids in the user's type, from ids in the type of `values`; they need not be in the log."""
        if self.kind == "uuid":
            return np.array([uuid.UUID(value) for value in stored.tolist()], dtype=object)
        return stored

    def parse(self, text: str) -> Any:
        """Convert an id that was typed on the command line to the type of this log's ids.

        A text that cannot be such an id is returned unchanged.
        """
        try:
            stored = self.stored(text)
        except NoIdError:
            return text
        return uuid.UUID(str(stored)) if self.kind == "uuid" else stored

    def union(self, extra: Iterable[Any]) -> Ids:
        """Ids of this log and the ids in `extra`, as one sorted `Ids`.

        Raises
        ------
        DataError
            When the ids of this log are integers and an id in `extra` is not.
        """
        if self.kind == "int" and _whole(extra):
            return Ids("int", np.union1d(self.values, extra))
        values = {str(value) if self.kind == "uuid" else value for value in extra}
        if self.kind == "int":
            foreign = [value for value in values if not isinstance(value, (int, np.integer))]
            if foreign:
                raise DataError(
                    f"{min(map(str, foreign))!r} is no integer, but the ids of the log are "
                    "integers; give files of the same split"
                )
            return Ids("int", np.union1d(self.values, np.array(sorted(values), dtype=np.int64)))
        merged = sorted(values | set(self.values.tolist()))
        out = np.empty(len(merged), dtype=object)
        out[:] = merged
        return Ids(self.kind, out)

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The ids as plain arrays, to be stored under names that begin with `prefix`.

        Text ids are UTF-8 bytes, with the start of each id.
        """
        if self.kind == "int":
            return {f"{prefix}.int": np.ascontiguousarray(self.values, dtype=np.int64)}
        encoded = [value.encode() for value in self.values.tolist()]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        offsets[1:] = np.cumsum([len(value) for value in encoded], dtype=np.int64)
        return {
            f"{prefix}.{self.kind}.utf8": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            f"{prefix}.{self.kind}.offsets": offsets,
        }

    @staticmethod
    def declared(prefix: str, count: int) -> dict[str, Array]:
        """Expected arrays of a stored file with `count` ids of any type, to check the file."""
        integers = Array(shape=(count,), dtype="int64", order="increasing", optional=True)
        declared = {f"{prefix}.int": integers}
        for kind in ("text", "uuid"):
            name = f"{prefix}.{kind}"
            declared[f"{name}.utf8"] = Array(shape=(f"{name}.utf8",), dtype="uint8", optional=True)
            declared[f"{name}.offsets"] = replace(starts(count, f"{name}.utf8"), optional=True)
        return declared

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Ids:
        """Ids from the arrays that `Ids.arrays` returned for the same `prefix`.

        Raises
        ------
        DataError
            When `arrays` holds no valid ids under this prefix.
        """
        if sum(name.startswith(f"{prefix}.") for name in arrays) > 2:
            raise DataError(f"ids of several kinds under {prefix!r}")
        if f"{prefix}.int" in arrays:
            return Ids("int", arrays[f"{prefix}.int"])
        kinds: tuple[IdKind, ...] = ("text", "uuid")
        for kind in kinds:
            if f"{prefix}.{kind}.utf8" in arrays:
                blob = arrays[f"{prefix}.{kind}.utf8"].tobytes()
                ends = arrays[f"{prefix}.{kind}.offsets"].tolist()
                values = np.empty(len(ends) - 1, dtype=object)
                values[:] = [blob[a:b].decode() for a, b in itertools.pairwise(ends)]
                if kind == "uuid" and not all(_UUID.fullmatch(value) for value in values):
                    raise DataError(f"an id under {prefix!r} is no UUID")
                return Ids(kind, values)
        raise DataError(f"no ids under {prefix!r}")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the type and all ids."""
        state = hashlib.sha256(self.kind.encode())
        for name, array in sorted(self.arrays("").items()):
            state.update(name.encode())
            state.update(array.tobytes())
        return state.hexdigest()


def _column(stored: list[Any], kind: IdKind) -> Stored:
    """Ids as an array: int64, or objects for text and for integers beyond 64 bits."""
    if kind == "int" and all(-(2**63) <= value < 2**63 for value in stored):
        return np.array(stored, dtype=np.int64)
    out = np.empty(len(stored), dtype=object)
    out[:] = stored
    return out


def _type_in_words(value: Any) -> str:
    return "bytes, no text" if isinstance(value, bytes) else f"a {type(value).__name__}"
