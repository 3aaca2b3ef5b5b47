"""The baselines in float64 and plain loops, written straight from their papers; slow and obvious.

Each takes a state by name (float64 arrays), a user, an item and what is known of the user, and
gives the logit.
"""

from __future__ import annotations

import numpy as np


def mf(s: dict, user: int, item: int, history: list[int]) -> float:
    """Koren, Bell, Volinsky 2009, Eq. 4."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for k in range(s["user_embedding"].shape[1]):
        total += s["user_embedding"][user, k] * s["item_embedding"][item, k]
    return float(total)


def svdpp(s: dict, user: int, item: int, history: list[int]) -> float:
    """Koren 2008, Eq. 15."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for k in range(s["user_embedding"].shape[1]):
        factor = s["user_embedding"][user, k]
        for j in history:
            factor += s["history_embedding"][j, k] / np.sqrt(len(history))
        total += factor * s["item_embedding"][item, k]
    return float(total)


def fism(s: dict, user: int, item: int, history: list[int], alpha: float = 0.5) -> float:
    """Kabbur et al. 2013, Eq. 4; the history is without the item."""
    total = s["biases.bias"][0] + s["biases.users"][user] + s["biases.items"][item]
    for j in history:
        for k in range(s["item_embedding"].shape[1]):
            product = s["history_embedding"][j, k] * s["item_embedding"][item, k]
            total += product / len(history) ** alpha
    return float(total)


def gmf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 8 and 9."""
    total = s["bias"][0]
    for k in range(len(s["h"])):
        total += s["h"][k] * s["user_embedding"][user, k] * s["item_embedding"][item, k]
    return float(total)


def mlp(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 10."""
    x = np.concatenate([s["user_embedding"][user], s["item_embedding"][item]])
    layers = sum(name.startswith("layers.weights") for name in s)
    for layer in range(layers):
        x = s[f"layers.weights.{layer}"] @ x + s[f"layers.biases.{layer}"]
        if layer < layers - 1:
            x = np.maximum(x, 0)
    return float(x[0])


def neumf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2017, Eq. 12: one output layer over both sides' last features."""
    left = {k.removeprefix("gmf."): v for k, v in s.items() if k.startswith("gmf.")}
    right = {k.removeprefix("mlp."): v for k, v in s.items() if k.startswith("mlp.")}
    x = np.concatenate([right["user_embedding"][user], right["item_embedding"][item]])
    last = sum(name.startswith("layers.weights") for name in right) - 1
    for layer in range(last):
        x = np.maximum(right[f"layers.weights.{layer}"] @ x + right[f"layers.biases.{layer}"], 0)
    phi = np.concatenate([left["user_embedding"][user] * left["item_embedding"][item], x])
    h = np.concatenate([left["h"], right[f"layers.weights.{last}"][0]])
    return float(h @ phi + left["bias"][0] + right[f"layers.biases.{last}"][0])


def convncf(s: dict, user: int, item: int, history: list[int]) -> float:
    """He et al. 2018, Eq. 2 to 8."""
    maps = np.outer(s["user_embedding"][user], s["item_embedding"][item])[None]
    for layer in range(sum(name.startswith("weights.") for name in s)):
        weight, bias = s[f"weights.{layer}"], s[f"biases.{layer}"]
        half = maps.shape[1] // 2
        out = np.zeros((len(weight), half, half))
        for channel in range(len(weight)):
            for x in range(half):
                for y in range(half):
                    window = maps[:, 2 * x : 2 * x + 2, 2 * y : 2 * y + 2]
                    out[channel, x, y] = (weight[channel] * window).sum() + bias[channel]
        maps = np.maximum(out, 0)
    return float(s["output"][0] @ maps[:, 0, 0] + s["bias"][0])


LOGITS = {
    "mf": mf, "svdpp": svdpp, "fism": fism, "gmf": gmf, "mlp": mlp, "neumf": neumf,
    "convncf": convncf,
}  # fmt: skip
