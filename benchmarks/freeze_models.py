"""Trainings whose every bit `freeze.py` compares: models × presets, and a variant per code path.

Cases are data. Their settings have the names of November 2026; the map `freeze-names.json` gives
the names of a later checkout.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

import comet_rec as cr

NON_ITERATIVE = ("Popularity", "ItemKNN", "EASE", "Random")
MODELS = ("COMET", "MF", "SVDpp", "FISM", "GMF", "MLP", "NeuMF", "ConvNCF", *NON_ITERATIVE)
PRESETS = (
    "auto", "best", "static", "paper", "paper-literal", "widths-1", "widths-1-8", "widths-1-8-32",
    "cnn-only", "mlp-only", "original-only", "interaction-only", "permuted-dimensions",
    "shuffled-history", "frozen-filters", "matched-mlp", "kept-target",
)  # fmt: skip
Values = dict[str, Any]
"""Measured values by keys whose parts stand between `SEPARATOR`s."""
SEPARATOR = " · "
NAMES: dict[str, dict[str, Any]] = {"settings": {}, "tensors": {}, "labels": {}}
"""Old names → the names of the checkout that is measured; `freeze_measure` fills it."""


@dataclass(frozen=True)
class Training:
    """One model to train.

    Parameters
    ----------
    model : str
        Name of its class in `comet_rec`.
    preset : str
    settings : mapping
        Dotted keys.
    refit : bool
        Given to `fit`, so that no default of it matters.
    log : str
        Name of a planted log.
    split : bool
        Fit on a split; otherwise on the whole log.
    seed : int
    starts : tuple of Training
        Trained before, for `init_from`.
    """

    model: str
    preset: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    refit: bool = False
    log: str = "timed"
    split: bool = True
    seed: int = 0
    starts: tuple[Training, ...] = ()

    @property
    def name(self) -> str:
        """Model, preset, log, and whether there is a refit."""
        kind = ("refit" if self.refit else "no refit") if self.split else "all"
        return f"{self.model} {self.preset}, {self.log}, {kind}"


def few_epochs(model: str) -> dict[str, Any]:
    """Settings that make a training short whatever the preset."""
    if model in NON_ITERATIVE:
        return {}
    few = 1 if model == "ConvNCF" else 2
    return {"train.epochs": few, "train.full_epochs": few}


def of_presets() -> dict[str, Training]:
    """Every model under every preset; most presets refuse most models."""
    cases = []
    for model in MODELS:
        short = few_epochs(model)
        for preset in PRESETS:
            cases += [Training(model, preset, short, refit) for refit in (False, True)]
        cases.append(Training(model, "auto", short, log="plain", refit=True))
        cases.append(Training(model, "auto", short, split=False))
    for model in ("COMET", "FISM"):
        short = few_epochs(model)
        cases += [
            Training(model, "best", short, log="plain", refit=True),
            Training(model, "best", short, log="plain", split=False),
            Training(model, "best", short, log="long", refit=True),
            Training(model, "paper-literal", short, log="plain"),
        ]
    return {case.name: case for case in cases}


# A small COMET without a blend, whose history is longer than most users'.
SMALL: dict[str, Any] = {
    "model.embedding_dim": 16, "model.history_length": 16, "model.hidden": (24,),
    "model.widths": (1, 4, 8), "train.epochs": 2, "train.full_epochs": 2, "train.batch_size": 64,
}  # fmt: skip
SOFTMAX = {"train.loss": "softmax", "train.mask_touched": True}
CAUSAL = {"model.history": "causal", "model.towers": "user"}
COMET_VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "cnn": {"model.cross": "cnn"},
    "mlp": {"model.cross": "mlp", "model.hidden": (24, 16)},
    "matched mlp": {"model.cross": "matched-mlp"},
    "original": {"model.enrich": "original"},
    "interaction": {"model.enrich": "interaction"},
    "interaction, user tower": {"model.enrich": "interaction", "model.towers": "user"},
    "gate": {"model.gate": "squeeze"},
    "gate, direct": {"model.gate": "squeeze", "model.convolution": "direct"},
    "direct": {"model.convolution": "direct"},
    "user tower": {"model.towers": "user"},
    "no user embedding": {"model.user_embedding": False, "model.towers": "user"},
    "no user embedding, both towers": {"model.user_embedding": False},
    "permuted": {"model.permute_dimensions": True},
    "shuffled": {"model.shuffle_history": True},
    "frozen": {"model.freeze_filters": True},
    "recent": {"model.history": "recent"},
    "causal": {"model.history": "causal"},
    "kept target": {"model.exclude_target": False, "model.leave_out": 0.0},
    "nothing left out": {"model.leave_out": 0.0},
    "no dropout": {"model.dropout": 0.0, "model.own_dropout": 0.0},
    "odd K": {"model.embedding_dim": 17, "model.widths": (1, 32), "model.channels": 3},
    "deep": {"model.hidden": (24, 16), "model.init_scale": 0.2},
    "no hidden layer": {"model.hidden": ()},
    "bpr": {"train.loss": "bpr"},
    "bpr, sum": {"train.loss": "bpr", "train.reduction": "sum"},
    "softmax": SOFTMAX | CAUSAL,
    "softmax, unmasked": {"train.loss": "softmax"},
    "softmax, sampled items": SOFTMAX | CAUSAL | {"train.softmax_items": 20},
    "softmax, popular items": SOFTMAX
    | {"train.softmax_items": 20, "train.sampling": "popularity"},
    "softmax, in-batch": SOFTMAX | {"train.softmax_items": 20, "train.sampling": "in-batch"},
    "softmax, unmasked, sampled items": {"train.loss": "softmax", "train.softmax_items": 20},
    "popular negatives": {"train.sampling": "popularity", "train.popularity_power": 0.5},
    "in-batch negatives": {"train.sampling": "in-batch"},
    "pool": {"train.negative_pool": 12, "train.positives_per_user": 4},
    "pool of popular items": {"train.negative_pool": 12, "train.sampling": "popularity"},
    "averaged": {"train.average": 0.9},
    "cosine, warmup": {"train.schedule": "cosine", "train.warmup": 1.0, "train.average": 0.9},
    "decay of all": {"train.weight_decay": 1e-3},
    "decay of embeddings": {"train.weight_decay": 1e-3, "train.decay_on": "embeddings"},
    "sum": {"train.reduction": "sum"},
    "bfloat16": {"train.matmul_precision": "medium"},
    "selected over the catalogue": {"train.select_by": "full", "train.epochs": 4},
    "stopped early": {"train.epochs": 12, "train.patience": 1, "train.learning_rate": 0.02},
    "blend of paper": {"model.taste_dim": 8, "model.taste_alpha": 0.3},
    "blend of best": {"model.taste_dim": 8, "model.taste_preset": "best"} | SOFTMAX | CAUSAL,
    "blend, two towers, full": {"model.taste_dim": 8, "train.select_by": "full"},
}  # fmt: skip
OTHER_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "MF without biases": ("MF", {"model.biases": False}),
    "MF, bpr": ("MF", {"train.loss": "bpr"}),
    "MF, softmax": ("MF", dict(SOFTMAX)),
    "MF, in-batch softmax": (
        "MF", SOFTMAX | {"train.softmax_items": 16, "train.sampling": "in-batch"}
    ),
    "GMF, softmax": ("GMF", SOFTMAX | {"train.softmax_items": 16}),
    "GMF, popular negatives": ("GMF", {"train.sampling": "popularity"}),
    "SVDpp with the target": ("SVDpp", {"model.exclude_target": False}),
    "SVDpp, softmax": ("SVDpp", SOFTMAX | {"model.exclude_target": False}),
    "FISM with the target": ("FISM", {"model.exclude_target": False, "model.alpha": 0.0}),
    "FISM, softmax": ("FISM", SOFTMAX | {"model.alpha": 1.0}),
    "FISM, bpr": ("FISM", {"train.loss": "bpr", "train.average": 0.9}),
    "MLP, dropout": ("MLP", {"model.dropout": 0.3, "model.hidden": (16, 8), "train.loss": "bpr"}),
    "NeuMF, dropout": ("NeuMF", {"model.dropout": 0.3, "model.hidden": (16, 8)}),
    "ConvNCF, bpr": ("ConvNCF", {"train.loss": "bpr", "model.channels": 8}),
    "ItemKNN, shrunk": ("ItemKNN", {"model.neighbours": 5, "model.shrink": 3.0}),
    "EASE, l2": ("EASE", {"model.l2": 20.0}),
    "EASE, memory": ("EASE", {"model.memory_gib": 1e-6}),
}  # fmt: skip


# On a log of more users and items than one block of any loop holds.
WIDE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "paper": ("COMET", "paper", {"model.embedding_dim": 64, "model.history_length": 20}),
    "best": ("COMET", "best", {"model.taste_dim": 16, "model.history_length": 20}),
    "pool": (
        "COMET", "static",
        SMALL | {"train.negative_pool": 64, "train.positives_per_user": 4, "train.batch_size": 512},
    ),
    "few rows of a table": (
        "COMET", "static", SMALL | {"model.history_length": 4, "train.batch_size": 64}
    ),
    "MF": ("MF", "paper", {"model.embedding_dim": 16}),
    "SVDpp": ("SVDpp", "paper", {"model.embedding_dim": 16}),
    "FISM": ("FISM", "best", {"model.embedding_dim": 16}),
    "MLP": ("MLP", "paper", {"model.embedding_dim": 16, "model.hidden": (16, 8)}),
    "ItemKNN": ("ItemKNN", "auto", {}),
    "EASE": ("EASE", "auto", {}),
}  # fmt: skip


def of_variants() -> dict[str, Training]:
    """Small models, each with what takes another path through the code."""
    cases = {
        f"COMET, {name}": Training("COMET", "static", SMALL | more, seed=1)
        for name, more in COMET_VARIANTS.items()
    }
    for name, (model, more) in OTHER_VARIANTS.items():
        small = {} if model in NON_ITERATIVE else {"model.embedding_dim": 8, **few_epochs(model)}
        cases[name] = Training(model, "static", small | more, seed=1)
    for name in ("softmax", "blend of paper", "stopped early"):
        case = cases[f"COMET, {name}"]
        cases[f"COMET, {name}, refit"] = dataclasses.replace(case, refit=True)
    whole = {"model.taste_dim": 8, "model.taste_weight": 0.7, "model.taste_epochs": 1}
    cases["COMET, blend, all"] = Training("COMET", "static", SMALL | whole, split=False, seed=1)
    for name, (model, preset, settings) in WIDE.items():
        one = {} if model in NON_ITERATIVE else {"train.epochs": 1}
        cases[f"wide, {name}"] = Training(model, preset, settings | one, log="wide")
    plain = cases["COMET, blend of paper"]
    cases["COMET, blend of paper, plain"] = dataclasses.replace(plain, log="plain")
    return cases | dict(_of_starts())


def _of_starts() -> Iterator[tuple[str, Training]]:
    """Models that start from trained ones."""
    parts: dict[str, Any] = {"model.embedding_dim": 8, "train.epochs": 2}
    layers = parts | {"model.hidden": (16, 8)}
    bpr = parts | {"train.loss": "bpr", "model.biases": False}
    fism = {"model.embedding_dim": 8, "model.alpha": 0.5, "train.epochs": 2}
    for refit in (False, True):
        suffix = ", refit" if refit else ""
        same: dict[str, Any] = {"refit": refit, "seed": 2}
        gmf, mlp = (
            Training("GMF", "static", parts, **same),
            Training("MLP", "static", layers, **same),
        )
        yield (
            f"NeuMF of GMF and MLP{suffix}",
            Training("NeuMF", "static", layers, starts=(gmf, mlp), **same),
        )
        yield f"ConvNCF of MF{suffix}", Training(
            "ConvNCF", "static", parts | {"model.channels": 8},
            starts=(Training("MF", "static", bpr, **same),), **same,
        )  # fmt: skip
        yield f"COMET of FISM{suffix}", Training(
            "COMET", "static", SMALL | {"model.taste_dim": 8},
            starts=(Training("FISM", "static", fism, **same),), **same,
        )  # fmt: skip


LOGS = {
    "timed": (60, 48, 12), "plain": (50, 40, 10), "long": (30, 60, 42), "wide": (2_200, 2_300, 5),
}  # fmt: skip
"""Planted log → users, items, rows of a user. `plain` has text ids and no times."""


@cache
def planted(name: str) -> Path:
    """A file of a planted log; what it holds depends on its name alone."""
    users, items, rows = LOGS[name]
    rng = random.Random(name)
    lines = ["user,item" if name == "plain" else "user,item,time"]
    for user in range(users):
        # Three groups like three kinds of items, in a ring; low numbers are liked more.
        seen: dict[int, None] = {}
        while len(seen) < (1 + user % 3 if user < 4 else rows):
            chance = rng.random()
            item = int(items * rng.random() ** 2)
            if chance < 0.5 and seen:
                item = (next(reversed(seen)) + 3) % items
            elif chance < 0.8:
                item -= (item - user) % 3
            seen.setdefault(item % items)
        for step, item in enumerate(seen):
            time = 1_600_000_000 + 86_400 * step + 977 * user
            row = f"u{user:03},item {item}" if name == "plain" else f"{user},{item + 100},{time}"
            lines.append(row)
            if step == 0 and user % 20 == 0:
                lines.append(row)  # repeated
    path = Path(tempfile.mkdtemp(prefix=f"freeze-{name}-")) / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@cache
def log_of(name: str) -> Any:
    """A planted log, read."""
    return cr.read(str(planted(name)), threads=1)


def renamed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of this checkout; `freeze.py` says what the map holds."""
    found = {}
    for key, value in settings.items():
        exact = f"{key}={json.dumps(value)}"
        mapped = NAMES["settings"].get(exact) or NAMES["settings"].get(key, key)
        for word in [mapped] if isinstance(mapped, str) else mapped:
            name, equals, text = word.partition("=")
            found[name] = json.loads(text) if equals else value
    return found


def estimator(model: str, preset: str, settings: Mapping[str, Any], seed: int = 0) -> Any:
    """A fresh model; settings of the model and of training by their bare names."""
    given = {}
    for key, value in renamed_settings(settings).items():
        room, _, name = key.partition(".")
        given[name if room in ("model", "train") else key] = value
    return getattr(cr, model)(preset=preset, seed=seed, **given)


def fitted(case: Training) -> Any:
    """The trained model of a case."""
    starts = [fitted(start) for start in case.starts]
    model = estimator(case.model, case.preset, case.settings, case.seed)
    log = log_of(case.log)
    data = cr.leave_one_out(log, negatives=20, seed=case.seed) if case.split else log
    given: dict[str, Any] = {"refit": case.refit} if case.split else {}
    if starts:
        given["init_from"] = starts
    return model.fit(data, **given)


def digest(array: Any) -> str:
    """Kind, shape and SHA-256 of an array."""
    values = np.ascontiguousarray(array)
    if values.dtype.kind == "O":  # whose bytes are addresses
        values = values.astype(np.str_)
    return f"{values.dtype}{list(values.shape)} {hashlib.sha256(values.tobytes()).hexdigest()[:24]}"


def bits(tensor: Any) -> str:
    """Digest of a tensor's bits, and its sum, which tells how far two tensors differ."""
    array = tensor.contiguous().numpy()
    return f"sum {float(np.asarray(array, dtype=np.float64).sum()):.9g} {digest(array)}"


def leaves(tree: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Keys and values of plain data; what a clock, a version or a machine says is left out."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if not (str(key).endswith("seconds") or key in ("versions", "machine")):
                yield from leaves(value, *path, str(key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from leaves(value, *path, str(place))
    else:
        yield SEPARATOR.join(path), tree


def of_model(model: Any) -> Values:
    """All that the files of a saved run say, but for clocks, versions and sentences; and lists."""
    lists = model.recommend(k=10)
    values: Values = {
        f"recommend{SEPARATOR}{column}": digest(lists[column])
        for column in ("user_id", "item_id", "score")
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "run"
        model.save(home)
        for path in sorted(home.glob("*.safetensors")):
            for name, tensor in load_file(path).items():
                values[SEPARATOR.join(("tensor", path.stem, name))] = bits(tensor)
        manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
        for room, settings in manifest["config"].items():
            for name, value in settings.items():
                values[f"setting{SEPARATOR}{room}.{name}"] = value
        about = {key: manifest[key] for key in ("model", "preset", "seed", "epochs", "protocol")}
        about["fingerprint"] = manifest["data"]["fingerprint"]
        values |= leaves(about, "manifest")
        values |= leaves(json.loads((home / "metrics.json").read_text()), "metrics")
        for line in (home / "log.jsonl").read_text().splitlines():
            told = json.loads(line)
            stage, epoch = told.pop("stage"), str(told.pop("epoch"))
            values |= leaves(told, "log", stage, epoch)
    return values


def of_training(case: Training) -> Values:
    """Train the model of a case, and read what its files hold."""
    return of_model(fitted(case))


def complete_settings(model: str, preset: str, log: Any) -> Values:
    """Every setting that a preset has for a model on a log."""
    config = estimator(model, preset, {}).config_for(log)  # the one call from inside
    values: Values = {}
    for room, settings in dataclasses.asdict(config).items():
        if isinstance(settings, dict):
            values |= {f"setting{SEPARATOR}{room}.{name}": v for name, v in settings.items()}
    return json.loads(json.dumps(values))
