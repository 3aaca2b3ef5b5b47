"""Kernels of a trained COMET that Figure 5 shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Kernel = npt.NDArray[np.floating[Any]]
SHOWN = 2
"""Sets of filters, and filters of each."""


def kernels_of(state: Mapping[str, Any], tower: str = "user_tower") -> dict[str, Kernel]:
    """First filters of the widest two sets that cover more than one dimension and not all.

    Where there are no such sets, of the widest there are.

    Parameters
    ----------
    state : dict of Tensor
        Of a trained COMET.
    tower : {"user_tower", "item_tower"}

    Returns
    -------
    dict
        Title → weights, float32 [N, width], a row for each of the map's; empty for a tower without
        filters over all rows.
    """
    prefix = f"{tower}.convolution.weights."
    found = [t for name, t in sorted(state.items()) if name.startswith(prefix) and t.dim() == 3]
    found.sort(key=lambda t: t.shape[2])
    k = state["item_embedding"].shape[1] if "item_embedding" in state else 0
    wide = [t for t in found if 1 < t.shape[2] < k] or found
    return {
        f"width {t.shape[2]}, filter {channel + 1}": t[channel].numpy()
        for t in wide[-SHOWN:]
        for channel in range(min(SHOWN, len(t)))
    }
