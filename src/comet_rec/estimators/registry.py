"""Every model by its name: a class each, and reading one back."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from comet_rec.artefact.run import load_run
from comet_rec.estimators.estimator import Estimator, folder_path
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.models import base


class COMET(Estimator):
    """COMET (arXiv 2007.14129v1): embeddings enriched by convolutions over stacked histories.

    Takes what `Estimator` takes; the model's settings are those of `CometConfig`.
    """

    name = "comet"


class MF(Estimator):
    """BCE-MF: matrix factorisation with biases, trained with binary cross-entropy.

    Takes what `Estimator` takes; the model's settings are those of `MFConfig`.
    """

    name = "mf"


class SVDpp(Estimator):
    """SVD++ on implicit data (Koren 2008).

    Takes what `Estimator` takes; the model's settings are those of `SVDppConfig`.
    """

    name = "svdpp"


class FISM(Estimator):
    """FISM: factored item similarity (Kabbur et al. 2013).

    Takes what `Estimator` takes; the model's settings are those of `FISMConfig`.
    """

    name = "fism"


class GMF(Estimator):
    """GMF: generalised matrix factorisation (He et al. 2017).

    Takes what `Estimator` takes; the model's settings are those of `GMFConfig`.
    """

    name = "gmf"


class MLP(Estimator):
    """MLP: a perceptron on two joined embeddings (He et al. 2017).

    Takes what `Estimator` takes; the model's settings are those of `MLPConfig`.
    """

    name = "mlp"


class NeuMF(Estimator):
    """NeuMF: GMF and MLP side by side (He et al. 2017).

    Takes what `Estimator` takes; the model's settings are those of `NeuMFConfig`.
    """

    name = "neumf"


class ConvNCF(Estimator):
    """ConvNCF: convolutions over an outer product (He et al. 2018).

    Takes what `Estimator` takes; the model's settings are those of `ConvNCFConfig`.
    """

    name = "convncf"


class Popularity(Estimator):
    """The most chosen items for everyone.

    Takes what `Estimator` takes; the model's settings are those of `PopularityConfig`.
    """

    name = "popularity"


class ItemKNN(Estimator):
    """Cosine similarity between items.

    Takes what `Estimator` takes; the model's settings are those of `ItemKNNConfig`.
    """

    name = "itemknn"


class EASE(Estimator):
    """EASE: a linear autoencoder in closed form (Steck 2019).

    Takes what `Estimator` takes; the model's settings are those of `EASEConfig`.
    """

    name = "ease"


class Random(Estimator):
    """Scores without meaning: the floor of every table.

    Takes what `Estimator` takes; the model's settings are those of `RandomConfig`.
    """

    name = "random"


_NAMED = (COMET, MF, SVDpp, FISM, GMF, MLP, NeuMF, ConvNCF, Popularity, ItemKNN, EASE, Random)


def _plain(name: str) -> type[Estimator]:
    """Estimator of a registered model without a class above."""
    model = base.model_class(name)
    return type(model.__name__, (Estimator,), {"name": name, "__doc__": model.__doc__})


def estimators() -> dict[str, type[Estimator]]:
    """Every registered model's estimator, by name."""
    own: dict[str, type[Estimator]] = {estimator.name: estimator for estimator in _NAMED}
    return {**own, **{name: _plain(name) for name in base.names() if name not in own}}


ESTIMATORS = estimators()


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
    parts = {"model": run.config.model, "train": run.config.train}
    model.settings = {
        f"{room}.{f.name}": getattr(part, f.name)
        for room, part in parts.items()
        for f in fields(part)
    }
    model._run = run
    return model
