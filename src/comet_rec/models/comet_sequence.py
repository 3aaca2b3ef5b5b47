"""COMET in layers over a sequence: the user tower of the preset `best`.

The causal history of a step is the N items before it, so the steps of a user read overlapping
histories of one sequence. Here each item of the sequence becomes a state, and each layer is the
network of the paper over the states of the latest N items. With item embeddings q and K columns:

    x⁰_t     = LN(q_t)                                    state of the item at place t
    E_t      = rows xˡ_{t−N+1}, …, xˡ_t                    embedding map of place t       (Eq. 2)
    yˡ_t     = tower of layer l on E_t                     convolutions and MLP       (Eqs. 3–7)
    xˡ⁺¹_t   = LN(xˡ_t + yˡ_t)                             residual, and norm
    p'_u     = x_t after the last layer, at the latest item                              (Eq. 8)

So with one layer, p'_u joins the latest item's normed embedding and the interaction vector of the
latest N items, and norms the sum. An empty history has a map of zeros and no latest item. With two
layers p'_u depends on up to 2N − 1 items. In training, all steps of a piece of a user's sequence
are encoded in one pass, by sliding windows.

The filters begin as moving averages: filter c of a width weighs the row of age a by
exp(−a / τ_c), and τ_c grows from 0.3 to N rows over the filters. Random filters would begin as
random sums of N items, and a training would first have to find the latest ones (docs/log.md).

| parameter | shape | initial values |
|---|---|---|
| layers: filters, biases, weights of the MLP | as in `comet` | moving averages; as in `comet` |
| norms: γ and β | [K] | 1 and 0 |
"""

from __future__ import annotations

import contextlib
import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, under
from comet_rec.data.histories import Ragged
from comet_rec.data.prefixes import Prefixes
from comet_rec.models.comet import Tower
from comet_rec.models.comet_config import CometConfig
from comet_rec.models.kernels.cross_features import Layout
from comet_rec.models.layers import MultiWidthConvolution, Norm, Perceptron, drop

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

SHORTEST = 0.3
"""τ of the shortest moving average, in rows: the latest row weighs 28 times the one before it."""
PLACES = 1 << 17
"""Places of padded histories that several layers encode at a time without gradients, to limit
memory."""


class SequenceTower(nn.Module):
    """User tower with layers of COMET over the items of a sequence; see the top of the file.

    Parameters
    ----------
    config : CometConfig
        ``config.layers`` is at least 1.
    rng : torch.Generator
        Draws the initial parameters, layer by layer.
    """

    def __init__(self, config: CometConfig, rng: torch.Generator) -> None:
        super().__init__()
        self.length, self.dropout = config.history_length, config.dropout
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            layer = Tower(config, rng)
            set_moving_averages(layer.convolution, rng)
            self.layers.append(layer)
        self.norms = nn.ModuleList(Norm(config.embedding_dim) for _ in range(config.layers + 1))

    @staticmethod
    def arrays(config: CometConfig) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        k, widths, channels = config.embedding_dim, config.effective_widths, config.channels
        features = Layout(k, widths, channels).features
        filters = MultiWidthConvolution.arrays(config.history_length, widths, channels)
        layer = under("convolution", filters)
        layer |= under("mlp", Perceptron.arrays(features, config.hidden, k))
        declared = under("norms.0", Norm.arrays(k))
        for number in range(config.layers):
            declared |= under(f"layers.{number}", layer)
            declared |= under(f"norms.{number + 1}", Norm.arrays(k))
        return declared

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "U N"] | Prefixes,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """Interaction vectors p'_u of histories.

        Parameters
        ----------
        table : Tensor [V, K]
            Item embeddings q.
        histories : int [U, N] or Prefixes
            Items, padded in front with V, or as prefixes of sequences.
        rng : torch.Generator or None
            Draws dropout; None switches dropout off.
        """
        if isinstance(histories, Prefixes):
            return self._of_prefixes(table, histories, rng)
        size = max(1, PLACES // histories.shape[1])
        if len(self.layers) > 1 and len(histories) > size and not torch.is_grad_enabled():
            parts = torch.split(histories, size)
            return torch.cat([self._of_padded(table, part, rng) for part in parts])
        return self._of_padded(table, histories, rng)

    def _of_prefixes(
        self, table: Float[Tensor, "V K"], histories: Prefixes, rng: torch.Generator | None
    ) -> Float[Tensor, "U K"]:
        """Interaction vectors of histories that are prefixes of sequences."""
        sequences = histories.sequences
        x = self._first(table.index_select(0, sequences.values), rng)  # a state each place, [V, K]
        places = torch.arange(len(x), device=x.device)
        # The sequences of places, with states as their rows. All layers but the last one compute
        # the states of all places.
        states = Ragged(places, sequences.starts)
        last = histories.last
        for number, layer in enumerate(self.layers):
            final = number == len(self.layers) - 1
            read = Prefixes(states, last if final else places)
            windows, window = read.windows(self.length, len(x))
            y = layer(x, windows, rng).index_select(0, window)
            if final:  # an empty history has no latest state: its place is −1
                x = _with_zeros(x, last % (len(x) + 1))
            x = self._next(number, x, y, rng)
        return x

    def _of_padded(
        self, table: Float[Tensor, "V K"], histories: Int[Tensor, "U N"],
        rng: torch.Generator | None,
    ) -> Float[Tensor, "U K"]:  # fmt: skip
        """Interaction vectors of padded histories, whose windows are encoded one by one.

        All shapes follow from those of the arguments, as exported graphs need it.
        """
        n, rows = self.length, histories.long()
        x = self._first(table, rng)  # a state for each item; `rows` are places in x
        for number, layer in enumerate(self.layers[:-1]):
            windows = nnf.pad(rows, (n - 1, 0), value=x.shape[0]).unfold(1, n, 1)  # [U, R, N]
            y = layer(x, windows.reshape(-1, n), rng)
            real = rows != x.shape[0]
            x = self._next(number, _with_zeros(x, rows.flatten()), y, rng)  # [U · R, K]
            rows = torch.arange(x.shape[0], device=x.device).view_as(rows).where(real, x.shape[0])
        y = self.layers[-1](x, rows[:, -n:], rng)
        return self._next(len(self.layers) - 1, _with_zeros(x, rows[:, -1]), y, rng)

    def _first(self, q: Float[Tensor, "V K"], rng: torch.Generator | None) -> Float[Tensor, "V K"]:
        """States x⁰ of embeddings."""
        x: Tensor = self.norms[0](drop(q, self.dropout, rng))
        return x

    def _next(
        self, number: int, x: Float[Tensor, "V K"], y: Float[Tensor, "V K"],
        rng: torch.Generator | None,
    ) -> Float[Tensor, "V K"]:  # fmt: skip
        """States after layer `number`, from its input `x` and its output `y`."""
        states: Tensor = self.norms[number + 1](x + drop(y, self.dropout, rng))
        return states


def _with_zeros(x: Float[Tensor, "V K"], places: Int[Tensor, " U"]) -> Float[Tensor, "U K"]:
    """Rows of `x` at `places`; place V is a row of zeros."""
    return nnf.pad(x, (0, 0, 0, 1)).index_select(0, places)


def set_moving_averages(convolution: MultiWidthConvolution, rng: torch.Generator) -> None:
    """Make the filters moving averages of the latest rows, from short to long for each width.

    Along a row a filter stays random: uniform, with the variance 1/H. So a feature has on average
    the variance of its input, before bias and ReLU.
    """
    for filters in convolution.weights:
        channels, length, width = filters.shape
        tau = torch.logspace(math.log10(SHORTEST), math.log10(max(length, 1)), channels)  # τ_c
        ages = torch.arange(length - 1, -1, -1)  # the latest row is the last one
        shares = torch.exp(-ages / tau[:, None])  # [C, N]
        shares = shares / shares.norm(dim=1, keepdim=True)  # Σ of squares 1, whatever τ_c is
        along = (torch.rand((channels, width), generator=rng) * 2 - 1) * math.sqrt(3 / width)
        filters.data = shares[:, :, None] * along[:, None, :]
