"""Runs from strangers are refused in one line or used; nothing crashes, hangs or eats memory.

`python -m tests.artefact.test_strangers KIND SEED FIRST COUNT BASES` makes and uses so many cases
of a kind in one process and prints what came of them as JSON. A case is a function of (kind, seed,
number) alone. The number of the running case goes to stderr, so that a crash names its case.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.config import literal
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ArtefactError, CometError, CometWarning, TrainingInterrupted
from comet_rec.estimators.audit import audit_folder
from comet_rec.training.checkpoints import Hooks
from tests.conftest import make_log, random_pairs
from tests.processes import run_program

Files = dict[str, bytes]
MOST_SECONDS, MOST_MB = 2.0, 1000
"""Limits of a case: CPU seconds, and memory of its process."""
N_USERS, N_ITEMS = 7, 11
SMALL = {
    "comet": {"embedding_dim": 4, "history_length": 3, "hidden": (3,), "widths": (1, 3)},
    "convncf": {"embedding_dim": 4, "channels": 2},
    "mlp": {"embedding_dim": 2, "hidden": (3, 2)},
    "neumf": {"embedding_dim": 2, "hidden": (3, 2)},
} | {name: {"embedding_dim": 2} for name in ("mf", "gmf", "svdpp", "fism")}
COMETS: tuple[dict[str, Any], ...] = (
    {"preset": "best", "blend_model": "fism", "blend_embedding_dim": 2, "refit": True},
    {"permute_dimensions": True, "gate": "squeeze", "channels": 2},
    {"towers": "user", "user_embedding": False, "history": "recent"},
    {"enrich": "original", "blend_model": "fism", "blend_embedding_dim": 2},
    {"cross": "matched-mlp", "convolution": "direct"},
)


# Runs and checkpoints as they should be.


def _log(kind: str) -> Interactions:
    log = make_log(random_pairs(np.random.default_rng(0), N_USERS, N_ITEMS, 5), n_items=N_ITEMS)
    if kind == "int":
        return replace(log, dropped_users=log.users[:2], dropped_items=log.items[:2])
    texts = {
        "text": [f"né {n:02}" for n in range(N_ITEMS)],
        "uuid": [f"{n:08x}-0000-4000-8000-{n:012x}" for n in range(N_ITEMS)],
    }[kind]
    values = np.empty(N_ITEMS, dtype=object)
    values[:] = texts
    return replace(log, item_ids=Ids(kind, values), times=None, time_scope="none")  # type: ignore[arg-type]


def _estimators() -> list[cr.Estimator]:
    from comet_rec.estimators.registry import ESTIMATORS
    from comet_rec.models import base

    common = {"preset": "static", "epochs": 1, "full_epochs": 1, "batch_size": 16}
    found = []
    for name, small in SMALL.items():
        found.append(ESTIMATORS[name](**common | small))
    found += [cr.COMET(**common | SMALL["comet"] | more) for more in COMETS]
    return found + [ESTIMATORS[n]() for n in base.names() if base.non_iterative(n)]


def make_bases(home: Path) -> None:
    """Every model, every kind of ids, with and without a split; and checkpoints of each stage."""
    warnings.simplefilter("ignore", CometWarning)
    logs = [_log(kind) for kind in ("int", "text", "uuid")]
    for number, model in enumerate(_estimators()):
        log = logs[number % 3]
        data: Any = log if number % 5 == 4 else cr.leave_one_out(log, negatives=3)
        model.fit(data)
        model.describe("log.csv", {str(log.item_ids.external([0])[0]): "title"}, {"user": "u"})
        model.save(home / "runs" / f"{number:02}-{model.name}")
    for name in ("mf", "comet", "convncf", "svdpp"):
        for stage in ("validation", "refit"):
            folder = home / "checkpoints" / f"{name}-{stage}"
            try:
                unfinished(name, logs[0]).fit(
                    cr.leave_one_out(logs[0], negatives=3), refit=True,
                    hooks=Hooks(stop=StopIn(stage), report=StopIn.tell, checkpoints=folder),
                )  # fmt: skip
            except TrainingInterrupted:
                continue
            raise AssertionError("not stopped")


def unfinished(name: str, log: Interactions) -> cr.Estimator:
    """The model whose training a checkpoint is of."""
    from comet_rec.estimators.registry import ESTIMATORS

    common = {"preset": "static", "epochs": 2, "batch_size": 16, "average": 0.9}
    return ESTIMATORS[name](**common | SMALL[name])


class StopIn:
    """Ask for a stop in a stage, at its third step."""

    stage = ""

    def __init__(self, stage: str) -> None:
        self.wanted, self.steps = stage, 0

    @classmethod
    def tell(cls, stage: str, progress: Any) -> None:
        """Note the stage."""
        cls.stage = stage

    def __call__(self) -> bool:
        self.steps += StopIn.stage == self.wanted
        return self.steps > 2


# What a stranger does to them.

DEEP = "[" * 100_000 + "]" * 100_000
NUMBERS: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**9, 10**18, 10**400,
    1e300, -1e300, 1e-300, 0.5, float("nan"), float("inf"), True,
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, "", "x", "\x1b[31m", "\ud800", "a" * 100_000, [], {}, [[]], [1, 2], {"a": 1}, ["x"] * 9,
    "../../etc/passwd", "/dev/zero", "__class__", "popular", "none", "nan",
)  # fmt: skip


class Raw(str):
    """Text that is put into JSON as it stands."""


def pick(rng: np.random.Generator, options: Any) -> Any:
    """One of several, of any type."""
    return options[int(rng.integers(len(options)))]


def odd(rng: np.random.Generator) -> Any:
    """A value that nobody expects."""
    raw = (Raw(DEEP), Raw("9" * 5000), Raw("[" + "0," * 50_000 + "0]"), Raw("1e999"))
    kind = rng.random()
    return pick(rng, raw) if kind < 0.1 else pick(rng, NUMBERS if kind < 0.6 else ODD)


def dumps(value: Any) -> bytes:
    """JSON with raw parts."""
    raws: list[str] = []

    def marked(one: Any) -> Any:
        if isinstance(one, Raw):
            raws.append(one)
            return f"@RAW{len(raws) - 1}@"
        if isinstance(one, dict):
            return {key: marked(inner) for key, inner in one.items()}
        return [marked(inner) for inner in one] if isinstance(one, list) else one

    sys.set_int_max_str_digits(0)
    text = json.dumps(marked(value))
    text = re.sub(r'"@RAW(\d+)@"', lambda found: raws[int(found[1])], text)
    sys.set_int_max_str_digits(4300)
    return text.encode("utf-8", "surrogatepass")


def spoil(rng: np.random.Generator, tree: Any) -> Any:
    """Plain data with one value changed, removed or added, anywhere."""
    places = [((), tree)]
    for path, value in places:
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        places += [((*path, key), one) for key, one in inner if isinstance(one, (dict, list))]
    _, place = pick(rng, places)
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    action = rng.random()
    if not keys or (action < 0.1 and isinstance(place, dict)):
        if isinstance(place, dict):
            place[pick(rng, ("new", "a" * 999, "", "sha256"))] = odd(rng)
        else:
            place.append(odd(rng))
    elif action < 0.25:
        del place[pick(rng, keys)]
    elif action < 0.3:
        return odd(rng)
    else:
        place[pick(rng, keys)] = odd(rng)
    return tree


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """Arrays of a good safetensors file."""
    size = int.from_bytes(data[:8], "little")
    types = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(data[8 + size + first : 8 + size + last], types[entry["dtype"]])
        found[name] = values.reshape(entry["shape"]).copy()
    return found


def packed(arrays: dict[str, np.ndarray], change: Callable[[Any], Any] | None = None) -> bytes:
    """A safetensors file; `change` may spoil its header."""
    types = {"f4": "F32", "f8": "F64", "i8": "I64", "i4": "I32", "u1": "U8", "f2": "F16"}
    header: Any = {}
    place, parts = 0, []
    for name, array in arrays.items():
        kind = types.get(array.dtype.str[1:], "I16")
        part = array.tobytes()
        offsets = [place, place + len(part)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        place += len(part)
        parts.append(part)
    if change is not None:
        header = change(header)
    text = dumps(header)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def spoil_array(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """One array, another in type, shape or values."""
    flat = array.reshape(-1)
    if array.dtype.kind == "f":
        wild: tuple[Any, ...] = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e14, 1e-40, 0.0)
    else:
        limits = np.iinfo(array.dtype)
        near = (-1, 0, N_USERS, N_ITEMS, N_ITEMS + 1, 2**20, 2**30)
        wild = (limits.min, limits.max, *(v for v in near if limits.min <= v <= limits.max))
    action = int(rng.integers(9))
    if action == 0:
        kind = pick(rng, ("f4", "f8", "i8", "i4", "u1", "f2", "i2"))
        with np.errstate(all="ignore"):
            return array.astype(kind)
    if action == 1:
        sizes = (0, 1, len(flat) - 1, len(flat) + 1, 2 * len(flat))
        return np.resize(flat, max(0, pick(rng, sizes)))
    if action == 2:
        shapes = ((-1,), (1, -1), (-1, 1), (*array.shape, 1), array.shape[::-1])
        return array.reshape(pick(rng, shapes)) if array.size else array[None]
    if action == 3 and array.ndim:
        return np.resize(array, (pick(rng, (0, 1, len(array) + 1)), *array.shape[1:]))
    if action == 4:
        return rng.permutation(flat).reshape(array.shape)
    if action == 5:
        return np.full_like(array, pick(rng, wild))
    if len(flat):
        count = int(rng.integers(1, 4))
        flat[rng.integers(len(flat), size=count)] = [pick(rng, wild) for _ in range(count)]
    return array


def hostile_tensors(rng: np.random.Generator, data: bytes) -> bytes:
    """A file of arrays with some of them, or its header, spoilt."""
    try:
        arrays = unpacked(data)
    except Exception:  # spoilt before
        return data
    if not arrays:
        return data
    action = rng.random()
    if action < 0.15:
        return packed(arrays, lambda header: spoil(rng, header))
    if action < 0.2:
        size = pick(rng, (0, 1, 7, 2**32, 2**63, 2**64 - 1, len(data), len(data) - 8))
        return int(size).to_bytes(8, "little") + data[8:]
    name = pick(rng, list(arrays))
    if action < 0.25:
        del arrays[name]
    elif action < 0.3:
        arrays[pick(rng, ("new", "", "user.text.utf8", "item.int"))] = np.zeros(3, "<i8")
    elif action < 0.35:
        other = pick(rng, list(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
    else:
        for _ in range(int(rng.integers(1, 3))):
            name = pick(rng, list(arrays))
            arrays[name] = spoil_array(rng, arrays[name])
    return packed(arrays)


def hostile_toml(rng: np.random.Generator, data: bytes) -> bytes:
    """A config with a setting that no run has."""
    lines = data.decode("utf-8", "surrogatepass").splitlines()
    place = pick(rng, [i for i, line in enumerate(lines) if " = " in line])
    key = lines[place].split(" = ")[0]
    value = odd(rng)
    text = str(value) if isinstance(value, Raw) else None
    if text is None:
        plain = isinstance(value, (int, float, str)) and value != 10**400
        others = ("[1, 2]", "{ a = 1 }", "1979-05-27", "9" * 5000, "[[[[[1]]]]]")
        text = literal(value) if plain else pick(rng, others)
    lines[place] = f"{key} = {text}"
    if rng.random() < 0.1:
        odd_lines = ("[model", "x = 1", "[new]", ".".join("a" * 20_000) + " = 1")
        lines.insert(place, pick(rng, odd_lines))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def hostile_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Plain data with one value that is another."""
    try:
        return dumps(spoil(rng, json.loads(data)))
    except (TypeError, ValueError, RecursionError):  # nothing inside, or spoilt before
        return dumps(odd(rng))


def resealed(files: Files, rng: np.random.Generator) -> Files:
    """The same with the fingerprint, the protocol's hash and all digests of what is there."""
    manifest = json.loads(files["manifest.json"])
    try:
        run = _assembled(files, manifest)
        manifest["data"]["fingerprint"] = run.interactions.fingerprint
        manifest["protocol"]["hash"] = run.hash
    except Exception:  # what cannot be computed by us is left as it was
        pass
    if rng.random() < 0.15:
        manifest = spoil(rng, manifest)
    if not isinstance(manifest, dict):
        return {**files, "manifest.json": dumps(manifest)}
    if isinstance(manifest.get("files"), dict):
        manifest["files"] |= {
            name: hashlib.sha256(files[name]).hexdigest()
            for name in manifest["files"]
            if name in files
        }
    manifest.pop("sha256", None)
    text = dumps(manifest)
    try:
        again = json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        again = ""
    seal = json.dumps(hashlib.sha256(again.encode()).hexdigest()).encode()
    return {**files, "manifest.json": text[:-1] + b', "sha256": ' + seal + b"}"}


def _assembled(files: Files, manifest: Any) -> Any:
    """The log of spoilt files and, where there is one, the split."""
    from comet_rec.config import ProtocolConfig
    from comet_rec.data.split import Split

    ids, rows = (unpacked(files[f"{name}.safetensors"]) for name in ("ids", "interactions"))
    sides = [Ids.from_arrays(ids, side) for side in ("user", "item")]
    names = ("users", "items", "dropped_users", "dropped_items")
    log = Interactions(
        **{name: rows[name] for name in names}, times=rows.get("times"), user_ids=sides[0],
        item_ids=sides[1], time_scope=manifest["data"]["time_scope"],
    )  # fmt: skip
    manifest["data"]["fingerprint"] = log.fingerprint
    settings = ProtocolConfig(**manifest["protocol"]["settings"])
    return Split.from_arrays(log, rows["part"], unpacked(files["protocol.safetensors"]), settings)


def hostile_run(rng: np.random.Generator, files: Files) -> Files:
    """One or two files of a run spoilt, and the digests made right."""
    files = dict(files)
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, [n for n in files if n != "manifest.json"])
        if name.endswith(".safetensors"):
            files[name] = hostile_tensors(rng, files[name])
        elif name == "config.toml":
            files[name] = hostile_toml(rng, files[name])
        elif name == "log.jsonl":
            files[name] = hostile_json(rng, b"[" + b",".join(files[name].splitlines()) + b"]")
            files[name] = files[name][1:-1].replace(b"}, {", b"}\n{")
        else:
            files[name] = hostile_json(rng, files[name])
    return resealed(files, rng)


def hostile_checkpoint(rng: np.random.Generator, files: Files) -> Files:
    """The tensors or the plain data of a checkpoint spoilt, and the digests made right."""
    files = dict(files)
    entry: Any = json.loads(files["last.json"])
    name = entry["file"]
    if rng.random() < 0.6:
        files[name] = hostile_tensors(rng, files[name])
        entry["tensors"] = hashlib.sha256(files[name]).hexdigest()
    else:
        inner = rng.random() < 0.9
        if inner:
            about = spoil(rng, entry["about"])
            entry["about"] = about
        else:
            entry = spoil(rng, entry)
    if isinstance(entry, dict):
        entry.pop("sha256", None)
        text = dumps(entry)
        try:
            again = json.dumps(json.loads(text), sort_keys=True)
        except (ValueError, RecursionError):
            again = ""
        seal = hashlib.sha256(again.encode()).hexdigest().encode()
        text = text[:-1] + b', "sha256": "' + seal + b'"}'
    else:
        text = dumps(entry)
    return {**files, "last.json": text}


def damaged(rng: np.random.Generator, files: Files, others: list[Files]) -> Files:
    """Flipped bits, cuts, zeros, swaps and losses; no digest is made right."""
    files = dict(files)
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, list(files)) if files else ""
        data = bytearray(files.get(name, b""))
        action = int(rng.integers(8))
        if action == 0 and data:
            for place in rng.integers(len(data), size=int(rng.integers(1, 4))):
                data[place] ^= 1 << int(rng.integers(8))
        elif action == 1:
            del data[int(rng.integers(len(data) + 1)) :]
        elif action == 2:
            data += bytes(int(rng.integers(1, 5000)))
        elif action == 3 and data:
            first = int(rng.integers(len(data)))
            data[first : first + 512] = bytes(len(data[first : first + 512]))
        elif action == 4:
            files.pop(name, None)
            continue
        elif action == 5:
            data = bytearray(pick(rng, others).get(name, b""))
        elif action == 6 and files:
            other = pick(rng, list(files))
            data, files[other] = bytearray(files[other]), bytes(data)
        else:
            data = bytearray(rng.bytes(len(data)))
        files[name or "x"] = bytes(data)
    return files


def spoil_folder(rng: np.random.Generator, folder: Path) -> None:
    """Put what is no plain file where one was."""
    path = pick(rng, sorted(folder.iterdir()))
    action = int(rng.integers(8))
    if action == 6:
        with path.open("r+b") as file:  # a hole of 40 GB behind it
            file.truncate(40 * 2**30)
        return
    kept = folder.with_name("kept")
    shutil.copy(path, kept)
    path.unlink()
    if action == 0:
        path.symlink_to(kept)
    elif action == 1:
        path.symlink_to(pick(rng, ("/dev/zero", "/dev/stdin", "/proc/self/mem", path)))
    elif action == 2:
        os.mkfifo(path)
    elif action == 3:
        path.mkdir()
    elif action == 4:
        with socket.socket(socket.AF_UNIX) as listening:
            here = os.open(folder, os.O_RDONLY)
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)
    elif action == 5:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"")


# What a user does with them.


def check_text(error: Exception) -> None:
    """An error is one line that a terminal prints, and no longer than a screen."""
    assert str(error).isprintable(), error
    assert len(str(error)) < 1_000, error


def use_run(folder: Path) -> str:
    """Load a run and use it in every way; says where it ended."""
    try:
        model = cr.load_model(folder)
    except ArtefactError as error:
        check_text(error)
        return "refused"
    log = model.run.interactions
    calls: list[Callable[[], Any]] = [
        lambda: cr.evaluate(model),
        lambda: list(model.recommend(k=3).rows()),
        lambda: list(model.recommend(k=30, include_seen=True).rows()),
        lambda: list(
            model.recommend_for_history(
                [log.item_ids.external([0]).tolist(), log.item_ids.external([1, 2]).tolist(), []]
            ).rows()
        ),
        lambda: model.score(log.user_ids.external([0, 1]), log.item_ids.external([1, 0])),
        lambda: (model.user_vectors(), model.item_vectors()),
        lambda: (model.config, repr(model), model.run.chosen, model.run.log, model.run.titles),
        lambda: audit_folder(folder),
    ]
    errors = 0
    for call in calls:
        try:
            call()
        except CometError as error:
            check_text(error)
            errors += 1
    return "used" if errors < len(calls) else "useless"


def use_checkpoint(folder: Path, name: str, split: Any) -> str:
    """Go on with a training; says where it ended."""
    model = unfinished(name.split("-")[0], split.interactions)
    try:
        model.fit(split, refit=True, hooks=Hooks(checkpoints=folder, resume=True))
    except CometError as error:
        check_text(error)
        return "refused" if isinstance(error, ArtefactError) else type(error).__name__
    return "used"


def peak_megabytes() -> int:
    """Peak memory of this process. (`ru_maxrss` begins with what the parent process had.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def run_cases(kind: str, seed: int, first: int, count: int, bases: Path) -> dict[str, Any]:
    """Make and use so many cases; what came of them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    runs, checkpoints = (
        {
            path.name: {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
            for path in sorted((bases / room).iterdir())
        }
        for room in ("runs", "checkpoints")
    )
    split = cr.leave_one_out(_log("int"), negatives=3)
    before = peak_megabytes()
    ends: dict[str, int] = {}
    faults: list[str] = []
    slowest = 0.0
    for number in range(first, first + count):
        sys.stderr.write(f"{number}\n")
        rng = np.random.default_rng([seed, kind == "hostile", number])
        of_run = number % 4 != 3
        name = pick(rng, sorted(runs if of_run else checkpoints))
        files = (runs if of_run else checkpoints)[name]
        if kind == "damaged":
            files = damaged(rng, files, list((runs if of_run else checkpoints).values()))
        elif rng.random() > 0.1:
            files = (hostile_run if of_run else hostile_checkpoint)(rng, files)
        with tempfile.TemporaryDirectory() as around:
            folder = Path(around, "run")
            folder.mkdir()
            for file, data in files.items():
                (folder / file).write_bytes(data)
            if files and rng.random() < 0.1:
                spoil_folder(rng, folder)
            began = time.process_time()
            try:
                end = use_run(folder) if of_run else use_checkpoint(folder, name, split)
            except Exception:
                end = "traceback"
                faults.append(f"{kind} {number} ({name}): {traceback.format_exc()[-1500:]}")
            took = time.process_time() - began
            slowest = max(slowest, took)
            peak = peak_megabytes()
            if took > MOST_SECONDS or peak > MOST_MB:
                faults.append(f"{kind} {number} ({name}): {took:.1f} s, {peak} MB")
                break  # the peak stays
        what = f"{'run' if of_run else 'checkpoint'} {end}"
        ends[what] = ends.get(what, 0) + 1
    return {
        "ends": ends, "faults": faults, "slowest_seconds": slowest, "peak_mb": peak,
        "peak_before_mb": before,
    }  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("bases")
    make_bases(home)
    return home


def start(kind: str, seed: int, first: int, count: int, bases: Path, limit: float) -> dict:
    """Cases in a process of their own; a crash or a hang names its case."""
    words = [kind, *map(str, (seed, first, count)), str(bases)]
    try:
        done = run_program("tests.artefact.test_strangers", *words, seconds=limit)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{kind}, seed {seed}: hangs at case {(error.stderr or '')[-20:]!r}")
    said = done.stderr[-2000:]
    assert done.returncode == 0, f"{kind}, seed {seed}: ended with {done.returncode}: {said}"
    return json.loads(done.stdout)


def check(found: list[dict]) -> dict[str, int]:
    assert [fault for one in found for fault in one["faults"]] == []
    assert max(one["peak_mb"] for one in found) <= MOST_MB
    assert max(one["slowest_seconds"] for one in found) <= MOST_SECONDS
    ends: dict[str, int] = {}
    for one in found:
        for end, count in one["ends"].items():
            ends[end] = ends.get(end, 0) + count
    return ends


@pytest.mark.parametrize("kind", ["hostile", "damaged"])
def test_forty_runs_and_checkpoints_of_strangers_are_refused_or_used(kind, bases):
    ends = check([start(kind, 0, 0, 40, bases, limit=300)])
    assert sum(ends.values()) == 40
    assert ends["run refused"] > 0
    assert ends["checkpoint refused"] > 0


@pytest.mark.slow
def test_ten_thousand_runs_and_checkpoints_of_each_kind_are_refused_or_used(bases, capsys):
    seed = int(os.environ.get("STRANGERS_SEED") or secrets.randbelow(2**31))
    with capsys.disabled():
        print(f"\nSTRANGERS_SEED={seed}")
    tasks = [(kind, first) for kind in ("hostile", "damaged") for first in range(0, 10_000, 1_000)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda t: start(t[0], seed, t[1], 1_000, bases, 1_200), tasks))
    for kind, some in (("hostile", found[:10]), ("damaged", found[10:])):
        ends = check(some)
        assert sum(ends.values()) == 10_000
        peak, slowest = (max(one[key] for one in some) for key in ("peak_mb", "slowest_seconds"))
        with capsys.disabled():
            print(f"{kind}: {ends}, peak {peak} MB, slowest {slowest:.2f} s")


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:5]
    print(json.dumps(run_cases(kind, *map(int, numbers), Path(sys.argv[5]))))
