"""Settings as frozen dataclasses, read from and written to TOML."""

from __future__ import annotations

import json
import math
import numbers
import tomllib
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from comet_rec import renamed
from comet_rec.errors import ConfigError, did_you_mean
from comet_rec.text import shortened

ROOMS = ("model", "blend", "train", "protocol")
"""Groups of settings. A dotted key such as ``model.embedding_dim`` begins with its group."""
MOST_THREADS = 1024
"""Largest number of threads that a caller may ask for. A mistyped larger number would overload the
machine, because every thread is started."""
LARGEST = 10**20
"""Integer settings must be below this number. A larger one is a typing error that would only fail
later, with an unclear message."""
OF_A_SOFTMAX: Mapping[str, Any] = {"softmax_items": 0, "mask_known_positives": False}
"""Settings of `TrainConfig` that only the softmax loss uses, with the values that switch them
off."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of training, the same for every trainable model.

    Parameters
    ----------
    epochs : int
        Largest number of passes over the positives. Validation may stop training earlier.
    full_epochs : int
        Number of passes when no rows are held out (`fit(interactions)`, `train --all`).
    batch_size : int
        Number of positives in a batch. It is lowered to a tenth of the log if it is larger, because
        the histories leave the positives of the batch out (ADR 0003).
        Batches of whole sequences have this size on average (ADR 0046).
    learning_rate, weight_decay : float
        Settings of Adam, the paper's optimizer. The decay is an L2 penalty, added to the gradient.
    table_optimizer : {"adam", "sparse_adam"}
        How embedding tables are updated. Adam updates every row in every step. Its sparse form
        updates the rows of the batch alone, whatever the size of the table. With several processes
        the tables are then divided among them (ADR 0049).
    schedule : {"constant", "cosine"}
        Learning rate over the run. With "cosine" the rate falls along half a cosine to zero, which
        it reaches after `epochs` epochs, or after `full_epochs` if no rows are held out and
        `full_epochs` is larger. Choice: constant; the paper names no schedule.
    warmup : float
        Epochs in which the learning rate rises linearly from zero, as a factor on top of
        `schedule`. Fractions are allowed. Choice: 0; the paper names no warm-up.
    average : float
        Decay per step of an exponential moving average of the parameters. The average is validated
        and stored instead of the parameters of the last step; 0 switches averaging off. Choice:
        off by default; on in `best`, in the presets of the baselines, and in `paper` from 350,000
        rows on (ADR 0028).
    decay_on : {"all", "embeddings"}
        Parameters that weight decay applies to. Choice: all; the paper does not say.
    negatives : int
        Unobserved items sampled for each positive, anew in each epoch (Eq. 9).
    positives_per_user : int
        Largest number of a user's positives that are put into the same batch on purpose. A larger
        number gives fewer distinct users in a batch, and so faster steps. Each positive still
        occurs once per epoch.
    negative_pool : int
        Size of a random pool of items from which a batch samples its negatives. A pool gives fewer
        distinct items in a batch. With 0 every negative is sampled from all items.
    sampling : {"uniform", "popularity", "in-batch"}
        How items are sampled, as negatives or for the sampled softmax. "popularity" samples in
        proportion to a power of an item's number of rows, "in-batch" among the positives of the
        batch. Negatives are never positives of the user. Choice: uniform (ADR 0023).
    popularity_power : float
        The power for ``sampling = "popularity"``.
    loss : {"bce", "gbce", "bpr", "softmax"}
        Binary cross-entropy on logits (Eq. 9), the same with positives that weigh less (gBCE),
        Bayesian personalised ranking, or softmax cross-entropy of each positive among all or
        sampled items (ADR 0022, 0046).
    calibration : float
        Strength t of gBCE, from 0 (binary cross-entropy) to 1 (Petrov and Macdonald 2023). A
        positive weighs 1 − t·(1 − k/(n − 1)) for k negatives among n items.
    softmax_items : int
        Number of items of the sampled softmax. They are sampled once for all positives of a batch,
        as `sampling` says. With 0 the softmax is over all items.
    mask_known_positives : bool
        Leave the user's other positives out of the softmax of each positive. If false, they count
        as negatives, like any other item. Choice: false (ADR 0022).
    reduction : {"mean", "sum"}
        Whether the loss of a batch is the mean or the sum over its pairs. Choice: mean; Eq. 9
        prints a sum.
    matmul_precision : {"highest", "high", "medium"}
        Precision of float32 matrix products in training, as in
        `torch.set_float32_matmul_precision`. "medium" multiplies in bfloat16 and adds in float32
        if the processor can. On a CPU that can, the full softmax and COMET's windows also keep
        factors and products in bfloat16 (ADR 0047). Choice: highest (ADR 0027).
    selection_metric : {"sampled", "full"}
        Whether NDCG@10 over sampled candidates or over the full ranking chooses the best epoch.
        The same metric chooses the weight of a blend and, in a search, the settings (ADR 0026,
        0037).
    patience : int
        Number of validations without a better selection metric after which training stops; 0 means
        that it never stops early.
    refit : bool
        Train again on training and validation rows, for as many epochs as validation chose.
    """

    epochs: int = 60
    full_epochs: int = 25
    batch_size: int = 2048
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    table_optimizer: Literal["adam", "sparse_adam"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    average: float = 0.0
    decay_on: Literal["all", "embeddings"] = "all"
    negatives: int = 4
    positives_per_user: int = 1
    negative_pool: int = 0
    sampling: Literal["uniform", "popularity", "in-batch"] = "uniform"
    popularity_power: float = 0.75
    loss: Literal["bce", "gbce", "bpr", "softmax"] = "bce"
    calibration: float = 0.75
    softmax_items: int = 0
    mask_known_positives: bool = False
    reduction: Literal["mean", "sum"] = "mean"
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    selection_metric: Literal["sampled", "full"] = "sampled"
    patience: int = 5
    refit: bool = False

    @property
    def selects(self) -> str:
        """Name of the selection metric among the validation metrics."""
        return "NDCG@10" if self.selection_metric == "sampled" else "full NDCG@10"

    def merit(self, validation: Mapping[str, float]) -> tuple[float, float]:
        """Sort key of an epoch with these validation metrics: the best epoch has the highest key.

        The key is the selection metric, then NDCG@10 over sampled candidates.
        """
        return validation[self.selects], validation["NDCG@10"]

    def __post_init__(self) -> None:
        positive(self, "train", "epochs", "full_epochs", "batch_size", "negatives")
        positive(self, "train", "positives_per_user")
        positive(self, "train", "learning_rate")
        not_negative(self, "train", "weight_decay", "patience", "negative_pool", "warmup")
        not_negative(self, "train", "softmax_items", "popularity_power")
        share(self, "train", "average")
        if not 0 <= self.calibration <= 1:
            raise ConfigError(f"train.calibration = {self.calibration}: must lie in [0, 1]")
        self._check_softmax()

    def _check_softmax(self) -> None:
        """Refuse settings that the chosen loss would ignore."""
        if self.loss != "softmax":
            for name in OF_A_SOFTMAX:
                if getattr(self, name) > 0:
                    raise ConfigError(
                        f'train.{name} = {getattr(self, name)} needs train.loss = "softmax"; '
                        f"the loss is {self.loss}"
                    )
        elif self.negative_pool > 0:
            raise ConfigError(
                f'train.negative_pool = {self.negative_pool}: train.loss = "softmax" samples no '
                "negatives; give train.softmax_items"
            )
        elif self.softmax_items == 0 and self.sampling != "uniform":
            raise ConfigError(
                f'train.sampling = "{self.sampling}": the full softmax samples no items; give '
                "train.softmax_items, the number of items to sample"
            )


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """Settings of a blend: a second model's score, times a weight, is added to the model's score.

    See ADR 0026.

    Parameters
    ----------
    model : {"none", "fism"}
        The second model, which is trained first and separately. Choice: none.
    embedding_dim : int
        K, the embedding size of the second model.
    alpha : float
        Exponent of FISM's normaliser, as in `FISMConfig`.
    preset : {"paper", "best"}
        Training preset of the second model. "paper" has binary cross-entropy, "best" has a softmax
        if histories are short (ADR 0026).
    weight : float
        Weight of the second model's score, used only if no rows are held out. Otherwise the
        validation items choose one of `training.fit.WEIGHTS`.
    epochs : int
        Largest number of epochs of the second model, of which the validation items choose the
        best; 0 means the number of `preset`. Without validation items all are trained.
    """

    model: Literal["none", "fism"] = "none"
    # The order of these fields is the order in stored records (`Config.recorded`).
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
        """Model settings of the second model that the blend fixes, by name."""
        return {"embedding_dim": self.embedding_dim, "alpha": self.alpha}


Target = Literal["first", "last", "random", "successive", "all"]
Repeats = Literal["hide", "keep"]
OF_A_TIME_SPLIT = ("at", "validation_at", "target", "repeats")
"""Settings of a protocol that only a split by time reads."""


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """Evaluation protocol: split, candidates, tie rule and seed.

    Parameters
    ----------
    split : {"leave_one_out", "given", "time"}
        Source of the test items: the latest row of each user, files that the caller gives, or rows
        from a moment on.
    negatives : int
        Candidates sampled for each user besides the positive, for test and for validation.
    ties : {"expected", "pessimistic"}
        Treatment of candidates with the same score as the positive: the average over their random
        orders, or all of them ranked above the positive.
    seed : int
        Seed of the sampled candidates, separate from the training seed. So all models and training
        seeds rank the same candidates.
    at, validation_at : int or None
        Time of the first test row and of the first validation row, in the unit of the log. Only a
        split by time has them.
    target : {"first", "last", "random", "successive", "all"}
        Rows of a user after the moment that are test items. Only a split by time reads it.
    repeats : {"hide", "keep"}
        Whether the full ranking leaves seen items out. Only a split by time reads it.
    """

    split: Literal["leave_one_out", "given", "time"] = "leave_one_out"
    negatives: int = 99
    ties: Literal["expected", "pessimistic"] = "expected"
    seed: int = 0
    at: int | None = None
    validation_at: int | None = None
    target: Target = "last"
    repeats: Repeats = "hide"

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _type_hints(kind).items():
            # Check here what a stored run would check, or an error would appear only on loading.
            object.__setattr__(self, name, coerce(f"protocol.{name}", getattr(self, name), hint))
        positive(self, "protocol", "negatives")
        not_negative(self, "protocol", "seed")
        if self.split == "time" and (self.at is None or self.validation_at is None):
            raise ConfigError(
                'protocol.split = "time": needs the moment of the split; use time_split, or the '
                "option --split time=…"
            )

    def recorded(self) -> dict[str, Any]:
        """The settings as a dict, as they are hashed and stored.

        Settings of a split by time are left out of other protocols. So hashes from before these
        settings existed stay as they are.
        """
        settings = asdict(self)
        if self.split != "time":
            settings = {k: v for k, v in settings.items() if k not in OF_A_TIME_SPLIT}
        return settings


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run: model, blend, training, protocol and seed.

    A run's result is determined by these settings and the data.
    """

    name: str
    preset: str
    model: Any
    blend: BlendConfig = field(default_factory=BlendConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    seed: int = 0

    def with_settings(self, settings: Mapping[str, Any]) -> Config:
        """Copy with other values for the given settings, by dotted keys (``model.embedding_dim``).

        Values may be text from the command line.

        Raises
        ------
        ConfigError
            For an unknown key or a value out of range.
        """
        changes: dict[str, dict[str, Any]] = {room: {} for room in ROOMS}
        for key, value in settings.items():
            coerced = self.coerced(key, value)
            room, name = key.split(".", 1)
            changes[room][name] = coerced
        # Without a blend, the preset's other settings of the blend go back to their defaults.
        if changes["blend"].get("model") == "none":
            changes["blend"] = {f.name: f.default for f in fields(BlendConfig)} | changes["blend"]
        # With another loss, settings that only suit the preset's loss are switched off.
        if changes["train"].get("loss") == "softmax":
            changes["train"].setdefault("negative_pool", 0)
        elif "loss" in changes["train"]:
            changes["train"] = {**OF_A_SOFTMAX, **changes["train"]}
        # One `replace` per group: settings are checked together, so their order does not matter.
        return replace(
            self, **{room: replace(getattr(self, room), **changes[room]) for room in ROOMS}
        )

    def coerced(self, key: str, value: Any) -> Any:
        """Convert `value` to the type of the setting with this dotted key; text is parsed.

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
        """Dotted keys of all settings, e.g. ``model.embedding_dim``."""
        return [f"{room}.{f.name}" for room in ROOMS for f in fields(getattr(self, room))]

    def get(self, key: str) -> Any:
        """Value of the setting with this dotted key, e.g. ``model.embedding_dim``."""
        room, name = key.split(".", 1)
        return getattr(getattr(self, room), name)

    def changed(self) -> list[str]:
        """Lines ``key = value`` for name, preset, seed and all settings that are not defaults."""
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
        """The lines of `changed`, with the old names of settings that were renamed.

        Digests of stored records were computed with the old names.
        """
        old = {new: old for old, new in renamed.SETTINGS.items()}
        lines = []
        for line in self.changed():
            key, _, value = line.partition(" = ")
            if key == "preset":
                lines.append(f"preset = {literal(renamed.PRESETS.get(self.preset, self.preset))}")
            elif key == "blend.model":  # in old records a size above 0 switched the blend on
                lines.append(f"{renamed.BLEND_SIZE} = {self.blend.embedding_dim}")
            elif key != "blend.embedding_dim":
                lines.append(f"{old.get(key, key)} = {value}")
        return lines

    def to_toml(self) -> str:
        """The settings as TOML text, from which `from_toml` restores an equal object."""
        lines = [f"{key} = {literal(getattr(self, key))}" for key in ("name", "preset", "seed")]
        for room in ROOMS:
            part = getattr(self, room)
            if part == BlendConfig():  # most models have no blend: leave the section out
                continue
            lines += ["", f"[{room}]"]
            stored = {f.name: getattr(part, f.name) for f in fields(part)}
            if isinstance(part, ProtocolConfig):
                stored = part.recorded()
            lines += [f"{name} = {literal(value)}" for name, value in stored.items()]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_toml(text: str, model_class: type[Any], where: str = "config") -> Config:
        """Config from the text that `to_toml` returned.

        `model_class` is the class of the model's settings. `where` is the beginning of error
        messages.

        Raises
        ------
        ConfigError
            When the text is not TOML or holds an unknown key or a bad value.
        """
        try:
            tree = tomllib.loads(text)
        except RecursionError:
            raise ConfigError(f"{where}: not TOML: nested too deeply") from None
        except ValueError as error:  # invalid TOML, or a number with thousands of digits
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
    """Types of a group's settings, cached because finding them is slow."""
    return get_type_hints(room)


def unknown(what: str, given: str, known: list[str]) -> str:
    """Error message for an unknown name `given`, with the most similar known name.

    `what` says what the name is, e.g. "setting". A dotted setting is compared only with settings of
    its group, if that group exists.
    """
    room, dot, name = given.rpartition(".")
    prefix = f"{room}."
    within = [word.removeprefix(prefix) for word in known if dot and word.startswith(prefix)]
    hint = did_you_mean(name, within, prefix) if within else did_you_mean(given, known)
    return f"unknown {what} {shortened(given)!r}; {hint}"


def coerce(key: str, value: Any, hint: Any) -> Any:
    """Convert the value of a setting to its declared type `hint`; text is parsed.

    `key` is the setting's name, for error messages.

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
        # Comparing the text refuses numpy's truth values too, without importing numpy.
        if hint in (int, float) and str(value) in ("True", "False"):
            raise ValueError
        if hint is int and not isinstance(value, str) and int(value) != value:
            raise ValueError
        converted = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key} = {_quoted(value)}: must be {_type_name(hint)}") from None
    if hint is int and abs(converted) >= LARGEST:
        raise ConfigError(f"{key} = {_quoted(value)}: is too large; give a number below {LARGEST}")
    return converted


def _quoted(value: Any) -> str:
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
    """The value as it is written in TOML."""
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
    """Raise an error if one of the settings `names` of `config` is zero, negative or infinite."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{room}.{name} = {value}: must be above 0, and finite")


def not_negative(config: Any, room: str, *names: str) -> None:
    """Raise an error if one of the settings `names` of `config` is negative or infinite."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(
                f"{room}.{name} = {getattr(config, name)}: must be 0 or above, and finite"
            )


def share(config: Any, room: str, *names: str) -> None:
    """Raise an error if one of the settings `names` of `config` is outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{room}.{name} = {getattr(config, name)}: must lie in [0, 1)")
