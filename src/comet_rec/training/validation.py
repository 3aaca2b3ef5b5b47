"""Figures of the validation items, which choose epochs, the weight of a blend and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.evaluation.metrics import figures
from comet_rec.evaluation.ranking import (
    Ranks,
    drawn_users,
    weighed_full_ranks,
    weighed_ranks,
)
from comet_rec.evaluation.scoring import PairScores, full_users, model_scores
from comet_rec.models.interfaces import Scorer

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Weights of the second model of a blend that the validation items choose from."""
FULL_SCORES = 500_000_000
"""Most scores of a full ranking after each epoch; above it, a sample of users is ranked."""
LEAST_USERS = 2_000
"""Fewest users of that sample: with fewer, noise is larger than the change between epochs."""
PAIR_SCORES = 20_000_000
"""Most scores where a model scores pairs, a thousand times as slow, however few users remain."""


def validated_users(model: str, scores: Scorer) -> int:
    """Most users of the full ranking after each epoch."""
    if not isinstance(scores, PairScores):
        return max(LEAST_USERS, FULL_SCORES // max(scores.n_items, 1))
    return min(full_users(model) or PAIR_SCORES, max(1, PAIR_SCORES // max(scores.n_items, 1)))


@dataclass(frozen=True)
class Validation:
    """The validation items of a training.

    Parameters
    ----------
    config : Config
        ``train.selection_metric`` says whether there is a full ranking too.
    held : HeldOut
    rows : Interactions
        The training rows. A full ranking hides their items; it does not know the test item.
    second : Scorer or None
        Scores of the second model of a blend, trained on the same rows.
    weights : list of float
        Weight of the second model that was best after each epoch.
    """

    config: Config
    held: HeldOut
    rows: Interactions
    second: Scorer | None = None
    weights: list[float] = field(default_factory=list)

    def __call__(self, model: Any, histories: Any = None) -> dict[str, float]:
        """Figures of a model with these histories; in a blend, with the best weight."""
        scores = model_scores(model, self.rows, histories)
        return self.figures(scores) if self.second is None else self.blended(scores)

    def figures(self, scores: Scorer) -> dict[str, float]:
        """HR@k and NDCG@k among sampled candidates; figures of a full ranking begin with "full"."""
        return self._of_weights(scores, None, (0.0,))[0.0]

    def blended(self, scores: Scorer) -> dict[str, float]:
        """Figures of score + weight · second score with the best weight, which joins `weights`."""
        by_weight = self._of_weights(scores, self.second, WEIGHTS)
        best = max(by_weight, key=lambda weight: self.config.train.merit(by_weight[weight]))
        self.weights.append(float(np.float32(best)))
        return by_weight[best]

    def _of_weights(
        self, scores: Scorer, second: Scorer | None, weights: tuple[float, ...]
    ) -> dict[float, dict[str, float]]:
        ranks = weighed_ranks(scores, second, weights, self.held)
        by_weight = {w: self._means(of) for w, of in zip(weights, ranks, strict=True)}
        if self.config.train.selection_metric == "full":
            held = drawn_users(self.held, validated_users(self.config.name, scores))
            full_ranks = weighed_full_ranks(scores, second, weights, held, self.rows)
            for weight, ranks_of_weight in zip(weights, full_ranks, strict=True):
                full = self._means(ranks_of_weight)
                by_weight[weight] |= {f"full {name}": value for name, value in full.items()}
        return by_weight

    def _means(self, ranks: Ranks) -> dict[str, float]:
        return figures(ranks.better, ranks.tied, self.config.protocol.ties)[0]


def validation_text(figures: Mapping[str, float]) -> str:
    """Text of validation figures in a line of progress."""
    names = ("HR@10", "NDCG@10", "full NDCG@10")
    return " ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)
