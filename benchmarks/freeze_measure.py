"""All that must not move, measured in the checkout whose `src` is on PYTHONPATH.

`freeze.py` runs this program once in each of two checkouts. It asks only for what users have: the
Python surface, the command line, and the files of a run. Three functions ask for more, and are
changed when that moves: `freeze_commands.internal`, `freeze_models.complete_settings` and
`place_records`.

    PYTHONPATH=CHECKOUT/src python benchmarks/freeze_measure.py --checkout CHECKOUT --out FILE
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import comet_rec as cr
import freeze_models
from comet_rec.errors import InputError
from freeze_commands import CHECKOUT, Case, Cases, figures, keys, options, shell
from freeze_models import (
    MODELS,
    PRESETS,
    SEPARATOR,
    Values,
    complete_settings,
    leaves,
    log_of,
    of_presets,
    of_training,
    of_variants,
    planted,
)

DATA: dict[str, str] = {}
"""Name of a published log → file, set by `main`."""
FAULTS = Path(__file__).resolve().parents[1] / "tests" / "reading" / "faults.zip"


# Logs.


@cache
def published(name: str) -> Any:
    """A published log, read; ml-100k comes from the library's own loader."""
    return cr.read(DATA[name], threads=1) if name in DATA else cr.load(name, threads=1)


@cache
def names_of_logs() -> tuple[str, ...]:
    """Logs that are there; without a network ml-100k is only where the library's cache has it."""
    try:
        published("ml-100k")
    except InputError:
        return tuple(DATA)
    return *(name for name in DATA if name != "ml-100k"), "ml-100k"


def _about(log: Any) -> Values:
    counts = {"users": log.n_users, "items": log.n_items, "interactions": len(log)}
    return {"fingerprint": log.fingerprint, "time scope": log.time_scope, **counts}


def fingerprints() -> Cases:
    """Fingerprints of the published logs, the planted ones, and the files of reading's tests."""
    cases: Cases = {name: lambda name=name: _about(published(name)) for name in names_of_logs()}
    for name in freeze_models.LOGS:
        cases[f"planted {name}"] = lambda name=name: _about(log_of(name))
    again = partial(cr.read, str(planted("timed")), threads=1)
    cases["planted, filtered"] = lambda: _about(again(min_item_interactions=9))
    cases["planted, per user"] = lambda: _about(again(time_scope="per_user"))
    folder = Path(tempfile.mkdtemp(prefix="freeze-faults-"))
    zipfile.ZipFile(FAULTS).extractall(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        label = str(path.relative_to(folder))
        cases[f"file {label}"] = lambda path=path: _about(cr.read(str(path), threads=1))
    return cases


def protocols() -> Cases:
    """Hashes of the protocols of the published and the planted logs."""
    logs = {name: partial(published, name) for name in names_of_logs()}
    logs |= {f"planted {name}": partial(log_of, name) for name in freeze_models.LOGS}

    def hashes(read: Callable[[], Any]) -> Values:
        split = cr.leave_one_out(read())
        other = cr.leave_one_out(read(), negatives=10, seed=1, ties="pessimistic")
        return {"default": split.hash, "ten, seed 1": other.hash}

    return {name: partial(hashes, read) for name, read in logs.items()}


def presets() -> Cases:
    """Every setting of every preset, for each model and log."""
    logs = {name: partial(published, name) for name in names_of_logs()}
    logs |= {f"planted {name}": partial(log_of, name) for name in freeze_models.LOGS}
    return {
        f"{model} {preset}, {name}": partial(_preset, model, preset, read)
        for name, read in logs.items()
        for model in MODELS
        for preset in PRESETS
    }


def _preset(model: str, preset: str, read: Callable[[], Any]) -> Values:
    return complete_settings(model, preset, read())


def models() -> Cases:
    """All that trained models hold, bit by bit."""
    cases = {**of_presets(), **of_variants()}
    return {name: partial(of_training, case) for name, case in cases.items()}


# The report of the committed records.

REPORTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": (
        (
            "table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5",
            "figure6", "beyond", "ablation", "falsification", "falsification-best", "reliability",
        ),
        ("ml-1m", "amazon-beauty", "amazon-cds"),
    ),
    "ties": (("ties",), ("ml-1m-times",)),
}  # fmt: skip
"""Report → its parts and the logs that it needs, as in runs/report-full.sh and runs/ties.sh."""


def report() -> Cases:
    """Cells of the reports whose logs are given."""
    made = {name: of for name, of in REPORTS.items() if all(log in DATA for log in of[1])}
    return {name: partial(cells_of, *of) for name, of in made.items()}


def cells_of(parts: tuple[str, ...], logs: tuple[str, ...]) -> Values:
    """Cells of a report by section, table, row and column; and the numbers behind them."""
    folder = Path(tempfile.mkdtemp(prefix="freeze-report-"))
    place_records(folder)
    words = ["reproduce", *parts, "--budget", "full", "--recorded", "--quiet", "--no-figures"]
    words += ["--threads", "1", "--out", str(folder)]
    for name in logs:
        words += ["--data", f"{name}={DATA[name]}"]
    if "table1" in parts:
        words += ["--seeds", "3", "--data", "amazon-movies"]  # which cannot be had: no network
        for journal in sorted((CHECKOUT / "results" / "search").glob("*.journal")):
            if journal.name.startswith(("ml-1m", "amazon")):
                words += ["--journal", str(journal)]
    shell(*words)
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return dict(_cells(found))


def place_records(folder: Path) -> None:
    """Put the committed records where `reproduce --out` looks for them."""
    shutil.copytree(CHECKOUT / "results" / "reproduce" / "records", folder / "records")


def _cells(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for section, of in found["sections"].items():
        for table in of["tables"]:
            for row in table["rows"]:
                for column, text in zip(table["columns"], row, strict=True):
                    # The title is empty where a section has one table; labels may come twice.
                    key = SEPARATOR.join(("cell", section, table["title"], row[0], column))
                    seen[key] = seen.get(key, 0) + 1
                    yield key + (f"{SEPARATOR}#{seen[key]}" if seen[key] > 1 else ""), text
        yield from leaves(of["data"], "number", section)


PARTS: dict[str, Callable[[], Cases]] = {
    "options": options,
    "keys": keys,
    "fingerprints": fingerprints,
    "protocols": protocols,
    "presets": presets,
    "figures": figures,
    "models": models,
    "report": report,
}


def may_refuse(part: str, name: str) -> bool:
    """Whether a case may be refused: models lack presets, files have faults."""
    if part == "models":
        return name in of_presets()
    return part in ("presets", "fingerprints")


def selected(part: str, only: list[str]) -> Cases:
    """Cases of a part that PART or PART:PATTERN ask for; all where nothing is asked for."""
    patterns = [word.partition(":")[2] or "*" for word in only if word.partition(":")[0] == part]
    if only and not patterns:
        return {}
    return {
        name: case
        for name, case in PARTS[part]().items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }


def carried_out(part: str, name: str, case: Case) -> Values:
    """Values of a case; one that is refused says by which error, one that breaks that it broke."""
    try:
        return json.loads(json.dumps(case()))  # type: ignore[no-any-return]
    except InputError as error:
        if may_refuse(part, name):
            return {"refused": "InputError"}
        sys.stderr.write(f"{part}, {name}: {error}\n")
        return {"broken": f"{type(error).__name__}: {error}"}
    except Exception as error:  # a fault of one case must not hide the others
        traceback.print_exc()
        return {"broken": f"{type(error).__name__}: {error}"}


def missing(part: str) -> list[str]:
    """Cases that a part could not measure because their logs are not there."""
    if part == "report":
        return [name for name, of in REPORTS.items() if any(log not in DATA for log in of[1])]
    if part in ("fingerprints", "protocols", "presets"):
        wanted = {"ml-100k", *(log for _, logs in REPORTS.values() for log in logs)}
        return sorted(wanted - set(names_of_logs()))
    return []


def cpu_seconds() -> float:
    """CPU seconds of this process and its children so far."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--names", type=Path)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE")
    given = parser.parse_args()
    DATA.update(word.split("=", 1) for word in given.data)
    if given.names is not None:
        freeze_models.NAMES.update(json.loads(given.names.read_text(encoding="utf-8")))
    if given.checkout.resolve() != CHECKOUT:
        raise SystemExit(f"comet_rec comes from {cr.__file__}, not from {given.checkout}")
    found: dict[str, Any] = {}
    for part in PARTS:
        if given.only and not any(word.partition(":")[0] == part for word in given.only):
            continue
        began = cpu_seconds()
        cases = selected(part, given.only)
        values = {name: carried_out(part, name, case) for name, case in cases.items()}
        found[part] = {"cases": values, "cpu_seconds": round(cpu_seconds() - began, 1)}
        found[part]["missing"] = missing(part)
        sys.stderr.write(f"  {part}: {len(values)} cases, {found[part]['cpu_seconds']} s of CPU\n")
    given.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
