"""Contribution of each item of a history to a score, by one of two methods.

Towers without layer norms use integrated gradients (Sundararajan et al., ICML 2017). A layer norm
undoes the scale of its input, so towers with norms use `joining`: the change of the score when an
item is added to the later ones.

Integrated gradients:

Let f be the score as a function of the embedding map E [N, K]. The gradient of f is integrated on
the straight line from the map 0 to E, and summed over each row:

    a[n] = Σ_k E[n, k] · ∫₀¹ ∂f/∂E[n, k] (α E) dα.

The a[n] add up to f(E) − f(0). With ReLU, f is piecewise linear in α, so the gradient is constant
except at jumps. An interval of α is halved until the contributions in it add up to the difference
of f at its ends. So nearly all evaluated points are near the jumps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.histories import Ragged
from comet_rec.data.prefixes import Prefixes

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float

INTERVALS = 32
"""Number of intervals of α at the start, before any interval is halved."""
ROUNDS = 24
"""Largest number of rounds in which intervals are halved."""
POINTS = 256
"""Number of points α that are evaluated at a time, to limit memory."""
TOLERANCE = 5e-4
"""Largest allowed difference between the sum of the a[n] and f(E) − f(0), by default."""


def integrated_gradients(
    score: Callable[[Float[Tensor, "S N K"]], Float[Tensor, " S"]],
    map_: Float[Tensor, "N K"],
    tolerance: float = TOLERANCE,
) -> Float[Tensor, " N"]:
    """Contribution of each row of `map_` to ``score(map_) − score(0)``, by integrated gradients.

    Parameters
    ----------
    score : callable
        Differentiable function from S maps [S, N, K] to their scores [S].
    map_ : float64 Tensor [N, K]
        Embedding map of one history.
    tolerance : float
        Largest allowed difference between the sum of the contributions and that of the scores.

    Raises
    ------
    ArithmeticError
        When the contributions do not add up to ``score(map_) − score(0)``.
    """
    if len(map_) == 0:
        return map_.new_zeros(0)
    ends = torch.linspace(0, 1, INTERVALS + 1, dtype=map_.dtype)
    with torch.no_grad():
        values = torch.cat(
            [score(block[:, None, None] * map_) for block in torch.split(ends, POINTS)]
        )
    left, right = ends[:-1], ends[1:]
    left_values, right_values = values[:-1], values[1:]
    total = float(values[-1] - values[0])
    parts = torch.zeros(len(map_), dtype=map_.dtype)
    for _ in range(ROUNDS):
        middle = (left + right) / 2
        middle_values, slopes = _values_and_slopes(score, map_, middle)
        inside = slopes * (right - left)[:, None]  # parts of each interval, [S, N]
        # The sum of the parts is known without the gradient: a jump inside shows up here.
        wrong = (right_values - left_values - inside.sum(dim=1)).abs() > tolerance / INTERVALS / 4
        parts += inside[~wrong].sum(dim=0)
        if not wrong.any():
            break
        left, right = (
            torch.cat([left[wrong], middle[wrong]]),
            torch.cat([middle[wrong], right[wrong]]),
        )
        left_values = torch.cat([left_values[wrong], middle_values[wrong]])
        right_values = torch.cat([middle_values[wrong], right_values[wrong]])
    if abs(float(parts.sum()) - total) > tolerance:
        raise ArithmeticError(
            f"the parts of a score add up to {float(parts.sum()):.6g}, not {total:.6g}"
        )
    return parts


def _values_and_slopes(
    score: Callable[[Tensor], Tensor], map_: Tensor, alphas: Tensor
) -> tuple[Float[Tensor, " S"], Float[Tensor, "S N"]]:
    """For each α: the score of the map α·map_, and row sums of map_ times the gradient there."""
    values, slopes = [], []
    for block in torch.split(alphas, POINTS):
        maps = (block[:, None, None] * map_).requires_grad_()  # [S, N, K]
        scores = score(maps)
        gradient = torch.autograd.grad(scores.sum(), maps)[0]
        values.append(scores.detach())
        slopes.append((gradient * map_).sum(dim=2))
    return torch.cat(values), torch.cat(slopes)


def joining(
    encode: Callable[[Prefixes], Float[Tensor, "U K"]],
    history: npt.NDArray[np.int64],
    length: int,
    z_item: Float[Tensor, " K"],
) -> npt.NDArray[np.float64]:
    """Change of the score of an item when each item joins the history, float64 [n].

    The items join from the latest to the oldest, so that the ages of those already there stay as
    they are. The changes add up exactly to the score less that of an empty history.

    Parameters
    ----------
    encode : callable
        Vectors of users, from their histories.
    history : int64 [n]
    length : int
        Most items that `encode` reads.
    z_item : Tensor [K]
        Vector whose inner product with a user vector is the score.
    """
    suffixes = [history[start:][-length:] for start in range(len(history), -1, -1)]  # empty first
    with torch.no_grad():
        scores = encode(Prefixes.whole(Ragged.of_rows(suffixes))).double() @ z_item.double()
    return np.diff(scores.numpy())[::-1].copy()
