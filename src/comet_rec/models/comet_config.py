"""Settings of COMET."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from comet_rec.config import positive, share
from comet_rec.data.histories import HistoryPolicy
from comet_rec.errors import ConfigError
from comet_rec.models.layers import ConvolutionForm

LONGEST_HISTORY = 1 << 16
"""A table of histories takes 4 bytes a row and owner, whether a tower reads it or not."""


@dataclass(frozen=True, kw_only=True)
class CometConfig:
    """Settings of COMET; the defaults are the paper's, and "Choice:" marks what it leaves open.

    Parameters
    ----------
    embedding_dim : int
        K.
    history_length : int
        Most rows of an input history, N.
    history : {"sampled", "recent", "causal"}
        Rows of the input history. Choice: sampled, new in each training step. Causal: the rows
        of the user just before a training positive, newest last, and the latest rows at
        evaluation; N(i) is sampled.
    exclude_target : bool
        Leave a batch's positives out of its histories. Choice: true (ADR 0003).
    history_dropout : float
        Largest share of a history's other rows that a training step leaves out too, if
        `exclude_target`. Choice: ADR 0003.
    widths : tuple of int
        Filter widths H_l; those above K become K, repeats are dropped.
    channels : int
        Filters of each width.
    convolution : {"frequency", "direct"}
        Two forms of the same numbers.
    hidden : tuple of int
        Hidden layers of the MLP. Choice: one of 256.
    cross : {"cnn+mlp", "cnn", "mlp", "matched-mlp"}
        The way from the map to p'_u (Figure 3): Eqs. 4–7; three strided convolutions and the
        output layer; the flattened map and the MLP; or the same with one hidden layer, so wide
        that the tower has as many parameters as Eqs. 4–7.
    enrich : {"both", "original", "interaction"}
        Parts of z_u and z_i (Figure 4): own embedding and interaction vector, or one of them.
        "original" has no towers.
    permute_dimensions : bool
        Put the embedding's dimensions in a fixed random order before the convolution.
    shuffle_history : bool
        Put the rows of every history in a random order.
    freeze_filters : bool
        Keep the initial filters of the convolution.
    gate : {"none", "squeeze"}
        Weight of each filter's features before the MLP: none, or squeeze and excitation.
        Choice: none, the paper's (ADR 0024).
    towers : {"both", "user"}
        Which sides are encoded; "user" leaves an item its own embedding, z_i = q_i. Choice: both.
    user_embedding : bool
        Whether z_u holds p_u; without it the history alone stands for a user. Choice: true.
    dropout : float
        Dropout after each hidden layer. Choice: 0.3, at that place.
    id_embedding_dropout : float
        Share of own embeddings set to zero in a training step, so that the tower learns to serve
        new users. It has no effect without towers. Choice: ADR 0012.
    init_scale : float
        Embeddings start uniform in ± this. Choice: 0.05.
    """

    embedding_dim: int = 128
    history_length: int = 50
    history: HistoryPolicy = "sampled"
    exclude_target: bool = True
    history_dropout: float = 0.5
    widths: tuple[int, ...] = (1, 8, 32, 128)
    channels: int = 8
    convolution: ConvolutionForm = "frequency"
    hidden: tuple[int, ...] = (256,)
    cross: Literal["cnn+mlp", "cnn", "mlp", "matched-mlp"] = "cnn+mlp"
    enrich: Literal["both", "original", "interaction"] = "both"
    permute_dimensions: bool = False
    shuffle_history: bool = False
    freeze_filters: bool = False
    gate: Literal["none", "squeeze"] = "none"
    towers: Literal["both", "user"] = "both"
    user_embedding: bool = True
    dropout: float = 0.3
    id_embedding_dropout: float = 0.1
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "history_length", "channels", "init_scale")
        share(self, "model", "history_dropout", "dropout", "id_embedding_dropout")
        if self.history_length > LONGEST_HISTORY:
            raise ConfigError(
                f"model.history_length = {self.history_length}: must be at most {LONGEST_HISTORY}"
            )
        for name, values in (("widths", self.widths), ("hidden", self.hidden)):
            if any(value < 1 for value in values):
                raise ConfigError(f"model.{name} = {list(values)}: each must be above 0")
        if not self.widths:
            raise ConfigError("model.widths = []: give at least one filter width")
        if self.cross == "cnn" and min(self.history_length, self.embedding_dim) < 15:
            raise ConfigError(
                'model.cross = "cnn" needs model.history_length and model.embedding_dim of at '
                "least 15: three layers with stride 2 leave nothing of a smaller map"
            )
        if self.gate != "none" and self.cross != "cnn+mlp":
            raise ConfigError(
                f'model.gate = "{self.gate}" weighs the filters of model.cross = "cnn+mlp"; '
                f'"{self.cross}" has none of them'
            )
        if self.enrich == "original" and not self.user_embedding:
            raise ConfigError(
                'model.enrich = "original" with model.user_embedding = false leaves no user'
            )

    @property
    def effective_widths(self) -> tuple[int, ...]:
        """Widths after those above K became K, ascending, without repeats."""
        return tuple(sorted({min(width, self.embedding_dim) for width in self.widths}))

    @property
    def user_table(self) -> bool:
        """Whether anything reads the users' embeddings: z_u, or the map of an N(i)."""
        own = self.user_embedding and self.enrich != "interaction"
        return own or self.item_tower

    @property
    def user_tower(self) -> bool:
        """Whether N(u) is encoded."""
        return self.enrich != "original"

    @property
    def item_tower(self) -> bool:
        """Whether N(i) is encoded."""
        return self.towers == "both" and self.enrich != "original"
