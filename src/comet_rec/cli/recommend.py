"""The command ``comet-rec recommend``: recommended items for users of a trained run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import launched, options, terminal
from comet_rec.cli.evaluate import Run
from comet_rec.cli.ids import all_ids, groups_of_file, ids_of_text, pairs_of_file, say_absent
from comet_rec.errors import InputError, did_you_mean
from comet_rec.files import is_stdout, read_lines, write_text_whole
from comet_rec.text import cropped, padded, printable, shortened, width_of

if TYPE_CHECKING:
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
    allow_pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV of user_id and item_id: recommend only these to these users."
        ),
    ] = None,
    block_pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV of user_id and item_id: never recommend these to these users."
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of item_id and group, such as a category."),
    ] = None,
    allow_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Recommend only items of this group; repeatable."),
    ] = None,
    block_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Never recommend items of this group; repeatable."),
    ] = None,
    per_group: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most N items of a group in a list.")
    ] = None,
    diversify: Annotated[
        float,
        typer.Option(
            metavar="D", help="From 0 to 1: how much an item loses for being like one above it."
        ),
    ] = 0.0,
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
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="With --all-users: only the I-th of N parts of the users, as a Parquet file in "
            "the folder --out. A part that is complete is left as it is.",
        ),
    ] = None,
    memory: options.Memory = None,
) -> None:
    """Recommend items to known users, or to new users with a given history."""
    if sum((bool(user or users_file), all_users, bool(history))) != 1:
        raise InputError("give one of --user ID (or --users-file), --all-users, --history ID,ID,…")
    if launched.size() > 1:
        if shard is None and not all_users:
            raise InputError("torchrun is for --all-users; start this command without it")
        if shard is not None:
            raise InputError("--shard: torchrun gives each process its part; remove one of the two")
        shard = f"{launched.rank() + 1}/{launched.size()}"
    part = _shard(shard, all_users, form, out)
    form = "parquet" if part else _format(form, out)
    if history and (allow_pairs or block_pairs):
        raise InputError("--allow-pairs and --block-pairs: need users of the log, not --history")
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
        users = all_ids(log.user_ids, "--user", user or [], lines["users-file"])
        if not users:
            raise InputError(f"--users-file {users_file}: holds no id; give one per line")
    rules: dict[str, Any] = {
        "include_seen": include_seen, "unknown": unknown, "diversify": diversify,
    }  # fmt: skip
    for name, texts, path in (("allow", allow, allow_file), ("block", block, block_file)):
        if texts or path is not None:
            items = all_ids(log.item_ids, f"--{name}", texts or [], lines[f"{name}-file"])
            rules[name] = items
    for name, path in (("allow_pairs", allow_pairs), ("block_pairs", block_pairs)):
        if path is not None:
            rules[name] = pairs_of_file(path, f"--{name.replace('_', '-')}", model.run)
    if groups is not None:
        rules["groups"] = groups_of_file(groups, "--groups", model.run)
    rules |= {"allow_groups": allow_group, "block_groups": block_group, "per_group": per_group}
    table = None
    if all_users and form == "parquet" and out is not None and not is_stdout(out):
        _write_all(model, out, k, part, rules)
    elif history:
        parsed = [ids_of_text(log.item_ids, each, "--history") for each in history]
        table = model.recommend_for_history(parsed, k, **rules)
    else:
        table = model.recommend(users, k, **rules)
    for name in ("allow", "block"):
        say_absent(log.item_ids, f"--{name}", rules.get(name, []))
    for option, name in (("--allow-pairs", "allow_pairs"), ("--block-pairs", "block_pairs")):
        pairs = rules.get(name, {"user_id": [], "item_id": []})
        say_absent(log.user_ids, option, pairs["user_id"], "users")
        say_absent(log.item_ids, option, pairs["item_id"])
    say_absent(log.item_ids, "--groups", list(rules.get("groups", ())))
    options.say_memory(memory, False)
    if table is None:  # written already
        return
    asked: Sequence[Any] = range(len(history or ()))
    if not history:
        asked = log.user_ids.external(range(log.n_users)).tolist() if users is None else users
        if unknown == "skip":
            asked = [key for key in asked if log.user_ids.index([key])[0] >= 0]
    _write(table, form, out, asked, model)
    if not history and model.run.known is not log:
        note = "lists may hold held-out test items, which the model does not know"
        notes = [f"{note}; train with --final to leave them out"]
        if model.run.existing is not None:
            notes.append(
                f"lists leave out {int((~model.run.existing).sum()):,} items whose first row is "
                "after the split by time; train with --final for lists of today"
            )
        options.say_notes(notes, False)


def _shard(
    text: str | None, all_users: bool, form: str | None, out: Path | None
) -> tuple[int, int] | None:
    """The part of the users that --shard I/N names; None without the option."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise InputError(f"--shard {shortened(text)}: must be I/N with I from 1 to N, such as 1/8")
    if not all_users or out is None or form not in (None, "parquet"):
        raise InputError("--shard: needs --all-users and --out FOLDER, and writes Parquet files")
    return int(found[1]), int(found[2])


def _write_all(
    model: Estimator, out: Path, k: int, shard: tuple[int, int] | None, rules: dict[str, Any]
) -> None:
    """Write the lists of all users, or of a part of them, to a Parquet file, block by block."""
    path = out
    if shard is not None and (out.is_dir() or out.suffix.lower() != ".parquet"):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be made: {error.strerror}") from None
        # With zeros in front, the order of the names is the order of the users.
        path = out / f"{shard[0]:0{len(str(shard[1]))}}-of-{shard[1]}.parquet"
    if not model.write_lists(path, k, shard=shard, **rules):
        options.say_notes([f"{path} is complete already, and is left as it is"], False)


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
