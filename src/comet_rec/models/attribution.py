"""Integrated gradients: what each row of a map adds to a score (Sundararajan et al., ICML 2017).

Let f be the score as a function of the embedding map E [N, K]. On the straight way from the empty
map 0 to E, the gradient of f is summed up row by row:

    a[n] = Σ_k E[n, k] · ∫₀¹ ∂f/∂E[n, k] (α E) dα.

The a[n] add up to f(E) − f(0). With ReLU, f is piecewise linear in α, so the gradient jumps at the
kinks. The midpoint rule is refined until the sum agrees with f(E) − f(0) and no part moves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float

LEAST_STEPS, MOST_STEPS = 64, 16_384
"""Points on the way from the empty map to the map."""
STEPS = 256
"""Points whose maps are made at a time."""
TOLERANCE = 1e-4
"""Largest difference of the sum from f(E) − f(0), and ten times as much of a part from its value
with fewer steps; shares of |f(E) − f(0)| where that is above 1."""


def integrated_gradients(
    score: Callable[[Float[Tensor, "S N K"]], Float[Tensor, " S"]], map_: Float[Tensor, "N K"]
) -> Float[Tensor, " N"]:
    """Parts of ``score(map_) − score(0)`` that the rows of a map give.

    Parameters
    ----------
    score : callable
        Maps [S, N, K] to scores [S], differentiable.
    map_ : float64 Tensor [N, K]

    Raises
    ------
    ArithmeticError
        When the parts do not add up, or still move, with the most steps.
    """
    if len(map_) == 0:
        return map_.new_zeros(0)
    with torch.no_grad():
        total = score(map_[None]) - score(torch.zeros_like(map_)[None])  # [1]
    bound = TOLERANCE * max(1.0, abs(float(total)))
    steps = LEAST_STEPS
    parts = _parts(score, map_, steps)
    while steps < MOST_STEPS:
        steps *= 4
        coarse, parts = parts, _parts(score, map_, steps)
        moved = float((parts - coarse).abs().max())
        if abs(float(parts.sum() - total)) <= bound and moved <= 10 * bound:
            return parts
    raise ArithmeticError(
        f"the parts of a score add up to {float(parts.sum()):.6g}, not {float(total):.6g}"
    )


def _parts(score: Callable[[Tensor], Tensor], map_: Tensor, steps: int) -> Float[Tensor, " N"]:
    """Row sums of the map times the mean gradient over the midpoints of equal steps."""
    midpoints = (torch.arange(steps, dtype=map_.dtype) + 0.5) / steps
    gradient = torch.zeros_like(map_)
    for alphas in torch.split(midpoints, STEPS):
        maps = (alphas[:, None, None] * map_).requires_grad_()  # [S, N, K]
        gradient += torch.autograd.grad(score(maps).sum(), maps)[0].sum(dim=0)
    return (gradient / steps * map_).sum(dim=1)
