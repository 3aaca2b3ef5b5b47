"""Settings of COMET."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from comet_rec.config import is_whole, positive, share
from comet_rec.data.histories import HistoryPolicy
from comet_rec.errors import ConfigError
from comet_rec.models.layers import ConvolutionForm

LONGEST_HISTORY = 1 << 16
"""Largest allowed `history_length`. A padded history takes 4 bytes per row for every user and
item."""


@dataclass(frozen=True, kw_only=True)
class CometConfig:
    """Settings of COMET. The defaults are those of the paper; "Choice:" marks what it leaves open.

    Parameters
    ----------
    embedding_dim : int
        K, the size of user and item embeddings.
    history_length : int
        Largest number of rows in an input history, N.
    history : {"sampled", "recent", "causal"}
        Rows of the input history. "sampled" is a random subset, new in each training step. "recent"
        is the latest rows. With "causal", the user history of a training positive is the user's
        rows just before it, and evaluation reads the latest rows; N(i) is a random subset.
        Choice: sampled, new in each training step.
    layers : int
        Number of layers of a user tower over sequences (`models.comet_sequence`), each with its
        own Eqs. 3–7. It needs causal histories and ``towers="user"``; `exclude_target` and
        `history_dropout` then have no effect, since a history ends before its target. With 0 the
        tower is that of the paper. Choice: 0.
    exclude_target : bool
        Leave a batch's positives out of its histories. Choice: true (ADR 0003).
    history_dropout : float
        Largest share of a history's rows that a training step leaves out at random, in addition to
        the batch's positives. It has no effect without `exclude_target`. Choice: 0.5 (ADR 0003).
    widths : tuple of int
        Filter widths H_l. Widths above K become K, and repeated widths are dropped.
    channels : int
        Number of filters of each width.
    convolution : {"frequency", "direct"}
        Form of the computation: Fourier transforms or PyTorch's convolution, with equal results.
    hidden : tuple of int
        Widths of the MLP's hidden layers. Choice: one layer of 256.
    cross : {"cnn+mlp", "cnn", "mlp", "matched-mlp"}
        Computation of p'_u and q'_i from the map. "cnn+mlp": Eqs. 4–7. "cnn" (Figure 3): three
        strided convolutions and the output layer. "mlp" (Figure 3): the MLP on the flattened map.
        "matched-mlp": as "mlp", with one hidden layer that gives the tower as many parameters as
        Eqs. 4–7.
    enrich : {"both", "original", "interaction"}
        Terms of z_u and z_i (Figure 4): "both" adds the ID embedding and the interaction vector,
        "original" has only the ID embedding and no towers, "interaction" only the other term.
    permute_dimensions : bool
        Put the embedding's dimensions in a fixed random order before the convolution.
    shuffle_history : bool
        Put the rows of every history in a random order.
    freeze_filters : bool
        Keep the initial filters of the convolution.
    gate : {"none", "squeeze"}
        Weight for each filter's features before the MLP. "squeeze" is squeeze and excitation.
        Choice: none, as in the paper (ADR 0024).
    towers : {"both", "user"}
        Whether users and items both have a tower. With "user" an item has only its ID embedding,
        z_i = q_i. Choice: both.
    user_embedding : bool
        Whether z_u contains p_u. If false, only the history represents a user. Choice: true.
    dropout : float
        Dropout after each hidden layer; with `layers`, on embeddings and the output of each layer
        too. Choice: 0.3, after the hidden layers.
    id_embedding_dropout : float
        Share of the ID embeddings p_u and q_i that a training step sets to zero. So the towers
        learn to encode users and items that were not in training. The setting has no effect
        without towers. Choice: 0.1 (ADR 0012).
    init_scale : float
        Initial embeddings are uniform in ± this number. Choice: 0.05.
    """

    embedding_dim: int = 128
    history_length: int = 50
    history: HistoryPolicy = "sampled"
    layers: int = 0
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
        if not is_whole(self.layers) or self.layers < 0:
            raise ConfigError(f"model.layers = {self.layers!r}: must be a whole number, 0 or above")
        if self.layers > 0 and not self._reads_sequences:
            raise ConfigError(
                f'model.layers = {self.layers}: needs model.history = "causal", '
                'model.towers = "user", model.cross = "cnn+mlp", model.gate = "none" and no '
                "setting of an ablation; change the setting that differs, or give "
                "model.layers = 0 (as the presets static and blended)"
            )
        if self.cross == "cnn" and min(self.history_length, self.embedding_dim) < 15:
            raise ConfigError(
                'model.cross = "cnn" needs model.history_length and model.embedding_dim of at '
                "least 15: three layers with stride 2 leave nothing of a smaller map"
            )
        if self.gate != "none" and self.cross != "cnn+mlp":
            raise ConfigError(
                f'model.gate = "{self.gate}" weighs the filters of model.cross = "cnn+mlp", and '
                f'"{self.cross}" has no such filters; change one of the two'
            )
        if self.enrich == "original" and not self.user_embedding:
            raise ConfigError(
                'model.enrich = "original" with model.user_embedding = false leaves no user '
                "vector; change one of the two"
            )

    @property
    def _reads_sequences(self) -> bool:
        """Whether the user tower may have layers over sequences."""
        in_order = self.history == "causal" and not self.shuffle_history
        plain = self.cross == "cnn+mlp" and self.gate == "none" and self.enrich != "original"
        as_made = not self.permute_dimensions and not self.freeze_filters
        return in_order and plain and as_made and self.towers == "user"

    @property
    def effective_widths(self) -> tuple[int, ...]:
        """Filter widths, at most K, ascending and without repeats."""
        return tuple(sorted({min(width, self.embedding_dim) for width in self.widths}))

    @property
    def user_table(self) -> bool:
        """Whether the model has user embeddings, for z_u or for the maps of N(i)."""
        own = self.user_embedding and self.enrich != "interaction"
        return own or self.item_tower

    @property
    def user_tower(self) -> bool:
        """Whether users have a tower, which reads N(u)."""
        return self.enrich != "original"

    @property
    def item_tower(self) -> bool:
        """Whether items have a tower, a network that reads N(i), the users of an item."""
        return self.towers == "both" and self.enrich != "original"
