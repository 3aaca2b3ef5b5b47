"""Any log, file or frame, to `Interactions`."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Int32, Interactions
from comet_rec.errors import DataError
from comet_rec.reading.canonical import HashError, LogTable
from comet_rec.reading.columns import ROLES, Role
from comet_rec.reading.database import connect, refusing, whole_number
from comet_rec.reading.loading import load
from comet_rec.reading.pairs import Pairs, WideCandidates, is_wide, read_pairs, read_wide_candidates
from comet_rec.reading.sources import Source, open_source, source_name

if TYPE_CHECKING:
    import duckdb

Scope = Literal["auto", "global", "per_user", "none"]

__all__ = ["Pairs", "WideCandidates", "is_wide", "read", "read_pairs", "read_wide_candidates"]


def read(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    rating: str | int | None = None,
    min_rating: float | None = None,
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    skip_bad: int = 0,
    time_scope: Scope = "auto",
    threads: int | None = None,
) -> Interactions:
    """Read a log.

    Parameters
    ----------
    source : path, DataFrame, Arrow table or sparse matrix
        A file (CSV with `,` `;` or `|`, TSV, `::`, NDJSON or Parquet; text plain, gzip or zstd;
        told by content), a pandas or polars DataFrame, anything with an Arrow stream, or a scipy
        sparse matrix of users × items whose stored non-zeros are the ratings.
    user, item, time, rating : str or int, optional
        Column names; common names are recognised when not given. Columns of a file without a
        header row are named "1", "2", …. Rows without times keep their order; a matrix has none
        and is read in a random one, always the same.
    min_rating : float, optional
        Rows rated lower are dropped; their pairs are kept apart as `dropped_users` and
        `dropped_items`.
    min_user_interactions, min_item_interactions : int
        Users (items) with fewer distinct pairs are dropped, until both limits hold.
    skip_bad : int
        Number of bad rows that may be skipped.
    time_scope : {"auto", "global", "per_user", "none"}
        Whether times compare across users. "auto": per user when every user's times are just the
        positions 0…n−1 (or 1…n) of the rows, else global. "none" ignores the time column.
    threads : int, optional
        Number of threads; all cores when not given.

    Returns
    -------
    Interactions
        In canonical order; integer times as they are, dates and fractions in microseconds.

    Raises
    ------
    DataError
        When the log cannot be read as asked; one line that says where and what to do.
    """
    asked: dict[Role, str | int | None] = {
        "user": user, "item": item, "time": time, "rating": rating
    }  # fmt: skip
    limits = _limits(user=min_user_interactions, item=min_item_interactions)
    with connect(threads) as con, refusing(source_name(source)):
        opened = open_source(con, source, asked)
        log = _staged(con, opened, min_rating, skip_bad, time_scope)
    kept = _cored(log, *limits)
    if len(kept) == 0:
        raise DataError(f"{opened.name}: no interaction is left after the filters; lower them")
    return kept


def _limits(**limits: int) -> list[int]:
    return [whole_number(f"min_{role}_interactions", limit) for role, limit in limits.items()]


def _staged(
    con: duckdb.DuckDBPyConnection, opened: Source, min_rating: float | None, skip_bad: int,
    time_scope: Scope,
) -> Interactions:  # fmt: skip
    roles = _roles(opened, min_rating, time_scope)

    def staged(hashed: bool) -> Interactions:
        kinds, notes = load(con, opened, roles, skip_bad, hashed=hashed)
        table = LogTable(con, opened, kinds, "time" in roles, min_rating, hashed)
        return table.interactions(time_scope, notes)

    try:
        return staged(hashed=True)
    except HashError:
        con.execute("DROP TABLE texts; DROP TABLE ids_u; DROP TABLE IF EXISTS ids_i")
        return staged(hashed=False)


def _roles(source: Source, min_rating: float | None, time_scope: str) -> tuple[Role, ...]:
    """The columns that the call needs."""
    if time_scope not in ("auto", "global", "per_user", "none"):
        raise DataError(f"time_scope is {time_scope!r}; give auto, global, per_user or none")
    if min_rating is not None and not (
        isinstance(min_rating, (numbers.Real, Decimal)) and math.isfinite(min_rating)
    ):
        raise DataError(f"min_rating is {min_rating!r}; give a number")
    if min_rating is not None and "rating" not in source.labels:
        raise DataError(
            f"{source.name}: has no rating column for min_rating; name it with --rating (rating=…)"
        )
    if time_scope in ("global", "per_user") and "time" not in source.labels:
        raise DataError(
            f"{source.name}: has no time column for {time_scope} times; name it with --time "
            "(time=…)"
        )
    unused = {"rating": min_rating is None, "time": time_scope == "none"}
    return tuple(r for r in ROLES if r in source.labels and not unused.get(r, False))


def _cored(log: Interactions, min_user: int, min_item: int) -> Interactions:
    """Drop users and items with too few pairs, until none is left."""
    if max(min_user, min_item) <= 1:  # an id that the log knows has a pair
        return log
    keep = np.ones(len(log), dtype=np.bool_)
    while True:
        rare_users = np.bincount(log.users[keep], minlength=log.n_users) < min_user
        rare_items = np.bincount(log.items[keep], minlength=log.n_items) < min_item
        fewer = keep & ~rare_users[log.users] & ~rare_items[log.items]
        if bool(np.array_equal(fewer, keep)):
            break
        keep = fewer
    if bool(keep.all()):
        return log
    users, user_ids, new_user = _reindexed(log.users[keep], log.user_ids)
    items, item_ids, new_item = _reindexed(log.items[keep], log.item_ids)
    dropped_users, dropped_items = new_user[log.dropped_users], new_item[log.dropped_items]
    both = (dropped_users >= 0) & (dropped_items >= 0)
    note = (
        f"{log.n_users - len(user_ids)} users and {log.n_items - len(item_ids)} items with too "
        f"few interactions removed, with {int((~keep).sum())} interactions"
    )
    return replace(
        log,
        users=users,
        items=items,
        times=None if log.times is None else log.times[keep],
        user_ids=user_ids,
        item_ids=item_ids,
        dropped_users=dropped_users[both],
        dropped_items=dropped_items[both],
        notes=(*log.notes, note),
    )


def _reindexed(indices: Int32, ids: Ids) -> tuple[Int32, Ids, Int32]:
    """Indices over the ids that occur, those ids, and old index → new index or −1."""
    used = np.bincount(indices, minlength=len(ids)) > 0
    new = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return new[indices], Ids(ids.kind, ids.values[used]), new
