"""Values that a search tries of each model, where it is given none."""

from __future__ import annotations

from comet_rec.experiments.journal import Space

RATES = (1e-3, 2e-3, 5e-3)
DECAYS = (0.0, 1e-7, 5e-7, 2e-6)

BASELINE: Space = {
    "train.learning_rate": RATES,
    "train.weight_decay": DECAYS,
    "model.embedding_dim": (32, 64, 128),
}
LAYERS = ((32,), (64, 32), (64, 32, 16))
SPACES: dict[str, Space] = {
    "comet": {
        "train.learning_rate": (5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 8e-3),
        "train.weight_decay": (0.0, 1e-6, 5e-6, 1e-5, 5e-5),
    },
    "mf": BASELINE,
    "gmf": BASELINE,
    "svdpp": BASELINE,
    "fism": {**BASELINE, "model.alpha": (0.0, 0.25, 0.5, 0.75, 1.0)},
    "mlp": {**BASELINE, "model.hidden": LAYERS, "model.dropout": (0.0, 0.3)},
    "neumf": {**BASELINE, "model.hidden": LAYERS, "model.dropout": (0.0, 0.3)},
    "convncf": {"train.learning_rate": (5e-4, 1e-3, 2e-3), "train.weight_decay": DECAYS},
    "itemknn": {
        "model.neighbours": (20, 50, 100, 200, 500, 1000),
        "model.shrink": (0.0, 10.0, 50.0, 100.0, 500.0),
    },
    "ease": {"model.l2": (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)},
}
"""What is searched of each model. The paper's grids go down to a rate of 5e-7 and up to a decay
of 5e-5; with batches of thousands and a mean over pairs, the former moves nothing and the latter
leaves nothing, so the grids are cut and go a little further. Closed forms: usual ranges."""
