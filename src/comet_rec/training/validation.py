"""Metrics of the validation items, which choose the epoch, the weight of a blend and settings."""

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
"""Weights of a blend's second model, from which the validation items choose the best."""
FULL_SCORES = 500_000_000
"""Largest number of scores in the full ranking after an epoch. With more, a sample of the users is
ranked."""
LEAST_USERS = 2_000
"""Fewest users in the sample for a full ranking. With fewer, noise hides the change between
epochs."""
PAIR_SCORES = 20_000_000
"""Largest number of scores in the full ranking of a model that scores pairs. Such a model is about
a thousand times as slow, so the limit holds even if fewer than `LEAST_USERS` users remain."""


def validated_users(model: str, scores: Scorer) -> int:
    """Largest number of users in the full ranking after an epoch."""
    if not isinstance(scores, PairScores):
        return max(LEAST_USERS, FULL_SCORES // max(scores.n_items, 1))
    return min(full_users(model) or PAIR_SCORES, max(1, PAIR_SCORES // max(scores.n_items, 1)))


@dataclass(frozen=True)
class Validation:
    """Ranks the validation items after each epoch of a training.

    Parameters
    ----------
    config : Config
        If ``train.selection_metric`` is "full", there is a full ranking too.
    held : HeldOut
    rows : Interactions
        The training rows. A full ranking leaves their items out, but not the test items.
    second : Scorer or None
        Scores of a blend's second model, trained on the same rows.
    weights : list of float
        Best weight of the second model after each epoch; `blended` appends to the list.
    """

    config: Config
    held: HeldOut
    rows: Interactions
    second: Scorer | None = None
    weights: list[float] = field(default_factory=list)

    def __call__(self, model: Any, histories: Any = None) -> dict[str, float]:
        """Metrics of a model with these histories; for a blend, with the best weight."""
        scores = model_scores(model, self.rows, histories)
        return self.figures(scores) if self.second is None else self.blended(scores)

    def figures(self, scores: Scorer) -> dict[str, float]:
        """HR@k and NDCG@k over sampled candidates; if selected, full metrics too ("full HR@10")."""
        return self._of_weights(scores, None, (0.0,))[0.0]

    def blended(self, scores: Scorer) -> dict[str, float]:
        """Metrics of score + weight · second score with the best weight, appended to `weights`."""
        by_weight = self._of_weights(scores, self.second, WEIGHTS)
        best = max(by_weight, key=lambda weight: self.config.train.merit(by_weight[weight]))
        self.weights.append(float(np.float32(best)))
        return by_weight[best]

    def _of_weights(
        self, scores: Scorer, second: Scorer | None, weights: tuple[float, ...]
    ) -> dict[float, dict[str, float]]:
        ranks = weighed_ranks(scores, second, weights, self.held)
        by_weight = {w: self._means(part) for w, part in zip(weights, ranks, strict=True)}
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
    """Text of the main validation metrics for a line of progress."""
    names = ("HR@10", "NDCG@10", "full NDCG@10")
    return " ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)
