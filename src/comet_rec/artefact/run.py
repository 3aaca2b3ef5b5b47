"""What a run directory holds, and how it becomes files and back."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from comet_rec.artefact.folder import read_manifest, write_folder
from comet_rec.artefact.provenance import versions
from comet_rec.config import Config, ProtocolConfig
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import ArtefactError
from comet_rec.models import base

VECTORS, SELECTED = "vectors.safetensors", "selected.safetensors"
"""Files that not every run has."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training with all that evaluating, listing and folding in need.

    Parameters
    ----------
    config : Config
    epochs : int
        Passes that the weights were trained for.
    state : dict of Tensor
        The model's parameters.
    interactions : Interactions
        The whole log.
    split : Split or None
        What was held out; None after training on everything.
    user_vectors, item_vectors : Tensor [m, K] and [n, K], or None
        Their inner product is the logit; None for models that are no inner product.
    selected : dict of Tensor or None
        The parameters that validation chose, where a refit replaced them: what the first stage
        of another model's training may start from.
    started_from : tuple of str
        Trained models that the parameters started from, with the digests of their states.
    companion_epochs : dict of int
        Epochs of the models that were trained first as parts of this one.
    metrics : dict or None
        What ``evaluate --json`` prints; None without a split.
    log : list of dict
        A line an epoch.
    titles : dict
        Item id (as text) → title, where the data set has titles.
    source : str
        Name of the data set or file.
    reading : dict
        Options that were given for reading it: columns, filters, limits.
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
    companion_epochs: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    source: str = ""
    reading: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> Any:
        """The trained model, on the CPU.

        Raises
        ------
        ArtefactError
            When the parameters are not those of this model, as another version's may be.
        """
        log, name = self.interactions, self.config.name
        model = base.build(name, self.config.model, log.n_users, log.n_items, 0)
        try:
            model.load_state_dict(self.state)
        except (RuntimeError, KeyError) as error:
            told = str(error).splitlines()[-1].strip()
            raise ArtefactError(
                f"the parameters are not those of {name} in this version ({told}); train it again"
            ) from None
        return model

    @property
    def chosen(self) -> dict[str, Any]:
        """Settings that validation items chose, for a training on everything."""
        found: dict[str, Any] = {}
        if not base.closed_form(self.config.name):
            found["train.full_epochs"] = self.epochs
        if "taste_weight" in self.state:
            found["model.taste_weight"] = round(float(self.state["taste_weight"]), 6)
        if "fism" in self.companion_epochs:
            found["model.taste_epochs"] = self.companion_epochs["fism"]
        return found

    @property
    def known(self) -> Interactions:
        """Rows that histories hold and lists leave out: all but the held-out test items."""
        return self.interactions if self.split is None else self.split.known


def save_run(run: Run, folder: Path) -> None:
    """Write a run; the folder appears whole or not at all.

    Raises
    ------
    ArtefactError
        When the place cannot be written.
    """
    write_folder(folder, lambda fresh: _write(run, fresh))


def _write(run: Run, folder: Path) -> dict[str, Any]:
    log = run.interactions
    save_tensors(run.state, folder / "model.safetensors")
    if run.selected is not None:
        save_tensors(run.selected, folder / SELECTED)
    if run.user_vectors is not None and run.item_vectors is not None:
        vectors = {"users": run.user_vectors, "items": run.item_vectors}
        vectors = {k: v.detach().cpu().contiguous() for k, v in vectors.items()}
        save_tensors(vectors, folder / VECTORS)
    _save(
        {**log.user_ids.arrays("user"), **log.item_ids.arrays("item")}, folder / "ids.safetensors"
    )
    rows = {"users": log.users, "items": log.items}
    rows |= {"dropped_users": log.dropped_users, "dropped_items": log.dropped_items}
    if log.times is not None:
        rows["times"] = log.times  # type: ignore[assignment]
    if run.split is not None:
        rows["part"] = run.split.part  # type: ignore[assignment]
        _save(run.split.arrays(), folder / "protocol.safetensors")
    _save(rows, folder / "interactions.safetensors")
    (folder / "config.toml").write_text(run.config.to_toml(), encoding="utf-8")
    _json(folder / "metrics.json", run.metrics)
    lines = "".join(json.dumps(line) + "\n" for line in run.log)
    (folder / "log.jsonl").write_text(lines, encoding="utf-8")
    if run.titles:
        _json(folder / "titles.json", run.titles)
    return {
        "model": run.config.name,
        "preset": run.config.preset,
        "seed": run.config.seed,
        "epochs": run.epochs,
        "started_from": list(run.started_from),
        "companion_epochs": run.companion_epochs,
        "config": {"model": asdict(run.config.model), "train": asdict(run.config.train)},
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
    """Read a run, every file's SHA-256 verified.

    Raises
    ------
    ArtefactError
        When the run is missing, incomplete, damaged or inconsistent.
    """
    manifest = read_manifest(folder)
    try:
        return _read(folder, manifest)
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise ArtefactError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from None


def _read(folder: Path, manifest: dict[str, Any]) -> Run:
    text = (folder / "config.toml").read_text(encoding="utf-8")
    config = Config.from_toml(text, base.config_class(manifest["model"]), "config.toml")
    ids, rows = (
        load_file(folder / "ids.safetensors"),
        load_file(folder / "interactions.safetensors"),
    )
    data = manifest["data"]
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
        held = load_file(folder / "protocol.safetensors")
        settings = ProtocolConfig(**manifest["protocol"]["settings"])
        split = Split.from_arrays(log, rows["part"], held, settings)
        if split.hash != manifest["protocol"]["hash"]:
            raise ValueError("the protocol does not match its hash")
    # A copy of its own: products of mapped memory differ in the last bit by alignment.
    files = manifest["files"]  # others are nobody's: an older run's, copied over
    vectors = {k: v.clone() for k, v in _optional(folder, VECTORS, files).items()}
    titles = folder / "titles.json" if "titles.json" in files else None
    return Run(
        config=config,
        epochs=int(manifest["epochs"]),
        state=load_tensors(folder / "model.safetensors"),
        interactions=log,
        split=split,
        user_vectors=vectors.get("users"),
        item_vectors=vectors.get("items"),
        selected=_optional(folder, SELECTED, files) or None,
        started_from=tuple(manifest.get("started_from", ())),
        companion_epochs=dict(manifest.get("companion_epochs", {})),
        metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        log=[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()],
        titles=json.loads(titles.read_text(encoding="utf-8")) if titles else {},
        source=str(data["source"]),
        reading=dict(data.get("reading", {})),
    )


def _optional(folder: Path, name: str, files: Container[str]) -> dict[str, Tensor]:
    """Tensors of a file that not every run has: the manifest tells."""
    return load_tensors(folder / name) if name in files else {}


def protocol_entry(split: Split) -> dict[str, Any]:
    """Hash and settings of a split, as the manifest holds them."""
    return {"hash": split.hash, "settings": asdict(split.protocol)}


def _save(arrays: dict[str, npt.NDArray[Any]], path: Path) -> None:
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
