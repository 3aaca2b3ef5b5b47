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
    test: options.Test = None,
    candidates: options.Candidates = None,
    negatives: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates that are drawn for DATA, as in training; 99."),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: Reading,
) -> None:
    """Look for leaks, ties, repeats and candidates that are positives: a line a finding.

    DATA is split as `train` would do it. The files of a given split are looked at as they are,
    before anything in them is fixed. For a RUN, digests, figures and scores are checked too.

    Exit status 2 when there is a finding of severity error, else 0: warnings and notes do not fail.
    """
    if candidates and not test:
        raise InputError("--candidates needs --test FILE")
    if _is_run(what):
        own = {k: v for k, v in vars(reading).items() if v != getattr(Reading, k)}
        findings = _of_run(what, {"test": test, "negatives": negatives, **own})
    else:
        log = options.read_data(what, reading)
        options.say_notes(log.notes, quiet)
        if test:
            findings = _of_files(log, reading, test, candidates)
        else:
            findings = _of_log(log, negatives or ProtocolConfig.negatives, quiet)
    _say(what, findings, json_)


def _is_run(what: str) -> bool:
    """Whether a run is asked for: a folder, but not one with a catalog name and without a run."""
    from comet_rec.datasets import catalog

    folder = Path(what)
    return folder.is_dir() and ((folder / "manifest.json").is_file() or not catalog.is_name(what))


def _of_run(folder: str, given: dict[str, Any]) -> list[Finding]:
    threads = given.pop("threads", None)
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{folder}: is a run, which holds its own data; leave {option} out")
    options.set_threads(threads)
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
    log: Interactions, reading: Reading, test: Path, candidates: Path | None
) -> list[Finding]:
    from comet_rec.evaluation.audit import audit_files

    rows = options.read_test(log, reading, test, candidates)
    return audit_files(log, *rows, _times(test, log, reading))


def _times(test: Path, log: Interactions, reading: Reading) -> dict[Any, int] | None:
    """Times of the test file's rows by (user, item); None where it or the log has none."""
    from comet_rec.reading.given import first_named
    from comet_rec.reading.readers import read

    if log.times is None:
        return None
    read_test = partial(
        read, test, time_scope="global", skip_bad=reading.skip_bad, threads=reading.threads
    )
    pair = {"user": reading.user, "item": reading.item}
    names = [{**pair, "time": reading.time}, pair, {"time": reading.time}, {}]
    try:
        rows = first_named(read_test, names)
    except DataError:  # no time column: the rows themselves were read before
        return None
    if rows.times is None:
        return None
    users = rows.user_ids.external(rows.users).tolist()
    items = rows.item_ids.external(rows.items).tolist()
    return dict(zip(zip(users, items, strict=True), rows.times.tolist(), strict=True))


def _say(what: str, findings: list[Finding], json_: bool) -> None:
    """Findings on stdout; with an error among them, one line on stderr and exit status 2."""
    from comet_rec.evaluation.audit import as_data, as_text

    if json_:
        show(json.dumps(as_data(findings)))
    else:
        for line in as_text(findings).split("\n"):
            show(folded(line, 9))
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        say(
            f"comet-rec: {what}: {errors} finding{'s' * (errors > 1)} of severity error; "
            "fix what stdout names"
        )
        raise typer.Exit(2)
