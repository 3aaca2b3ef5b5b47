"""Runs: config, weights, interactions, split and metrics of one training; saving and loading."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from comet_rec.artefact.folder import digest_of, opened, write_folder
from comet_rec.artefact.provenance import versions
from comet_rec.artefact.untrusted import MOST_CONTAINERS, Members, check_form, one_line, parsed
from comet_rec.config import Config, ProtocolConfig
from comet_rec.data.arrays import Array, indices, under
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, TimeScope
from comet_rec.data.split import Split
from comet_rec.errors import ArtefactError
from comet_rec.models import base

VECTORS, SELECTED = "vectors.safetensors", "selected.safetensors"
PROTOCOL, TITLES = "protocol.safetensors", "titles.json"
"""Names of files that only some runs have."""
FILES = (
    "config.toml", "ids.safetensors", "interactions.safetensors", "log.jsonl", "metrics.json",
    "model.safetensors", PROTOCOL, SELECTED, TITLES, VECTORS,
)  # fmt: skip
"""Files that `load_run` reads. It ignores other files, such as those of an older run."""
BLEND, BLEND_WEIGHT = "blend", "blend_weight"
"""Names of stored tensors of a blended second model.

The first is the prefix of its parameters, the second the factor of its score.
"""
VERSION_DIGITS = 12
"""Hexadecimal digits of a run's version."""
MOST_CONFIG = 1 << 16
"""Largest `config.toml`, in bytes."""
MOST_INDEX = 2**31 - 2
"""Largest number of users or items: indices and the pad index must fit into int32."""

_SETTING = re.compile(r'\[\w+\]|\w+ = (?:"(?:[^"\\]|\\.)*"|\[[\d., ]*\]|[-+.\w]+)')
"""Pattern of a line of `config.toml`: a section header or a setting.

The value of a setting is a string, a list of numbers, a number or a word.
"""
_YARDSTICKS = (
    {
        "metric": str,
        "users": int,
        "models": [
            {
                "model": str,
                "validation": float,
                "sampled": float,
                "full": (float, None),
                "difference": (float, None),
                "low": (float, None),
                "high": (float, None),
            }
        ],
        "left_out": [str],
    },
    None,
)
_MANIFEST = {
    "model": str,
    "epochs": int,
    "started_from?": [str],
    "final?": bool,
    "blend_epochs?": int,
    "companion_epochs?": {str: int},
    "yardsticks?": _YARDSTICKS,
    "updates?": [{"rows": int, "users": int, "items": int, "epochs": int}],
    "protocol": ({"hash": str, "settings": {str: object}}, None),
    "data": {
        "source": str,
        "reading?": {str: object},
        "fingerprint": str,
        "users": int,
        "items": int,
        "interactions": int,
        "time_scope": str,
        "notes": [str],
    },
}
_FIGURES = ({str: float}, None)
_METRICS = (
    {
        "model?": str,
        "protocol?": {"hash?": str},
        "n_users?": int,
        "n_users_full?": (int, None),
        "sampled?": _FIGURES,
        "sampled_se?": _FIGURES,
        "full?": _FIGURES,
        "full_se?": _FIGURES,
    },
    None,
)
LOG = [
    {
        "stage": str,
        "epoch": int,
        "positives": int,
        "train_seconds": float,
        "loss": (float, None),
        "validation": _FIGURES,
    }
]
"""Form of `log.jsonl`, which has one line for each epoch; see `check_form`."""


def _none() -> npt.NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class SecondModel:
    """The second model of a blend: its score, times a weight, is added to the main model's score.

    Parameters
    ----------
    state : dict of Tensor
        Parameters of the second model.
    weight : float
        Factor of the second model's score.
    epochs : int
        Epochs that the second model was trained for; 0 if the caller passed a trained model.
    selected : dict of Tensor or None
        Parameters of the epoch that validation chose, as in `Run.selected`.
    """

    state: dict[str, Tensor]
    weight: float
    epochs: int = 0
    selected: dict[str, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """Result of a training: all that is needed to evaluate, to recommend, and to score new users.

    Parameters
    ----------
    config : Config
    epochs : int
        Epochs that the weights were trained for.
    state : dict of Tensor
        The model's parameters.
    interactions : Interactions
        All interactions, including the held-out ones.
    split : Split or None
        Split with the held-out items; None if the model was trained on all rows.
    user_vectors, item_vectors : Tensor [U, K] and [I, K], or None
        Vectors whose inner product is the score; None for models without such vectors. With a
        blend, the second model's columns follow. Its user columns are already multiplied by its
        weight.
    selected : dict of Tensor or None
        Parameters of the epoch that validation chose, kept if the model was then trained again
        with the validation rows. A model that starts from this one uses them until its own
        validation ends, so that it has not seen the validation rows.
    started_from : tuple of str
        Pre-trained models from which the parameters were initialised, each as "name digest".
    blend : SecondModel or None
        Second model whose scores are added, if the config asks for one.
    final : bool
        Whether the weights were trained once more on all rows. The metrics are then those of the
        earlier model, which did not know the test items.
    metrics : dict or None
        Metrics as ``evaluate --json`` prints them; None before evaluation, or without a split.
    yardsticks : dict or None
        Comparison with simple models on the same split, as `estimators.yardsticks.compared`
        returns it; None if it was not made.
    updates : tuple of dict
        For each update: its new rows, users and items, and its epochs.
    untrained_users, untrained_items : int64 [k]
        Users and items that joined in updates, and whose parameters no training has changed yet.
    log : list of dict
        One entry for each epoch.
    titles : dict
        Item id (as text) → title; empty if the data set has no titles.
    source : str
        Name of the data set or file.
    reading : dict
        Options that the log was read with: columns, filters, limits.
    """

    config: Config
    epochs: int
    state: dict[str, Tensor]
    interactions: Interactions
    split: Split | None
    user_vectors: Tensor | None
    item_vectors: Tensor | None
    selected: dict[str, Tensor] | None = None
    started_from: tuple[str, ...] = ()
    blend: SecondModel | None = None
    final: bool = False
    metrics: dict[str, Any] | None = None
    yardsticks: dict[str, Any] | None = None
    updates: tuple[dict[str, int], ...] = ()
    untrained_users: npt.NDArray[np.int64] = field(default_factory=_none)
    untrained_items: npt.NDArray[np.int64] = field(default_factory=_none)
    log: list[dict[str, Any]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    source: str = ""
    reading: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """The trained model, rebuilt on the CPU from `config` and `state`.

        Raises
        ------
        ArtefactError
            When the parameters do not fit the model, e.g. in a run of another version.
        """
        return base.restored(self.config, self.state, self.interactions)

    @cached_property
    def second_model(self) -> Any:
        """The second model of the blend, rebuilt on the CPU; None without a blend.

        Raises
        ------
        ArtefactError
            When the parameters do not fit the model.
        """
        if self.blend is None:
            return None
        return base.restored(second_config(self.config), self.blend.state, self.interactions)

    @cached_property
    def longest_item(self) -> float | None:
        """Length of the longest item vector, which every search needs; None without vectors."""
        if self.item_vectors is None or len(self.item_vectors) == 0:
            return None
        return float(torch.linalg.vector_norm(self.item_vectors, dim=1).amax())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters of the model and of a blended second model, keyed by their names on disk."""
        return _joined(self.state, self.blend)

    @property
    def validation(self) -> dict[str, float] | None:
        """Validation metrics of the epoch that validation chose; None without validation items."""
        lines = (line for line in self.log if line["stage"] == "validation")
        figures = (line["validation"] for line in lines if line["validation"])
        return max(figures, key=self.config.train.merit, default=None)

    @property
    def chosen(self) -> dict[str, Any]:
        """Settings that validation chose, by dotted name: epochs, and the weight of a blend.

        A final training on all rows uses them.
        """
        settings: dict[str, Any] = {}
        if not base.non_iterative(self.config.name):
            settings["train.full_epochs"] = self.epochs
        if self.blend is not None:
            settings["blend.weight"] = round(self.blend.weight, 6)
            if self.blend.epochs:
                settings["blend.epochs"] = self.blend.epochs
        return settings

    @property
    def known(self) -> Interactions:
        """Interactions that the model may know: all, or all but the test items of its split."""
        if self.split is None or self.final:
            return self.interactions
        return self.split.known

    @property
    def existing(self) -> npt.NDArray[np.bool_] | None:
        """Items that lists may hold, bool [I]; None for all items.

        A model of a split by time lists no item whose first row is after the moment of the split.
        """
        if self.split is None or self.final or self.split.test.queries is None:
            return None
        return self.split.test.queries.exists


def second_config(config: Config) -> Config:
    """Config of the second model of a blend; it has only the settings that scoring needs."""
    blend = config.blend
    model = base.config_class(blend.model)(**blend.settings)
    return Config(name=blend.model, preset=blend.preset, model=model)


def state_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Required type and shape of each stored parameter of a run, including a second model's."""
    declared = base.state_arrays(config, n_users, n_items)
    if config.blend.model != "none":
        declared |= under(BLEND, base.state_arrays(second_config(config), n_users, n_items))
        declared[BLEND_WEIGHT] = Array(shape=())
    return declared


def vector_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Required type and shape of a run's user and item vectors; empty if the model has none."""
    declared = base.vector_arrays(config, n_users, n_items)
    if declared and config.blend.model != "none":
        second = base.vector_arrays(second_config(config), n_users, n_items)
        for side, array in second.items():
            columns = int(declared[side].shape[1]) + int(array.shape[1])
            declared[side] = Array(shape=(array.shape[0], columns))
    return declared


def save_run(run: Run, folder: Path, pictures: Mapping[str, bytes] | None = None) -> None:
    """Write a run to a folder atomically; an earlier run in the folder is replaced.

    `pictures` are more files for the folder, by name; `load_run` ignores them.

    Raises
    ------
    ArtefactError
        When the folder cannot be written, or holds files that are not part of a run.
    """
    write_folder(folder, lambda fresh: _write(run, fresh, pictures or {}))


def _write(run: Run, folder: Path, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    log = run.interactions
    save_tensors(run.tensors, folder / "model.safetensors")
    if run.selected is not None:
        blend = run.blend
        if blend is not None and blend.selected is not None:
            blend = replace(blend, state=blend.selected)
        save_tensors(_joined(run.selected, blend), folder / SELECTED)
    if run.user_vectors is not None and run.item_vectors is not None:
        vectors = {"users": run.user_vectors, "items": run.item_vectors}
        vectors = {k: v.detach().cpu().contiguous() for k, v in vectors.items()}
        save_tensors(vectors, folder / VECTORS)
    _save(
        {**log.user_ids.arrays("user"), **log.item_ids.arrays("item")}, folder / "ids.safetensors"
    )
    rows: dict[str, npt.NDArray[Any]] = {"users": log.users, "items": log.items}
    rows |= {"dropped_users": log.dropped_users, "dropped_items": log.dropped_items}
    if log.times is not None:
        rows["times"] = log.times
    if run.updates:
        rows["untrained_users"] = run.untrained_users
        rows["untrained_items"] = run.untrained_items
    if run.split is not None:
        rows["part"] = run.split.part
        _save(run.split.arrays(), folder / PROTOCOL)
    _save(rows, folder / "interactions.safetensors")
    (folder / "config.toml").write_text(run.config.to_toml(), encoding="utf-8")
    _json(folder / "metrics.json", run.metrics)
    lines = "".join(json.dumps(line) + "\n" for line in run.log)
    (folder / "log.jsonl").write_text(lines, encoding="utf-8")
    if run.titles:
        _json(folder / TITLES, run.titles)
    return {
        "model": run.config.name,
        "preset": run.config.preset,
        "seed": run.config.seed,
        "epochs": run.epochs,
        "started_from": list(run.started_from),
        "final": run.final,
        "yardsticks": run.yardsticks,
        "updates": list(run.updates),
        "blend_epochs": 0 if run.blend is None else run.blend.epochs,
        "config": {room: asdict(getattr(run.config, room)) for room in ("model", "blend", "train")},
        "protocol": None if run.split is None else protocol_entry(run.split),
        "data": {
            "source": run.source,
            "reading": run.reading,
            "fingerprint": log.fingerprint,
            "users": log.n_users,
            "items": log.n_items,
            "interactions": len(log),
            "time_scope": log.time_scope,
            "notes": [*log.notes, *(run.split.notes if run.split else ())],
        },
        "versions": versions(),
    }


def load_run(folder: Path) -> Run:
    """Read a run from a folder, and verify the digests and contents of its files.

    Raises
    ------
    ArtefactError
        When the run is missing, incomplete, damaged or inconsistent.
    """
    return load_with_version(folder)[0]


def load_with_version(folder: Path) -> tuple[Run, str]:
    """As `load_run`, with the version of the run: the SHA-256 of its manifest, shortened.

    Raises
    ------
    ArtefactError
        As for `load_run`.
    """
    try:
        with opened(folder, FILES) as (members, manifest):
            return _read(members, manifest), digest_of(manifest)[:VERSION_DIGITS]
    except ArtefactError:
        raise
    except Exception as error:
        # Any error that an untrusted file causes becomes one line. An unexpected type of error is a
        # bug of this library, so its traceback is kept as the cause.
        cause = None if isinstance(error, (OSError, ValueError, RecursionError)) else error
        reason = one_line(str(error)) or type(error).__name__
        raise ArtefactError(f"{folder}: cannot be read: {reason}") from cause


def _read(members: Members, manifest: dict[str, Any]) -> Run:
    check_form(manifest, _MANIFEST, "manifest.json")
    files, data = manifest["files"], manifest["data"]
    n_users, n_items = data["users"], data["items"]
    if not (1 <= n_users <= MOST_INDEX and 1 <= n_items <= MOST_INDEX):
        raise ValueError(f"{n_users} users and {n_items} items: need 1 to {MOST_INDEX} of each")
    config = _config(members["config.toml"].text(MOST_CONFIG), manifest["model"])

    sizes = {"rows": data["interactions"]}
    declared = Ids.declared("user", n_users) | Ids.declared("item", n_items)
    ids = members["ids.safetensors"].arrays(declared, sizes)
    declared = Interactions.declared(n_users, n_items)
    if manifest["protocol"] is not None:
        declared["part"] = Split.declared_part()
    for role, size in (("users", n_users), ("items", n_items)):
        name = f"untrained_{role}"
        declared[name] = replace(indices((name,), size, order="increasing"), optional=True)
    rows = members["interactions.safetensors"].arrays(declared, sizes)
    scopes = get_args(TimeScope)
    if data["time_scope"] not in scopes:
        raise ValueError(f"time scope {data['time_scope']}: must be one of {', '.join(scopes)}")
    log = Interactions(
        users=rows["users"],
        items=rows["items"],
        times=rows.get("times"),
        time_scope=data["time_scope"],
        user_ids=Ids.from_arrays(ids, "user"),
        item_ids=Ids.from_arrays(ids, "item"),
        dropped_users=rows["dropped_users"],
        dropped_items=rows["dropped_items"],
        notes=tuple(data["notes"]),
    )
    if log.fingerprint != data["fingerprint"]:
        raise ValueError("the interactions do not match their fingerprint")

    split = None
    if manifest["protocol"] is not None:
        settings = ProtocolConfig(**manifest["protocol"]["settings"])
        held = members[PROTOCOL].arrays(Split.declared(n_users, n_items, settings), sizes)
        if sizes["test"] == 0:
            raise ValueError("the protocol has no test user")
        split = Split.from_arrays(log, rows["part"], held, settings)
        if split.hash != manifest["protocol"]["hash"]:
            raise ValueError("the protocol does not match its hash")

    final = manifest.get("final", False)
    if final and split is None:
        raise ValueError("a final run needs the split that measured it")

    def tensors(name: str, declared: dict[str, Array], **options: Any) -> dict[str, Tensor]:
        arrays = members[name].arrays(declared, sizes, **options)
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    version = f"the parameters are not those of {config.name} in this version; train it again"
    parameters = state_arrays(config, n_users, n_items)
    state, blend = _parted(tensors("model.safetensors", parameters, remedy=version))
    if blend is not None:
        old_entry = manifest.get("companion_epochs", {}).values()  # the entry's name until 0.1
        epochs = manifest.get("blend_epochs", max(old_entry, default=0))
        blend = replace(blend, epochs=epochs)
    selected = None
    if SELECTED in files:
        selected, second = _parted(tensors(SELECTED, parameters, remedy=version))
        blend = blend and replace(blend, selected=second.state if second else None)
    declared = vector_arrays(config, n_users, n_items)
    vectors = tensors(VECTORS, declared) if declared or VECTORS in files else {}

    metrics = parsed(members["metrics.json"].text())
    titles = parsed(members[TITLES].text()) if TITLES in files else {}
    lines = _lines(members["log.jsonl"].text())
    check_form(metrics, _METRICS, "metrics.json")
    check_form(titles, {str: str}, TITLES)
    check_form(lines, LOG, "log.jsonl")
    return Run(
        config=config,
        epochs=manifest["epochs"],
        state=state,
        interactions=log,
        split=split,
        user_vectors=vectors.get("users"),
        item_vectors=vectors.get("items"),
        selected=selected,
        started_from=tuple(manifest.get("started_from", ())),
        blend=blend,
        final=final,
        metrics=metrics,
        yardsticks=manifest.get("yardsticks"),
        updates=tuple(manifest.get("updates", ())),
        untrained_users=rows.get("untrained_users", _none()),
        untrained_items=rows.get("untrained_items", _none()),
        log=lines,
        titles=titles,
        source=data["source"],
        reading=dict(data.get("reading", {})),
    )


def _config(data: bytes, name: str) -> Config:
    """Parse `config.toml` of a run of model `name`; TOML not written by this library is refused.

    Python's TOML parser takes minutes and gigabytes for a key of 20,000 dots.
    """
    text = data.decode("utf-8")
    for number, line in enumerate(text.split("\n"), 1):
        if line and not _SETTING.fullmatch(line):
            raise ValueError(f"config.toml, line {number}: {one_line(line, 60)!r} is not a setting")
    config = Config.from_toml(text, base.config_class(name), "config.toml")
    if config.name != name:
        raise ValueError(f"config.toml names {config.name}, but manifest.json names {name}")
    return config


def _joined(state: dict[str, Tensor], blend: SecondModel | None) -> dict[str, Tensor]:
    """Merge the parameters of a model and of a blended second model into one dict.

    The keys are the names under which the parameters are stored on disk.
    """
    if blend is None:
        return state
    second = {f"{BLEND}.{name}": value for name, value in blend.state.items()}
    return {**state, **second, BLEND_WEIGHT: torch.tensor(blend.weight, dtype=torch.float32)}


def _parted(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], SecondModel | None]:
    """Separate the parameters of the model from those of a second model; inverse of `_joined`."""
    if BLEND_WEIGHT not in tensors:
        return tensors, None
    state, second = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(f"{BLEND}."):
            second[name.removeprefix(f"{BLEND}.")] = tensor
        elif name != BLEND_WEIGHT:
            state[name] = tensor
    return state, SecondModel(second, float(tensors[BLEND_WEIGHT]))


def _lines(text: bytes) -> list[dict[str, Any]]:
    """Parse JSON lines as one list, so that the limits of `parsed` hold for all lines together."""
    if text.count(b"\n") > MOST_CONTAINERS:
        raise ValueError("log.jsonl has more lines than any training writes")
    lines: list[dict[str, Any]] = parsed(b"[" + b",".join(text.splitlines()) + b"]")
    return lines


def protocol_entry(split: Split) -> dict[str, Any]:
    """Hash and settings of the protocol of `split`, as the manifest of a run stores them."""
    return {"hash": split.hash, "settings": split.protocol.recorded()}


def _save(arrays: dict[str, npt.NDArray[Any]], path: Path) -> None:
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
