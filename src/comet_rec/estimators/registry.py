"""Every model by its name: a class each, and reading one back."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

from comet_rec.artefact.run import load_run
from comet_rec.config import BlendConfig, TrainConfig
from comet_rec.estimators.estimator import Estimator, folder_path
from comet_rec.estimators.presets import OF_A_SOLUTION
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.models import base


class COMET(Estimator):
    """COMET (arXiv 2007.14129v1): embeddings enriched by convolutions over stacked histories.

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "comet"


class MF(Estimator):
    """BCE-MF: matrix factorisation with biases, trained with binary cross-entropy.

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "mf"


class SVDpp(Estimator):
    """SVD++ on implicit data (Koren 2008).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "svdpp"


class FISM(Estimator):
    """FISM: factored item similarity (Kabbur et al. 2013).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "fism"


class GMF(Estimator):
    """GMF: generalised matrix factorisation (He et al. 2017).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "gmf"


class MLP(Estimator):
    """MLP: a perceptron on two joined embeddings (He et al. 2017).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "mlp"


class NeuMF(Estimator):
    """NeuMF: GMF and MLP side by side (He et al. 2017).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "neumf"


class ConvNCF(Estimator):
    """ConvNCF: convolutions over an outer product (He et al. 2018).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "convncf"


class Popularity(Estimator):
    """The most chosen items for everyone.

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "popularity"


class ItemKNN(Estimator):
    """Cosine similarity between items.

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "itemknn"


class EASE(Estimator):
    """EASE: a linear autoencoder in closed form (Steck 2019).

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "ease"


class Random(Estimator):
    """Scores without meaning: the floor of every table.

    Takes what `Estimator` takes, and the settings of its signature.
    """

    name = "random"


_NAMED = (COMET, MF, SVDpp, FISM, GMF, MLP, NeuMF, ConvNCF, Popularity, ItemKNN, EASE, Random)


def _plain(name: str) -> type[Estimator]:
    """Estimator of a registered model without a class above."""
    model = base.model_class(name)
    return type(model.__name__, (Estimator,), {"name": name, "__doc__": model.__doc__})


def estimators() -> dict[str, type[Estimator]]:
    """Every registered model's estimator, by name."""
    named: dict[str, type[Estimator]] = {estimator.name: estimator for estimator in _NAMED}
    return named | {name: _plain(name) for name in base.names() if name not in named}


class _OfThePreset:
    """Default of a setting in a signature."""

    def __repr__(self) -> str:
        return "<the preset's>"


def _signature(name: str) -> inspect.Signature:
    """Parameters of a model's constructor, with the settings that it takes by keyword."""
    common = inspect.signature(Estimator).parameters
    fixed = [common[name] for name in ("preset", "seed", "device")]
    hints = get_type_hints(base.config_class(name))
    training = get_type_hints(TrainConfig)
    if base.non_iterative(name):
        training = {key.split(".")[1]: training[key.split(".")[1]] for key in OF_A_SOLUTION}
    elif base.two_tower(name):
        hints |= {f"blend_{key}": hint for key, hint in get_type_hints(BlendConfig).items()}
    settings = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=DEFAULT, annotation=hint)
        for key, hint in {**training, **hints}.items()
    ]
    return inspect.Signature([*fixed, *settings])


DEFAULT = _OfThePreset()
ESTIMATORS = estimators()
for _name, _estimator in ESTIMATORS.items():
    _estimator.__signature__ = _signature(_name)  # type: ignore[attr-defined]


@undisturbed
def load_model(folder: str | Path, *, device: str = "cpu") -> Estimator:
    """Read a run that `save` or ``comet-rec train`` wrote; the folder alone is enough.

    Raises
    ------
    ArtefactError
        When it is missing, incomplete or damaged.
    """
    run = load_run(folder_path(folder, "load_model"))
    model = ESTIMATORS[run.config.name](seed=run.config.seed, device=device)
    model.preset = run.config.preset
    names = [key for key in run.config.setting_names() if not key.startswith("protocol.")]
    model.settings = {key: run.config.get(key) for key in names}
    model._run = run
    return model
