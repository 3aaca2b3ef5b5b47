"""``comet-rec recommend RUN``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.artefact.folder import write_text
from comet_rec.cli.evaluate import Run
from comet_rec.errors import InputError

if TYPE_CHECKING:
    from comet_rec.data.ids import Ids
    from comet_rec.data.tables import Table
    from comet_rec.estimators.estimator import Estimator

FORMATS = ("table", "json", "csv", "parquet")


def recommend(
    run: Run,
    user: Annotated[
        list[str] | None, typer.Option("--user", help="A user id; repeat for more.")
    ] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Every user of the log.")] = False,
    history: Annotated[
        list[str] | None,
        typer.Option(
            "--history",
            help="Item ids of a new user, ID,ID,…, oldest first; repeat for more. An id that "
            "holds a comma goes into double quotes.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items a user.")] = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="List seen items too.")
    ] = False,
    unknown: Annotated[str, typer.Option(help="For unknown ids: error, skip, popular.")] = "error",
    form: Annotated[str, typer.Option("--format", help="table, json, csv or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option("--out", help="File to write.")] = None,
) -> None:
    """Print the best items for known users, or for a new one by history."""
    if sum((bool(user), all_users, bool(history))) != 1:
        raise InputError("give one of --user ID, --all-users, --history ID,ID,…")
    if form not in FORMATS:
        raise InputError(f"--format {form}: must be one of {', '.join(FORMATS)}")
    if form == "parquet" and out is None:
        raise InputError("--format parquet needs --out FILE")
    from comet_rec.estimators.registry import load_model

    model = load_model(run)
    ids = model.run.interactions.user_ids
    users = [ids.parse(text) for text in user] if user else None
    table = _lists(model, users, history, k, include_seen, unknown)
    if form in ("csv", "parquet"):
        if out is not None:
            table.write(str(out), form)
        else:
            _copy_to_stdout(table)
        return
    if form == "json":
        asked = ids.external(range(len(ids))).tolist() if all_users else users
        if asked is None:
            asked = list(range(len(history or ())))
        elif unknown == "skip":
            asked = [key for key in asked if ids.index([key])[0] >= 0]
        text = _json(table, asked)
    else:
        text = _text(table, model.run.titles)
    if out is None:
        _to_stdout(text + "\n")
        return
    write_text(out, text + "\n")


def _parted(history: str) -> list[str]:
    """Ids of a history; one that holds a comma stands in double quotes."""
    try:
        parts = next(csv.reader([history], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise InputError(f"--history {history!r}: {error}; give ID,ID,…") from None
    if not any(parts):
        raise InputError(f"--history {history!r}: holds no id; give ID,ID,…")
    return parts


def _copy_to_stdout(table: Table) -> None:
    """CSV on the stream that we have: opened anew by its name it would begin at its start."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lists.csv"
        table.write(str(path), "csv")
        _to_stdout(path.read_bytes().decode())  # as text its line ends would change


def _to_stdout(text: str) -> None:
    """UTF-8 whatever the locale; nowhere where there is no stdout."""
    if sys.stdout is None:
        return
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text)
    else:
        sys.stdout.flush()
        stream.write(text.encode())


def _lists(
    model: Estimator,
    users: list[Any] | None,
    history: list[str] | None,
    k: int,
    include_seen: bool,
    unknown: Any,
) -> Table:
    log = model.run.interactions
    if history:
        parsed = [[_meant(log.item_ids, text) for text in _parted(each)] for each in history]
        return model.recommend_for_history(parsed, k, include_seen=include_seen, unknown=unknown)
    return model.recommend(users, k, include_seen=include_seen, unknown=unknown)


def _meant(ids: Ids, text: str) -> Any:
    """The id that a part of a history means: blanks count where the log has such an id."""
    exact = ids.parse(text)
    return exact if ids.index([exact])[0] >= 0 else ids.parse(text.strip())


def _json(table: Table, asked: Sequence[Any]) -> str:
    """A list a user, an empty one where no item is left for them; of histories, one each."""
    of = {
        key: [{k: _plain(row[k]) for k in ("item_id", "score", "rank")} for row in rows]
        for key, rows in _each(table)
    }
    lists = [{"user_id": _plain(key), "items": of.get(key, [])} for key in asked]
    return json.dumps(lists, ensure_ascii=False)


def _each(table: Table) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """User and rows of each list; a user asked for twice has two."""
    rows: list[dict[str, Any]] = []
    for row in table.rows():
        if row["rank"] == 1 and rows:
            yield rows[0]["user_id"], rows
            rows = []
        rows.append(row)
    if rows:
        yield rows[0]["user_id"], rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)


def _text(table: Table, titles: dict[str, str]) -> str:
    lines = []
    for key, rows in _each(table):
        lines.append(f"user {key}")
        for row in rows:
            title = titles.get(str(row["item_id"]), "")
            lines.append(
                f"{row['rank']:4}  {row['item_id']!s:>12}  {row['score']:8.4f}  {title}".rstrip()
            )
    return "\n".join(lines) if lines else "no items left to list"
