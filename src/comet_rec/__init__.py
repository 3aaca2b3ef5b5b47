"""comet-rec: COMET, the convolutional dimension interaction recommender, with baselines and data.

Each name is imported at its first use, so ``import comet_rec`` and ``comet-rec --help`` do not
wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comet_rec.data.split import leave_one_out as leave_one_out
    from comet_rec.data.time_split import time_split as time_split
    from comet_rec.datasets.catalog import load as load
    from comet_rec.estimators.evaluate import evaluate as evaluate
    from comet_rec.estimators.registry import COMET as COMET
    from comet_rec.estimators.registry import EASE as EASE
    from comet_rec.estimators.registry import FISM as FISM
    from comet_rec.estimators.registry import GMF as GMF
    from comet_rec.estimators.registry import MF as MF
    from comet_rec.estimators.registry import MLP as MLP
    from comet_rec.estimators.registry import ConvNCF as ConvNCF
    from comet_rec.estimators.registry import ItemKNN as ItemKNN
    from comet_rec.estimators.registry import NeuMF as NeuMF
    from comet_rec.estimators.registry import Popularity as Popularity
    from comet_rec.estimators.registry import Random as Random
    from comet_rec.estimators.registry import SASRec as SASRec
    from comet_rec.estimators.registry import SVDpp as SVDpp
    from comet_rec.estimators.registry import load_model as load_model
    from comet_rec.reading.given import given_test as given_test
    from comet_rec.reading.readers import read as read

__version__ = "0.2.0"

_MODELS = (
    "COMET", "EASE", "FISM", "GMF", "MF", "MLP", "ConvNCF", "ItemKNN", "NeuMF", "Popularity",
    "Random", "SASRec", "SVDpp",
)  # fmt: skip

_HOME = {
    **dict.fromkeys(_MODELS, "comet_rec.estimators.registry"),
    "evaluate": "comet_rec.estimators.evaluate",
    "given_test": "comet_rec.reading.given",
    "leave_one_out": "comet_rec.data.split",
    "load": "comet_rec.datasets.catalog",
    "load_model": "comet_rec.estimators.registry",
    "read": "comet_rec.reading.readers",
    "time_split": "comet_rec.data.time_split",
}

__all__ = [
    *_MODELS,
    "evaluate",
    "given_test",
    "leave_one_out",
    "load",
    "load_model",
    "read",
    "time_split",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'comet_rec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
