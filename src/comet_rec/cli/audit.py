"""The command ``comet-rec audit``: check a log, a split or a run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.options import Reading
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import on_terminal, say, show
from comet_rec.config import ProtocolConfig
from comet_rec.errors import DataError, InputError

if TYPE_CHECKING:
    from comet_rec.data.interactions import Interactions
    from comet_rec.evaluation.audit import Finding


@options.reads_log
def audit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RUN",
            help="Catalog name, log file (with --test: its training part) or folder of a run.",
        ),
    ],
    split_by: options.SplitBy = "leave-one-out",
    test: options.Test = None,
    candidates: options.Candidates = None,
    negatives: Annotated[
        int | None,
        typer.Option(min=1, help="Number of sampled candidates per user of DATA; default 99."),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: Reading,
) -> None:
    """Check data or a run for leaks, ties, repeated rows and candidates that are positives.

    One line is printed per finding. DATA is split as `train` does it. With --test, the files are
    checked as they are, before faults in them are fixed. For a RUN, digests, figures and scores
    are checked too.

    The exit status is 2 if a finding has severity error, else 0.
    """
    if candidates and not test:
        raise InputError("--candidates needs --test FILE")
    by_time = split_by != "leave-one-out"
    if by_time and test:
        raise InputError("--split divides DATA; remove it or --test")
    if _is_run(source):
        changed = {k: v for k, v in vars(reading).items() if v != getattr(Reading, k)}
        arguments = {"split": split_by if by_time else None, "test": test, "negatives": negatives}
        findings = _of_run(source, arguments | changed)
    else:
        log = options.read_data(source, reading)
        options.say_notes(log.notes, quiet)
        if test:
            findings = _of_files(log, reading, test, candidates)
        else:
            findings = _of_log(log, split_by, negatives or ProtocolConfig.negatives, quiet)
    _say(source, findings, json_)


def _is_run(source: str) -> bool:
    """Whether `source` is the folder of a run: it has a manifest, or is no name of a data set."""
    from comet_rec.datasets import catalog

    folder = Path(source)
    return folder.is_dir() and ((folder / "manifest.json").is_file() or not catalog.is_name(source))


def _of_run(folder: str, arguments: dict[str, Any]) -> list[Finding]:
    """Audit a run; refuse options in `arguments` that make sense only for a log."""
    threads = arguments.pop("threads", None)
    for name, value in arguments.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{folder}: is a run, which holds its own data; leave {option} out")
    options.set_threads(threads)
    from comet_rec.estimators.audit import audit_folder

    return audit_folder(Path(folder))


def _of_log(log: Interactions, split_by: str, negatives: int, quiet: bool) -> list[Finding]:
    """Audit a log with its split, or only its rows if it cannot be split."""
    from comet_rec.evaluation.audit import audit as look

    try:
        split = options.split_of(log, split_by, ProtocolConfig(negatives=negatives))
    except DataError as error:
        why = str(error).split(";")[0]
        options.say_notes([f"{why}: only the rows are checked"], quiet)
        return look(log)
    return look(split)


def _of_files(
    log: Interactions, reading: Reading, test: Path, candidates: Path | None
) -> list[Finding]:
    """Audit a training log together with given files of test items and candidates."""
    from comet_rec.evaluation.audit import audit_files

    rows = options.read_test(log, reading, test, candidates)
    return audit_files(log, *rows, _times(test, log, reading))


def _times(test: Path, log: Interactions, reading: Reading) -> dict[Any, int] | None:
    """Times of the test rows by (user, item); None if the test file or the log has no times."""
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
    except DataError:  # no time column; other errors were raised when the rows were read
        return None
    if rows.times is None:
        return None
    users = rows.user_ids.external(rows.users).tolist()
    items = rows.item_ids.external(rows.items).tolist()
    return dict(zip(zip(users, items, strict=True), rows.times.tolist(), strict=True))


def _say(source: str, findings: list[Finding], json_: bool) -> None:
    """Print findings; if one is an error, print a line to stderr and exit with status 2."""
    from comet_rec.evaluation.audit import as_data, as_text, counted

    if json_:
        show(json.dumps(as_data(findings)))
    else:
        if not on_terminal() or not findings:
            show(as_text(findings))  # one line for each finding, for other programs
        else:
            rows = [(f.severity, f.check, f.with_example) for f in findings]
            show_table(["severity", "check", "finding"], rows, left=3)
            show(counted(findings))
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        say(
            f"comet-rec: {source}: {errors} finding{'s' * (errors > 1)} of severity error; "
            "fix the faults listed on stdout"
        )
        raise typer.Exit(2)
