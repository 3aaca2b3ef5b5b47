"""Ids as the user writes them, and the indices 0…n−1 that stand for them inside."""

from __future__ import annotations

import hashlib
import itertools
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from comet_rec.data.arrays import Array, starts
from comet_rec.errors import DataError

IdKind = Literal["int", "text", "uuid"]
Indices = npt.NDArray[np.int64]
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def plain(value: Any) -> Any:
    """An id that a frame hands out as what it means: Arrow's scalars, and 7.0 for 7."""
    if hasattr(value, "as_py"):
        value = value.as_py()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return value


def _whole(values: Iterable[Any]) -> TypeGuard[npt.NDArray[np.int64]]:
    """Whether values are an array of signed integers: no need to look at each."""
    return isinstance(values, np.ndarray) and values.dtype.kind == "i"


@dataclass(frozen=True, eq=False)
class Ids:
    """All ids of one side of the log, sorted; an id's position is its index.

    Parameters
    ----------
    kind : {"int", "text", "uuid"}
        The type in which ids came in and go out again.
    values : ndarray [n], int64 for "int", object (of `str`) otherwise
        Strictly increasing; text in the order of its code points. A UUID is kept in its
        canonical text form and handed out as `uuid.UUID`.

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

    def fits(self, value: Any) -> bool:
        """Whether a value is of the type of these ids, known or not."""
        return self._canonical(plain(value)) is not None

    def _canonical(self, value: Any) -> Any:
        """The stored form of an external id, or None where its type cannot match."""
        if self.kind == "int":
            if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                return int(value)
            return None
        if self.kind == "uuid":
            try:
                return str(uuid.UUID(str(value)))
            except ValueError:
                return None
        return value if isinstance(value, str) else None

    def index(self, external: Iterable[Any]) -> Indices:
        """Indices of external ids, int64 [len(external)]; −1 where an id is unknown.

        The type counts: the text "7" is not the integer 7. As in a log, 7.0 is.
        """
        if self.kind == "int" and _whole(external):
            return self._found(external)
        canonical = [self._canonical(plain(value)) for value in external]
        if self.kind != "int":
            return np.array([self._position.get(value, -1) for value in canonical], dtype=np.int64)
        found = np.full(len(canonical), -1, dtype=np.int64)
        fits = [value is not None and -(2**63) <= value < 2**63 for value in canonical]
        some = [value for value, fit in zip(canonical, fits, strict=True) if fit]
        found[np.array(fits, dtype=bool)] = self._found(np.array(some, dtype=np.int64))
        return found

    def _found(self, values: npt.NDArray[np.int64]) -> Indices:
        """Indices of integers, −1 where there is none."""
        if len(self.values) == 0:
            return np.full(len(values), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        return np.where(self.values[at] == values, at, -1)

    def external(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """External ids of indices, in their own type (int64, or object for text and UUID)."""
        picked = self.values[np.asarray(indices, dtype=np.int64)]
        if self.kind == "uuid":
            return np.array([uuid.UUID(value) for value in picked.tolist()], dtype=object)
        return picked

    def parse(self, text: str) -> Any:
        """The id that a text from the command line means, in this log's type."""
        if self.kind == "int":  # not what Python would take too: 1_0, ' 7', 07, +7, ٣
            return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,19}", text) else text
        if self.kind == "uuid":
            try:
                return uuid.UUID(text)
            except ValueError:
                return text
        return text

    def union(self, extra: Iterable[Any]) -> Ids:
        """These ids and those of `extra` that are new.

        Raises
        ------
        DataError
            When an id of `extra` is no integer and these are.
        """
        if self.kind == "int" and _whole(extra):
            return Ids("int", np.union1d(self.values, extra))
        values = {str(value) if self.kind == "uuid" else value for value in extra}
        if self.kind == "int":
            foreign = [value for value in values if not isinstance(value, (int, np.integer))]
            if foreign:
                raise DataError(
                    f"{min(map(str, foreign))!r} is no integer, and the ids of the log are; "
                    "take the files of one split"
                )
            return Ids("int", np.union1d(self.values, np.array(sorted(values), dtype=np.int64)))
        merged = sorted(values | set(self.values.tolist()))
        out = np.empty(len(merged), dtype=object)
        out[:] = merged
        return Ids(self.kind, out)

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """Plain arrays that `from_arrays` turns back into the same ids."""
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
        """What `arrays` gives of so many ids, of whatever kind they are."""
        whole = Array(shape=(count,), dtype="int64", order="increasing", optional=True)
        found = {f"{prefix}.int": whole}
        for kind in ("text", "uuid"):
            name = f"{prefix}.{kind}"
            found[f"{name}.utf8"] = Array(shape=(f"{name}.utf8",), dtype="uint8", optional=True)
            found[f"{name}.offsets"] = replace(starts(count, f"{name}.utf8"), optional=True)
        return found

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Ids:
        """Ids from what `arrays` gave.

        Raises
        ------
        DataError
            When `arrays` holds no ids under this prefix, or one that is none.
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
        """SHA-256 over the kind and every id."""
        state = hashlib.sha256(self.kind.encode())
        for name, array in sorted(self.arrays("").items()):
            state.update(name.encode())
            state.update(array.tobytes())
        return state.hexdigest()
