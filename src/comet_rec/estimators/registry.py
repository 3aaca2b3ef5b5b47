"""All models by name, one estimator class each, and `load_model`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

from comet_rec.artefact.run import Run, load_run
from comet_rec.config import BlendConfig, TrainConfig
from comet_rec.estimators.estimator import Estimator, folder_path
from comet_rec.estimators.presets import OF_A_SOLUTION
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.models import base


class COMET(Estimator):
    """COMET (arXiv 2007.14129v1): embeddings enriched by convolutions over histories.

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "comet"


class MF(Estimator):
    """MF: matrix factorisation with biases and binary cross-entropy ("BCE-MF" in the paper).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "mf"


class SVDpp(Estimator):
    """SVD++: matrix factorisation plus the items of a history, on implicit data (Koren 2008).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "svdpp"


class FISM(Estimator):
    """FISM: factored item similarity (Kabbur et al. 2013).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "fism"


class GMF(Estimator):
    """GMF: generalised matrix factorisation (He et al. 2017).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "gmf"


class MLP(Estimator):
    """MLP: a multi-layer perceptron on the concatenated embeddings of a pair (He et al. 2017).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "mlp"


class NeuMF(Estimator):
    """NeuMF: GMF and MLP combined in one output layer (He et al. 2017).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "neumf"


class ConvNCF(Estimator):
    """ConvNCF: convolutions over the outer product of two embeddings (He et al. 2018).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "convncf"


class SASRec(Estimator):
    """SASRec: causal self-attention over a user's latest items (Kang and McAuley 2018).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "sasrec"


class Popularity(Estimator):
    """Popularity: the same most popular items for every user.

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "popularity"


class ItemKNN(Estimator):
    """ItemKNN: nearest neighbours of items by cosine similarity.

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "itemknn"


class EASE(Estimator):
    """EASE: a linear item-item autoencoder with a closed-form solution (Steck 2019).

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "ease"


class Random(Estimator):
    """Random scores, as a lower bound for comparisons.

    The arguments are those of `Estimator`; the signature lists every setting.
    """

    name = "random"


_NAMED = (
    COMET, MF, SVDpp, FISM, GMF, MLP, NeuMF, ConvNCF, SASRec, Popularity, ItemKNN, EASE, Random
)  # fmt: skip


def _plain(name: str) -> type[Estimator]:
    """Make an estimator class for a registered model without a class in this file."""
    model = base.model_class(name)
    return type(model.__name__, (Estimator,), {"name": name, "__doc__": model.__doc__})


def estimators() -> dict[str, type[Estimator]]:
    """Estimator classes of all registered models, by name."""
    named: dict[str, type[Estimator]] = {estimator.name: estimator for estimator in _NAMED}
    return named | {name: _plain(name) for name in base.names() if name not in named}


class _OfThePreset:
    """Default value of a setting in a signature: the preset decides."""

    def __repr__(self) -> str:
        return "<the preset's>"


def _signature(name: str) -> inspect.Signature:
    """Signature of the estimator for model `name`, with every setting as a keyword argument."""
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
    """Load a model that `save` or ``comet-rec train`` wrote.

    Parameters
    ----------
    folder : path
        Folder of the run. It contains everything: settings, weights, ids, log and split.
    device : str
        Device for encoding new users and for further training: "cpu", "cuda", "cuda:1" or "mps".

    Returns
    -------
    Estimator
        The fitted model, as an object of its estimator class, e.g. `COMET`.

    Raises
    ------
    ArtefactError
        When the folder is missing, is not a run, is incomplete, or is damaged.
    ConfigError
        When this machine has no such device.
    InputError
        When `folder` is not a path.
    """
    return model_of(load_run(folder_path(folder, "load_model")), device)


def model_of(run: Run, device: str = "cpu") -> Estimator:
    """Fitted model of a run.

    Raises
    ------
    ConfigError
        When this machine has no such device.
    """
    model = ESTIMATORS[run.config.name](seed=run.config.seed, device=device)
    model.preset = run.config.preset
    names = [key for key in run.config.setting_names() if not key.startswith("protocol.")]
    model.settings = {key: run.config.get(key) for key in names}
    model._run = run
    return model
