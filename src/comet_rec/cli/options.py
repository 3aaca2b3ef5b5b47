"""Options that several commands share, and functions that read the log they name."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from comet_rec import memory
from comet_rec.cli.terminal import say
from comet_rec.config import MOST_THREADS, ProtocolConfig
from comet_rec.errors import ConfigError, DataError, InputError, did_you_mean
from comet_rec.text import shortened

if TYPE_CHECKING:
    from comet_rec.data.given_split import Pairs
    from comet_rec.data.interactions import Interactions
    from comet_rec.data.split import Split

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Catalog name (see `data list`) or log file.")
]
Test = Annotated[
    Path | None,
    typer.Option(help="File of test items, one row per user; DATA is then the training part."),
]
Candidates = Annotated[
    Path | None,
    typer.Option(help="File of negatives for the test users: rows, or NCF's wide form."),
]
SplitBy = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="leave-one-out, or time=QUANTILE|DATE[,target=…][,validation=…][,repeats=…].",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no progress and no notes.")]
Device = Annotated[str, typer.Option(help="Device: cpu, cuda or mps.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]


def _limit_memory(text: str | None) -> str | None:
    """Limit the memory of this command; `run` of the command line lifts the limit."""
    if text is not None:
        memory.set_limit(memory.parsed(text))
    return text


Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        callback=_limit_memory,
        help="Memory to keep to, such as 4GB: large arrays of the log go to files of TMPDIR.",
    ),
]


class Commands(TyperGroup):
    """Command group that suggests a similar name for an unknown command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names; if none, suggest a similar one."""
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}; {did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@dataclass(frozen=True)
class Reading:
    """Options for reading a log; the decorator `reads_log` adds them to a command."""

    user: Annotated[str | None, typer.Option(help="Column of user ids.")] = None
    item: Annotated[str | None, typer.Option(help="Column of item ids.")] = None
    time: Annotated[str | None, typer.Option(help="Column of times.")] = None
    rating: Annotated[str | None, typer.Option(help="Column of ratings.")] = None
    time_scope: Annotated[
        str,
        typer.Option(help="Whether times compare across users: auto, global, per_user, none."),
    ] = "auto"
    min_rating: Annotated[float | None, typer.Option(help="Drop rows with a lower rating.")] = None
    min_user: Annotated[int | None, typer.Option(help="Drop users with fewer interactions.")] = None
    min_item: Annotated[int | None, typer.Option(help="Drop items with fewer interactions.")] = None
    skip_bad: Annotated[int, typer.Option(min=0, help="Skip up to this many bad rows.")] = 0
    time_format: Annotated[
        str | None, typer.Option(help="Format of times, such as '%d.%m.%Y %H:%M'.")
    ] = None
    repeats: Annotated[
        str, typer.Option(help="Row of a repeated (user, item) pair that counts: first or last.")
    ] = "first"
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE,VALUE…", help="Keep rows of some events, such as type=cart,buy."
        ),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text files, such as latin-1, cp1252, utf-16.")
    ] = None
    quote: Annotated[
        str | None, typer.Option(help="Quote character of text files; '' for none.")
    ] = None
    escape: Annotated[
        str | None,
        typer.Option(help="Escape character of text files."),
    ] = None
    threads: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Number of threads.")
    ] = None
    folder: Annotated[
        Path | None, typer.Option(help="Folder with your own copy of a named data set.")
    ] = None

    def keywords(self) -> dict[str, Any]:
        """The options as keyword arguments for `read`; options that are None are left out."""
        names = {"min_user": "min_user_interactions", "min_item": "min_item_interactions"}
        words: dict[str, Any] = {
            names.get(name, name): value
            for name, value in vars(self).items()
            if name not in ("folder", "event") and value is not None
        }
        if words["repeats"] == "first":  # the default is left out, as in runs of before
            del words["repeats"]
        if self.event:
            words["events"] = events_of(self.event)
        return words

    def changed(self) -> dict[str, Any]:
        """Keyword arguments for `read`, only those that differ from the defaults."""
        default = Reading().keywords()
        return {key: value for key, value in self.keywords().items() if value != default.get(key)}


def reads_log(
    command: Callable[..., None] | None = None, *, leave_out: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Decorator that adds the options of `Reading` to a command.

    The command gets them as one object, its keyword argument `reading`.

    Parameters
    ----------
    command : callable
        The function of the command, with the parameter `reading`.
    leave_out : tuple of str
        Names of options that are not added.
    """
    if command is None:
        return functools.partial(reads_log, leave_out=leave_out)
    command_options = inspect.signature(command, eval_str=True).parameters.values()
    options = inspect.signature(Reading, eval_str=True).parameters.values()
    shared = [option for option in options if option.name not in leave_out]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        reading = Reading(**{option.name: arguments.pop(option.name) for option in shared})
        command(**arguments, reading=reading)

    parameters = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in (*command_options, *shared)
        if parameter.name != "reading"
    ]
    # typer reads both the signature and the annotations.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run


def read_data(source: str, reading: Reading) -> Interactions:
    """Read a log: a data set of the catalog by its name, or a file.

    A `source` with a folder, such as `./ml-1m`, is always a file.

    Raises
    ------
    DataError
        When there is no such data set and no such file, or the log cannot be read.
    """
    from comet_rec.datasets import catalog
    from comet_rec.reading import readers

    set_threads(reading.threads)
    if catalog.is_name(source):
        return catalog.load(source, folder=reading.folder, **reading.keywords())
    if reading.folder is not None:
        raise InputError(f"--folder needs a catalog name; {source!r} is not one, see `data list`")
    if not Path(source).exists() and not re.search(r"[*?\[]|://", source):
        names = ", ".join(catalog.entries())
        hint = did_you_mean(source, catalog.entries())
        near = f"; {hint}" if hint.startswith("did") else ""
        raise DataError(
            f"{shortened(source, 300)}: no such file; give a log file or one of {names}{near}"
        )
    return readers.read(source, **reading.keywords())


def split_of(log: Interactions, by: str, protocol: ProtocolConfig) -> Split:
    """Split a log as the option --split says, with the candidates of a protocol.

    `by` is "leave-one-out", or such as "time=0.9,target=last,validation=0.9,repeats=keep".

    Raises
    ------
    DataError
        When the log cannot be split.
    InputError
        When `by` is no split.
    """
    from comet_rec.data.split import leave_one_out
    from comet_rec.data.time_split import time_split

    candidates: dict[str, Any] = {
        name: getattr(protocol, name) for name in ("negatives", "seed", "ties")
    }
    if by in ("leave-one-out", "leave_one_out"):
        return leave_one_out(log, **candidates)
    fault = (
        f"--split {shortened(by)!r}: give leave-one-out or time=QUANTILE|DATE, "
        "e.g. time=0.9,target=last"
    )
    words: dict[str, Any] = {}
    for part in by.split(","):
        key, equals, value = (text.strip() for text in part.partition("="))
        if not equals or key in words or key not in ("time", "target", "validation", "repeats"):
            raise InputError(fault)
        words[key] = _share_or_text(value)
    if "time" not in words:
        raise InputError(fault)
    moment = words.pop("time")
    words["quantile" if isinstance(moment, float) else "at"] = moment
    return time_split(log, **words, **candidates)


def _share_or_text(text: str) -> float | str:
    """A number between 0 and 1 as a number; anything else, such as a date, as it is."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    return text


def read_test(
    log: Interactions, reading: Reading, test: Path, candidates: Path | None
) -> tuple[Pairs, Pairs | None]:
    """Read a test file and, if given, a candidates file; ids get the same types as in `log`."""
    from comet_rec.reading.given import read_given

    return read_given(
        test,
        candidates,
        log,
        user=reading.user,
        item=reading.item,
        skip_bad=reading.skip_bad,
        or_common=True,
    )


def set_threads(threads: int | None) -> None:
    """Set torch's number of threads; None keeps the default."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def titles_of(source: str, folder: Path | None) -> dict[str, str]:
    """Item titles by item id (as text), if `source` names a data set of the catalog.

    The result is an empty dict if `source` is a file.
    """
    from comet_rec.datasets import catalog

    if not catalog.is_name(source):
        return {}
    return {str(key): value for key, value in catalog.titles(source, folder=folder).items()}


def say_notes(notes: tuple[str, ...] | list[str], quiet: bool) -> None:
    """Print notes about reading and splitting to stderr, each once, unless `quiet`."""
    if not quiet:
        for note in notes:
            say(f"note: {note}", again=False)


def say_memory(limit: str | None, quiet: bool) -> None:
    """Say what was done to keep to the limit of --memory, unless `quiet`."""
    if limit is not None:
        done = sorted(memory.noted) or ["nothing had to be moved to files"]
        say_notes([f"memory {limit.strip()}: {'; '.join(done)}"], quiet)


def check_folder(out: Path) -> None:
    """Check, before a long training, that `out` can be an output folder; leave nothing there.

    Raises
    ------
    InputError
        When `out` is no folder or cannot be written.
    """
    if out.exists() and not out.is_dir():
        fault = "is a file" if out.is_file() else "is no folder"
        raise InputError(f"{out}: {fault}; give a folder for --out")
    made = [path for path in (out, *out.parents) if not path.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written: {error.strerror}; give another --out"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def check_file(out: Path) -> None:
    """Check, before any work, that `out` can be an output file.

    Raises
    ------
    InputError
        When `out` is a folder or cannot be written.
    """
    try:
        place = out.resolve()
        there = place.exists()
    except (OSError, RuntimeError, ValueError) as error:  # circular links, or a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{out}: cannot be written: {why}; give another --out") from None
    # A file is replaced, so its folder must be writable; a pipe or a device must be itself.
    written = place if there and not place.is_file() else place.parent
    if place.is_dir() or not os.access(written, os.W_OK):
        raise InputError(f"{out}: must be a file in a folder to write to; give another --out")


def pairs(settings: list[str], option: str = "--set") -> dict[str, str]:
    """Parse texts of the form ``KEY=VALUE``; `option` is the option that they belong to.

    Raises
    ------
    ConfigError
        For a text without "=", or a key without a dot.
    """
    changes = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            expected = "the full key" if equals else "KEY=VALUE"
            example = "model.embedding_dim=64"
            raise ConfigError(f"{option} {shortened(text)!r}: give {expected}, e.g. {example}")
        changes[key.strip()] = value.strip()
    return changes


def events_of(texts: list[str]) -> dict[str, list[str]]:
    """Parse the values of ``--event``, such as `type=cart,buy`: the events of each column.

    Raises
    ------
    DataError
        For a text without a column or without an event.
    """
    events: dict[str, list[str]] = {}
    for text in texts:
        column, _, listed = text.partition("=")
        kept = [event.strip() for event in listed.split(",") if event.strip()]
        if not column or not kept:
            raise DataError(
                f"--event {shortened(text)!r}: give COLUMN=VALUE,VALUE…, e.g. type=cart,buy"
            )
        events.setdefault(column, []).extend(kept)
    return events


def names(models: str) -> list[str]:
    """Split a comma-separated list of model names."""
    chosen = [name.strip() for name in models.split(",") if name.strip()]
    if not chosen:
        raise ConfigError("--models: give at least one name, e.g. mf,gmf")
    return chosen


def values(text: str) -> list[str]:
    """Split a comma-separated list of values, but not inside brackets.

    For example, ``[64],[64,32]`` holds two values.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
