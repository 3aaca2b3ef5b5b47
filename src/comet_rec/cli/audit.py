"""``comet-rec audit DATA|RUN|FILES``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.options import Reading
from comet_rec.cli.terminal import folded, say, show
from comet_rec.config import ProtocolConfig
from comet_rec.errors import DataError, InputError

if TYPE_CHECKING:
    from comet_rec.data.interactions import Interactions
    from comet_rec.evaluation.audit import Finding


@options.reads_log
def audit(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RUN",
            help="A catalog name or log file (a training part, with --test), or a run's folder.",
        ),
    ],
    test: Annotated[
        Path | None, typer.Option(help="Test items, a row a user; DATA is then the training part.")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="Negatives of the test users: rows, or NCF's wide file.")
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates that are drawn for DATA, as in training; 99."),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Look for leaks, ties, repeats and candidates that are positives: a line a finding.

    DATA is split as `train` would do it. The files of a given split are looked at as they are,
    before anything in them is fixed. For a RUN, digests, figures and scores are checked too.

    Exit status 2 when there is a finding of severity error, else 0: warnings and notes do not fail.
    """
    if candidates and not test:
        raise InputError("--candidates needs --test FILE")
    if Path(what).is_dir() and not options.is_data(what):
        given = {"--test": test, "--negatives": negatives}
        given |= {f"--{k}": v for k, v in vars(reading).items() if v != getattr(Reading, k)}
        found = _of_run(what, given)
    else:
        log = options.read_data(what, reading)
        options.say_notes(log.notes, quiet)
        if test:
            found = _of_files(log, reading, test, candidates)
        else:
            found = _of_log(log, negatives or ProtocolConfig.negatives, quiet)
    _say(what, found, json_)


def _of_run(folder: str, given: dict[str, Any]) -> list[Finding]:
    for name, value in given.items():
        if name != "--threads" and value is not None:
            raise InputError(
                f"{folder}: is a run, which holds its own data; leave {name.replace('_', '-')} out"
            )
    options.set_threads(given.get("--threads"))
    from comet_rec.estimators.audit import audit_folder

    return audit_folder(Path(folder))


def _of_log(log: Interactions, negatives: int, quiet: bool) -> list[Finding]:
    from comet_rec.data.split import leave_one_out
    from comet_rec.evaluation.audit import audit as look

    try:
        split = leave_one_out(log, negatives=negatives)
    except DataError as error:
        why = str(error).split(";")[0]
        options.say_notes([f"{why}: only the rows are looked at"], quiet)
        return look(log)
    return look(split)


def _of_files(
    log: Interactions, reading: options.Reading, test: Path, candidates: Path | None
) -> list[Finding]:
    from comet_rec.evaluation.audit import audit_files
    from comet_rec.reading.given import read_given

    held, rows = read_given(
        test, candidates, log, user=reading.user, item=reading.item, skip_bad=reading.skip_bad,
        or_common=True,
    )  # fmt: skip
    return audit_files(log, held, rows, _times(test, log, reading))


def _times(test: Path, log: Interactions, reading: options.Reading) -> dict[Any, int] | None:
    """Times of the test file's rows by (user, item); None where it or the log has none."""
    from comet_rec.reading.given import first_named
    from comet_rec.reading.readers import read

    if log.times is None:
        return None
    more: dict[str, Any] = {"skip_bad": reading.skip_bad, "threads": reading.threads}
    pair = {"user": reading.user, "item": reading.item}
    try:
        rows = first_named(
            partial(read, test, time_scope="global", **more),
            [{**pair, "time": reading.time}, pair, {"time": reading.time}, {}],
        )
    except DataError:  # no time column: the rows themselves were read before
        return None
    if rows.times is None:
        return None
    users = rows.user_ids.external(rows.users).tolist()
    items = rows.item_ids.external(rows.items).tolist()
    return dict(zip(zip(users, items, strict=True), rows.times.tolist(), strict=True))


def _say(what: str, found: list[Finding], json_: bool) -> None:
    """Findings on stdout; with an error among them, one line on stderr and exit status 2."""
    from comet_rec.evaluation.audit import as_data, as_text, passed

    if json_:
        show(json.dumps(as_data(found)))
    else:
        for line in as_text(found).split("\n"):
            show(folded(line, 9))
    if not passed(found):
        errors = sum(finding.severity == "error" for finding in found)
        say(
            f"comet-rec: {what}: {errors} finding{'s' * (errors > 1)} of severity error; "
            "fix what stdout names"
        )
        raise typer.Exit(2)
