"""The good rows of a source, or the error that names the first bad one."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from comet_rec.data.ids import IdKind
from comet_rec.errors import DataError
from comet_rec.reading.blame import bad_rows
from comet_rec.reading.columns import Role
from comet_rec.reading.database import whole_number
from comet_rec.reading.sources import Source
from comet_rec.reading.staging import Kinds, misfit, stage


def load(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    roles: tuple[Role, ...],
    skip_bad: int,
    fixed: Mapping[Role, IdKind] | None = None,
    *,
    hashed: bool = False,
) -> tuple[Kinds, list[str]]:
    """Fill the table `log` with the good rows.

    Parameters
    ----------
    roles : tuple of role
        Columns to read; a row is good when each of them has a value that fits.
    skip_bad : int
        Number of bad rows that may be left out.
    fixed : mapping of role to kind, optional
        Kinds of ids that are known beforehand.
    hashed : bool
        Whether `log` may hold hashes in place of text ids, as `stage` does.

    Returns
    -------
    Kinds, list of str
        What the columns hold, and notes for the user.

    Raises
    ------
    DataError
        When more rows are bad than may be, or none is good.
    """
    whole_number("skip_bad", skip_bad)
    kinds, bad = stage(con, source, roles, fixed, hashed=hashed)
    if bad > skip_bad:
        raise bad_rows(con, source, kinds, roles, bad)
    if bad:
        con.execute(f"DELETE FROM log WHERE {misfit(roles)}")
    if con.execute("SELECT count(*) FROM log").fetchall()[0][0] == 0:
        raise DataError(f"{source.name}: has no rows{' that are good' if bad else ''}")
    skipped = [f"{bad} bad row{'s' * (bad > 1)} skipped"] if bad else []
    return kinds, [*source.notes(roles), *skipped]
