"""Settings: frozen dataclasses, TOML in and out, and errors that name the nearest key."""

from __future__ import annotations

import json
import math
import numbers
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from comet_rec import renamed
from comet_rec.errors import ConfigError, did_you_mean
from comet_rec.text import shortened

ROOMS = ("model", "blend", "train", "protocol")
"""Groups of settings; a dotted key begins with one of them."""
MOST_THREADS = 1024
"""Each is started, needed or not: a mistyped number would stop the machine."""
LARGEST = 10**20
"""Integers from here on are slips: they would fail as an array's size, or as a float, later."""
OF_A_SOFTMAX: Mapping[str, Any] = {"softmax_items": 0, "mask_known_positives": False}
"""Settings of `TrainConfig` that no other loss has, and how they are off."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained, whatever the model.

    Parameters
    ----------
    epochs : int
        Most passes over the positives; fewer when validation stops the run.
    full_epochs : int
        Passes when nothing is held out (`fit(interactions)`, `train --all`).
    batch_size : int
        Positives in a batch, before their negatives. A batch never holds more than a tenth of
        the log, so that it cannot empty the histories (ADR 0003).
    learning_rate, weight_decay : float
        Settings of Adam, the paper's optimizer. The decay is L2 and is added to the gradient.
    schedule : {"constant", "cosine"}
        Learning rate over the run: the same throughout, or falling along half a cosine to zero at
        the end of the last of `epochs` (on everything of `full_epochs`, where those are more).
        Choice: constant; the paper names none.
    warmup : float
        Epochs over which the learning rate first rises in a line to its full height, times
        whatever the schedule says; parts of an epoch count. Choice: 0, as the paper names none.
    average : float
        Decay a step of the exponential moving average of the parameters that is validated and
        kept in their place; 0 keeps the last parameters themselves. Choice: off by
        default; on in `best`, in the presets of the baselines, and in `paper` from 350,000 rows
        on (ADR 0028).
    decay_on : {"all", "embeddings"}
        Which parameters are decayed. Choice: the paper does not say.
    negatives : int
        Unobserved items drawn for each positive, anew each epoch (Eq. 9).
    positives_per_user : int
        Most positives of a user that come together in a batch: fewer distinct users, hence
        fewer tower passes a positive. Each positive still occurs once an epoch.
    negative_pool : int
        Items in a random pool from which a batch draws its negatives: fewer distinct items.
        0 draws each from all items.
    sampling : {"uniform", "popularity", "in-batch"}
        How items are sampled, as negatives or for the softmax: all alike; in proportion to a
        power of their number of rows; or among the positives of the batch. Negatives are never
        positives of the user. Choice: uniform (ADR 0023).
    popularity_power : float
        The power of ``sampling = "popularity"``.
    loss : {"bce", "bpr", "softmax"}
        Binary cross-entropy on logits (Eq. 9), Bayesian personalised ranking, or cross-entropy
        of each positive among the items of the catalogue (ADR 0022).
    softmax_items : int
        Items of the sampled softmax, drawn by `sampling` once for all positives of a batch; 0
        takes the full softmax.
    mask_known_positives : bool
        Leave the user's other positives out of the softmax of each positive. Otherwise they
        count against it, like any other item. Choice: false (ADR 0022).
    reduction : {"mean", "sum"}
        Over the pairs of a batch. Choice: Eq. 9 prints a sum.
    matmul_precision : {"highest", "high", "medium"}
        Precision of float32 products in training, by the words of
        `torch.set_float32_matmul_precision`: "medium" multiplies in bfloat16 and adds in float32
        where the processor can. Sums, transforms, parameters and measuring stay in float32.
        Choice: highest (ADR 0027).
    selection_metric : {"sampled", "full"}
        NDCG@10 of the validation items that chooses the epoch, the weight of a blend and, in a
        search, the settings: among sampled candidates, or of the full ranking (ADR 0037, 0026).
    patience : int
        Validations without a better figure of that kind before training stops; 0 never does.
    refit : bool
        Train once more on training and validation rows, for the epochs that validation chose.
    """

    epochs: int = 60
    full_epochs: int = 25
    batch_size: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    average: float = 0.0
    decay_on: Literal["all", "embeddings"] = "all"
    negatives: int = 4
    positives_per_user: int = 1
    negative_pool: int = 0
    sampling: Literal["uniform", "popularity", "in-batch"] = "uniform"
    popularity_power: float = 0.75
    loss: Literal["bce", "bpr", "softmax"] = "bce"
    softmax_items: int = 0
    mask_known_positives: bool = False
    reduction: Literal["mean", "sum"] = "mean"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    selection_metric: Literal["sampled", "full"] = "sampled"
    patience: int = 5
    refit: bool = False

    @property
    def selects(self) -> str:
        """Name of the validation figure that `selection_metric` means."""
        return "NDCG@10" if self.selection_metric == "sampled" else "full NDCG@10"

    def merit(self, validation: Mapping[str, float]) -> tuple[float, float]:
        """Sort key of the best epoch: the selection metric, then the sampled NDCG@10."""
        return validation[self.selects], validation["NDCG@10"]

    def __post_init__(self) -> None:
        positive(self, "train", "epochs", "full_epochs", "batch_size", "negatives")
        positive(self, "train", "positives_per_user")
        positive(self, "train", "learning_rate")
        not_negative(self, "train", "weight_decay", "patience", "negative_pool", "warmup")
        not_negative(self, "train", "softmax_items", "popularity_power")
        share(self, "train", "average")
        self._check_softmax()

    def _check_softmax(self) -> None:
        """Refuse settings that the loss would pass over in silence."""
        if self.loss != "softmax":
            for name in OF_A_SOFTMAX:
                if getattr(self, name) > 0:
                    raise ConfigError(
                        f'train.{name} = {getattr(self, name)} needs train.loss = "softmax"; '
                        f"the loss is {self.loss}"
                    )
        elif self.negative_pool > 0:
            raise ConfigError(
                f'train.negative_pool = {self.negative_pool}: train.loss = "softmax" draws no '
                "negatives; give train.softmax_items"
            )
        elif self.softmax_items == 0 and self.sampling != "uniform":
            raise ConfigError(
                f'train.sampling = "{self.sampling}": the full softmax draws nothing; give '
                "train.softmax_items, the number of items to draw"
            )


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """A second model whose score, times a weight, is added to the model's own (ADR 0026).

    Parameters
    ----------
    model : {"none", "fism"}
        The second model. It is trained first, by itself. Choice: none.
    embedding_dim : int
        K of the second model.
    alpha : float
        Exponent of FISM's normaliser, as in `FISMConfig`.
    preset : {"paper", "best"}
        Preset of the second model's training: binary cross-entropy, or a softmax where histories
        are short (ADR 0026).
    weight : float
        Weight of the second score where no validation items choose it (`training.blend.WEIGHTS`).
    epochs : int
        Epochs of the second model where no validation items choose them; 0 takes its preset's.
    """

    model: Literal["none", "fism"] = "none"
    # In the order that records were written in (`Config.recorded`).
    embedding_dim: int = 64
    alpha: float = 0.5
    preset: Literal["paper", "best"] = "paper"
    weight: float = 0.5
    epochs: int = 0

    def __post_init__(self) -> None:
        positive(self, "blend", "embedding_dim")
        not_negative(self, "blend", "weight", "epochs")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"blend.alpha = {self.alpha}: must lie in [0, 1]")
        for f in fields(self) if self.model == "none" else ():
            if getattr(self, f.name) != f.default:
                raise ConfigError(
                    f"blend.{f.name} = {getattr(self, f.name)}: there is no blend; give "
                    'blend.model = "fism" too'
                )

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the second model that this one decides, by their own names."""
        return {"embedding_dim": self.embedding_dim, "alpha": self.alpha}


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """Evaluation protocol: split, candidates, tie rule and seed.

    Parameters
    ----------
    split : {"leave_one_out", "given"}
        Source of the test items: the latest row of each user, or files.
    negatives : int
        Candidates drawn beside the positive of each user, for test and for validation.
    ties : {"expected", "pessimistic"}
        How a candidate with the positive's score counts.
    seed : int
        Seed of the candidates alone, so that all models and training seeds meet the same ones.
    """

    split: Literal["leave_one_out", "given"] = "leave_one_out"
    negatives: int = 99
    ties: Literal["expected", "pessimistic"] = "expected"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            # As they are stored: a wrong word would be found when the run is read, too late.
            object.__setattr__(self, name, coerce(f"protocol.{name}", getattr(self, name), hint))
        positive(self, "protocol", "negatives")
        not_negative(self, "protocol", "seed")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run but the data: model, blend, training, protocol, seed."""

    name: str
    preset: str
    model: Any
    blend: BlendConfig = field(default_factory=BlendConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    seed: int = 0

    def with_settings(self, settings: Mapping[str, Any]) -> Config:
        """Copy with dotted keys changed, e.g. ``{"model.embedding_dim": 64}``.

        Values may be text, as the command line gives them.

        Raises
        ------
        ConfigError
            For an unknown key (the nearest one is named) or a value out of range.
        """
        changes: dict[str, dict[str, Any]] = {room: {} for room in ROOMS}
        for key, value in settings.items():
            coerced = self.coerced(key, value)
            room, name = key.split(".", 1)
            changes[room][name] = coerced
        # What a preset has for a blend goes with it.
        if changes["blend"].get("model") == "none":
            changes["blend"] = {f.name: f.default for f in fields(BlendConfig)} | changes["blend"]
        # What a preset has for another loss goes with that.
        if changes["train"].get("loss") == "softmax":
            changes["train"].setdefault("negative_pool", 0)
        elif "loss" in changes["train"]:
            changes["train"] = {**OF_A_SOFTMAX, **changes["train"]}
        # All of a room at once: settings that belong together may come in any order.
        return replace(
            self, **{room: replace(getattr(self, room), **changes[room]) for room in ROOMS}
        )

    def coerced(self, key: str, value: Any) -> Any:
        """A value of a dotted key in that setting's type, text as the command line gives it.

        Raises
        ------
        ConfigError
            For an unknown key, or a value of another type.
        """
        if key not in self.setting_names():
            raise ConfigError(unknown("setting", key, self.setting_names()))
        room, name = key.split(".", 1)
        kind: Any = type(getattr(self, room))
        return coerce(key, value, _type_hints(kind)[name])

    def setting_names(self) -> list[str]:
        """Dotted keys of all settings."""
        return [f"{room}.{f.name}" for room in ROOMS for f in fields(getattr(self, room))]

    def get(self, key: str) -> Any:
        """Value of a dotted key, e.g. ``"model.embedding_dim"``."""
        room, name = key.split(".", 1)
        return getattr(getattr(self, room), name)

    def changed(self) -> list[str]:
        """``key = value`` of all that decides a run, settings at their defaults left out."""
        lines = [f"{key} = {literal(getattr(self, key))}" for key in ("name", "preset", "seed")]
        for room in ROOMS:
            part, plain = getattr(self, room), type(getattr(self, room))()
            lines += [
                f"{room}.{f.name} = {literal(value)}"
                for f in fields(part)
                if (value := getattr(part, f.name)) != getattr(plain, f.name)
            ]
        return lines

    def recorded(self) -> list[str]:
        """`changed` by the names that finished records were written with: digests cover these."""
        old = {new: old for old, new in renamed.SETTINGS.items()}
        found = []
        for line in self.changed():
            key, _, value = line.partition(" = ")
            if key == "blend.model":  # the old size of a blend switched it on
                found.append(f"{renamed.BLEND_SIZE} = {self.blend.embedding_dim}")
            elif key != "blend.embedding_dim":
                found.append(f"{old.get(key, key)} = {value}")
        return found

    def to_toml(self) -> str:
        """Render as TOML that `from_toml` reads back to an equal object."""
        lines = [f"{key} = {literal(getattr(self, key))}" for key in ("name", "preset", "seed")]
        for room in ROOMS:
            part = getattr(self, room)
            if part == BlendConfig():  # most models have none
                continue
            lines += ["", f"[{room}]"]
            lines += [f"{f.name} = {literal(getattr(part, f.name))}" for f in fields(part)]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_toml(text: str, model_class: type[Any], where: str = "config") -> Config:
        """Read what `to_toml` wrote.

        Raises
        ------
        ConfigError
            When the text is not TOML or holds an unknown key or a bad value.
        """
        try:
            tree = tomllib.loads(text)
        except RecursionError:
            raise ConfigError(f"{where}: not TOML: nested too deeply") from None
        except ValueError as error:  # its own kind, or a number of thousands of digits
            raise ConfigError(f"{where}: not TOML: {error}") from None
        name, preset = (str(tree.pop(key, "")) for key in ("name", "preset"))
        seed = tree.pop("seed", 0)
        if not is_whole(seed) or seed < 0:
            raise ConfigError(
                f"{where}: seed = {shortened(seed)}: must be a whole number, 0 or above"
            )
        base = Config(name=name, preset=preset, seed=int(seed), model=model_class())
        flat: dict[str, Any] = {}
        for room, part in tree.items():
            if not isinstance(part, dict):
                raise ConfigError(unknown("setting", room, ["name", "preset", "seed"]))
            flat |= {f"{room}.{key}": value for key, value in part.items()}
        return base.with_settings(renamed.settings(flat))


@cache
def _type_hints(room: Any) -> dict[str, Any]:
    """Types of a room's settings; finding them takes longer than all else in reading a config."""
    return get_type_hints(room)


def unknown(what: str, given: str, known: list[str]) -> str:
    """One line that names the nearest known word; of a setting, within its room."""
    room, dot, name = given.rpartition(".")
    prefix = f"{room}."
    within = [word.removeprefix(prefix) for word in known if dot and word.startswith(prefix)]
    hint = did_you_mean(name, within, prefix) if within else did_you_mean(given, known)
    return f"unknown {what} {shortened(given)!r}; {hint}"


def coerce(key: str, value: Any, hint: Any) -> Any:
    """Value of a setting in its declared type; text is parsed.

    Raises
    ------
    ConfigError
        When the value does not fit the type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "none":
            return None
        return coerce(key, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            known = ", ".join(map(repr, args))
            raise ConfigError(f"{key} = {_quoted(value)}: must be one of {known}")
        return value
    if origin is tuple and not isinstance(value, (str, list, tuple)):
        raise ConfigError(f"{key} = {_quoted(value)}: must be a list, e.g. {key}=[1, 8]")
    if origin is tuple:
        parts = value.strip("[]() ").split(",") if isinstance(value, str) else list(value)
        return tuple(coerce(key, p, args[0]) for p in parts if p != "")
    try:
        if hint is bool:
            return _boolean(value)
        # Compared as text: truth values of numpy are refused without importing numpy.
        if hint in (int, float) and str(value) in ("True", "False"):
            raise ValueError
        if hint is int and not isinstance(value, str) and int(value) != value:
            raise ValueError
        found = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key} = {_quoted(value)}: must be {_type_name(hint)}") from None
    if hint is int and abs(found) >= LARGEST:
        raise ConfigError(f"{key} = {_quoted(value)}: is too large; nothing is of that size")
    return found


def _quoted(value: Any) -> str:
    """Text of a value for a message, shortened."""
    return repr(shortened(value)) if isinstance(value, str) else shortened(value)


def _boolean(value: Any) -> bool:
    words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError


def _type_name(hint: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "text")


def literal(value: Any) -> str:
    """A setting's value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or numpy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive(config: Any, room: str, *names: str) -> None:
    """Refuse settings that are not above zero."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{room}.{name} = {value}: must be above 0, and finite")


def not_negative(config: Any, room: str, *names: str) -> None:
    """Refuse settings below zero."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(
                f"{room}.{name} = {getattr(config, name)}: must not be below 0, and finite"
            )


def share(config: Any, room: str, *names: str) -> None:
    """Refuse settings outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{room}.{name} = {getattr(config, name)}: must lie in [0, 1)")
