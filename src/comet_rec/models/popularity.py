"""Popularity: every user gets the same most popular items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.config import positive
from comet_rec.data.arrays import Array
from comet_rec.data.clock import per_second
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models.interfaces import FoldIn, NonIterative


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """Settings of Popularity.

    Parameters
    ----------
    days : int or None
        Count only rows of the last days before the latest training row; None counts all rows. The
        times of the log must be dates that compare across users.
    """

    days: int | None = None

    def __post_init__(self) -> None:
        if self.days is not None:
            positive(self, "model", "days")


class Popularity(NonIterative, FoldIn):
    """Model that scores each item by its number of users, equally for every user.

    With `days`, only users of the last days count.
    """

    def __init__(
        self, config: PopularityConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.config = config
        self.counts = np.zeros(n_items, dtype=np.float32)

    def fit(self, log: Interactions) -> None:
        """Count the users of each item in `log`, or in its last days.

        Raises
        ------
        ConfigError
            With `days`, when the log has no dates.
        """
        items = log.items
        if self.config.days is not None and len(log) > 0:
            items = items[self._recent(log, self.config.days)]
        self.counts = np.bincount(items, minlength=log.n_items).astype(np.float32)

    @staticmethod
    def _recent(log: Interactions, days: int) -> npt.NDArray[np.bool_]:
        """Whether each row is less than `days` days before the latest row, bool [R]."""
        per = None
        if log.times is not None and log.time_scope == "global":
            per = per_second(log.times, dated=log.dated)
        if per is None or log.times is None:
            raise ConfigError(
                f"model.days = {days}: the times of this log are no dates that compare across "
                "users; leave model.days out"
            )
        span = days * 86_400 * per  # whole numbers of Python, which cannot overflow
        return np.asarray(log.times > max(int(log.times.max()) - span, np.iinfo(np.int64).min))

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all n items, [B, n]: the same row for each user."""
        return np.tile(self.counts, (histories.shape[0], 1))

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Zeros, because the score does not depend on the history."""
        return np.zeros(len(history))

    @staticmethod
    def arrays(config: PopularityConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return {"counts": Array(shape=(n_items,))}

    def state_dict(self) -> dict[str, Tensor]:
        """The item counts as a named tensor."""
        return {"counts": torch.from_numpy(self.counts)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        # A copy: sending a tensor to another process frees the memory that its views show.
        self.counts = state["counts"].numpy().copy()
