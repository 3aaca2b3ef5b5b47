"""The command ``comet-rec recommend``: recommended items for users of a trained run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import options, terminal
from comet_rec.cli.evaluate import Run
from comet_rec.errors import InputError, did_you_mean
from comet_rec.files import is_stdout, read_lines, write_text_whole
from comet_rec.text import cropped, padded, printable, shortened, width_of

if TYPE_CHECKING:
    from comet_rec.data.ids import Ids
    from comet_rec.data.tables import Table
    from comet_rec.estimators.estimator import Estimator

FORMATS = ("table", "json", "jsonl", "csv", "tsv", "parquet")
BY_NAME = {".txt": "table", **{f".{form}": form for form in FORMATS if form != "table"}}
"""Format for each file suffix."""

MoreItems = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with more of these ids, one per line.")
]


def recommend(
    run: Run,
    user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID,ID,…",
            help="User ids; repeatable. Put an id with a comma into double quotes, unless the "
            "log has it.",
        ),
    ] = None,
    users_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of user ids, one per line.")
    ] = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="All users of the log.")] = False,
    history: Annotated[
        list[str] | None,
        typer.Option(
            help="Item ids of a new user, ID,ID,…, oldest first; repeat for more users. Put an id "
            "with a comma into double quotes.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of items per user.")] = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Also list items that the user has seen.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,ID,…", help="Recommend only these items; repeatable."),
    ] = None,
    allow_file: MoreItems = None,
    block: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,ID,…", help="Never recommend these items; repeatable."),
    ] = None,
    block_file: MoreItems = None,
    unknown: Annotated[
        str, typer.Option(help="What to do with unknown ids: error, skip or popular.")
    ] = "error",
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="table, json, jsonl, csv, tsv or parquet. Default: from the suffix of --out, "
            "else table.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write.")] = None,
) -> None:
    """Recommend items to known users, or to new users with a given history."""
    if sum((bool(user or users_file), all_users, bool(history))) != 1:
        raise InputError("give one of --user ID (or --users-file), --all-users, --history ID,ID,…")
    form = _format(form, out)
    files = {"users-file": users_file, "allow-file": allow_file, "block-file": block_file}
    lines = {
        name: [] if path is None else read_lines(path, f"--{name} {path}")
        for name, path in files.items()
    }
    from comet_rec.estimators.registry import load_model

    model = load_model(run)
    log = model.run.interactions
    users = None
    if user or users_file:
        users = _all_ids(log.user_ids, "--user", user or [], lines["users-file"])
        if not users:
            raise InputError(f"--users-file {users_file}: holds no id; give one per line")
    rules: dict[str, Any] = {"include_seen": include_seen, "unknown": unknown}
    for name, texts, path in (("allow", allow, allow_file), ("block", block, block_file)):
        if texts or path is not None:
            items = _all_ids(log.item_ids, f"--{name}", texts or [], lines[f"{name}-file"])
            rules[name] = items
    if history:
        parsed = [_ids(log.item_ids, each, "--history") for each in history]
        table = model.recommend_for_history(parsed, k, **rules)
    else:
        table = model.recommend(users, k, **rules)
    for name in ("allow", "block"):
        _say_absent(log.item_ids, name, rules.get(name, []))
    asked: Sequence[Any] = range(len(history or ()))
    if not history:
        asked = log.user_ids.external(range(log.n_users)).tolist() if users is None else users
        if unknown == "skip":
            asked = [key for key in asked if log.user_ids.index([key])[0] >= 0]
    _write(table, form, out, asked, model)
    if not history and model.run.known is not log:
        note = "lists may hold held-out test items, which the model does not know"
        options.say_notes([f"{note}; train with --final to leave them out"], False)


def _format(form: str | None, out: Path | None) -> str:
    """The output format: `form` if it is given, else the format for the suffix of `out`."""
    if form is not None and form not in FORMATS:
        hint = did_you_mean(form, FORMATS)
        raise InputError(f"--format {shortened(form)}: must be one of {', '.join(FORMATS)}; {hint}")
    if form == "parquet" and out is None:
        raise InputError("--format parquet needs --out FILE")
    if out is None or form is not None:
        return form or "table"
    by_name = BY_NAME.get(out.suffix.lower())
    if by_name is None and not (out.exists() and not out.is_file()):
        raise InputError(
            f"--out {out}: the suffix gives no format; use one of {', '.join(BY_NAME)}, or "
            f"add --format"
        )
    return by_name or "table"


def _write(
    table: Table, form: str, out: Path | None, asked: Sequence[Any], model: Estimator
) -> None:
    """Write the recommended lists to a file or stdout; JSON on stdout is escaped for a terminal."""
    to_stdout = out is None or is_stdout(out)
    if form in ("csv", "tsv", "parquet"):
        if to_stdout:
            _copy_to_stdout(table, form)
        else:
            table.write(str(out), form)
        return
    if form == "json":
        text = _json(_lists(table, asked))
    elif form == "jsonl":
        text = "\n".join(map(_json, _lists(table, asked)))
    else:
        text = _text(table, model.run.titles, terminal.width() if out is None else None)
    text += "\n" * bool(text)
    if out is None or to_stdout:
        terminal.write(_escaped_json(text) if form.startswith("json") else text)
    else:
        write_text_whole(out, text)


def _ids(ids: Ids, text: str, option: str) -> list[Any]:
    """Parse comma-separated ids; a text that is itself a known id counts as one id."""
    is_known = ids.index([ids.parse(text)])[0] >= 0
    if is_known or not any(mark in text for mark in ',"'):
        if not text.strip():
            raise InputError(f"{option} {text!r}: holds no id; give ID,ID,…")
        return [_meant(ids, text)]
    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:  # ValueError: several rows
        why = str(error) if isinstance(error, csv.Error) else "it holds a line end"
        raise InputError(f"{option} {shortened(text)!r}: {why}; give ID,ID,…") from None
    if not any(part.strip() for part in parts):
        raise InputError(f"{option} {shortened(text)!r}: holds no id; give ID,ID,…")
    if "" in parts:
        raise InputError(f"{option} {shortened(text)!r}: holds an empty id; give ID,ID,…")
    return [_meant(ids, part) for part in parts]


def _meant(ids: Ids, text: str) -> Any:
    """Parse one id; blanks around it are dropped, unless the log has an id with these blanks."""
    exact = ids.parse(text)
    return exact if ids.index([exact])[0] >= 0 else ids.parse(text.strip())


def _all_ids(ids: Ids, option: str, texts: list[str], lines: list[str]) -> list[Any]:
    """Ids from all values of a repeatable option and from the lines of its file."""
    option_ids = [each for text in texts for each in _ids(ids, text, option)]
    return option_ids + [_meant(ids, line) for line in lines]


def _say_absent(ids: Ids, name: str, items: list[Any]) -> None:
    """Print a note about items of the option `--allow` or `--block` that are not in the log."""
    absent = [item for item, at in zip(items, ids.index(items).tolist(), strict=True) if at < 0]
    if absent:
        few = f"{len(absent):,} of {len(items):,} items do not occur in the log"
        options.say_notes([f"--{name}: {few}, such as {shortened(absent[0])!r}"], False)


def _copy_to_stdout(table: Table, form: str) -> None:
    """Write a table to the open stdout; opening `/dev/stdout` again would overwrite its start."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lists"
        table.write(str(path), form)
        terminal.write(path.read_bytes())  # as text, line ends would change


def _lists(table: Table, asked: Sequence[Any]) -> list[dict[str, Any]]:
    """One list per requested user or history; it is empty if nothing was recommended."""
    items = dict(_by_user(table))
    return [{"user_id": user, "items": items.get(user, [])} for user in asked]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)  # JSON has no UUIDs


def _escaped_json(text: str) -> str:
    """JSON text with its control characters escaped, for a terminal."""
    return re.sub(
        r"[^ -~\n]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text
    )


def _by_user(table: Table) -> list[tuple[Any, list[dict[str, Any]]]]:
    """Group the rows of a table by list; a user who is requested twice has two lists."""
    lists: list[tuple[Any, list[dict[str, Any]]]] = []
    for row in table.rows():
        user = row.pop("user_id")
        if row["rank"] == 1:
            lists.append((user, []))
        lists[-1][1].append(row)
    return lists


def _text(table: Table, titles: dict[str, str], width: int | None) -> str:
    """Recommended lists as plain text, at most `width` columns wide; None for any width."""
    if len(table) == 0:
        return "no items left to list"
    widest = max(width_of(printable(item)) for item in table["item_id"].tolist())
    widest = max(min(widest, (width or 10**9) - 18), 12)
    lines = []
    for user, items in _by_user(table):
        line = f"user {printable(user)}"
        lines.append(line if width is None else cropped(line, width))
        lines += [_line(item, titles, widest, width) for item in items]
    return "\n".join(lines)


def _line(item: dict[str, Any], titles: dict[str, str], widest: int, width: int | None) -> str:
    """Line for a recommended item: rank, id, score, and the title cropped to fit the width."""
    name = padded(cropped(printable(item["item_id"]), widest), widest, right=True)
    line = f"{item['rank']:>4}  {name}  {item['score']:>8.4f}"
    title = printable(titles.get(str(item["item_id"]), ""))
    if title and width is not None:
        title = cropped(title, max(width - width_of(line) - 2, 0))
    return f"{line}  {title}".rstrip()
