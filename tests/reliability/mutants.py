"""Mutation testing: small faults are put into the code, one at a time, and tests must find them.

    make mutants                                        # or, with mutmut installed:
    python -m tests.reliability.mutants --out results/reliability/mutants.json

mutmut makes the mutants of the files that `[tool.mutmut]` of pyproject.toml lists, e.g. < for <=,
an argument left out, or None for a value, and runs the tests that reach the changed function. From
each package, `--tries` mutants are drawn by the hash of their names, so that a later run has the
same ones. A run that was stopped goes on where it was; `--survivors` tries those again that no
test found, after tests were added. Only functions are changed, and no texts of errors.

`tests/reliability/survivors.toml` says of each mutant that no test finds why that is.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.reliability.recorded import Tried, write_record

HOME = Path(__file__).parents[2]
MUTANTS = HOME / "mutants" / "src"
REASONS = Path(__file__).parent / "survivors.toml"
PACKAGES = {
    "`evaluation/`": r"comet_rec\.evaluation\.",
    "the splits in `data/`": r"comet_rec\.data\.\w*split\.",
    "`data/sampling.py`": r"comet_rec\.data\.sampling\.",
    "`retrieval/exact.py`": r"comet_rec\.retrieval\.exact\.",
    "checkpoints": r"comet_rec\.(artefact\.checkpoint|training\.checkpoints)\.",
}
"""Package → pattern of the names of its mutants."""
GENERATE = """
from pathlib import Path
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants
Path("mutants").mkdir(exist_ok=True)
copy_src_dir()
copy_also_copy_files()
create_mutants(2)
"""
SURVIVED, NO_TESTS, SKIPPED = 0, 33, 34
"""Codes of mutmut."""
FOUND = (1, 3, 24, 36, 152, 255, -9, -11, -24)
"""Codes of mutants that made a test fail, crash, or go on without an end."""


def files() -> list[Path]:
    """Files in which mutmut keeps the outcomes, one for each file of code."""
    return sorted(MUTANTS.rglob("*.meta"))


def drawn(names: list[str], tries: int) -> set[str]:
    """The sample: `tries` mutants of each package, or all that there are."""
    sample: set[str] = set()
    for pattern in PACKAGES.values():
        own = [name for name in names if re.match(pattern, name)]
        sample |= set(sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())[:tries])
    return sample


def prepare(tries: int, survivors: bool) -> None:
    """Make the mutants, and mark those outside the sample as skipped."""
    subprocess.run([sys.executable, "-c", GENERATE], cwd=HOME, check=True, capture_output=True)
    known = {path: json.loads(path.read_text()) for path in files()}
    sample = drawn([name for meta in known.values() for name in meta["exit_code_by_key"]], tries)
    again = (SKIPPED, SURVIVED, NO_TESTS) if survivors else (SKIPPED,)
    for path, meta in known.items():
        codes = meta["exit_code_by_key"]
        for name, code in codes.items():
            if name not in sample:
                codes[name] = SKIPPED
            elif code in again:
                codes[name] = None
        path.write_text(json.dumps(meta, indent=4))


@functools.cache
def functions(path: Path) -> dict[str, list[str]]:
    """Lines of each function of a file that holds all mutants, by its name there."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            own = lines[node.lineno - 1 : node.end_lineno]
            found[node.name] = [line.replace(node.name, "f").strip() for line in own]
    return found


def change(path: Path, name: str) -> str:
    """What a mutant changes: the lines before and after."""
    name = name.rpartition(".")[2]
    known = functions(path)
    before, after = known[name.rpartition("__mutmut_")[0] + "__mutmut_orig"], known[name]
    lines = [x for x in difflib.ndiff(before, after) if x[0] in "-+"]
    return " → ".join(" ".join(x[2:] for x in lines if x[0] == sign) for sign in "-+")


def readable(name: str) -> str:
    """module.function or module.Class.method of a mutant."""
    module, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
    return module.removeprefix("comet_rec.") + "." + function[2:].replace("ǁ", ".")


def reasons() -> dict[tuple[str, str], str]:
    """Reason of each known survivor, by function and change."""
    listed = tomllib.loads(REASONS.read_text(encoding="utf-8"))["survivor"]
    return {(each["function"], each["change"]): each["reason"] for each in listed}


def outcomes() -> tuple[list[dict[str, Any]], list[str]]:
    """Outcomes of each package for the record, and the survivors without a reason."""
    known, unexplained, tried = reasons(), [], []
    for package, pattern in PACKAGES.items():
        codes = {
            name: (code, path)
            for path in files()
            for name, code in json.loads(path.read_text())["exit_code_by_key"].items()
            if re.match(pattern, name) and code not in (SKIPPED, None)
        }
        survivors = []
        for name, (code, path) in codes.items():
            if code in FOUND:
                continue
            function, changed = readable(name), change(path.with_suffix(""), name)
            reason = known.get((function, changed), "")
            if not reason:
                unexplained.append(f"{function}: {changed}")
            survivors.append({"function": function, "change": changed, "reason": reason})
        share = 100 * (1 - len(survivors) / max(len(codes), 1))
        tried.append(
            {"promise": f"A small fault in {package} is found by a test.", "tries": len(codes),
             "failures": survivors, "note": f"{share:.1f} % found"}
        )  # fmt: skip
    return tried, unexplained


def main() -> None:
    """Run mutmut on the sample, print the outcomes, and write the record."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.mutants")
    parser.add_argument("--tries", type=int, default=500)
    parser.add_argument("--survivors", action="store_true", help="try survivors again")
    parser.add_argument("--children", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    prepare(given.tries, given.survivors)
    # A process of its own: the code that it imports must be the mutated one.
    mutmut = [str(Path(sys.executable).with_name("mutmut")), "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [*mutmut, "--max-children", str(given.children)], cwd=HOME, env=environment, check=True
    )
    tried, unexplained = outcomes()
    for each in tried:
        print(f"{each['promise']} {each['tries']} tries, {each['note']}")
    for line in unexplained:
        print("without a reason:", line)
    if given.out is not None:
        words = [f"--tries {given.tries}"] if given.tries != 500 else []
        command = " ".join(["python -m tests.reliability.mutants", *words])
        write_record(given.out, command, [Tried(**each) for each in tried])
    sys.exit(bool(unexplained))


if __name__ == "__main__":
    main()
