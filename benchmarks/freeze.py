"""Proof that a refactor moved no number and no option: two checkouts, measured and compared.

    git worktree add ../before COMMIT
    python benchmarks/freeze.py --before ../before --data ml-1m=FILE --data amazon-beauty=FILE \
      --data amazon-cds=FILE --data ml-1m-times=FILE

`freeze_measure.py` runs once in each checkout, one after the other on this machine, with one
thread and no network; float bits differ between processors, so kept digests prove nothing.
A line for each part says how many values are equal, or shows the first differences. Exit status 0
when everything is equal, else 1. A part alone, or some cases of one: `--only options
'models:COMET, blend*'`. The environment variable FREEZE_DATA may hold the NAME=FILE pairs, with
the separator of PATH between them. MovieLens-100K is read from the library's own cache if it is
there.

| part | what is compared |
|---|---|
| options | options of every command with types and defaults; parameters of public calls |
| keys | keys of every `--json` output |
| fingerprints, protocols | of the published logs, planted logs, files of reading's tests |
| presets | every setting of each preset, for each model and log |
| figures | `evaluate --json`, lists of known and new users, `compare`, `audit` |
| models | tensors, figures and losses of all models × presets and of variants, bit by bit |
| report | each cell of the reports of the committed records, and the numbers behind |

Two files of JSON say what may differ. `freeze-names.json`: old names → new ones. Its `settings`
are dotted keys, or `KEY=VALUE` with the value as JSON where that changes too, and a list where one
setting became several; `tensors` are `FILE/NAME`, where a `*` stands for the same text on both
sides; `labels` are all other words of keys, and parts of the texts of cells.
`freeze-expected.json`: pattern of a key, in which `*` stands for any text → the reason why it
differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHOWN = 10
SEPARATOR = " · "
NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses: what is not on this machine is the same nothing for both checkouts."""
ABSENT = "(absent)"
Measured = Mapping[str, Any]
"""Part → its cases, its CPU seconds, and what it could not measure."""


@dataclass(frozen=True)
class Names:
    """Old names and what they are called in the later checkout."""

    settings: Mapping[str, str | list[str]] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, key: str, value: Any) -> tuple[str, Any]:
        """A key and its value as the later checkout would write them."""
        words = key.split(SEPARATOR)
        if "tensor" in words:
            at = words.index("tensor") + 1
            name = self._tensor("/".join(words[at:]))
            return SEPARATOR.join([*words[:at], *name.split("/", 1)]), value
        if "setting" in words:
            at = words.index("setting") + 1
            words[at], value = self._setting(words[at], value)
            return SEPARATOR.join(words), value
        if isinstance(value, str):
            value = self._text(value)
        return SEPARATOR.join(self.labels.get(word, word) for word in words), value

    def _tensor(self, name: str) -> str:
        for old, new in self.tensors.items():
            pattern = re.escape(old).replace(r"\*", "(.*)")
            if found := re.fullmatch(pattern, name):
                return new.replace("*", found.group(1)) if "*" in new else new
        return name

    def _setting(self, key: str, value: Any) -> tuple[str, Any]:
        mapped = self.settings.get(f"{key}={json.dumps(value)}") or self.settings.get(key, key)
        first = mapped if isinstance(mapped, str) else mapped[0]
        name, equals, text = first.partition("=")
        return name, json.loads(text) if equals else value

    def _text(self, text: str) -> str:
        """Text of a cell: settings as ``name = value``, and parts that have another name now."""
        for old, new in self.labels.items():
            text = text.replace(old, new)
        for old, new in self.settings.items():
            if "=" not in old and isinstance(new, str):
                section, _, bare = old.partition(".")
                present = new.partition(".")[2]
                pattern = rf"(?<![\w.])((?:{section}\.)?){re.escape(bare)}(?= = )"
                text = re.sub(pattern, rf"\g<1>{present}", text)
        return text


@dataclass
class Outcome:
    """Result of comparing one part.

    Parameters
    ----------
    part : str
    cases, values, refused : int
        Numbers of what was compared; cases that both checkouts refused.
    differences : list of (key, before, after)
    expected : dict of str to list of (key, before, after)
        Differences that have a reason, by that.
    cpu_seconds : dict
        CPU seconds of each checkout's measurement.
    missing : list of str
        Cases that could not be measured.
    """

    part: str
    cases: int = 0
    values: int = 0
    refused: int = 0
    differences: list[tuple[str, Any, Any]] = field(default_factory=list)
    expected: dict[str, list[tuple[str, Any, Any]]] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def lines(self) -> Iterable[str]:
        """A line for the part, and its first differences."""
        told = "equal"
        if self.differences:
            told = f"{len(self.differences):,} differences"
        if self.expected:
            told += f", {sum(map(len, self.expected.values())):,} expected"
        seconds = " + ".join(f"{spent:.1f}" for spent in self.cpu_seconds.values())
        text = f"{self.part}: {told}; {self.values:,} values of {self.cases:,} cases"
        if self.refused:
            text += f", {self.refused:,} refused in both"
        yield f"{text}; {seconds} s of CPU"
        if self.missing:
            yield f"  not measured, no data: {', '.join(self.missing)}"
        yield from _first(self.differences)
        for reason, found in self.expected.items():
            yield f"  expected, {reason}:"
            yield from _first(found)


def _first(differences: list[tuple[str, Any, Any]]) -> Iterable[str]:
    for key, before, after in differences[:SHOWN]:
        yield f"  {key}: {before!r} → {after!r}"
    if len(differences) > SHOWN:
        yield f"  and {len(differences) - SHOWN:,} more"


def compare(
    before: Measured, after: Measured, names: Names, expected: Mapping[str, str]
) -> list[Outcome]:
    """Compare two measurements, part by part.

    Parameters
    ----------
    before, after : mapping
    names : Names
    expected : mapping of str to str
        Pattern of a whole key → why it differs.
    """
    outcomes = []
    for part in {**before, **after}:
        both = before.get(part, {"cases": {}}), after.get(part, {"cases": {}})
        outcome = Outcome(part)
        outcomes.append(outcome)
        sides = zip(("before", "after"), both, strict=True)
        outcome.cpu_seconds = {name: side.get("cpu_seconds", 0.0) for name, side in sides}
        outcome.missing = sorted({name for side in both for name in side.get("missing", ())})
        old, new = both[0]["cases"], both[1]["cases"]
        for case in {**old, **new}:
            outcome.cases += 1
            if "refused" in old.get(case, {}) and old[case] == new.get(case):
                outcome.refused += 1
                continue
            _compare_case(outcome, f"{part}/{case}", old.get(case), new.get(case), names, expected)
    return outcomes


def _compare_case(
    outcome: Outcome, where: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None,
    names: Names, expected: Mapping[str, str],
) -> None:  # fmt: skip
    if old is None or new is None:
        there = [ABSENT if side is None else f"{len(side)} values" for side in (old, new)]
        _differ(outcome, where, there[0], there[1], expected)
        return
    renamed = dict(names.renamed(key, value) for key, value in old.items())
    for key in {**renamed, **new}:
        outcome.values += 1
        left, right = renamed.get(key, ABSENT), new.get(key, ABSENT)
        # 1 and 1.0 and true are equal in Python. What broke on both sides was not measured.
        if key == "broken" or (type(left), left) != (type(right), right):
            _differ(outcome, f"{where}{SEPARATOR}{key}", left, right, expected)


def _differ(outcome: Outcome, key: str, left: Any, right: Any, expected: Mapping[str, str]) -> None:
    reasons = (why for pattern, why in expected.items() if fnmatch.fnmatchcase(key, pattern))
    reason = next(reasons, None)
    found = outcome.differences if reason is None else outcome.expected.setdefault(reason, [])
    found.append((key, left, right))


def measure(checkout: Path, data: list[str], only: list[str], names: Path | None) -> dict[str, Any]:
    """Run the measuring program in a checkout.

    Raises
    ------
    SystemExit
        When it breaks as a whole.
    """
    with tempfile.TemporaryDirectory(prefix="freeze-") as folder:
        out = Path(folder) / "measured.json"
        proxies = {f"{scheme}_proxy": NOWHERE for scheme in ("http", "https", "all")}
        environment = {
            **os.environ,
            **proxies,
            **{name.upper(): address for name, address in proxies.items()},
            "PIP_NO_INDEX": "1",
            "PYTHONPATH": str(checkout / "src"),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TMPDIR": folder,
        }
        program = str(HERE / "freeze_measure.py")
        words = [sys.executable, "-W", "ignore", program, "--checkout", str(checkout)]
        words += ["--out", str(out), *(word for pair in data for word in ("--data", pair))]
        words += ["--only", *only] if only else []
        words += ["--names", str(names)] if names is not None else []
        sys.stderr.write(f"{checkout}\n")
        if subprocess.run(
            words, env=environment, check=False, stdout=subprocess.DEVNULL
        ).returncode:
            raise SystemExit(f"{checkout}: the measuring program broke; see above")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def as_data(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """All outcomes as plain data."""
    return {
        outcome.part: {**vars(outcome), "equal": not outcome.differences} for outcome in outcomes
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, compare, print; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="checkout before the change")
    parser.add_argument("--after", type=Path, default=HERE.parent, help="default: this one")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART[:PATTERN]")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--names", type=Path, default=HERE / "freeze-names.json")
    parser.add_argument("--expected", type=Path, default=HERE / "freeze-expected.json")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    pairs = [pair for pair in os.environ.get("FREEZE_DATA", "").split(os.pathsep) if pair]
    data = [f"{name}={Path(file).resolve()}" for name, _, file in _parted([*pairs, *given.data])]
    names = Names(**json.loads(given.names.read_text(encoding="utf-8")))
    expected = json.loads(given.expected.read_text(encoding="utf-8"))
    before = measure(given.before.resolve(), data, given.only, None)
    after = measure(given.after.resolve(), data, given.only, given.names.resolve())
    outcomes = compare(before, after, names, expected)
    if given.json:
        print(json.dumps(as_data(outcomes), indent=1))
    else:
        for outcome in outcomes:
            print("\n".join(outcome.lines()))
    return int(any(outcome.differences for outcome in outcomes))


def _parted(pairs: list[str]) -> Iterable[tuple[str, str, str]]:
    for pair in pairs:
        if "=" not in pair:
            raise SystemExit(f"--data {pair}: give NAME=FILE, e.g. ml-1m=ml-1m.parquet")
        yield pair.partition("=")


if __name__ == "__main__":
    sys.exit(main())
