"""Measure the command line: its options and JSON keys, and the figures and lists that it gives."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import comet_rec as cr
from freeze_models import (
    SEPARATOR,
    Values,
    digest,
    leaves,
    of_model,
    planted,
    renamed_settings,
)

CHECKOUT = Path(cr.__file__).resolve().parents[2]
Case = Callable[[], Values]
Cases = dict[str, Case]


def internal(*places: str) -> Any:
    """Object at the first of the places ("module:name") that this checkout has."""
    for place in places:
        module, _, name = place.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"none of {', '.join(places)} is in {CHECKOUT}; add its new place")


# The command line.


@cache
def script() -> tuple[str, str]:
    """Module and function of the command, as the checkout's pyproject.toml names them."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["comet-rec"].partition(":")
    return module, function


def shell(*words: str) -> str:
    """Stdout of the command; a status of neither 0 nor 2 is an error.

    Raises
    ------
    RuntimeError
    """
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    err = io.StringIO()
    module, function = script()
    main, before = getattr(importlib.import_module(module), function), sys.argv
    sys.argv = ["comet-rec", *words]
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv = before
    if status not in (0, 2, None):
        raise RuntimeError(f"comet-rec {' '.join(words)}: status {status}: {err.getvalue()}")
    out.flush()
    text = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    if status == 2 and not text:
        raise RuntimeError(f"comet-rec {' '.join(words)}: {err.getvalue()}")
    return text


def commands() -> dict[str, Any]:
    """Every command of the command line, by its words."""
    import typer

    module, _ = script()
    app = internal(f"{module}:app", "comet_rec.cli.app:app", "comet_rec.cli:app")
    found: dict[str, Any] = {}

    def walk(command: Any, words: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[words] = command
        for name, each in (inner or {}).items():
            walk(each, f"{words} {name}")

    walk(typer.main.get_command(app), "comet-rec")
    return found


SHAPE = ("required", "nargs", "multiple", "default", "min", "max", "is_flag", "count")


def options_of(command: Any) -> Values:
    """Names, types and defaults of a command's parameters; not the sentences about them."""
    values: Values = {}
    for parameter in command.params:
        names = sorted([*parameter.opts, *parameter.secondary_opts])
        described = getattr(parameter, "type_descriptor", None)  # older versions of typer: type
        kind = described.annotation if described is not None else parameter.type
        told = {"names": ", ".join(names), "type": repr(kind)}
        told |= {key: str(getattr(parameter, key, None)) for key in SHAPE}
        values |= leaves(told, max(names, key=len))
    return values


CALLS = ("read", "load", "leave_one_out", "given_test", "evaluate", "load_model")
METHODS = (
    "fit", "recommend", "recommend_for_history", "score", "user_vectors", "item_vectors", "save",
)  # fmt: skip


def parameters_of(function: Any) -> Values:
    """Names, kinds and defaults of a function's parameters."""
    return {
        SEPARATOR.join((name, what)): str(value)
        for name, parameter in inspect.signature(function).parameters.items()
        for what, value in (("kind", parameter.kind.name), ("default", repr(parameter.default)))
    }


def options() -> Cases:
    """Options of every command; parameters of every public call."""
    cases: Cases = {words: partial(options_of, of) for words, of in commands().items()}
    cases |= {f"cr.{name}": partial(parameters_of, getattr(cr, name)) for name in CALLS}
    for name in METHODS:
        cases[f"Estimator.{name}"] = partial(parameters_of, getattr(cr.COMET, name))
    return cases


# Runs of the command line: their figures and lists, and the keys of what they print.

QUICK = {"train.epochs": 2, "model.embedding_dim": 8}
COMET = QUICK | {"model.history_length": 12, "model.hidden": (16,)}
RUNS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "comet auto": ("comet", "auto", "timed", COMET),
    "comet best, text ids": ("comet", "best", "plain", COMET),
    "comet paper": ("comet", "paper", "timed", COMET),
    "fism": ("fism", "auto", "timed", QUICK),
    "svdpp": ("svdpp", "auto", "plain", QUICK),
    "mf": ("mf", "auto", "timed", QUICK),
    "neumf": ("neumf", "paper", "timed", QUICK),
    "itemknn": ("itemknn", "auto", "timed", {}),
    "ease": ("ease", "auto", "plain", {}),
    "popularity": ("popularity", "auto", "timed", {}),
}
"""Name → model, preset, planted log, settings."""
CANNOT_FOLD_IN = ("mf", "neumf")


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of the command line."""
    given = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in renamed_settings(settings).items()
    }
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@cache
def trained(name: str) -> str:
    """Folder of a run that `train` wrote."""
    model, preset, log, settings = RUNS[name]
    folder = str(Path(tempfile.mkdtemp(prefix="freeze-run-")) / "run")
    words = ["train", str(planted(log)), "--out", folder, "--model", model, "--preset", preset]
    shell(*words, "--seed", "3", "--threads", "1", "--quiet", *flags(settings))
    return folder


def figures_of(name: str) -> Values:
    """Figures of a run and its lists, from the command line."""
    run, log = trained(name), RUNS[name][2]
    timed = log == "timed"
    user, item = ("5", "103") if timed else ("u005", "item 3")
    values: Values = dict(leaves(json.loads(shell("evaluate", run, "--json")), "evaluate"))
    asked = {
        "every user": ("--all-users", "-k", "5"),
        "seen items too": ("--user", user, "--include-seen", "-k", "50"),
        "unknown user": ("--user", "999", "--unknown", "popular"),
    }
    if RUNS[name][0] not in CANNOT_FOLD_IN:
        history = "103,106,100" if timed else "item 3,item 6,item 0"
        asked["new user"] = ("--history", history, "--history", item)
    for label, words in asked.items():
        lists = json.loads(shell("recommend", run, "--format", "json", *words))
        values |= leaves(lists, "recommend", label)
    text = shell("recommend", run, "--format", "csv", "--user", user)
    return values | {"csv": digest(np.frombuffer(text.encode(), np.uint8))}


def in_python() -> Values:
    """A given split, a foreign model, other candidates, scores, vectors, a run loaded again."""
    timed = planted("timed").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split(",") for line in timed]
    latest = {user: item for user, item, _ in rows}
    known = [row for row in rows if latest[row[0]] != row[1]]
    train = {"user": [int(u) for u, _, _ in known], "item": [int(i) for _, i, _ in known]}
    train["time"] = [int(t) for _, _, t in known]
    held = {"user": [int(u) for u in latest], "item": [int(i) for i in latest.values()]}
    folder = Path(tempfile.mkdtemp(prefix="freeze-given-"))
    _write(folder / "train.csv", train)
    _write(folder / "test.csv", held)
    log = cr.read(str(folder / "train.csv"), threads=1)
    split = cr.given_test(log, str(folder / "test.csv"), negatives=15, seed=4)
    settings = {"embedding_dim": 8, "hidden": (16,), "epochs": 2, "refit": True}
    model = cr.COMET(preset="paper", seed=5, **settings).fit(split)
    report = cr.evaluate(model, split)
    foreign = cr.evaluate(lambda user, items: [(user * 7 + item) % 11 for item in items], split)
    values: Values = {"given" + SEPARATOR + k: v for k, v in of_model(model).items()}
    for name, found in (("model", report), ("foreign", foreign)):
        values |= leaves(found.to_dict(), "report", name)
        values[f"NDCG@7{SEPARATOR}{name}"] = [found["NDCG@7"], found.full["NDCG@7"]]
        values[f"of users{SEPARATOR}{name}"] = digest(found.of_users("NDCG@10", full=True))
    values["score"] = model.score([5, 6, 7], [103, 104, 105]).tolist()
    for side, (ids, vectors) in (("user", model.user_vectors()), ("item", model.item_vectors())):
        values[f"vectors{SEPARATOR}{side}"] = [digest(ids), digest(vectors)]
    model.save(str(folder / "run"))
    again = cr.load_model(str(folder / "run"))
    values["lists of the loaded run"] = [
        digest(np.asarray(again.recommend(k=7)[column])) for column in ("item_id", "score")
    ]
    other = cr.leave_one_out(log, negatives=9, seed=8, ties="pessimistic")
    values["other protocol"] = other.hash
    return values


def _write(path: Path, columns: Mapping[str, list[int]]) -> None:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


COMPARED = "comet,popularity,mf,neumf-p"


def compared() -> dict[str, Any]:
    """Output of `compare --json`."""
    small = [
        f"{model}:{word}"
        for model, of in (("comet", COMET), *((name, QUICK) for name in ("mf", "neumf-p")))
        for word in flags(of)[1::2]
    ]
    words = ["compare", str(planted("timed")), "--models", COMPARED, "--json", "--quiet"]
    chosen = [word for each in small for word in ("--set", each)]
    found: dict[str, Any] = json.loads(shell(*words, "--threads", "1", *chosen))
    return found


def audited(*words: str) -> Values:
    """Findings of an audit: which, how severe, how many; not their sentences."""
    found = json.loads(shell("audit", *words, "--json"))
    return {
        SEPARATOR.join((finding["check"], key)): finding[key]
        for finding in found["findings"]
        for key in ("severity", "count", "of", "example")
    } | {"ok": found["ok"]}


def figures() -> Cases:
    """Figures and lists of runs, and of what compares and audits."""
    cases: Cases = {name: partial(figures_of, name) for name in RUNS}
    cases["Python"] = in_python
    cases["compare"] = lambda: dict(leaves(compared()))
    cases["audit of a log"] = lambda: audited(str(planted("timed")))
    cases["audit of a log without times"] = lambda: audited(str(planted("plain")))
    cases["audit of a run"] = lambda: audited(trained("comet auto"))
    return cases


def keys_of(tree: Any, *path: str) -> Values:
    """Keys of plain data with the kinds of what stands there; a list stands for its elements."""
    if isinstance(tree, Mapping):
        values: Values = {}
        for key, value in tree.items():
            values |= keys_of(value, *path, str(key))
        return values or {SEPARATOR.join(path): "{}"}
    if isinstance(tree, list):
        values = {}
        for value in tree:
            values |= keys_of(value, *path, "[]")
        return values or {SEPARATOR.join(path): "[]"}
    return {SEPARATOR.join(path): type(tree).__name__}


def printed(*words: str) -> Values:
    """Keys of what a command prints."""
    return keys_of(json.loads(shell(*words)))


def tuned() -> Values:
    """Keys of what a search of two trials prints."""
    folder = tempfile.mkdtemp(prefix="freeze-tune-")
    words = ["tune", str(planted("timed")), "--models", "mf", "--journal", f"{folder}/a.journal"]
    fixed = flags({"train.epochs": 1, "train.patience": 0})
    search = ["--search", "model.embedding_dim=4,8", "--seconds", "1"]
    return printed(*words, *fixed, *search, "--threads", "1", "--json", "--quiet")


def keys() -> Cases:
    """Keys of every --json output."""
    log = str(planted("timed"))
    return {
        "data stats": lambda: printed("data", "stats", log, "--json", "--threads", "1"),
        "evaluate": lambda: printed("evaluate", trained("comet auto"), "--json"),
        "evaluate --no-full": lambda: printed("evaluate", trained("mf"), "--json", "--no-full"),
        "recommend": lambda: printed("recommend", trained("mf"), "--all-users", "--format", "json"),
        "compare": lambda: keys_of(compared()),
        "audit": lambda: printed("audit", log, "--json", "--threads", "1"),
        "audit of a run": lambda: printed("audit", trained("comet auto"), "--json"),
        "tune": tuned,
    }
