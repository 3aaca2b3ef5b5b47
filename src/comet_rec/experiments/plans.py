"""Plans of a study: budgets, parts of a report, and the jobs (trainings) of each part on a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from comet_rec.config import unknown
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import MEDIUM, VARIANTS, large_tables, preset
from comet_rec.experiments.compare import PRETRAINED, shared_sizes
from comet_rec.experiments.jobs import Job

Settings = Mapping[str, Any]
"""Dotted keys and values."""

NON_ITERATIVE = ("popularity", "itemknn", "ease")
"""Models that are trained without epochs and without random draws."""


@dataclass(frozen=True)
class Budget:
    """Size of a study: its logs, seeds and settings.

    Parameters
    ----------
    name : str
    logs : tuple of str
        Names of data sets to study by default.
    seeds : int
        Number of training seeds for tables and falsifications, that is, for COMET with changes that
        must hurt it.
    neural : mapping
        Settings of all models that are trained in epochs.
    models : mapping
        Settings of single models, by registered name.
    compared : mapping
        Settings of Figures 3 and 6 and of falsifications, whose models are compared only with each
        other.
    large : mapping
        Settings of COMET in Tables IV and V, figures and falsifications, on a log with many users
        and items. There the paper's sizes would take half an hour for each training.
    falsified : mapping
        Further settings of falsifications, which are trained with every seed.
    dims : tuple of int
        Values of K in Figure 6.
    warning : str
        Warning below every section of the report's HTML page; empty for no warning.
    """

    name: str
    logs: tuple[str, ...]
    seeds: int
    neural: Settings = field(default_factory=dict)
    models: Mapping[str, Settings] = field(default_factory=dict)
    compared: Settings = field(default_factory=dict)
    large: Settings = field(default_factory=dict)
    falsified: Settings = field(default_factory=dict)
    dims: tuple[int, ...] = (16, 32, 64, 128)
    warning: str = ""

    def settings(self, model: str) -> dict[str, Any]:
        """Settings of a model by dotted key; `model` is its registered name."""
        neural = {} if model in NON_ITERATIVE else self.neural
        return {**neural, **self.models.get(model, {})}


SMOKE = Budget(
    name="smoke",
    logs=("ml-100k",),
    seeds=1,
    neural={
        "model.embedding_dim": 16, "train.epochs": 3, "train.patience": 0, "train.refit": False,
        "train.learning_rate": 5e-3,
    },
    models={
        "comet": {
            "model.history_length": 20, "model.hidden": (32,), "train.batch_size": 2048,
            "train.epochs": 10,
        },
        "mlp": {"model.hidden": (16, 8)},
        "neumf": {"model.hidden": (16, 8)},
        "convncf": {"train.epochs": 1},
    },
    dims=(4, 8, 16, 32),
    warning="Budget smoke: no figure here says anything about a model.",
)  # fmt: skip
FULL = Budget(
    name="full",
    logs=("ml-1m", "amazon-movies", "amazon-cds"),
    seeds=3,
    neural={"train.matmul_precision": "medium"},
    compared={"train.refit": False},
    large={"model.embedding_dim": 64, "train.refit": False},
    falsified={"model.embedding_dim": 32},
    models={"convncf": {"train.epochs": 2, "train.patience": 0, "train.refit": False}},
)
BUDGETS = {budget.name: budget for budget in (SMOKE, FULL)}

ALGORITHMS = {
    "BCE-MF": "mf",
    "SVD++": "svdpp",
    "FISM": "fism",
    "MLP": "mlp",
    "GMF": "gmf",
    "NeuMF": "neumf-p",
    "ConvNCF": "convncf-p",
    "COMET": "comet",
}
"""The paper's name of an algorithm → its name in this library.

Models in `PRETRAINED` are initialised by other models.
"""
BESIDE = {"Popularity": "popularity", "ItemKNN": "itemknn", "EASE": "ease"}
"""Label → name of simple baselines that the paper does not have."""
FILTER_SETS: dict[str, Settings] = {
    "COMET(1)": {"model.widths": (1,)},
    "COMET(1,8)": {"model.widths": (1, 8)},
    "COMET(1,8,32)": {"model.widths": (1, 8, 32)},
    "COMET(1,8,32,128)": {"model.widths": (1, 8, 32, 128)},
}
FIGURE_3: dict[str, Settings] = {
    "COMET": {},
    "CNN only": {"model.cross": "cnn"},
    "MLP only, 1 layer": {"model.cross": "mlp"},
    "MLP only, 2 layers": {"model.cross": "mlp", "model.hidden": (256, 128)},
    "MLP only, 3 layers": {"model.cross": "mlp", "model.hidden": (256, 128, 64)},
}
NO_TOWERS: Settings = {"model.enrich": "original", "model.id_embedding_dropout": 0.0}
FIGURE_4: dict[str, Settings] = {
    "COMET": {},
    "original only": NO_TOWERS,
    "interaction only": {"model.enrich": "interaction"},
}
NO_DECAY: Settings = {"train.weight_decay": 0.0}
"""Settings of trainings that vary another setting than the decay; Figure 6 varies the decay."""
DECAYS = (0.0, 1e-6, 5e-6, 1e-5, 5e-5)
CHANNELS = (4, 8, 16)
FALSIFICATIONS: dict[str, str] = {
    "dimensions permuted": "permuted-dimensions",
    "history shuffled": "shuffled-history",
    "filters frozen as drawn": "frozen-filters",
    "perceptron of the same size": "matched-mlp",
    "target kept in the history": "kept-target",
}
BEST = "COMET, preset blended"
FULL_RANKING, SAMPLED = "by the whole catalogue", "by drawn items"
BY_FULL: Settings = {"train.selection_metric": "full"}
BY_SAMPLED: Settings = {"train.selection_metric": "sampled"}
BLEND = "a taste beside it"
STEPS: dict[str, tuple[str, ...]] = {
    "causal histories": ("model.history",),
    "rate, decay, schedule, averaging": (
        "train.batch_size", "train.learning_rate", "train.weight_decay", "train.schedule",
        "train.warmup", "train.average", "train.epochs", "train.full_epochs", "train.patience",
        "train.positives_per_user", "train.negative_pool",
    ),
    "softmax": ("train.loss", "train.softmax_items"),
    "touched items masked": ("train.mask_known_positives",),
    "the user's tower alone": ("model.towers",),
    "K": ("model.embedding_dim",),
    "N": ("model.history_length",),
    "refit": ("train.refit",),
    BLEND: ("blend.model", "blend.embedding_dim", "blend.alpha", "blend.preset"),
    f"chosen {FULL_RANKING}": ("train.selection_metric",),
}  # fmt: skip
"""Step of the ablation from static COMET to the preset `best` → settings that it changes.

The blend adds the scores of a second model; its label has the words "a taste". It comes after the
refit, so the row above it is `best` without a blend, which other tables show too. Selection by full
metrics comes last, since the other models are selected by sampled metrics.
"""
FALSIFICATIONS_OF_BEST: dict[str, Settings] = {
    "COMET, best without a taste": {},
    "history shuffled": {"model.shuffle_history": True},
    "filters frozen as drawn": {"model.freeze_filters": True},
    "perceptron of the same size": {"model.cross": "matched-mlp"},
    "no tower": NO_TOWERS,
}
TIE_MODELS = {"EASE": ("ease", "paper"), "BCE-MF": ("mf", "paper"), BEST: ("comet", "blended")}
"""Models to compare under several orders of equal times: label → name and preset.

Two of them ignore the order of rows, and one uses it.
"""


@dataclass(frozen=True)
class Planner:
    """Maker of the jobs (trainings) of each part of a report, for one log and one budget.

    Parameters
    ----------
    name : str
        Name of the log within the study.
    log : Interactions
    budget : Budget
    searched : mapping
        Model → best settings of a search on this log that began from the preset `paper`. The tables
        of algorithms use these settings, except those that the budget fixes.
    searched_full : mapping
        The same for searches that maximised full metrics. They give further rows of the results
        beyond the paper.
    """

    name: str
    log: Interactions
    budget: Budget
    searched: Mapping[str, Settings] = field(default_factory=dict)
    searched_full: Mapping[str, Settings] = field(default_factory=dict)

    @property
    def paper(self) -> str:
        """Preset of the paper's COMET; small logs need more steps and get `static`."""
        return "static" if len(self.log) < MEDIUM else "paper"

    def job(
        self, label: str, name: str, more: Settings | None = None, preset: str | None = None
    ) -> Job:
        """Job of a model with the settings of the budget, overridden by `more`.

        `name` is the model's name as in `compare`; without `preset`, the job has that of the paper.
        """
        model, sources = PRETRAINED.get(name, (name, {}))
        preset = preset or (self.paper if model == "comet" else "paper")
        refit = {"train.refit": self._refits()} if preset == "static" else {}
        settings = {**refit, **self.budget.settings(model), **(more or {})}
        job = Job(self.name, label, model, preset, tuple(sorted(settings.items())))
        starts = (self._start(job, source, fixed) for source, fixed in sources.items())
        return replace(job, starts=tuple(starts))

    def _start(self, job: Job, source: str, fixed: Settings) -> Job:
        """Job of the model `source`, whose weights initialise the model of `job`.

        It gets the settings `fixed`, and the sizes and the refit of `job`.
        """
        label = f"{source} before {job.label}"
        config = job.estimator().config_for(self.log)
        plain = self.job(label, source, fixed).estimator().config_for(self.log)
        sizes = shared_sizes(config.model, plain.model)
        return self.job(label, source, {**fixed, **sizes, "train.refit": config.train.refit})

    def algorithms(self) -> list[Job]:
        """Jobs of Tables II and III, and of the baselines beside the paper's algorithms."""
        return [
            self.job(label, name, self._searched_settings(name, self.searched))
            for label, name in {**BESIDE, **ALGORITHMS}.items()
        ]

    def taken(self) -> list[str]:
        """Labels of the algorithms whose settings come from a search on this log."""
        models = {**BESIDE, **ALGORITHMS}.items()
        return [label for label, name in models if self._searched_settings(name, self.searched)]

    def _searched_settings(self, name: str, searched: Mapping[str, Settings]) -> Settings:
        """Settings that a search found for a model, except those that the budget fixes.

        They are empty for a pre-trained model or another preset.
        """
        if name in PRETRAINED or (name == "comet" and self.paper != "paper"):
            return {}
        settled = self.budget.settings(name)
        return {k: v for k, v in searched.get(name, {}).items() if k not in settled}

    def filters(self) -> list[Job]:
        """Jobs of Tables IV and V."""
        return self._variants(FILTER_SETS, {**NO_DECAY, **self._smaller()})

    def figure_3(self) -> list[Job]:
        """Jobs of COMET, CNN only and MLP only."""
        return self._compared(FIGURE_3)

    def figure_4(self) -> list[Job]:
        """Jobs of COMET, ID embeddings only and interaction vectors only.

        All of them have a refit if the tables have one. At the test, histories contain the
        validation row. Without a refit, a model without histories would not know this row.
        """
        settings = {k: v for k, v in self._smaller().items() if k != "train.refit"}
        return self._variants(FIGURE_4, {**NO_DECAY, **settings})

    def figure_5(self) -> list[Job]:
        """Job of the COMET whose kernels the report shows."""
        return [self.job("COMET", "comet", self._searched_settings("comet", self.searched))]

    def figure_6(self) -> dict[str, list[Job]]:
        """Jobs of COMET over embedding size, weight decay and channels, by dotted key."""
        grids = {
            "model.embedding_dim": self.budget.dims,
            "train.weight_decay": DECAYS,
            "model.channels": CHANNELS,
        }
        return {
            key: self._compared({f"{key} = {value:g}": {key: value} for value in values})
            for key, values in grids.items()
        }

    def falsifications(self) -> list[Job]:
        """Jobs of COMET, and of changes to it.

        The changes must hurt COMET if its convolution works as the paper says.
        """
        variants = {"COMET": self.budget.falsified}
        for label, name in FALSIFICATIONS.items():
            changes = {f"model.{key}": value for key, value in VARIANTS[name].items()}
            variants[label] = {**self.budget.falsified, **changes}
        return self._compared(variants)

    def falsifications_of_best(self) -> list[Job]:
        """Jobs of the preset `best` without its second model, and of changes to it.

        The changes show what its filters contribute.
        """
        return self._variants(FALSIFICATIONS_OF_BEST, self._without_blend(), preset="blended")

    def beyond(self) -> list[Job]:
        """Jobs beyond the paper: the preset `best`, its variants, and models to compare with."""
        blended, without = preset("blended", "comet", self.log), self._without_blend()
        static = self.job("COMET, static", "comet", self._searched_settings("comet", self.searched))
        variants: dict[str, Settings] = {BEST: {}}
        opponents = [job for job in self.algorithms() if job.label != "COMET"]
        if any(blended.get(key) != without[key] for key in STEPS[BLEND]):
            variants["COMET, best without a taste"] = without
        if blended.get("blend.preset") == "best":
            size = preset("paper", "fism", self.log).model.embedding_dim
            plain = {**BY_SAMPLED, "blend.preset": "paper", "blend.embedding_dim": size}
            variants["COMET, best, its taste by BCE"] = plain
            opponents += [
                self.job("FISM, softmax", "fism", BY_SAMPLED, preset="best"),
                self.job(f"FISM, softmax, {FULL_RANKING}", "fism", BY_FULL, preset="best"),
            ]
        if blended.train.selection_metric == "full":
            variants[f"COMET, best, {SAMPLED}"] = BY_SAMPLED
        else:
            variants[f"COMET, best, {FULL_RANKING}"] = BY_FULL
        for label, name in {**BESIDE, **ALGORITHMS}.items():
            settings = self._searched_settings(name, self.searched_full)
            if settings:
                opponents.append(self.job(f"{label}, {FULL_RANKING}", name, settings))
        return [*self._variants(variants, preset="blended"), static, *opponents]

    def _without_blend(self) -> dict[str, Any]:
        """Settings that remove the second model of `best` and select by sampled metrics."""
        paper = preset(self.paper, "comet", self.log)
        return {**BY_SAMPLED, **{key: paper.get(key) for key in STEPS[BLEND]}}

    def ablation(self) -> list[Job]:
        """Jobs from static COMET to the preset `best`, one for each step of `STEPS`.

        A step that changes nothing has no job. Each job is `best`, but the settings of later steps
        have the values of static COMET. Settings that the budget fixes are the same in all jobs.
        """
        paper, best = (preset(name, "comet", self.log) for name in (self.paper, "blended"))
        changes = {
            label: {key: value for key in keys if (value := paper.get(key)) != best.get(key)}
            for label, keys in STEPS.items()
        }
        fixed = self.budget.settings("comet")
        for change in changes.values():
            for key in fixed:
                change.pop(key, None)
        changes["refit"] = {"train.refit": False} if self._refits() else {}
        changes = {label: back for label, back in changes.items() if back}
        # Settings that still have their values of static COMET; each row removes those of its step.
        back = {key: value for step in changes.values() for key, value in step.items()}
        jobs = [self.job("static COMET, no refit", "comet", back, preset="blended")]
        for label, step in changes.items():
            back = {key: value for key, value in back.items() if key not in step}
            if label in ("K", "N"):
                label = f"{label} = {best.get(*STEPS[label])}"
            jobs.append(self.job(f"+ {label}", "comet", back, preset="blended"))
        return jobs

    def _compared(self, variants: Mapping[str, Settings]) -> list[Job]:
        """Jobs of variants of COMET that are compared only with each other."""
        return self._variants(variants, {**NO_DECAY, **self.budget.compared, **self._smaller()})

    def _variants(
        self,
        variants: Mapping[str, Settings],
        fixed: Settings | None = None,
        preset: str | None = None,
    ) -> list[Job]:
        """Job of COMET for each label: settings in `fixed`, overridden by those of the label."""
        return [
            self.job(label, "comet", {**(fixed or {}), **settings}, preset)
            for label, settings in variants.items()
        ]

    def _smaller(self) -> Settings:
        """Settings that make training cheaper on a log with many users and items, else none."""
        return self.budget.large if self.paper == "paper" and large_tables(self.log) else {}

    def _refits(self) -> bool:
        """Whether the budget trains COMET again with the validation rows."""
        return bool(self.budget.settings("comet").get("train.refit", True))

    def ties(self) -> list[Job]:
        """Jobs of the models that are compared under several orders of equal times."""
        return [
            self.job(label, model, {} if model in NON_ITERATIVE else self.budget.compared, preset)
            for label, (model, preset) in TIE_MODELS.items()
        ]


PAPER = ("table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5")
OURS = ("falsification", "reliability", "ties", "beyond", "ablation", "falsification-best")
PARTS = (*PAPER, "figure6", *OURS)
"""All parts of a report. Tables II and III are one section; so are Tables IV and V."""

JobsOf = Callable[[Planner], list[Job]]
SEVERAL_SEEDS: dict[str, JobsOf] = {
    "table2": Planner.algorithms,
    "table3": Planner.algorithms,
    "table4": Planner.filters,
    "table5": Planner.filters,
    "beyond": Planner.beyond,
    "ablation": Planner.ablation,
    "falsification": Planner.falsifications,
    "falsification-best": Planner.falsifications_of_best,
}
"""Part → function that makes its jobs, for parts with several training seeds."""
ONE_SEED: dict[str, JobsOf] = {
    "figure5": Planner.figure_5,
    "reliability": Planner.algorithms,
    "figure3": Planner.figure_3,
    "figure4": Planner.figure_4,
    "figure6": lambda planner: [*chain(*planner.figure_6().values())],
}
"""Part → function that makes its jobs, for parts with one training seed."""


def parts_of(asked: Sequence[str]) -> list[str]:
    """The requested parts, in the order of a report; the name `all` stands for every part.

    Raises
    ------
    ConfigError
        If a part is unknown; the message names the most similar part.
    """
    for name in asked:
        if name not in (*PARTS, "all"):
            raise ConfigError(unknown("part", name, [*PARTS, "all"]))
    return [name for name in PARTS if name in asked or "all" in asked]
