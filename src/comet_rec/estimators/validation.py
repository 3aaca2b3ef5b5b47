"""Figures of the validation items: what epochs, a taste's weight and settings are chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.estimators.scoring import VectorScores, vectors
from comet_rec.evaluation.ranking import (
    Ranks,
    Report,
    Scores,
    drawn_users,
    weighed_full_ranks,
    weighed_ranks,
)
from comet_rec.models import base
from comet_rec.models.comet_config import TASTE_WEIGHTS

FULL_SCORES = 500_000_000
"""Scores of a validation over the whole catalogue, after each epoch: users are drawn for that."""


def full_users(model: str) -> int | None:
    """Most users whose whole catalogue is ranked with a model; None for all."""
    return getattr(base.model_class(model), "full_users", None)


@dataclass(frozen=True)
class Validation:
    """The validation items of a training.

    Parameters
    ----------
    config : Config
        Its ``train.select_by`` says whether the whole catalogue is ranked, too.
    held : HeldOut
    rows : Interactions
        Of the training; no candidate is among a user's.
    """

    config: Config
    held: HeldOut
    rows: Interactions

    def figures(self, scores: Scores) -> dict[str, float]:
        """HR@k and NDCG@k, with "full" in front those over the whole catalogue."""
        return self._of_weights(scores, None, (0.0,))[0.0]

    def weighed(self, model: Any, histories: Any) -> dict[str, float]:
        """Figures under the best weight of the model's taste, which the model keeps."""
        model.taste_weight.fill_(1.0)
        users, items = vectors(model, self.rows, histories)
        k = model.config.embedding_dim
        own, taste = (VectorScores(users[:, of], items[:, of]) for of in (slice(k), slice(k, None)))
        found = self._of_weights(own, taste, TASTE_WEIGHTS)
        best = max(found, key=lambda weight: found[weight][self.config.train.selects])
        model.taste_weight.fill_(best)
        return found[best]

    def _of_weights(
        self, scores: Scores, more: Scores | None, weights: tuple[float, ...]
    ) -> dict[float, dict[str, float]]:
        ranks = weighed_ranks(scores, more, weights, self.held)
        found = {w: _means(of, self.held) for w, of in zip(weights, ranks, strict=True)}
        if self.config.train.select_by == "full":
            held = self._drawn(scores.n_items)
            ranks = weighed_full_ranks(scores, more, weights, held, self.rows)
            for weight, of in zip(weights, ranks, strict=True):
                found[weight] |= {f"full {k}": v for k, v in _means(of, held).items()}
        return found

    def _drawn(self, n_items: int) -> HeldOut:
        most = max(1, FULL_SCORES // max(n_items, 1))
        own = full_users(self.config.name)
        return drawn_users(self.held, most if own is None else min(most, own))


def validation_text(figures: Mapping[str, float]) -> str:
    """What a line of progress says of them."""
    names = ("HR@10", "NDCG@10", "full NDCG@10")
    return " ".join(f"{name} {figures[name]:.4f}" for name in names if name in figures)


def _means(ranks: Ranks, held: HeldOut) -> dict[str, float]:
    return Report("", {}, held.users, ranks, None).sampled
