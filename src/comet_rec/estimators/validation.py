"""Figures of the validation items: what epochs, a taste's weight and settings are chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.estimators.scoring import PairScores, VectorScores, vectors
from comet_rec.evaluation.metrics import figures
from comet_rec.evaluation.ranking import (
    Ranks,
    drawn_users,
    weighed_full_ranks,
    weighed_ranks,
)
from comet_rec.models import base
from comet_rec.models.comet_config import TASTE_WEIGHTS
from comet_rec.models.interfaces import Scorer

FULL_SCORES = 500_000_000
"""Scores of a validation over the whole catalogue, after each epoch: users are drawn for that."""
LEAST_USERS = 2_000
"""However wide the catalogue: the figures of fewer differ by more than those of two epochs."""
PAIR_SCORES = 20_000_000
"""The same of a model that scores pairs, a thousand times as dear, however few users that is."""


def full_users(model: str) -> int | None:
    """Most users whose whole catalogue is ranked with a model; None for all."""
    found: int | None = base.model_class(model).full_ranking_users
    return found


def validated_users(model: str, scores: Scorer) -> int:
    """Most users whose whole catalogue is ranked after each epoch."""
    if not isinstance(scores, PairScores):
        return max(LEAST_USERS, FULL_SCORES // max(scores.n_items, 1))
    return min(full_users(model) or PAIR_SCORES, max(1, PAIR_SCORES // max(scores.n_items, 1)))


@dataclass(frozen=True)
class Validation:
    """The validation items of a training.

    Parameters
    ----------
    config : Config
        Its ``train.select_by`` says whether the whole catalogue is ranked, too.
    held : HeldOut
    rows : Interactions
        Of the training. Over the whole catalogue they are left out of what a user's item is
        ranked among; the test item, unknown then, is not.
    """

    config: Config
    held: HeldOut
    rows: Interactions

    def figures(self, scores: Scorer) -> dict[str, float]:
        """HR@k and NDCG@k, with "full" in front those over the whole catalogue."""
        return self._of_weights(scores, None, (0.0,))[0.0]

    def weighed(self, model: Any, histories: Any) -> dict[str, float]:
        """Figures under the best weight of the model's taste, which the model keeps."""
        model.taste_weight.fill_(1.0)
        users, items = vectors(model, self.rows, histories)
        k = model.config.embedding_dim
        own, taste = (VectorScores(users[:, of], items[:, of]) for of in (slice(k), slice(k, None)))
        found = self._of_weights(own, taste, TASTE_WEIGHTS)
        best = max(found, key=lambda weight: self.config.train.merit(found[weight]))
        model.taste_weight.fill_(best)
        return found[best]

    def _of_weights(
        self, scores: Scorer, more: Scorer | None, weights: tuple[float, ...]
    ) -> dict[float, dict[str, float]]:
        ranks = weighed_ranks(scores, more, weights, self.held)
        found = {w: self._means(of) for w, of in zip(weights, ranks, strict=True)}
        if self.config.train.select_by == "full":
            held = drawn_users(self.held, validated_users(self.config.name, scores))
            ranks = weighed_full_ranks(scores, more, weights, held, self.rows)
            for weight, of in zip(weights, ranks, strict=True):
                found[weight] |= {f"full {k}": v for k, v in self._means(of).items()}
        return found

    def _means(self, ranks: Ranks) -> dict[str, float]:
        return figures(ranks.better, ranks.tied, self.config.protocol.ties)[0]


def validation_text(figures: Mapping[str, float]) -> str:
    """What a line of progress says of them."""
    names = ("HR@10", "NDCG@10", "full NDCG@10")
    return " ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)
